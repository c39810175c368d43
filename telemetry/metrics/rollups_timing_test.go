package metrics

import (
	"fmt"
	"math/rand/v2"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
)

// BenchmarkRollups asks the panels of the dashboards over an hour of the
// roll-ups of 1,000 nodes, 50 endpoints and 200 backends: for the first time, and
// again 30 s later.
func BenchmarkRollups(b *testing.B) {
	s, err := Open(Options{Dir: b.TempDir()})
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	end := time.Now().Truncate(15 * time.Second)
	rng := rand.New(rand.NewPCG(3, 4))
	type rollup struct {
		series *Series
		h      histogram.Histogram
	}
	var all []*rollup
	add := func(name string, pairs ...string) {
		for _, outcome := range []string{"ok", "client_error", "error"} {
			l := append([]string{model.MetricNameLabel, name, "group", "default", "outcome", outcome}, pairs...)
			all = append(all, &rollup{s.Series(labels.FromStrings(l...)), histogram.Histogram{
				Schema:          3,
				PositiveSpans:   []histogram.Span{{Offset: int32(-60 + rng.IntN(20)), Length: 24}},
				PositiveBuckets: make([]int64, 24),
			}})
		}
	}
	add("group:x")
	for i := range 50 {
		add("endpoint:x", "http_route", fmt.Sprint("/api/v1/resource-", i))
	}
	for i := range 200 {
		add("backend:x", "server_address", fmt.Sprint("backend-", i))
	}
	for i := range 1000 {
		add("node:x", "instance", "node-"+strconv.Itoa(i))
	}
	tick := func(at time.Time) {
		batch := s.Batch()
		for _, r := range all {
			more, before := rng.Uint64(), int64(0)
			h := r.h.Copy()
			n := int64(0)
			for i := range h.PositiveBuckets {
				n += h.PositiveBuckets[i]
				v := n + int64(more>>(2*i)&3)
				r.h.Count += uint64(more >> (2 * i) & 3)
				r.h.PositiveBuckets[i] = v - before
				before = v
			}
			r.h.Sum = float64(r.h.Count) / 64
			if err := batch.AppendHistogram(r.series, at.UnixMilli(), r.h.Copy()); err != nil {
				b.Fatal(err)
			}
		}
		if err := batch.Commit(); err != nil {
			b.Fatal(err)
		}
	}
	last := end.Add(-time.Hour)
	for ; !last.After(end); last = last.Add(10 * time.Second) {
		tick(last)
	}
	for _, by := range []struct{ name, label string }{
		{"group", "outcome"}, {"endpoint", "http_route"}, {"backend", "server_address"}, {"node", "instance"},
	} {
		for what, expr := range map[string]string{
			"count":    `histogram_count(sum by (%s) (rate(%s:x{group=~".*"}[1m])))`,
			"quantile": `histogram_quantile(0.99, sum by (%s) (rate(%s:x{group=~".*"}[1m])))`,
		} {
			ask := func(b *testing.B, end time.Time) {
				m, err := s.QueryRange(b.Context(), fmt.Sprintf(expr, by.label, by.name), end.Add(-time.Hour), end, 15*time.Second)
				if err != nil || len(m) == 0 {
					b.Fatal(len(m), err)
				}
			}
			b.Run("first/"+by.name+"/"+what, func(b *testing.B) {
				before, end := cpuTime(), end
				for b.Loop() {
					end = end.Add(-time.Millisecond) // at steps of its own: nothing is kept of them
					ask(b, end)
				}
				b.ReportMetric(float64(cpuTime()-before)/float64(b.N)/1e6, "cpu-ms")
			})
			b.Run("again/"+by.name+"/"+what, func(b *testing.B) {
				ask(b, last.Truncate(15*time.Second))
				var used time.Duration
				for b.Loop() {
					b.StopTimer()
					for range 3 { // 30 s pass
						tick(last)
						last = last.Add(10 * time.Second)
					}
					b.StartTimer()
					before := cpuTime()
					ask(b, last.Truncate(15*time.Second))
					used += cpuTime() - before
				}
				b.ReportMetric(float64(used)/float64(b.N)/1e6, "cpu-ms")
			})
		}
	}
}

// cpuTime is the processor time of this process so far.
func cpuTime() time.Duration {
	var u syscall.Rusage
	syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
