package activity

import (
	"context"
	"fmt"
	"log/slog"
	"math"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunkenc"

	"github.com/binnacle-project/binnacle/telemetry/metrics"
)

// OnStore keeps roll-ups in the metrics store, as native histograms. log may
// be nil.
func OnStore(s *metrics.Store, log *slog.Logger) Rollups {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	for kd, name := range rollupNames {
		s.Describe(name, metrics.Metadata{Type: "histogram", Unit: "seconds", Help: rollupHelp[kd]})
	}
	return &onStore{s: s, log: log}
}

var rollupHelp = [numRollups]string{
	"Duration of the requests that gateways served, rolled up by group, revision and outcome.",
	"Duration of the requests that gateways served, rolled up by node.",
	"Duration of the requests that gateways served, rolled up by endpoint.",
	"Duration of the calls that gateways made, rolled up by backend.",
	"Duration of the calls that gateways made, rolled up by node and backend.",
}

type onStore struct {
	s   *metrics.Store
	log *slog.Logger
}

func (o *onStore) Append(samples []RollupSample) error {
	b := o.s.Batch()
	skipped := 0
	var first error
	for _, s := range samples {
		h, _ := s.Series.Handle.(*metrics.Series)
		if h == nil {
			h = o.s.Series(s.Series.Labels)
			s.Series.Handle = h
		}
		n := s.Histogram
		if n == nil {
			n = staleMarker()
		}
		if err := b.AppendHistogram(h, s.T, n); err != nil {
			if skipped++; first == nil {
				first = err
			}
		}
	}
	if err := b.Commit(); err != nil {
		return fmt.Errorf("store roll-ups: %w", err)
	}
	if skipped > 0 {
		o.log.Warn("the store left out roll-up samples", "samples", skipped, "first", first)
	}
	return nil
}

// staleMarker ends a series: queries give nothing from there on.
//
// Source: Prometheus, model/value.
func staleMarker() *histogram.Histogram {
	return &histogram.Histogram{Schema: scale, Sum: math.Float64frombits(value.StaleNaN)}
}

func (o *onStore) Select(ctx context.Context, metric string, from, to int64, f func(labels.Labels, int64, *histogram.Histogram) bool) error {
	q, err := o.s.Queryable().Querier(from, to)
	if err != nil {
		return fmt.Errorf("read roll-up %s: %w", metric, err)
	}
	defer q.Close()
	set := q.Select(ctx, false, &storage.SelectHints{Start: from, End: to}, labels.MustNewMatcher(labels.MatchEqual, model.MetricNameLabel, metric))
	var it chunkenc.Iterator
	var h *histogram.Histogram
	for set.Next() {
		s := set.At()
		lbls := s.Labels()
		it = s.Iterator(it)
		for vt := it.Next(); vt != chunkenc.ValNone; vt = it.Next() {
			if vt != chunkenc.ValHistogram {
				continue
			}
			var t int64
			t, h = it.AtHistogram(h)
			if value.IsStaleNaN(h.Sum) {
				continue
			}
			if !f(lbls, t, h) {
				return nil
			}
		}
		if err := it.Err(); err != nil {
			return fmt.Errorf("read roll-up %s of %s: %w", metric, lbls, err)
		}
	}
	if err := set.Err(); err != nil {
		return fmt.Errorf("read roll-up %s: %w", metric, err)
	}
	return nil
}
