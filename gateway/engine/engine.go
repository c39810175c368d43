package engine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/VictoriaMetrics/metrics"

	"github.com/binnacle-project/binnacle/api"
	"github.com/binnacle-project/binnacle/gateway/engine/telemetry"
)

// defaultBuildTimeout is generous: builds take milliseconds, but a module may
// fetch keys.
const defaultBuildTimeout = 30 * time.Second

// flushTimeout bounds the exports around a swap: an absent receiver must not
// delay a configuration.
const flushTimeout = time.Second

// ErrClosed is returned by Apply after Close.
var ErrClosed = errors.New("the engine is closed")

// Options say how an Engine works. The zero value is usable.
type Options struct {
	// Log takes the engine's and Lura's messages; nil discards them.
	Log *slog.Logger
	// Telemetry instruments every generation; nil is off, and then costs
	// nothing per request.
	Telemetry *telemetry.Telemetry
	// Instrumentation is another library's telemetry; nil is none.
	Instrumentation *Instrumentation
	// Metrics takes the engine's own counters; nil makes a private set.
	Metrics *metrics.Set
	// AccessLog takes one line per request in gin's form, as KrakenD prints
	// it, unless a configuration says disable_access_log; nil is off.
	AccessLog io.Writer
	// BuildTimeout bounds the build of one configuration; 0 is 30 s.
	BuildTimeout time.Duration
}

// Engine serves one configuration at a time and swaps to the next without
// dropping a request. It is safe for concurrent use.
type Engine struct {
	opts     Options
	log      *slog.Logger
	handler  http.Handler
	current  atomic.Pointer[serving]
	draining atomic.Bool
	asked    atomic.Int64 // when a request last came in while it drains, or when that began; Unix ns
	retired  atomic.Int64 // generations replaced but still in use

	applied, refused, limited *metrics.Counter

	// entry is held, shortly, to store what is current: by Apply, Close and
	// SetLimit. It is taken after mu.
	entry sync.Mutex
	limit *limiter // nil is none

	shared handedOn

	mu     sync.Mutex // one Apply or Close at a time
	closed bool
	last   *generation // what Close waits for
}

// New returns an engine without a configuration: until the first Apply its
// handler answers 503.
func New(o Options) *Engine {
	if o.Log == nil {
		o.Log = discard
	}
	if o.Metrics == nil {
		o.Metrics = metrics.NewSet()
	}
	if o.BuildTimeout <= 0 {
		o.BuildTimeout = defaultBuildTimeout
	}
	e := &Engine{opts: o, log: o.Log.With("component", "engine")}
	e.handler = http.HandlerFunc(e.serve)
	e.applied = o.Metrics.GetOrCreateCounter(`binnacle_gateway_applies_total{result="ok"}`)
	e.refused = o.Metrics.GetOrCreateCounter(`binnacle_gateway_applies_total{result="refused"}`)
	e.limited = o.Metrics.GetOrCreateCounter("binnacle_gateway_limited_total")
	o.Metrics.GetOrCreateGauge(`binnacle_gateway_retired_generations`, func() float64 { return float64(e.retired.Load()) })
	return e
}

// Apply builds raw completely, then switches to it at once; when anything
// fails, the configuration that ran goes on running and the error says why
// (a *BuildError with every fault found, where it was the configuration).
//
// raw is what shall run: merged and resolved. ref is what it is called; it
// shows in Current, on spans and on exports. Builds run one at a time. With
// telemetry on, metrics are exported once just before the switch, under the
// old revision, and once just after it, under the new one; each waits a second
// at most, and a failure of theirs is logged and no failure of Apply.
//
// Server settings (port, TLS, timeouts) of raw do not take effect here: see
// ServerSettings.Changed.
func (e *Engine) Apply(ctx context.Context, raw []byte, ref api.RevisionRef) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		return ErrClosed
	}
	bctx, cancel := context.WithTimeout(ctx, e.opts.BuildTimeout)
	defer cancel()
	g, err := build(bctx, raw, buildOptions{
		log: e.log, telemetry: e.opts.Telemetry, other: e.opts.Instrumentation, accessLog: e.opts.AccessLog, draining: &e.draining, ref: ref, shared: &e.shared,
	})
	if err != nil {
		e.refused.Inc()
		return fmt.Errorf("apply revision %d: %w", ref.Number, err)
	}
	slices.Sort(g.warnings)
	for _, name := range slices.Compact(g.warnings) {
		e.log.Warn("extra_config has no effect here and is ignored", "namespace", name, "revision", ref.Number)
	}
	e.openLog(g)
	e.swap(ctx, g)
	e.applied.Inc()
	return nil
}

// swap makes g current. From the exchange on, new requests run on g; those in
// flight hold the old generation until they end.
func (e *Engine) swap(ctx context.Context, g *generation) {
	t := e.opts.Telemetry
	old := e.current.Load()
	if t != nil && old != nil {
		e.flush(ctx, "before")
	}
	if t != nil {
		t.SetRevision(g.ref.Number)
		t.SetSampleRatio(g.sampleRatio)
	}
	g.applied = time.Now()
	e.entry.Lock()
	e.current.Store(&serving{g, g.handler(e.limit)})
	e.entry.Unlock()
	e.last = g
	if old != nil {
		e.retire(old.generation)
	}
	if t != nil && old != nil {
		e.flush(ctx, "after")
	}
	e.log.Info("configuration applied", "revision", g.ref.Number, "sha256", g.ref.SHA256)
}

func (e *Engine) retire(g *generation) {
	e.retired.Add(1)
	g.onRelease(func() { e.retired.Add(-1) })
	g.release()
}

func (e *Engine) flush(ctx context.Context, when string) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), flushTimeout)
	defer cancel()
	if err := e.opts.Telemetry.Flush(ctx); err != nil {
		e.log.Warn("telemetry was not exported at a swap", "when", when, "err", err)
	}
}

// Handler returns the handler that serves whatever configuration is current.
// It stays the same over swaps.
func (e *Engine) Handler() http.Handler { return e.handler }

func (e *Engine) serve(w http.ResponseWriter, r *http.Request) {
	draining := e.draining.Load()
	if draining {
		w.Header().Set("Connection", "close")
	}
	g := e.acquire()
	if g == nil {
		http.Error(w, "no configuration is loaded", http.StatusServiceUnavailable)
		return
	}
	defer g.release()
	if draining && r.URL.Path != g.health {
		e.asked.Store(time.Now().UnixNano())
	}
	g.entry.ServeHTTP(w, r)
}

// acquire returns the current generation, held; nil when there is none. A
// generation that is released between the load and the hold has a successor.
func (e *Engine) acquire() *serving {
	for {
		g := e.current.Load()
		if g == nil || g.acquire() {
			return g
		}
	}
}

// Current is what an engine serves now.
type Current struct {
	Revision api.RevisionRef
	// Applied is when the switch happened.
	Applied  time.Time
	Settings ServerSettings
}

// Current returns what is served now; false before the first Apply.
func (e *Engine) Current() (Current, bool) {
	g := e.current.Load()
	if g == nil {
		return Current{}, false
	}
	return Current{Revision: g.ref, Applied: g.applied, Settings: g.settings}, true
}

// SetDraining asks clients to go elsewhere, or no longer: while on, every
// answer carries Connection: close and the health endpoint says 503. Nothing
// is refused.
func (e *Engine) SetDraining(on bool) {
	e.asked.Store(time.Now().UnixNano())
	e.draining.Store(on)
}

// Quiet returns for how long nobody has asked for anything but health, since
// draining began; 0 while it does not drain.
func (e *Engine) Quiet() time.Duration {
	if !e.draining.Load() {
		return 0
	}
	return time.Since(time.Unix(0, e.asked.Load()))
}

// Draining reports whether SetDraining is on.
func (e *Engine) Draining() bool { return e.draining.Load() }

// Close releases the current generation and waits until its last request has
// ended, or ctx has. The handler answers 503 from then on. It is safe to call
// twice.
func (e *Engine) Close(ctx context.Context) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if !e.closed {
		e.closed = true
		e.entry.Lock()
		s := e.current.Swap(nil)
		e.entry.Unlock()
		if s != nil {
			s.release()
		}
	}
	if e.last == nil {
		return nil
	}
	select {
	case <-e.last.released:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("close the engine: requests are still in flight: %w", ctx.Err())
	}
}
