package main

import (
	"fmt"
	"math/rand/v2"
	"time"

	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/pmetric"
	"go.opentelemetry.io/collector/pdata/pmetric/pmetricotlp"
)

// fleet makes what a fleet of gateways exports. Each node sends 110 data
// points: 60 request histograms (20 routes, 3 statuses) and 20 backend
// histograms (10 backends, 2 statuses) with 14 explicit buckets or as many
// exponential ones, and 30 numbers. In Prometheus's classic form the former are 1,310 samples. Values depend
// on the seed and the step alone: two fleets send the same.
type fleet struct {
	nodes []pmetric.Metrics
	rng   *rand.Rand
	begin time.Time
	life  int // of all nodes, see restart
}

const pointsPerNode, samplesPerNode = 110, 80*16 + 30

// bounds are those that the OpenTelemetry conventions advise, less one.
var bounds = []float64{.005, .01, .025, .05, .075, .1, .25, .5, .75, 1, 2.5, 5, 10}

// histogramForm is how a fleet sends its histograms.
type histogramForm uint8

const (
	explicitHistograms histogramForm = iota
	exponentialHistograms
)

// Exponential buckets: 14 from 1 ms on, each 1.19 times as wide as the one
// before, as an SDK has them after a while of latencies within a decade.
const expoScale, expoOffset, expoBuckets = 2, -40, 14

func newFleet(nodes int, form histogramForm, begin time.Time) *fleet {
	f := &fleet{rng: rand.New(rand.NewPCG(1, 2)), begin: begin}
	for n := range nodes {
		f.nodes = append(f.nodes, newNode(n, form))
	}
	return f
}

func newNode(n int, form histogramForm) pmetric.Metrics {
	md := pmetric.NewMetrics()
	rm := md.ResourceMetrics().AppendEmpty()
	put(rm.Resource().Attributes(), "service.name", "binnacle-gateway", "service.instance.id", nodeName(n, 0),
		"service.version", "1.0.0", "host.name", fmt.Sprintf("host-%04d", n))
	sm := rm.ScopeMetrics().AppendEmpty()
	sm.Scope().SetName("github.com/binnacle-project/binnacle/gateway")
	ms := sm.Metrics()
	histograms := func(name string, k int, attrs func(i int) []string) {
		m := ms.AppendEmpty()
		m.SetName(name)
		m.SetUnit("s")
		if form == exponentialHistograms {
			h := m.SetEmptyExponentialHistogram()
			h.SetAggregationTemporality(pmetric.AggregationTemporalityCumulative)
			for i := range k {
				dp := h.DataPoints().AppendEmpty()
				put(dp.Attributes(), attrs(i)...)
				dp.SetScale(expoScale)
				dp.Positive().SetOffset(expoOffset)
				dp.Positive().BucketCounts().FromRaw(make([]uint64, expoBuckets))
			}
			return
		}
		h := m.SetEmptyHistogram()
		h.SetAggregationTemporality(pmetric.AggregationTemporalityCumulative)
		for i := range k {
			dp := h.DataPoints().AppendEmpty()
			put(dp.Attributes(), attrs(i)...)
			dp.ExplicitBounds().FromRaw(bounds)
			dp.BucketCounts().FromRaw(make([]uint64, len(bounds)+1))
		}
	}
	histograms("http.server.request.duration", 60, func(i int) []string {
		return []string{"http.request.method", "GET", "http.route", fmt.Sprintf("/api/v1/resource-%d/{id}", i/3), "http.response.status_code", []string{"200", "404", "500"}[i%3], "url.scheme", "http"}
	})
	histograms("http.client.request.duration", 20, func(i int) []string {
		return []string{"http.request.method", "GET", "server.address", fmt.Sprintf("backend-%d.internal", (i/2+n)%200), "server.port", "8080", "http.response.status_code", []string{"200", "503"}[i%2]}
	})
	for i := range 30 {
		m := ms.AppendEmpty()
		if i%2 == 0 {
			m.SetName(fmt.Sprintf("go.counter.%d", i))
			s := m.SetEmptySum()
			s.SetIsMonotonic(true)
			s.SetAggregationTemporality(pmetric.AggregationTemporalityCumulative)
			put(s.DataPoints().AppendEmpty().Attributes(), "state", "used")
		} else {
			m.SetName(fmt.Sprintf("go.gauge.%d", i))
			put(m.SetEmptyGauge().DataPoints().AppendEmpty().Attributes(), "state", "used")
		}
	}
	return md
}

func nodeName(n, life int) string { return fmt.Sprintf("node-%04d-%d", n, life) }

// restart gives each node another identity, so that all its series are new.
func (f *fleet) restart() {
	f.life++
	for n, md := range f.nodes {
		md.ResourceMetrics().At(0).Resource().Attributes().PutStr("service.instance.id", nodeName(n, f.life))
	}
}

// export returns one request body of each node, of the time at, with every
// value raised.
func (f *fleet) export(at time.Time) ([][]byte, error) {
	out := make([][]byte, len(f.nodes))
	for n := range f.nodes {
		var err error
		if out[n], err = f.exportNode(n, at); err != nil {
			return nil, err
		}
	}
	return out, nil
}

func (f *fleet) exportNode(n int, at time.Time) ([]byte, error) {
	md := f.nodes[n]
	t, start := pcommon.NewTimestampFromTime(at), pcommon.NewTimestampFromTime(f.begin)
	for _, m := range md.ResourceMetrics().At(0).ScopeMetrics().At(0).Metrics().All() {
		switch m.Type() {
		case pmetric.MetricTypeGauge:
			dp := m.Gauge().DataPoints().At(0)
			dp.SetTimestamp(t)
			dp.SetDoubleValue(float64(f.rng.IntN(1 << 20)))
		case pmetric.MetricTypeSum:
			dp := m.Sum().DataPoints().At(0)
			dp.SetTimestamp(t)
			dp.SetStartTimestamp(start)
			dp.SetIntValue(dp.IntValue() + int64(f.rng.IntN(1000)))
		case pmetric.MetricTypeHistogram:
			for _, dp := range m.Histogram().DataPoints().All() {
				dp.SetTimestamp(t)
				dp.SetStartTimestamp(start)
				added := f.raise(dp.BucketCounts())
				dp.SetCount(dp.Count() + added)
				dp.SetSum(dp.Sum() + float64(added)/16)
			}
		case pmetric.MetricTypeExponentialHistogram:
			for _, dp := range m.ExponentialHistogram().DataPoints().All() {
				dp.SetTimestamp(t)
				dp.SetStartTimestamp(start)
				added := f.raise(dp.Positive().BucketCounts())
				dp.SetCount(dp.Count() + added)
				dp.SetSum(dp.Sum() + float64(added)/16)
			}
		}
	}
	return pmetricotlp.NewExportRequestFromMetrics(md).MarshalProto()
}

// raise adds 0 to 3 to each bucket and returns how much that is together.
func (f *fleet) raise(counts pcommon.UInt64Slice) (added uint64) {
	more := f.rng.Uint64() // two bits for each bucket
	for k := range counts.Len() {
		c := more >> (2 * k) & 3
		counts.SetAt(k, counts.At(k)+c)
		added += c
	}
	return added
}

func put(m pcommon.Map, pairs ...string) {
	for i := 0; i < len(pairs); i += 2 {
		m.PutStr(pairs[i], pairs[i+1])
	}
}
