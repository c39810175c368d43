package engine

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"time"

	"github.com/VictoriaMetrics/metrics"

	"github.com/binnacle-project/binnacle/api"
	"github.com/binnacle-project/binnacle/gateway/engine/telemetry"
)

// Options say how an Engine works. The zero value is usable.
type Options struct {
	// Log takes the engine's and Lura's messages; nil discards them.
	Log *slog.Logger
	// Telemetry instruments every generation; nil is off, and then costs
	// nothing per request.
	Telemetry *telemetry.Telemetry
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
	opts Options
}

// New returns an engine without a configuration: until the first Apply its
// handler answers 503.
func New(o Options) *Engine { return &Engine{opts: o} }

// Apply builds raw completely, then switches to it at once; when anything
// fails, the configuration that ran goes on running and the error says why
// (a *BuildError with every fault found).
//
// raw is what shall run: merged and resolved. ref is what it is called; it
// shows in Current, on spans and on exports. Builds run one at a time. With
// telemetry on, metrics are exported once just before the switch, under the
// old revision, and once just after it, under the new one.
func (e *Engine) Apply(ctx context.Context, raw []byte, ref api.RevisionRef) error {
	return nil
}

// Handler returns the handler that serves whatever configuration is current.
// It stays the same over swaps.
func (e *Engine) Handler() http.Handler { return nil }

// Current is what an engine serves now.
type Current struct {
	Revision api.RevisionRef
	// Applied is when the switch happened.
	Applied  time.Time
	Settings ServerSettings
}

// Current returns what is served now; false before the first Apply.
func (e *Engine) Current() (Current, bool) { return Current{}, false }

// SetDraining asks clients to go elsewhere, or no longer: while on, every
// answer carries Connection: close and the health endpoint says 503. Nothing
// is refused.
func (e *Engine) SetDraining(on bool) {}

// Draining reports whether SetDraining is on.
func (e *Engine) Draining() bool { return false }

// Close releases the current generation once its last request has ended, or
// ctx has. The handler answers 503 from then on. It is safe to call twice.
func (e *Engine) Close(ctx context.Context) error { return nil }
