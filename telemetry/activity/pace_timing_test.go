package activity

import (
	"context"
	"fmt"
	"math/rand/v2"
	"runtime"
	"testing"
	"time"

	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/pmetric"
	"go.opentelemetry.io/collector/pdata/pmetric/pmetricotlp"

	"github.com/binnacle-project/binnacle"
	"github.com/binnacle-project/binnacle/otlp/wire"
	"github.com/binnacle-project/binnacle/telemetry/metrics"
)

// paceNode is one node as `bench pace` sends it: 60 histograms of requests (20
// routes, 3 statuses) and 20 of calls (10 backends, 2 statuses).
type paceNode struct {
	md    pmetric.Metrics
	cells []wire.Cell
}

func newPaceNode(n int, exponential bool) *paceNode {
	md := pmetric.NewMetrics()
	rm := md.ResourceMetrics().AppendEmpty()
	rm.Resource().Attributes().PutStr("service.name", "binnacle-gateway")
	sm := rm.ScopeMetrics().AppendEmpty()
	histograms := func(name string, k int, attrs func(i int, put func(k, v string))) {
		m := sm.Metrics().AppendEmpty()
		m.SetName(name)
		m.SetUnit("s")
		for i := range k {
			var at pcommon.Map
			if exponential {
				if i == 0 {
					m.SetEmptyExponentialHistogram().SetAggregationTemporality(pmetric.AggregationTemporalityCumulative)
				}
				dp := m.ExponentialHistogram().DataPoints().AppendEmpty()
				dp.SetScale(3)
				dp.Positive().SetOffset(-60)
				dp.Positive().BucketCounts().FromRaw(make([]uint64, 14))
				at = dp.Attributes()
			} else {
				if i == 0 {
					m.SetEmptyHistogram().SetAggregationTemporality(pmetric.AggregationTemporalityCumulative)
				}
				dp := m.Histogram().DataPoints().AppendEmpty()
				dp.ExplicitBounds().FromRaw(adviceBounds)
				dp.BucketCounts().FromRaw(make([]uint64, len(adviceBounds)+1))
				at = dp.Attributes()
			}
			attrs(i, at.PutStr)
		}
	}
	histograms(binnacle.MetricServerDuration, 60, func(i int, put func(k, v string)) {
		put("http.request.method", "GET")
		put("http.route", fmt.Sprintf("/api/v1/resource-%d/{id}", i/3))
		put("http.response.status_code", []string{"200", "404", "500"}[i%3])
	})
	histograms(binnacle.MetricClientDuration, 20, func(i int, put func(k, v string)) {
		put("server.address", fmt.Sprintf("backend-%d.internal", (i/2+n)%200))
		put("server.port", "8080")
		put("http.response.status_code", []string{"200", "503"}[i%2])
	})
	return &paceNode{md: md, cells: make([]wire.Cell, 80)}
}

// export raises each bucket by 0 to 3 and returns the request's bytes.
func (p *paceNode) export(r *rand.Rand, start, at time.Time) ([]byte, error) {
	raise := func(counts pcommon.UInt64Slice) {
		more := r.Uint64()
		for k := range counts.Len() {
			counts.SetAt(k, counts.At(k)+more>>(2*k)&3)
		}
	}
	for _, m := range p.md.ResourceMetrics().At(0).ScopeMetrics().At(0).Metrics().All() {
		if m.Type() == pmetric.MetricTypeHistogram {
			for _, dp := range m.Histogram().DataPoints().All() {
				times(dp, start, at)
				raise(dp.BucketCounts())
				dp.SetSum(dp.Sum() + 1)
			}
			continue
		}
		for _, dp := range m.ExponentialHistogram().DataPoints().All() {
			times(dp, start, at)
			raise(dp.Positive().BucketCounts())
			dp.SetSum(dp.Sum() + 1)
		}
	}
	return pmetricotlp.NewExportRequestFromMetrics(p.md).MarshalProto()
}

// BenchmarkPace is a fleet at its own pace, in virtual time: 1,000 nodes of 80
// histograms every 15 s, each at its own phase, into a real store, and nobody who
// reads. An operation is a minute; what it reports is CPU of the process in
// thousandths of a core: of requests, of the tick with the checkpoint, and of what
// is kept for readers. Reading the request's bytes and raw series are not in it.
func BenchmarkPace(b *testing.B) {
	for _, form := range []string{"explicit", "exponential"} {
		b.Run(form, func(b *testing.B) { benchPace(b, form == "exponential") })
	}
}

func benchPace(b *testing.B, exponential bool) {
	const nodes, interval = 1000, 15 * time.Second
	store, err := metrics.Open(metrics.Options{Dir: b.TempDir()})
	if err != nil {
		b.Fatal(err)
	}
	defer store.Close()
	a, err := Open(Options{Rollups: OnStore(store, nil), Dir: b.TempDir()})
	if err != nil {
		b.Fatal(err)
	}
	a.settled()
	start := time.Now().Add(-3 * time.Hour).Truncate(time.Minute)
	a.started = start.Add(-time.Minute)
	now := start
	a.in.now = func() time.Time { return now }
	fleet := make([]*paceNode, nodes)
	for n := range fleet {
		fleet[n] = newPaceNode(n, exponential)
	}
	r := rand.New(rand.NewPCG(1, 2))
	var buf []byte
	var nextCheckpoint time.Time
	var spent [3]time.Duration
	var requests []wire.Metrics
	evict := make([]byte, 8<<20) // as other parts of the process do between two steps
	step := func() {
		// What comes in within two seconds; read before, so that only activity counts.
		from, to := now.Sub(start), now.Sub(start)+fineStep*time.Second
		requests = requests[:0]
		var ids []int
		var at []time.Time
		for n := range fleet {
			due := interval * time.Duration(n) / nodes
			due += (from - due + interval - 1) / interval * interval
			if due < from || due >= to {
				continue
			}
			body, err := fleet[n].export(r, start, start.Add(due))
			if err != nil {
				b.Fatal(err)
			}
			requests = append(requests, wire.Metrics{})
			m := &requests[len(requests)-1]
			if err := m.Read(body, wire.Limits{Elements: 1 << 30, Attributes: 1 << 30, Depth: 100}); err != nil {
				b.Fatal(err)
			}
			c := fleet[n].cells
			for _, met := range m.Resources[0].Metrics {
				for j := range met.Points {
					met.Points[j].Cell, c = &c[0], c[1:]
				}
			}
			ids, at = append(ids, n), append(at, start.Add(due))
		}
		timed := func(part int, f func()) {
			for i := 0; i < len(evict); i += 64 {
				evict[i]++
			}
			began := cpuTime()
			f()
			spent[part] += cpuTime() - began
		}
		timed(0, func() {
			for i := range requests {
				now = at[i]
				a.WriteMetrics(context.Background(), managed(fmt.Sprintf("node-%04d", ids[i]), "default", 1), &requests[i])
			}
		})
		now = start.Add(to)
		timed(1, func() {
			all := now.Unix()%10 == 0
			due := all && !now.Before(nextCheckpoint)
			buf = a.tick(now, writes{all: all, news: due, checkpoint: due}, buf)
			if due {
				nextCheckpoint = now.Add(max(rollupStep, time.Duration(len(buf))*time.Second/checkpointRate))
			}
		})
		timed(2, func() { a.warmAt(now.Unix()) })
	}
	for range 60 {
		step()
	}
	runtime.GC()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	samples := a.self.written.Get()
	spent = [3]time.Duration{}
	for b.Loop() {
		for range 30 {
			step()
		}
	}
	runtime.ReadMemStats(&after)
	minutes := float64(b.N)
	var all time.Duration
	for i, name := range []string{"request", "tick", "windows"} {
		b.ReportMetric(float64(spent[i].Milliseconds())/60/minutes, name+"-mcore")
		all += spent[i]
	}
	b.ReportMetric(float64(all.Milliseconds())/60/minutes, "all-mcore")
	b.ReportMetric(float64(a.self.written.Get()-samples)/60/minutes, "samples/s")
	b.ReportMetric(float64(len(buf))/(1<<20), "checkpoint-MiB")
	b.ReportMetric(float64(before.HeapAlloc)/(1<<20), "heap-MiB")
}
