package engine

import (
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/VictoriaMetrics/metrics"
	"github.com/krakend/krakend-gelf/v2"
	"github.com/krakend/krakend-gologging/v2"
	"github.com/krakend/krakend-logstash/v2"
	"github.com/luraproject/lura/v2/config"
	"github.com/luraproject/lura/v2/logging"
)

// maxLogQueue is how many lines wait for a log that is slow or not open yet.
const maxLogQueue = 4096

// logSink is where the logging blocks of a configuration send what Lura and
// the modules say, and the access log. One goroutine opens it and writes to
// it, so that no request waits for a receiver of logs; what the queue cannot
// hold is counted and dropped. Generations with the same blocks share it:
// the modules' loggers are process-wide and would be opened anew at each swap.
type logSink struct {
	log     *slog.Logger
	dropped *metrics.Counter
	queue   chan logLine
	// failed is set when the log could not be opened: the process's own takes
	// the lines then.
	failed atomic.Bool
}

type logLine struct {
	say  func(logging.Logger, string) // nil for a line of the access log
	text string
}

// levels that telemetry/logging knows.
var logLevels = map[string]bool{"DEBUG": true, "INFO": true, "NOTICE": true, "WARNING": true, "ERROR": true, "CRITICAL": true}

// loggingBlocks returns the blocks of a service that are about logs, checked
// and complete; nil without any.
func (b *builder) loggingBlocks() config.ExtraConfig {
	e := config.ExtraConfig{}
	for _, ns := range []string{gologging.Namespace, logstash.Namespace, gelf.Namespace} {
		if block, ok := b.cfg.ExtraConfig[ns].(map[string]any); ok {
			own := map[string]any{} // logstash changes it
			for k, v := range block {
				own[k] = v
			}
			e[ns] = own
		}
	}
	if block, ok := e[gologging.Namespace].(map[string]any); ok {
		level, _ := block["level"].(string)
		switch {
		case level == "":
			block["level"] = "DEBUG" // KrakenD's logger without this module has it
		case !logLevels[strings.ToUpper(level)]:
			b.fault(b.blockPath("", byName["telemetry/logging"])+"/level", "level %q is not known; use DEBUG, INFO, WARNING, ERROR or CRITICAL", level)
		}
	}
	if block, ok := e[gelf.Namespace].(map[string]any); ok {
		if a, _ := block["address"].(string); a == "" {
			b.fault(b.blockPath("", byName["telemetry/gelf"]), "address is missing: want host:port of the receiver")
		}
	}
	if len(e) == 0 {
		return nil
	}
	return e
}

// openLog connects g's log with where its configuration wants it. It is called
// once g is sure to run: a configuration that is refused must not move the log
// of the one that runs.
func (e *Engine) openLog(g *generation) {
	if len(g.logging) == 0 {
		return
	}
	key, err := json.Marshal(g.logging)
	if err != nil {
		e.log.Error("the log of the configuration cannot be opened", "err", err)
		return
	}
	sink, release := e.shared.logs.acquire(string(key), func() (*logSink, func()) {
		s := &logSink{log: e.log, queue: make(chan logLine, maxLogQueue),
			dropped: e.opts.Metrics.GetOrCreateCounter("binnacle_gateway_log_lines_dropped_total")}
		var done sync.WaitGroup
		stop := make(chan struct{})
		done.Go(func() { s.run(g.logging, stop) })
		return s, func() { close(stop) } // the goroutine may be dialing: not waited for
	})
	g.onRelease(release)
	g.lura.sink.Store(sink)
}

// put queues a line; false when there is no room.
func (s *logSink) put(l logLine) {
	select {
	case s.queue <- l:
	default:
		s.dropped.Inc()
	}
}

// run opens the log and writes to it until stop is closed and the queue empty.
func (s *logSink) run(blocks config.ExtraConfig, stop <-chan struct{}) {
	access, err := openGELF(blocks)
	if err != nil {
		s.log.Error("the GELF receiver of the configuration cannot be reached", "err", err)
	}
	if access != nil {
		defer closeGELF(access)
	}
	var logger logging.Logger
	if _, ok := blocks[gologging.Namespace]; ok {
		if logger, err = openLogger(blocks, access); err != nil {
			s.log.Error("the log of the configuration cannot be opened; its lines are in this one", "err", err)
		}
	}
	s.failed.Store(logger == nil)
	for {
		select {
		case l := <-s.queue:
			s.write(l, logger, access)
		case <-stop:
			for {
				select {
				case l := <-s.queue:
					s.write(l, logger, access)
				default:
					return
				}
			}
		}
	}
}

func (s *logSink) write(l logLine, logger logging.Logger, access io.Writer) {
	switch {
	case l.say == nil && access != nil:
		if _, err := io.WriteString(access, l.text); err != nil {
			s.dropped.Inc()
		}
	case l.say == nil:
		s.dropped.Inc()
	case logger != nil:
		goLoggingMu.Lock() // another log may be opening
		l.say(logger, l.text)
		goLoggingMu.Unlock()
	default: // it waited for a log that could not be opened
		s.log.Info(l.text, "source", "lura")
	}
}

// openGELF returns nil without a block.
func openGELF(blocks config.ExtraConfig) (io.Writer, error) {
	if _, ok := blocks[gelf.Namespace]; !ok {
		return nil, nil
	}
	w, err := gelf.NewWriter(blocks)
	if err != nil {
		return nil, err
	}
	return gelfWriter{w}, nil
}

// gelfWriter is a type of our own for the formatter to know.
type gelfWriter struct{ io.Writer }

func closeGELF(w io.Writer) {
	if c, ok := w.(gelfWriter).Writer.(io.Closer); ok {
		_ = c.Close() // nothing more is sent
	}
}

// goLoggingMu guards the variables of the modules below, which are
// process-wide.
var goLoggingMu sync.Mutex

// goLoggingPattern is the pattern of the module before anybody changed it.
var goLoggingPattern = gologging.DefaultPattern

// openLogger makes the logger of the blocks, as KrakenD does: logstash's where
// there is one, with GELF besides.
//
// Source: krakend-ce, executor.go, LoggerBuilder.
func openLogger(blocks config.ExtraConfig, gelf io.Writer) (l logging.Logger, err error) {
	goLoggingMu.Lock()
	defer goLoggingMu.Unlock()
	defer func() {
		if r := recover(); r != nil { // a custom_format that does not parse
			l, err = nil, fmt.Errorf("open the log: %v", r)
		}
	}()
	gologging.DefaultPattern, gologging.ActivePattern = goLoggingPattern, goLoggingPattern
	_, isLogstash := blocks[logstash.Namespace]
	gologging.SetFormatterSelector(func(w io.Writer) string {
		if _, ok := w.(gelfWriter); ok || isLogstash {
			return "%{message}"
		}
		return gologging.ActivePattern
	})
	var writers []io.Writer
	if gelf != nil {
		writers = append(writers, gelf)
	}
	if isLogstash {
		return logstash.NewLogger(blocks, writers...)
	}
	return gologging.NewLogger(blocks, writers...)
}

// accessWriter is where the access log goes: to GELF when the configuration
// has it, else to that of the process; nil is nowhere.
func (b *builder) accessWriter() io.Writer {
	if _, ok := b.gen.logging[gelf.Namespace]; ok {
		return accessLog{b.lura}
	}
	return b.accessLog
}

// accessLog writes lines to the generation's sink.
type accessLog struct{ lura *luraLog }

// Write queues p.
func (a accessLog) Write(p []byte) (int, error) {
	if s := a.lura.sink.Load(); s != nil {
		s.put(logLine{text: string(p)})
	}
	return len(p), nil
}
