package activity

import (
	"fmt"
	"syscall"
	"testing"
	"time"

	"go.opentelemetry.io/collector/pdata/pmetric"
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
