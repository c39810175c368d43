package activity

import (
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/binnacle-project/binnacle"
	"github.com/binnacle-project/binnacle/telemetry/metrics"
)

// BenchmarkTick writes the roll-ups of 4,000 pairs of node and backend, all of
// which had 30 calls since the tick before, told by senders of explicit buckets,
// into a real store, by how coarse they are; and the same with the checkpoint.
func BenchmarkTick(b *testing.B) {
	for coarser := range uint8(maxCoarser + 1) {
		for _, checkpoint := range []bool{false, true} {
			b.Run(fmt.Sprintf("coarser=%d/checkpoint=%v", coarser, checkpoint), func(b *testing.B) {
				benchTick(b, coarser, checkpoint)
			})
		}
	}
}

func benchTick(b *testing.B, coarser uint8, checkpoint bool) {
	dir := b.TempDir()
	store, err := metrics.Open(metrics.Options{Dir: dir})
	if err != nil {
		b.Fatal(err)
	}
	a, err := Open(Options{Rollups: OnStore(store, nil), Dir: b.TempDir()})
	if err != nil {
		b.Fatal(err)
	}
	a.settling = false
	layout, _ := newBounds(adviceBounds)
	var all []*rollup
	var spread [][]float64 // of each pair, the share of its calls by bucket
	r := rand.New(rand.NewPCG(1, 2))
	for n := range 200 {
		for k := range 20 {
			all = append(all, a.rollupOf(rollupID{kind: rollupNodeBackend, managed: true, group: "default", revision: 1,
				node: binnacle.NodeID(fmt.Sprint("node-", n)), address: fmt.Sprintf("backend-%d.internal", (n*7+k)%200), port: 8080}))
			center, share := 0.02*math.Exp(r.NormFloat64()), make([]float64, len(adviceBounds)+1)
			for range 1000 {
				v, i := center*math.Exp(0.7*r.NormFloat64()), 0
				for i < len(adviceBounds) && v > adviceBounds[i] {
					i++
				}
				share[i] += 0.001
			}
			spread = append(spread, share)
		}
	}
	at := time.Now().Add(-time.Hour).Truncate(rollupStep)
	var spent time.Duration
	var buf []byte
	for b.Loop() {
		b.StopTimer()
		at = at.Add(rollupStep)
		for i, x := range all {
			inc := increase{sum: 1, coarser: coarser}
			for j, p := range spread[i] {
				n := uint64(30 * p)
				if r.Float64() < 30*p-float64(n) {
					n++
				}
				layout.spread[j].tell(n, &inc)
			}
			x.add(&inc, false, false)
			x.fed, x.life = at.UnixNano(), minLimit
		}
		began := cpuTime()
		b.StartTimer()
		buf = a.tick(at, writes{all: true, news: checkpoint, checkpoint: checkpoint}, buf)
		b.StopTimer()
		spent += cpuTime() - began
		b.StartTimer()
	}
	b.StopTimer()
	b.ReportMetric(float64(spent.Nanoseconds())/1000/float64(b.N)/float64(len(all)), "cpu-us/sample")
	buckets := 0
	for _, x := range all {
		buckets += len(x.cum.native(&x.cum).PositiveBuckets)
	}
	b.ReportMetric(float64(buckets)/float64(len(all)), "buckets")
	if err := store.Close(); err != nil {
		b.Fatal(err)
	}
	var size int64
	filepath.Walk(dir, func(_ string, i os.FileInfo, err error) error {
		if err == nil && !i.IsDir() {
			size += i.Size()
		}
		return nil
	})
	b.ReportMetric(float64(size)/float64(b.N*len(all)), "disk-B/sample")
}
