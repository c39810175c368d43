package metrics

import (
	"errors"
	"fmt"
	"log/slog"
	"time"

	vm "github.com/VictoriaMetrics/metrics"
)

// Forms in which explicit-bucket histograms are stored. Exponential histograms
// are always stored native: they have no classic form.
const (
	// Native stores one native histogram with custom buckets per point. The
	// query side serves the classic names as virtual series.
	Native = "native"
	// Classic stores _bucket{le}, _sum and _count series only.
	Classic = "classic"
	// Both stores native and classic series. It costs what classic costs.
	Both = "both"
)

// Options configure a Store. The zero value of a field means its default;
// only Dir is required.
type Options struct {
	// Dir is the data directory. It is created, and locked while open.
	Dir string

	// Retention is how long samples are kept (default 15 days). Blocks are
	// dropped whole, so data lives up to a tenth longer.
	Retention time.Duration
	// MaxBytes bounds the size of the stored blocks and the log together; the
	// oldest block goes first. 0 means no bound. The last two hours are kept
	// in memory and log and are never dropped for size.
	MaxBytes int64
	// MinFreeBytes is the space left on the disk below which writes are refused
	// as retryable (default 64 MiB; negative turns the check off).
	MinFreeBytes int64
	// OutOfOrder is how far behind the newest sample of all a sample may be
	// and still be stored (default 6 h, so that a node's spool can catch up).
	// Raising it costs memory and an extra log for late samples only.
	OutOfOrder time.Duration
	// MaxAhead is how far ahead of this machine's clock a sample may be
	// (default 5 min). One sample of the year 2100 would make every other
	// sample too old.
	MaxAhead time.Duration

	// Histograms is the stored form of explicit-bucket histograms: Native (the
	// default), Classic or Both.
	Histograms string

	// MaxSeries bounds the series in memory, those of the last two to three
	// hours (default 2,000,000; about 1 KiB each). A point that would create
	// one more is rejected and counted; known series go on.
	MaxSeries int
	// MaxSeriesPerInstance is the same for one instance (default 50,000).
	MaxSeriesPerInstance int
	// MaxSeriesUnmanaged is the same for all senders together that proved no
	// certificate (default MaxSeries/4).
	MaxSeriesUnmanaged int
	// MaxExemplars is the size of the ring of exemplars, which is kept in
	// memory and log (default 100,000; about 200 B each).
	MaxExemplars int

	// Query bounds what clients may ask through Handler and what any one
	// query may cost.
	Query QueryLimits

	// Events is told when a sender reaches a series limit, by Run; nil tells
	// nobody but the log.
	Events Events
	// Log receives what the store does; nil discards it.
	Log *slog.Logger
	// Metrics receives the store's own counters; nil makes a private set.
	Metrics *vm.Set
}

// QueryLimits bound queries so that ingest and polls are left alone.
type QueryLimits struct {
	// MaxSamples is how many samples one query may hold in memory at once
	// (default 20,000,000; a histogram counts as several).
	MaxSamples int
	// Timeout ends a query (default 30 s).
	Timeout time.Duration
	// Concurrency is how many requests to Handler are worked on at once
	// (default 8); as many again wait up to Timeout, the rest get 503.
	Concurrency int
	// MaxSeries is how many series, label names or values one answer of the
	// series and label calls may hold (default 50,000); what is over is cut
	// off with a warning in the answer.
	MaxSeries int
}

// withDefaults returns o with every unset field at its default, or an error
// that names the field at fault.
func (o Options) withDefaults() (Options, error) {
	if o.Dir == "" {
		return o, errors.New("metrics: Options.Dir is empty: name the data directory")
	}
	def(&o.Retention, 15*24*time.Hour)
	def(&o.MinFreeBytes, 64<<20)
	def(&o.OutOfOrder, 6*time.Hour)
	def(&o.MaxAhead, 5*time.Minute)
	def(&o.Histograms, Native)
	def(&o.MaxSeries, 2_000_000)
	def(&o.MaxSeriesPerInstance, 50_000)
	def(&o.MaxSeriesUnmanaged, max(o.MaxSeries/4, 1))
	def(&o.MaxExemplars, 100_000)
	def(&o.Query.MaxSamples, 20_000_000)
	def(&o.Query.Timeout, 30*time.Second)
	def(&o.Query.Concurrency, 8)
	def(&o.Query.MaxSeries, 50_000)
	def(&o.Log, slog.New(slog.DiscardHandler))
	def(&o.Metrics, vm.NewSet())

	switch o.Histograms {
	case Native, Classic, Both:
	default:
		return o, fmt.Errorf("metrics: histograms %q: want %s, %s or %s", o.Histograms, Native, Classic, Both)
	}
	for _, c := range []struct {
		name string
		v    int64
	}{
		{"retention", int64(o.Retention)},
		{"out-of-order window", int64(o.OutOfOrder)},
		{"allowance for clocks ahead", int64(o.MaxAhead)},
		{"series limit", int64(o.MaxSeries)},
		{"series limit per instance", int64(o.MaxSeriesPerInstance)},
		{"series limit for unmanaged senders", int64(o.MaxSeriesUnmanaged)},
		{"exemplar limit", int64(o.MaxExemplars)},
		{"query sample limit", int64(o.Query.MaxSamples)},
		{"query timeout", int64(o.Query.Timeout)},
		{"query concurrency", int64(o.Query.Concurrency)},
		{"query series limit", int64(o.Query.MaxSeries)},
	} {
		if c.v < 0 {
			return o, fmt.Errorf("metrics: %s is %d: it must be positive", c.name, c.v)
		}
	}
	if o.MaxBytes < 0 {
		return o, fmt.Errorf("metrics: size limit is %d bytes: it must be positive, or 0 for none", o.MaxBytes)
	}
	return o, nil
}

// def sets *p to v if it is unset.
func def[T comparable](p *T, v T) {
	var zero T
	if *p == zero {
		*p = v
	}
}
