package activity

import (
	"fmt"
	"runtime"
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

// BenchmarkRead reads everything at once, as nobody does: 1,000 nodes, 200
// backends, the matrix. bare has nothing at all, as before Run's first step: each
// aggregate of a window is added up anew; cold is the first to ask for a window
// that Run has kept the sums of; shared is any further reader.
func BenchmarkRead(b *testing.B) {
	for _, perNode := range []int{20, 200} {
		var before, after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		a, _ := fleet(b, 1000, 200, perNode, 6)
		runtime.GC()
		runtime.ReadMemStats(&after)
		all := func(w time.Duration) (n int) {
			return len(a.Nodes(w)) + len(a.Backends(w)) + len(a.NodeBackends(w)) + len(a.Endpoints(w))
		}
		for _, w := range []time.Duration{time.Minute, time.Hour} {
			i := windowOf(w)
			for _, state := range []string{"bare", "cold"} {
				b.Run(fmt.Sprintf("pairs=%d/window=%v/%s", 1000*perNode, w, state), func(b *testing.B) {
					var spent time.Duration
					for b.Loop() {
						b.StopTimer()
						a.small[i].Store(nil)
						a.matrix[i].Store(nil)
						for _, k := range a.keys.byID {
							k.holds = [numWindows]holds{}
						}
						if state == "cold" {
							a.refresh([]int{i}, aligned(time.Now()))
						}
						b.StartTimer()
						began := cpuTime()
						all(w)
						spent += cpuTime() - began
					}
					// Of the whole process, collector included: the machine may be
					// shared, and then wall time says nothing.
					b.ReportMetric(float64(spent.Microseconds())/1000/float64(b.N), "cpu-ms/op")
					b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/(1<<20), "heap-MiB")
				})
			}
			b.Run(fmt.Sprintf("pairs=%d/window=%v/shared", 1000*perNode, w), func(b *testing.B) {
				for b.Loop() {
					all(w)
				}
			})
		}
	}
}

func cpuTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkReadWhileRunning is what readers meet: Run has made what they read,
// after a step in which a fifth of the fleet exported. reader is one who reads
// everything of all windows; run is what a step costs before, mean and worst:
// where nobody has asked in the last minute, only sums are brought up to date;
// where somebody has, the matrix is made.
func BenchmarkReadWhileRunning(b *testing.B) {
	b.Run("first", func(b *testing.B) { readWhileRunning(b, false) })
	b.Run("again", func(b *testing.B) { readWhileRunning(b, true) })
}

func readWhileRunning(b *testing.B, asked bool) {
	const nodes, backends, perNode = 1000, 200, 20
	a, _ := fleet(b, nodes, backends, perNode, 6)
	var reader, run, worst time.Duration
	step := aligned(time.Now())
	i := 0
	for b.Loop() {
		b.StopTimer()
		step += fineStep
		a.mu.Lock()
		for _, k := range a.keys.byID { // as a fifth of the nodes had exported
			if i++; i%5 == 0 || k.id.kind != kindNodeBackend {
				k.touch(step * int64(time.Second))
			}
		}
		a.mu.Unlock()
		for i := range a.asked {
			a.asked[i].Store(0)
			if asked {
				a.asked[i].Store(step)
			} else {
				a.matrix[i].Store(nil)
			}
		}
		began := cpuTime()
		a.warmAt(step)
		spent := cpuTime() - began
		run, worst = run+spent, max(worst, spent)
		b.StartTimer()
		began = cpuTime()
		for _, w := range Windows {
			i := windowOf(w)
			if _, m := a.snapshotAt(i, step), a.matrixAt(i, step); m.at != step {
				b.Fatalf("window %v is %d s old", w, step-m.at)
			}
		}
		reader += cpuTime() - began
	}
	b.ReportMetric(float64(reader.Microseconds())/1000/float64(b.N), "reader-cpu-ms")
	b.ReportMetric(float64(run.Microseconds())/1000/float64(b.N), "run-cpu-ms")
	b.ReportMetric(float64(worst.Microseconds())/1000, "run-worst-cpu-ms")
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
