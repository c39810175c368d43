package activity

import (
	"fmt"
	"math/rand/v2"
	"syscall"
	"testing"
	"time"

	"go.opentelemetry.io/collector/pdata/pmetric"

	"github.com/binnacle-project/binnacle/otlp/wire"
)

// fleet feeds nodes with 60 server and perNode client histograms each, over
// backends services, for some intervals, and returns the aggregator.
func fleet(b *testing.B, nodes, backends, perNode, intervals int) (*Aggregator, func(node int) pmetric.Metrics) {
	b.Helper()
	a, err := Open(Options{})
	if err != nil {
		b.Fatal(err)
	}
	now := time.Now().Add(-time.Duration(intervals) * 10 * time.Second)
	a.in.now = func() time.Time { return now }
	fake := make([]*fakeNode, nodes)
	for i := range fake {
		n := newFakeNode(fmt.Sprintf("node-%04d", i))
		n.start = now
		fake[i] = n
	}
	more := func(i int) pmetric.Metrics {
		n := fake[i]
		for j := range 60 {
			n.serve(fmt.Sprintf("/route/%d", j), 200, 1, 0.004*float64(1+j%12))
		}
		for j := range perNode {
			n.call(fmt.Sprintf("backend-%03d.internal", (i*7+j)%backends), 8080, 200, 3, 0.003*float64(1+j%9))
		}
		return n.export(now)
	}
	for range intervals {
		now = now.Add(10 * time.Second)
		for i := range fake {
			feed(b, a, managed(fake[i].id, "default", 1), more(i))
		}
	}
	return a, more
}

func cpuTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkWriteMetrics takes one node's export of 80 histograms, all of which
// changed.
func BenchmarkWriteMetrics(b *testing.B) {
	a, more := fleet(b, 100, 200, 20, 3)
	now := time.Now()
	a.in.now = func() time.Time { return now }
	i := 0
	b.ReportAllocs()
	for b.Loop() {
		b.StopTimer()
		now = now.Add(100 * time.Millisecond)
		md := more(i % 100)
		for _, rm := range md.ResourceMetrics().All() {
			for _, sm := range rm.ScopeMetrics().All() {
				for _, m := range sm.Metrics().All() {
					dp := m.ExponentialHistogram().DataPoints().At(0)
					times(dp, dp.StartTimestamp().AsTime(), now)
				}
			}
		}
		b.StartTimer()
		feed(b, a, managed(fmt.Sprintf("node-%04d", i%100), "default", 1), md)
		i++
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/80, "ns/histogram")
}

// BenchmarkExponentialPoint takes the next point of a known exponential stream (14
// buckets, all of which changed) the short way and by the general one, in turns.
func BenchmarkExponentialPoint(b *testing.B) {
	a, err := Open(Options{})
	if err != nil {
		b.Fatal(err)
	}
	at := time.Now().Add(-time.Hour)
	a.in.now = func() time.Time { return at }
	n, r := newPaceNode(0, true), rand.New(rand.NewPCG(1, 2))
	var spent [2]time.Duration
	var m wire.Metrics
	for b.Loop() {
		for way := range spent {
			at = at.Add(10 * time.Millisecond)
			body, err := n.export(r, at.Truncate(time.Hour), at)
			if err != nil {
				b.Fatal(err)
			}
			if err := m.Read(body, wire.Limits{Elements: 1 << 30, Attributes: 1 << 30, Depth: 100}); err != nil {
				b.Fatal(err)
			}
			for i := range m.Resources[0].Metrics {
				met := &m.Resources[0].Metrics[i]
				for j := range met.Points {
					met.Points[j].Cell = &n.cells[60*i+j]
				}
			}
			if n.cells[0].Of == nil { // makes the streams
				a.WriteMetrics(b.Context(), managed("n", "default", 1), &m)
				continue
			}
			a.in.wall = at.UnixNano()
			began := time.Now()
			for i := range m.Resources[0].Metrics {
				met := &m.Resources[0].Metrics[i]
				how, _ := metricOf(met.Name, met.Unit)
				for j := range met.Points {
					dp := &met.Points[j]
					st := a.in.known(dp)
					switch {
					case way == 0 && a.advanceExponential(how, st, dp):
					case way == 1 && a.readExponential(how, dp):
						a.point(how, met, dp, st)
					default:
						b.Fatal("the point was refused")
					}
				}
			}
			a.flush()
			spent[way] += time.Since(began)
		}
	}
	per := float64(b.N) * 80
	b.ReportMetric(float64(spent[0].Nanoseconds())/per, "ns/point-short")
	b.ReportMetric(float64(spent[1].Nanoseconds())/per, "ns/point-general")
	b.ReportMetric(float64(spent[0])/float64(spent[1]), "ratio")
}

// BenchmarkCheckpoint encodes what 1,000 nodes of 80 streams make.
func BenchmarkCheckpoint(b *testing.B) {
	a, _ := fleet(b, 1000, 200, 20, 2)
	var buf []byte
	for b.Loop() {
		a.mu.Lock()
		buf = a.encodeLocked(1, buf)
		a.mu.Unlock()
	}
	b.ReportMetric(float64(len(buf))/(1<<20), "MiB")
}
