package worker

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/VictoriaMetrics/metrics"

	"github.com/binnacle-project/binnacle"
	"github.com/binnacle-project/binnacle/api"
	"github.com/binnacle-project/binnacle/gateway/control"
	"github.com/binnacle-project/binnacle/gateway/engine"
	"github.com/binnacle-project/binnacle/gateway/engine/telemetry"
)

// TrafficOptions say what a Traffic is made of.
type TrafficOptions struct {
	Log     *slog.Logger
	Metrics *metrics.Set
	// Telemetry is completed with what the first configuration says of it. Nil,
	// with a configuration that names no exporter, is off.
	Telemetry *telemetry.Options
	// Instrumentation is the engine's; nil is none.
	Instrumentation *engine.Instrumentation
	// BuildTimeout bounds one build, 0 is the engine's default.
	BuildTimeout time.Duration
}

// Traffic serves configurations on given listeners: an engine, its telemetry
// and its HTTP server, all made by the first configuration that builds. It is
// safe for concurrent use; applies run one at a time.
type Traffic struct {
	opts      TrafficOptions
	listeners []net.Listener

	applying sync.Mutex // held for a whole apply

	mu       sync.Mutex // guards what follows
	engine   *engine.Engine
	server   *engine.Server
	tel      *telemetry.Telemetry
	settings engine.ServerSettings
	resource engine.TelemetryProcess
	interval time.Duration
	draining bool
	limit    *float64 // the fallback rate; nil is none
	stopping bool
	broken   error // why accepting ended, if it did by itself
	wg       sync.WaitGroup
}

// NewTraffic returns a Traffic that accepts nothing yet. It owns the
// listeners from now on.
func NewTraffic(o TrafficOptions, listeners []net.Listener) *Traffic {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return &Traffic{opts: o, listeners: listeners}
}

// ErrStopping is returned by Apply once Stop was called.
var ErrStopping = errors.New("the worker is stopping")

// Apply brings a configuration to serve and returns when it does. The first
// one opens the listeners for traffic.
//
// Errors: a *control.Error with CodeRefused when the configuration cannot be
// built, with CodeRestart when only another process can run it; what served
// before goes on serving.
func (t *Traffic) Apply(ctx context.Context, raw []byte, ref api.RevisionRef) error {
	t.applying.Lock()
	defer t.applying.Unlock()
	settings, err := engine.SettingsOf(raw)
	if err != nil {
		return refused(err)
	}
	told, err := engine.TelemetrySettingsOf(raw)
	if err != nil {
		return refused(err)
	}
	resource := told.TelemetryProcess
	t.mu.Lock()
	eng, stopping := t.engine, t.stopping
	have, haveResource := t.settings, t.resource
	t.mu.Unlock()
	if stopping {
		return ErrStopping
	}
	if eng == nil {
		return t.first(ctx, raw, ref, settings, resource)
	}
	if keys := have.Changed(settings); len(keys) > 0 {
		return &control.Error{Method: control.MethodApply, Code: control.CodeRestart,
			Message: "changes " + strings.Join(keys, ", ") + ": that takes a new worker process"}
	}
	if !resource.Same(haveResource) {
		return &control.Error{Method: control.MethodApply, Code: control.CodeRestart,
			Message: "changes where telemetry goes or what it says of the service: that takes a new worker process"}
	}
	if err := eng.Apply(ctx, raw, ref); err != nil {
		return refused(err)
	}
	return nil
}

// refused marks err as the configuration's own fault.
func refused(err error) error {
	return &control.Error{Method: control.MethodApply, Code: control.CodeRefused, Message: err.Error()}
}

// first builds the engine around the first configuration and begins to accept.
// Nothing is left behind when it fails.
func (t *Traffic) first(ctx context.Context, raw []byte, ref api.RevisionRef, settings engine.ServerSettings, resource engine.TelemetryProcess) (err error) {
	var tel *telemetry.Telemetry
	var eng *engine.Engine
	defer func() {
		if err == nil {
			return
		}
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		if eng != nil {
			eng.Close(ctx)
		}
		if tel != nil {
			tel.Shutdown(ctx)
		}
	}()
	if o, ok := t.telemetryOptions(resource); ok {
		if tel, err = telemetry.New(o); err != nil {
			return fmt.Errorf("start telemetry: %w", err)
		}
	}
	eng = engine.New(engine.Options{
		Log: t.opts.Log, Telemetry: tel, Instrumentation: t.opts.Instrumentation, Metrics: t.opts.Metrics, BuildTimeout: t.opts.BuildTimeout,
	})
	if err := eng.Apply(ctx, raw, ref); err != nil {
		return refused(err)
	}
	srv, err := eng.NewServer(settings)
	if err != nil {
		return refused(err)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.stopping {
		return ErrStopping
	}
	eng.SetDraining(t.draining)
	eng.SetLimit(t.limit)
	t.engine, t.server, t.tel, t.settings, t.resource = eng, srv, tel, settings, resource
	for _, ln := range t.listeners {
		t.wg.Go(func() { t.accept(srv, ln) })
	}
	return nil
}

// telemetryOptions are those of this worker, completed with what the first
// configuration says; false is off.
func (t *Traffic) telemetryOptions(p engine.TelemetryProcess) (o telemetry.Options, ok bool) {
	if t.opts.Telemetry != nil {
		o = *t.opts.Telemetry
	}
	o.ServiceName = cmp.Or(p.ServiceName, o.ServiceName)
	o.ServiceVersion = cmp.Or(p.ServiceVersion, o.ServiceVersion)
	o.Environment, o.Exporters, o.SampleRatio = p.Environment, p.Exporters, -1
	if o.Log == nil {
		o.Log, o.Metrics = t.opts.Log, t.opts.Metrics
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.interval > 0 {
		o.Interval = t.interval
	}
	return o, o.Endpoint != "" || len(o.Exporters) > 0
}

func (t *Traffic) accept(srv *engine.Server, ln net.Listener) {
	if err := srv.Serve(ln); err != nil {
		t.opts.Log.Error("accepting connections ended", "address", ln.Addr().String(), "err", err)
		t.mu.Lock()
		t.broken = errors.Join(t.broken, fmt.Errorf("accept on %s: %w", ln.Addr(), err))
		t.mu.Unlock()
	}
}

// Status fills in what a Traffic knows of a worker's account.
func (t *Traffic) Status() control.WorkerStatus {
	t.mu.Lock()
	defer t.mu.Unlock()
	s := control.WorkerStatus{Version: binnacle.Version, Draining: t.draining, Stopping: t.stopping}
	for _, ln := range t.listeners {
		s.Listeners = append(s.Listeners, ln.Addr().String())
	}
	if t.engine == nil {
		return s
	}
	if cur, ok := t.engine.Current(); ok {
		s.Current = &cur.Revision
	}
	s.Serving = s.Current != nil && t.broken == nil && !t.stopping
	s.Connections = int64(t.server.Connections())
	s.QuietSeconds = t.engine.Quiet().Seconds()
	return s
}

// healthPath is where the engine, like KrakenD, says that it is up.
const healthPath = "/__health"

// Probe asks the engine for its health page, in process, and fails unless the
// listeners are being accepted from and the engine gives an answer of its own.
// A configuration without a health page answers 404, which is an answer.
func (t *Traffic) Probe(ctx context.Context) error {
	t.mu.Lock()
	eng, broken, draining, stopping := t.engine, t.broken, t.draining, t.stopping
	t.mu.Unlock()
	switch {
	case eng == nil:
		return errors.New("no configuration serves yet")
	case stopping:
		return ErrStopping
	case broken != nil:
		return broken
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://localhost"+healthPath, nil)
	if err != nil {
		return err
	}
	req.RemoteAddr, req.RequestURI = "127.0.0.1:0", healthPath
	w := &probeWriter{header: http.Header{}}
	if err := w.ask(eng.Handler(), req); err != nil {
		return err
	}
	if w.status >= 500 && !(draining && w.status == http.StatusServiceUnavailable) {
		return fmt.Errorf("the engine answers its health page with %d", w.status)
	}
	return nil
}

// probeWriter keeps the status alone.
type probeWriter struct {
	header http.Header
	status int
}

func (w *probeWriter) ask(h http.Handler, req *http.Request) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = fmt.Errorf("the engine panics on its health page: %v", v)
		}
	}()
	h.ServeHTTP(w, req)
	if w.status == 0 {
		w.status = http.StatusOK
	}
	return nil
}

// Header is for the handler to fill.
func (w *probeWriter) Header() http.Header { return w.header }

// Write discards b.
func (w *probeWriter) Write(b []byte) (int, error) {
	if w.status == 0 {
		w.status = http.StatusOK
	}
	return len(b), nil
}

// WriteHeader keeps the first status.
func (w *probeWriter) WriteHeader(status int) {
	if w.status == 0 {
		w.status = status
	}
}

// Flush exports all telemetry now.
func (t *Traffic) Flush(ctx context.Context) error {
	t.mu.Lock()
	tel := t.tel
	t.mu.Unlock()
	if tel == nil {
		return nil
	}
	return tel.Flush(ctx)
}

// SetInterval changes how often telemetry is exported.
func (t *Traffic) SetInterval(d time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.interval = d
	if t.tel != nil && d > 0 {
		t.tel.SetInterval(d)
	}
}

// SetDraining asks clients to go elsewhere while serving all of them.
func (t *Traffic) SetDraining(on bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.draining = on
	if t.engine != nil {
		t.engine.SetDraining(on)
	}
}

// SetLimit puts the fallback rate, in requests per second, in front of all
// endpoints, from the next request on and over all applies; nil takes it away.
func (t *Traffic) SetLimit(rate *float64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.limit = rate
	if t.engine != nil {
		t.engine.SetLimit(rate)
	}
}

// Stop closes the listeners, finishes what is in flight, exports what is left
// and returns when all of it has ended or ctx has. It is safe to call twice
// and before the first Apply; the second call waits for nothing.
func (t *Traffic) Stop(ctx context.Context) error {
	t.mu.Lock()
	if t.stopping {
		t.mu.Unlock()
		return nil
	}
	t.stopping = true
	eng, srv, tel := t.engine, t.server, t.tel
	t.mu.Unlock()

	var errs []error
	if srv != nil {
		if err := srv.Drain(ctx); err != nil {
			errs = append(errs, fmt.Errorf("drain: %w", err), srv.Close())
		}
	}
	for _, ln := range t.listeners {
		ln.Close() // mostly closed by the drain
	}
	t.wg.Wait()
	// The flush has time of its own: what was served in the drain is told too.
	fctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), flushTime)
	defer cancel()
	if eng != nil {
		if err := eng.Close(fctx); err != nil {
			errs = append(errs, fmt.Errorf("release the engine: %w", err))
		}
	}
	if tel != nil {
		if err := tel.Shutdown(fctx); err != nil {
			errs = append(errs, fmt.Errorf("export the last telemetry: %w", err))
		}
	}
	return errors.Join(errs...)
}

// flushTime bounds the last export. The receiver is the agent on loopback,
// which only puts it into a queue.
const flushTime = 3 * time.Second
