package main

import (
	"fmt"
	"math/rand/v2"
	"strconv"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"

	"github.com/binnacle-project/binnacle"
	"github.com/binnacle-project/binnacle/telemetry/metrics"
)

// rollupStep is how often the manager writes them.
const rollupStep = 10 * time.Second

// writeRollups fills the metrics store in dir with the roll-ups that a fleet
// makes in the hour before end: three outcomes, 50 endpoints, 200 backends, ten of
// them called by each node.
func writeRollups(dir string, end time.Time) (err error) {
	s, err := metrics.Open(metrics.Options{Dir: dir})
	if err != nil {
		return err
	}
	defer func() {
		if cerr := s.Close(); err == nil {
			err = cerr
		}
	}()
	rng := rand.New(rand.NewPCG(3, 4))
	var all []*rollup
	add := func(name string, pairs ...string) {
		for _, outcome := range []string{"ok", "client_error", "error"} {
			l := append([]string{model.MetricNameLabel, name, binnacle.LabelGroup, "default", binnacle.LabelRevision, "7", binnacle.LabelOutcome, outcome}, pairs...)
			all = append(all, newRollup(s.Series(labels.FromStrings(l...)), rng))
		}
	}
	backend := func(i int) []string {
		return []string{"server_address", fmt.Sprintf("backend-%d.internal", i%200), "server_port", "8080"}
	}
	add(binnacle.RollupGroup)
	for i := range 50 {
		add(binnacle.RollupEndpoint, "http_request_method", "GET", "http_route", fmt.Sprintf("/api/v1/resource-%d/{id}", i))
	}
	for i := range 200 {
		add(binnacle.RollupBackend, backend(i)...)
	}
	for n := range rollupNodes {
		node := []string{binnacle.LabelInstance, "node-" + strconv.Itoa(n)}
		add(binnacle.RollupNode, node...)
		for i := range 10 {
			add(binnacle.RollupNodeBackend, append(node, backend(n+i)...)...)
		}
	}
	for at := end.Add(-hour); !at.After(end); at = at.Add(rollupStep) {
		b := s.Batch()
		for i, r := range all {
			// Pairs are written after an increase, every second tick here.
			if i > 3*(1+50+200+rollupNodes) && (i+int(at.Unix()/10))%2 == 0 {
				continue
			}
			if err := b.AppendHistogram(r.series, at.UnixMilli(), r.next(rng)); err != nil {
				return err
			}
		}
		if err := b.Commit(); err != nil {
			return err
		}
	}
	return nil
}

// rollup is a cumulative histogram over three octaves of latency.
type rollup struct {
	series *metrics.Series
	spans  []histogram.Span
	n      [24]int64
	count  uint64
}

func newRollup(s *metrics.Series, rng *rand.Rand) *rollup {
	return &rollup{series: s, spans: []histogram.Span{{Offset: int32(-60 + rng.IntN(20)), Length: 24}}}
}

func (r *rollup) next(rng *rand.Rand) *histogram.Histogram {
	h := &histogram.Histogram{Schema: 3, PositiveSpans: r.spans, PositiveBuckets: make([]int64, len(r.n))}
	more, prev := rng.Uint64(), int64(0)
	for i := range r.n {
		c := int64(more >> (2 * i) & 3)
		r.n[i] += c
		r.count += uint64(c)
		h.PositiveBuckets[i] = r.n[i] - prev
		prev = r.n[i]
	}
	h.Count, h.Sum = r.count, float64(r.count)/64
	return h
}
