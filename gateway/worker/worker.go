package worker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"sync"
	"syscall"
	"time"

	"github.com/VictoriaMetrics/metrics"

	"github.com/binnacle-project/binnacle"
	"github.com/binnacle-project/binnacle/gateway/control"
	"github.com/binnacle-project/binnacle/gateway/engine/telemetry"
)

// firstFile is the descriptor of Launch.Files[0], as os/exec numbers them.
const firstFile = 3

// stopTime is how long a worker drains when a signal ends it and nobody says
// how long it may take.
const stopTime = 10 * time.Second

// LaunchFromEnv reads what the agent started this process with. It errors for
// a process that no agent started.
func LaunchFromEnv() (control.Launch, error) {
	var l control.Launch
	v, ok := os.LookupEnv(control.WorkerEnv)
	if !ok {
		return l, errors.New("the worker command is for the agent to run: use `binnacle-gateway run -c FILE`")
	}
	if err := json.Unmarshal([]byte(v), &l); err != nil {
		return l, fmt.Errorf("read %s: %w", control.WorkerEnv, err)
	}
	return l, os.Unsetenv(control.WorkerEnv)
}

// Main is the whole life of a worker process; it returns its exit code. A
// signal to the process group must not take the worker away under its agent,
// which ends it in the right order: it ignores the terminal's interrupts and
// takes SIGTERM as a stop.
func Main() int {
	signal.Ignore(syscall.SIGINT, syscall.SIGHUP, syscall.SIGQUIT)
	// The log goes to the agent's stderr; when its reader is gone, a write
	// must fail rather than kill a worker that outlives its agent.
	signal.Ignore(syscall.SIGPIPE)
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	l, err := LaunchFromEnv()
	if err != nil {
		fmt.Fprintln(os.Stderr, "binnacle-gateway worker:", err)
		return 2
	}
	log := NewLogger(os.Stderr, l.LogFormat, l.LogLevel).With("component", "worker", "pid", os.Getpid())
	TuneMemory(log)
	if err := Run(ctx, l, log); err != nil {
		log.Error("worker ended", "err", err)
		return 1
	}
	return 0
}

// Run serves until a stop call, the end of ctx, or, with DieWithParent, the
// loss of the agent.
func Run(ctx context.Context, l control.Launch, log *slog.Logger) error {
	ctl, listeners, err := inherit(l)
	if err != nil {
		return err
	}
	if l.Socket != "" {
		defer os.Remove(l.Socket)
	}
	set := metrics.NewSet()
	w := &worker{launch: l, log: log, started: time.Now(), stop: make(chan time.Duration, 1)}
	o := TrafficOptions{Log: log, Metrics: set}
	if l.Relay != "" {
		o.Telemetry = &telemetry.Options{
			Endpoint: l.Relay, InstanceID: l.Instance, Managed: true,
			Interval: time.Duration(l.IntervalSeconds * float64(time.Second)),
			Log:      log, Metrics: set,
		}
	}
	w.traffic = NewTraffic(o, listeners)

	var wg sync.WaitGroup
	defer wg.Wait()
	cctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	wg.Go(func() {
		if err := control.Serve(cctx, ctl, log, w.handle, w.agentGone); err != nil {
			log.Error("the control socket failed; the worker serves on, but nobody can direct it", "err", err)
		}
	})

	limit := stopTime
	select {
	case limit = <-w.stop:
	case <-ctx.Done():
		// A signal to the whole group, mostly: the agent has it as well, and is
		// about to say the same.
		limit = w.serveOn(time.Duration(l.DrainDelaySeconds * float64(time.Second)))
	}
	log.Info("worker stops", "limit", limit)
	sctx, scancel := context.WithTimeout(context.WithoutCancel(ctx), limit)
	defer scancel()
	if err := w.traffic.Stop(sctx); err != nil {
		log.Warn("worker did not end cleanly", "err", err)
	}
	return nil
}

// serveOn serves, not ready, until the delay is over or the agent says stop,
// and returns how long the end may take.
func (w *worker) serveOn(delay time.Duration) (limit time.Duration) {
	w.traffic.SetDraining(true)
	t := time.NewTimer(delay)
	defer t.Stop()
	select {
	case limit = <-w.stop:
		return limit
	case <-t.C:
		return stopTime
	}
}

// inherit takes over the descriptors that the agent passed.
func inherit(l control.Launch) (ctl net.Listener, traffic []net.Listener, err error) {
	defer func() {
		if err != nil {
			for _, ln := range append(traffic, ctl) {
				if ln != nil {
					ln.Close()
				}
			}
		}
	}()
	for i, name := range l.Files {
		f := os.NewFile(uintptr(firstFile+i), name)
		if f == nil {
			return ctl, traffic, fmt.Errorf("inherited descriptor %d (%s) is not open", firstFile+i, name)
		}
		if name == control.FileCrash {
			if err := debug.SetCrashOutput(f, debug.CrashOptions{}); err != nil {
				return ctl, traffic, fmt.Errorf("set the file for crashes: %w", err)
			}
			f.Close() // the runtime keeps a copy
			continue
		}
		ln, err := net.FileListener(f)
		f.Close()
		if err != nil {
			return ctl, traffic, fmt.Errorf("inherited descriptor %d (%s): %w", firstFile+i, name, err)
		}
		if name == control.FileControl {
			ctl = ln
		} else {
			traffic = append(traffic, ln)
		}
	}
	if ctl == nil || len(traffic) == 0 {
		return ctl, traffic, fmt.Errorf("inherited %v: a worker needs %q and at least one socket for traffic", l.Files, control.FileControl)
	}
	return ctl, traffic, nil
}

type worker struct {
	launch  control.Launch
	log     *slog.Logger
	started time.Time
	traffic *Traffic
	stop    chan time.Duration // has room for the one stop that counts
}

// agentGone is told when the last control connection has ended.
func (w *worker) agentGone() {
	if !w.launch.DieWithParent || w.traffic.Status().Stopping {
		return
	}
	w.log.Info("the agent is gone; ending with it")
	w.askStop(time.Second)
}

func (w *worker) askStop(limit time.Duration) {
	select {
	case w.stop <- limit:
	default: // stopping already
	}
}

func (w *worker) status() control.WorkerStatus {
	s := w.traffic.Status()
	s.PID, s.Started, s.Goroutines, s.Relay = os.Getpid(), w.started, runtime.NumGoroutine(), w.launch.Relay
	return s
}

// handle does what the agent says.
func (w *worker) handle(ctx context.Context, method string, body json.RawMessage) (any, []*os.File, error) {
	switch method {
	case control.MethodApply:
		var a control.Apply
		if err := unmarshal(method, body, &a); err != nil {
			return nil, nil, err
		}
		if err := w.traffic.Apply(ctx, a.Config, a.Ref); err != nil {
			return nil, nil, err
		}
		return w.status(), nil, nil
	case control.MethodStatus:
		return w.status(), nil, nil
	case control.MethodProbe:
		if err := w.traffic.Probe(ctx); err != nil {
			return nil, nil, err
		}
		return w.status(), nil, nil
	case control.MethodFlush:
		return nil, nil, w.traffic.Flush(ctx)
	case control.MethodInterval:
		var i control.Interval
		if err := unmarshal(method, body, &i); err != nil {
			return nil, nil, err
		}
		w.traffic.SetInterval(time.Duration(i.Seconds * float64(time.Second)))
		return nil, nil, nil
	case control.MethodDrain:
		var d control.Drain
		if err := unmarshal(method, body, &d); err != nil {
			return nil, nil, err
		}
		w.traffic.SetDraining(d.On)
		return w.status(), nil, nil
	case control.MethodLimit:
		var l control.Limit
		if err := unmarshal(method, body, &l); err != nil {
			return nil, nil, err
		}
		w.traffic.SetLimit(l.Rate)
		return w.status(), nil, nil
	case control.MethodStop:
		var s control.Stop
		if err := unmarshal(method, body, &s); err != nil {
			return nil, nil, err
		}
		w.askStop(time.Duration(s.Seconds * float64(time.Second)))
		return w.status(), nil, nil
	case control.MethodAdopt:
		files, err := w.traffic.files()
		return w.status(), files, err
	}
	return nil, nil, &control.Error{Method: method, Code: control.CodeUnknown,
		Message: fmt.Sprintf("a worker of version %s does not know the call %q", binnacle.Version, method)}
}

// files returns copies of the listening sockets.
func (t *Traffic) files() ([]*os.File, error) {
	var files []*os.File
	for _, ln := range t.listeners {
		f, err := control.File(ln)
		if err != nil {
			for _, f := range files {
				f.Close()
			}
			return nil, err
		}
		files = append(files, f)
	}
	return files, nil
}

func unmarshal(method string, body json.RawMessage, into any) error {
	if err := json.Unmarshal(body, into); err != nil {
		return fmt.Errorf("the body of %s: %w", method, err)
	}
	return nil
}
