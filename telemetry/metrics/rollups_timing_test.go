package metrics

import (
	"fmt"
	"math"
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
	all := rollupsOfAFleet(s)
	tick := func(at time.Time) {
		batch := s.Batch()
		for _, r := range all {
			if err := batch.AppendHistogram(r.series, at.UnixMilli(), r.next()); err != nil {
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
		series, buckets := 0, 0
		for _, r := range all {
			if r.name == by.name+":x" {
				series++
				buckets += len(r.h.PositiveBuckets)
			}
		}
		for _, what := range []struct{ name, expr string }{
			{"count", `histogram_count(sum by (%s) (rate(%s:x{group=~".*"}[1m])))`},
			{"quantile", `histogram_quantile(0.99, sum by (%s) (rate(%s:x{group=~".*"}[1m])))`},
		} {
			ask := func(b *testing.B, end time.Time) {
				m, err := s.QueryRange(b.Context(), fmt.Sprintf(what.expr, by.label, by.name), end.Add(-time.Hour), end, 15*time.Second)
				if err != nil || len(m) == 0 {
					b.Fatal(len(m), err)
				}
			}
			b.Run("first/"+by.name+"/"+what.name, func(b *testing.B) {
				before, end := cpuTime(), end
				for b.Loop() {
					end = end.Add(-time.Millisecond) // at steps of its own: nothing is kept of them
					ask(b, end)
				}
				b.ReportMetric(float64(cpuTime()-before)/float64(b.N)/1e6, "cpu-ms")
				b.ReportMetric(float64(buckets)/float64(series), "buckets")
			})
			b.Run("again/"+by.name+"/"+what.name, func(b *testing.B) {
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

// aRollup is a roll-up series as package activity writes it.
type aRollup struct {
	name   string
	series *Series
	h      histogram.Histogram
	rng    *rand.Rand
	lambda []float64 // of each bucket, what it is told of on average in ten seconds
	counts []int64
}

// rollupsOfAFleet makes the roll-ups of 1,000 nodes with 30 requests a second
// each, of which 2 % are at fault and 0.5 % fail. Half of them, a group, send
// exponential histograms, eight buckets to a power of two; the others have the
// bounds of OpenTelemetry, of which roll-ups keep two to a power of two.
func rollupsOfAFleet(s *Store) (all []*aRollup) {
	const requests = 300 // of a node in ten seconds
	rng := rand.New(rand.NewPCG(3, 4))
	add := func(name string, i int, n float64, pairs ...string) {
		group, schema := "ours", int32(3)
		if i%2 == 1 {
			group, schema = "others", 1
		}
		center := 0.02 * math.Exp(rng.NormFloat64())
		for outcome, share := range map[string]float64{"ok": 0.975, "client_error": 0.02, "error": 0.005} {
			l := append([]string{model.MetricNameLabel, name + ":x", "group", group, "revision", "7", "outcome", outcome}, pairs...)
			r := &aRollup{name: name + ":x", series: s.Series(labels.FromStrings(l...)), rng: rng}
			r.spread(schema, n*share, center)
			all = append(all, r)
		}
	}
	for i := range 2 {
		add("group", i, 500*requests)
	}
	for i := range 50 {
		add("endpoint", i, 20*requests, "http_request_method", "GET", "http_route", fmt.Sprint("/api/v1/resource-", i))
	}
	for i := range 200 {
		add("backend", i, 10*requests, "server_address", fmt.Sprint("backend-", i), "server_port", "8080")
	}
	for i := range 1000 {
		add("node", i, requests, "instance", "node-"+strconv.Itoa(i))
	}
	return all
}

// spread sets how n latencies around a median fall on buckets: whole powers of
// two, from the first to the last that an hour fills.
func (r *aRollup) spread(schema int32, n, median float64) {
	const sigma, hour = 0.7, 360
	octave := 1 << schema
	share := func(i int) float64 { // of latencies below the lower bound of octave i
		return math.Erfc(-math.Log(math.Ldexp(1, i)/median)/sigma/math.Sqrt2) / 2
	}
	first, last := 0, 0
	for i := -20; i < 10; i++ {
		if (share(i+1)-share(i))*n*hour > 1 {
			if first == 0 {
				first = i
			}
			last = i + 1
		}
	}
	for i := first * octave; i < last*octave; i++ {
		p := math.Erfc(-math.Log(math.Exp2(float64(i+1)/float64(octave))/median)/sigma/math.Sqrt2)/2 -
			math.Erfc(-math.Log(math.Exp2(float64(i)/float64(octave))/median)/sigma/math.Sqrt2)/2
		r.lambda = append(r.lambda, n*p)
	}
	r.counts = make([]int64, len(r.lambda))
	r.h = histogram.Histogram{
		Schema:        schema,
		PositiveSpans: []histogram.Span{{Offset: int32(first*octave + 1), Length: uint32(len(r.lambda))}},
	}
}

// next returns the next sample.
func (r *aRollup) next() *histogram.Histogram {
	r.h.PositiveBuckets = make([]int64, len(r.lambda))
	before := int64(0)
	for i, lambda := range r.lambda {
		n := poisson(r.rng, lambda)
		r.counts[i] += n
		r.h.Count += uint64(n)
		r.h.Sum += float64(n) * math.Exp2(float64(int(r.h.PositiveSpans[0].Offset)+i)/float64(int(1)<<r.h.Schema))
		r.h.PositiveBuckets[i] = r.counts[i] - before
		before = r.counts[i]
	}
	h := r.h
	return &h
}

func poisson(rng *rand.Rand, lambda float64) (n int64) {
	if lambda > 20 {
		return max(int64(lambda+math.Sqrt(lambda)*rng.NormFloat64()+0.5), 0)
	}
	u, p := rng.Float64(), math.Exp(-lambda)
	for u > p && n < 100 {
		u -= p
		n++
		p *= lambda / float64(n)
	}
	return n
}

// cpuTime is the processor time of this process so far.
func cpuTime() time.Duration {
	var u syscall.Rusage
	syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
