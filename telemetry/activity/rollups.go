package activity

import (
	"context"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
)

// Rollups is what the aggregator asks of the metrics store. OnStore gives it
// for *metrics.Store.
type Rollups interface {
	// Append stores samples, each series' oldest first, all or none. A single
	// sample that the store will never take is left out, which is no error.
	Append(samples []RollupSample) error
	// Select calls f for each stored sample of a metric with from <= t <= to
	// (Unix ms), series after series, oldest first, until f returns false.
	// Stale markers are left out. f may keep lbls but not h.
	Select(ctx context.Context, metric string, from, to int64, f func(lbls labels.Labels, t int64, h *histogram.Histogram) bool) error
}

// RollupSample is one sample of a roll-up series.
type RollupSample struct {
	Series *RollupSeries
	// T is in Unix milliseconds.
	T int64
	// Histogram is the cumulative value; nil marks the series as stale. The
	// store owns it afterwards.
	Histogram *histogram.Histogram
}

// RollupSeries names one roll-up series. The store may keep its own handle in
// Handle, which nobody else touches.
type RollupSeries struct {
	Labels labels.Labels
	Handle any
}
