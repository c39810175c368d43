package metrics

import (
	"slices"
	"testing"
	"time"

	"github.com/binnacle-project/binnacle/otlp/wire"
)

// BenchmarkPace measures what a point costs in a fleet at its own pace, where each
// series is touched once in an interval, and most requests find the processor asleep.
// The fleet is of 1,000 nodes, a request of each in turn, and the process sleeps for
// some milliseconds before every fourth. It reports the median time per point of the
// requests after a sleep, of those that follow them, which find their series just
// as far away but all else near, and of ten nodes in a burst.
func BenchmarkPace(b *testing.B) {
	const nodes, burstNodes, together = 1000, 10, 4
	s := openStore(b, func(o *Options) { o.MaxSeries = 1 << 20 })
	f, burst := newFleet(nodes, false), newFleet(burstNodes, false)
	var m wire.Metrics
	var body []byte // where a server would have read it to
	take := func(of []byte) time.Duration {
		body = append(body[:0], of...)
		t0 := time.Now()
		if err := ourTake(s, fleetOrigin, &m, body); err != nil {
			b.Fatal(err)
		}
		return time.Since(t0)
	}
	var asleep, follow, warm []time.Duration
	for round := 0; b.Loop(); round++ {
		f.next()
		for i, body := range f.bodies {
			if round == 0 { // makes the series
				take(body)
				continue
			}
			if i%together == 0 {
				time.Sleep(5 * time.Millisecond)
				asleep = append(asleep, take(body))
			} else {
				follow = append(follow, take(body))
			}
		}
		for range 10 {
			burst.next()
			for _, body := range burst.bodies {
				warm = append(warm, take(body))
			}
		}
	}
	if len(follow) == 0 {
		return
	}
	for unit, all := range map[string][]time.Duration{"asleep-ns/point": asleep, "follow-ns/point": follow, "burst-ns/point": warm} {
		slices.Sort(all)
		b.ReportMetric(float64(all[len(all)/2].Nanoseconds())/pointsPerNode, unit)
	}
}
