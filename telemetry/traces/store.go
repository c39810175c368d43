package traces

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"time"

	"github.com/VictoriaMetrics/metrics"
	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/ptrace"

	"github.com/binnacle-project/binnacle"
)

// ErrNotFound says that no span of a trace is in the store.
var ErrNotFound = errors.New("trace not found")

// Options configures a Store. Zero values take the defaults named here.
type Options struct {
	// Dir is the store's own directory; it is made if it is missing. Required.
	Dir string
	// Retention is how long spans are kept after they came, up to an hour
	// longer. Default 7 days.
	Retention time.Duration
	// MaxBytes bounds the size on disk; beyond it the oldest hours go. 0 is
	// no bound.
	MaxBytes int64
	// MinFreeBytes is the space left on the disk below which writes are
	// refused as retryable. Default 64 MiB; negative turns the check off.
	MinFreeBytes int64

	Log     *slog.Logger
	Metrics *metrics.Set
}

// Store keeps spans. Its methods are safe for concurrent use.
type Store struct {
	o Options
}

// Open opens or makes the store in o.Dir. Spans become durable and old ones go
// while Run runs.
func Open(o Options) (*Store, error) { return &Store{o: o}, nil }

// Run makes what was written durable every half second and applies retention,
// until ctx ends. It returns nil after a last flush.
func (s *Store) Run(ctx context.Context) error {
	<-ctx.Done()
	return nil
}

// Close writes what is in memory and closes the files. It is safe to call
// twice.
func (s *Store) Close() error { return nil }

// WriteTraces keeps the spans of td, which are readable at once and durable
// within one second. Spans without a trace id or span id are rejected and
// counted; message says so. It reads td during the call and does not keep it.
//
// An error with a method RetryAfter says that nothing was kept and that the
// same batch may be sent again: the disk is full or the store overloaded.
func (s *Store) WriteTraces(ctx context.Context, o binnacle.Origin, td ptrace.Traces) (rejected int, message string, err error) {
	return 0, "", errors.ErrUnsupported
}

// Trace returns all spans of one trace, from all processes and batches, by
// start time, each once. ErrNotFound says that there are none.
func (s *Store) Trace(ctx context.Context, id pcommon.TraceID) (ptrace.Traces, error) {
	return ptrace.Traces{}, ErrNotFound
}

// Query selects traces of which one span at least fulfils all of it.
type Query struct {
	// Service is the service.name; empty means any.
	Service string
	// Operation is the span's name; empty means any.
	Operation string
	// Tags are attributes, of the span or its resource, that must have the
	// value in its string form. "error" is "true" for spans of status error.
	Tags map[string]string
	// Start and End bound the span's start time; zero is no bound.
	Start, End time.Time
	// MinDuration and MaxDuration bound the span's duration; zero is no bound.
	MinDuration, MaxDuration time.Duration
	// Limit is the number of traces; default 20, at most 1,500.
	Limit int
}

// Search returns whole traces, the newest first.
func (s *Store) Search(ctx context.Context, q Query) ([]ptrace.Traces, error) { return nil, nil }

// Services returns the names of all services with spans in the store, sorted.
func (s *Store) Services(ctx context.Context) ([]string, error) { return nil, nil }

// Operation is a span name with its kind ("server", "client" …).
type Operation struct {
	Name string `json:"name"`
	Kind string `json:"spanKind"`
}

// Operations returns the operations of a service by name and kind, sorted.
func (s *Store) Operations(ctx context.Context, service string) ([]Operation, error) {
	return nil, nil
}

// Handler serves Jaeger's query API as JSON: /api/services,
// /api/services/{service}/operations, /api/operations, /api/traces,
// /api/traces/{id} and /api/dependencies.
func (s *Store) Handler() http.Handler { return http.NotFoundHandler() }
