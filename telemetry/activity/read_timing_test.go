package activity

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"testing"
	"time"

	"github.com/binnacle-project/binnacle"
)

// hourOfFleet returns aggregates of 1,000 nodes, 200 backends and 20,000 pairs
// that are an hour old, and books what another step brings: each node exports
// every ten seconds, a fifth of them in each step, 30 calls for each pair.
func hourOfFleet(b *testing.B) (a *Aggregator, step func() int64) {
	b.Helper()
	a, err := Open(Options{})
	if err != nil {
		b.Fatal(err)
	}
	const nodes, perNode = 1000, 20
	byPhase := [5][]*key{}
	for n := range nodes {
		node := binnacle.NodeID(fmt.Sprintf("node-%04d", n))
		keys := []*key{a.keyOf(keyID{kind: kindNode, node: node})}
		for j := range perNode {
			backend := binnacle.BackendID(fmt.Sprintf("backend-%03d.internal:8080", (n*7+j)%200))
			keys = append(keys, a.keyOf(keyID{kind: kindNodeBackend, node: node, backend: backend}))
		}
		byPhase[n%5] = append(byPhase[n%5], keys...)
	}
	shared := []*key{a.keyOf(keyID{kind: kindCluster}), a.keyOf(keyID{kind: kindGroup, group: "default"}), a.keyOf(keyID{kind: kindRevision, group: "default", revision: 1})}
	for i := range 200 {
		shared = append(shared, a.keyOf(keyID{kind: kindBackend, backend: binnacle.BackendID(fmt.Sprintf("backend-%03d.internal:8080", i))}))
	}
	for i := range 60 {
		shared = append(shared, a.keyOf(keyID{kind: kindEndpoint, group: "default", method: "GET", route: fmt.Sprint("/", i)}))
	}
	now := aligned(time.Now()) - 3600
	r := rand.New(rand.NewPCG(1, 2))
	step = func() int64 {
		now += fineStep
		at := now*int64(time.Second) - 1
		for _, keys := range [][]*key{byPhase[now/fineStep%5], shared} {
			for _, k := range keys {
				inc := increase{count: 30}
				for j, i := 0, -60+r.IntN(20); j < 6; j++ {
					i += r.IntN(4)
					inc.buckets = append(inc.buckets, bucket{i, 5})
				}
				k.touch(at)
				k.total += inc.count
				k.book(binnacle.OK, &inc, at, now, &a.in.space)
			}
		}
		return now
	}
	for range 1800 {
		step()
	}
	return a, step
}

// BenchmarkStep is what Run does in a step: with no reader, and while all windows
// of everything are read; and what the first to ask for a window then waits for,
// all of it: 1,000 nodes, 200 backends, 20,000 pairs, 60 endpoints.
func BenchmarkStep(b *testing.B) {
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	a, step := hourOfFleet(b)
	a.warmAt(step())
	runtime.GC()
	runtime.ReadMemStats(&after)
	b.Run("unread", func(b *testing.B) {
		var spent, worst time.Duration
		var first [numWindows]time.Duration
		for b.Loop() {
			b.StopTimer()
			now := step()
			for i := range a.asked {
				a.asked[i].Store(0)
				a.matrix[i].Store(nil)
			}
			began := cpuTime()
			b.StartTimer()
			a.warmAt(now)
			b.StopTimer()
			took := cpuTime() - began
			spent, worst = spent+took, max(worst, took)
			for i := range Windows {
				began := cpuTime()
				a.snapshotAt(i, now)
				if m := a.matrixAt(i, now); len(m.rows) != 20_000 {
					b.Fatalf("window %v: %d rows", Windows[i], len(m.rows))
				}
				first[i] += cpuTime() - began
			}
			b.StartTimer()
		}
		b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/(1<<20), "heap-MiB")
		b.ReportMetric(float64(spent.Microseconds())/1000/float64(b.N), "step-cpu-ms")
		b.ReportMetric(float64(worst.Microseconds())/1000, "worst-cpu-ms")
		for i, w := range Windows {
			b.ReportMetric(float64(first[i].Microseconds())/1000/float64(b.N), fmt.Sprintf("first-%gs-cpu-ms", w.Seconds()))
		}
	})
	b.Run("read", func(b *testing.B) {
		var spent, worst time.Duration
		for b.Loop() {
			b.StopTimer()
			now := step()
			for i := range a.asked {
				a.asked[i].Store(now)
			}
			began := cpuTime()
			b.StartTimer()
			a.warmAt(now)
			b.StopTimer()
			took := cpuTime() - began
			spent, worst = spent+took, max(worst, took)
			b.StartTimer()
		}
		b.ReportMetric(float64(spent.Microseconds())/1000/float64(b.N), "step-cpu-ms")
		b.ReportMetric(float64(worst.Microseconds())/1000, "worst-cpu-ms")
	})
}
