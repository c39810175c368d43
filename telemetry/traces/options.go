package traces

import (
	"log/slog"
	"time"

	"github.com/VictoriaMetrics/metrics"
	"github.com/cockroachdb/pebble/v2/vfs"
)

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
	// CacheBytes bounds the blocks kept in memory for reading. Default 64 MiB.
	CacheBytes int64
	// Queries is how many calls of Handler are worked on at once; as many again
	// wait, the rest are refused as retryable. Default 4.
	Queries int
	// Sampling decides which traces are kept. Default all.
	Sampling Sampling

	Log     *slog.Logger
	Metrics *metrics.Set

	fs             vfs.FS           // for tests; nil is the disk
	now            func() time.Time // for tests; nil is time.Now
	maxAnswerSpans int              // for tests; 0 is maxAnswerSpans
}

func (o Options) withDefaults() Options {
	if o.Retention <= 0 {
		o.Retention = 7 * 24 * time.Hour
	}
	if o.MinFreeBytes == 0 {
		o.MinFreeBytes = 64 << 20
	}
	if o.CacheBytes <= 0 {
		o.CacheBytes = 64 << 20
	}
	if o.Queries <= 0 {
		o.Queries = 4
	}
	o.Sampling = o.Sampling.withDefaults()
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Metrics == nil {
		o.Metrics = metrics.NewSet()
	}
	if o.fs == nil {
		o.fs = vfs.Default
	}
	if o.now == nil {
		o.now = time.Now
	}
	if o.maxAnswerSpans == 0 {
		o.maxAnswerSpans = maxAnswerSpans
	}
	return o
}
