package metrics

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/prometheus/prometheus/storage/remote/otlptranslator/prometheusremotewrite"
	"go.opentelemetry.io/collector/pdata/pmetric"
	"go.opentelemetry.io/collector/pdata/pmetric/pmetricotlp"

	"github.com/prometheus/prometheus/config"

	binnacle "github.com/binnacle-project/binnacle"
	"github.com/binnacle-project/binnacle/otlp/wire"
)

// fleet makes the payloads of a fleet: each node sends 110 data points, of
// which 60 are request histograms and 20 backend histograms of 14 buckets, and
// 30 numbers. It is the load of docs/benchmarks.md.
type fleet struct {
	nodes  []pmetric.Metrics
	bodies [][]byte // of nodes, since the last next
	step   int
	begin  time.Time
}

func newFleet(nodes int, exponentialHistograms bool) *fleet {
	f := &fleet{begin: time.Now().Add(-30 * time.Minute).Truncate(time.Second)}
	bounds := []float64{.005, .01, .025, .05, .075, .1, .25, .5, .75, 1, 2.5, 5, 10}
	for n := range nodes {
		md, ms := payloadOf("service.name", "binnacle-gateway", "service.instance.id", fmt.Sprintf("node-%04d", n),
			"binnacle.group", "default", "binnacle.process", fmt.Sprintf("p-%d", n), "host.name", fmt.Sprintf("host-%d", n), "service.version", "1.0.0")
		histograms := func(name string, k int, attrs func(i int) []string) {
			m := ms.AppendEmpty()
			m.SetName(name)
			m.SetUnit("s")
			for i := range k {
				if exponentialHistograms {
					if i == 0 {
						m.SetEmptyExponentialHistogram().SetAggregationTemporality(pmetric.AggregationTemporalityCumulative)
					}
					dp := m.ExponentialHistogram().DataPoints().AppendEmpty()
					put(dp.Attributes(), attrs(i)...)
					dp.SetScale(3)
					dp.Positive().SetOffset(-40)
					dp.Positive().BucketCounts().FromRaw(make([]uint64, 14))
					continue
				}
				if i == 0 {
					m.SetEmptyHistogram().SetAggregationTemporality(pmetric.AggregationTemporalityCumulative)
				}
				dp := m.Histogram().DataPoints().AppendEmpty()
				put(dp.Attributes(), attrs(i)...)
				dp.ExplicitBounds().FromRaw(bounds)
				dp.BucketCounts().FromRaw(make([]uint64, 14))
			}
		}
		histograms(binnacle.MetricServerDuration, 60, func(i int) []string {
			return []string{"http.request.method", "GET", "http.route", fmt.Sprintf("/api/v1/resource-%d/{id}", i/3), "http.response.status_code", []string{"200", "404", "500"}[i%3], "url.scheme", "http"}
		})
		histograms(binnacle.MetricClientDuration, 20, func(i int) []string {
			return []string{"http.request.method", "GET", "server.address", fmt.Sprintf("backend-%d.internal", i/2), "server.port", "8080", "http.response.status_code", []string{"200", "503"}[i%2]}
		})
		for i := range 30 {
			if i%2 == 0 {
				counter(ms, fmt.Sprintf("go.counter.%d", i), f.begin, f.begin, 0, "state", "used")
			} else {
				gauge(ms, fmt.Sprintf("go.gauge.%d", i), f.begin, 0, "state", "used")
			}
		}
		f.nodes = append(f.nodes, md)
	}
	return f
}

// next moves all nodes 15 s on, with every value raised.
func (f *fleet) next() {
	f.step++
	at, start := stamp(f.begin.Add(time.Duration(f.step)*15*time.Second)), stamp(f.begin)
	for _, md := range f.nodes {
		ms := md.ResourceMetrics().At(0).ScopeMetrics().At(0).Metrics()
		for i := range ms.Len() {
			switch m := ms.At(i); m.Type() {
			case pmetric.MetricTypeGauge:
				dp := m.Gauge().DataPoints().At(0)
				dp.SetTimestamp(at)
				dp.SetDoubleValue(float64(f.step * i))
			case pmetric.MetricTypeSum:
				dp := m.Sum().DataPoints().At(0)
				dp.SetTimestamp(at)
				dp.SetStartTimestamp(start)
				dp.SetIntValue(int64(f.step * i))
			case pmetric.MetricTypeHistogram:
				for j := range m.Histogram().DataPoints().Len() {
					dp := m.Histogram().DataPoints().At(j)
					dp.SetTimestamp(at)
					dp.SetStartTimestamp(start)
					for k := range dp.BucketCounts().Len() {
						c := dp.BucketCounts().At(k) + uint64((j+k+f.step)%4)
						dp.SetCount(dp.Count() + c - dp.BucketCounts().At(k))
						dp.BucketCounts().SetAt(k, c)
					}
					dp.SetSum(float64(dp.Count()) / 8)
				}
			case pmetric.MetricTypeExponentialHistogram:
				for j := range m.ExponentialHistogram().DataPoints().Len() {
					dp := m.ExponentialHistogram().DataPoints().At(j)
					dp.SetTimestamp(at)
					dp.SetStartTimestamp(start)
					b := dp.Positive().BucketCounts()
					for k := range b.Len() {
						c := b.At(k) + uint64((j+k+f.step)%4)
						dp.SetCount(dp.Count() + c - b.At(k))
						b.SetAt(k, c)
					}
					dp.SetSum(float64(dp.Count()) / 8)
				}
			}
		}
	}
	f.bodies = f.bodies[:0]
	for _, md := range f.nodes {
		f.bodies = append(f.bodies, encode(md))
	}
}

const pointsPerNode = 110

// prometheusTake does what Prometheus does with a request.
func prometheusTake(s *Store, body []byte, nhcb bool) error {
	req := pmetricotlp.NewExportRequest()
	if err := req.UnmarshalProto(body); err != nil {
		return err
	}
	return prometheusWrite(s, req.Metrics(), nhcb)
}

// ourTake does what Binnacle does with a request, in m's memory.
func ourTake(s *Store, o binnacle.Origin, m *wire.Metrics, body []byte) error {
	if err := m.Read(body, noLimits); err != nil {
		return err
	}
	n, msg, err := s.WriteMetrics(context.Background(), o, m)
	if n > 0 {
		return fmt.Errorf("%d rejected: %s", n, msg)
	}
	return err
}

var fleetOrigin = binnacle.Origin{Managed: true}

// prometheusWrite stores md as Prometheus's OTLP receiver does: its translator
// on an appender.
func prometheusWrite(s *Store, md pmetric.Metrics, nhcb bool) error {
	app := s.db.AppenderV2(context.Background())
	_, err := prometheusremotewrite.NewPrometheusConverter(app).FromMetrics(context.Background(), md, prometheusremotewrite.Settings{
		AddMetricSuffixes:       true,
		ConvertHistogramsToNHCB: nhcb,
		LookbackDelta:           lookback,
		PromoteResourceAttributes: prometheusremotewrite.NewPromoteResourceAttributes(config.OTLPConfig{
			PromoteResourceAttributes: []string{binnacle.AttrGroup, binnacle.AttrProcess},
		}),
	})
	if err != nil {
		_ = app.Rollback()
		return err
	}
	return app.Commit()
}

// BenchmarkIngest measures encoded OTLP to the log on known series, beside
// Prometheus's translator and appender over the same TSDB. One operation is one
// interval of 100 nodes.
func BenchmarkIngest(b *testing.B) {
	const nodes = 100
	run := func(name string, expo bool, form string, write func(*Store, []byte) error) {
		b.Run(name, func(b *testing.B) {
			s := openStore(b, func(o *Options) { o.Histograms = form })
			f := newFleet(nodes, expo)
			f.next()
			for _, body := range f.bodies {
				if err := write(s, body); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportAllocs()
			for b.Loop() {
				b.StopTimer()
				f.next()
				b.StartTimer()
				for _, body := range f.bodies {
					if err := write(s, body); err != nil {
						b.Fatal(err)
					}
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*nodes*pointsPerNode), "ns/point")
		})
	}
	var m wire.Metrics
	ours := func(s *Store, body []byte) error { return ourTake(s, fleetOrigin, &m, body) }
	theirs := func(nhcb bool) func(*Store, []byte) error {
		return func(s *Store, body []byte) error { return prometheusTake(s, body, nhcb) }
	}
	run("explicit/native/ours", false, Native, ours)
	run("explicit/native/prometheus", false, Native, theirs(true))
	run("explicit/classic/ours", false, Classic, ours)
	run("explicit/classic/prometheus", false, Native, theirs(false))
	run("exponential/ours", true, Native, ours)
	run("exponential/prometheus", true, Native, theirs(true))
}

// BenchmarkIngestRatio interleaves ours and Prometheus's on equal payloads and
// reports how many times cheaper ours is, so that load on the machine hits
// both sides.
func BenchmarkIngestRatio(b *testing.B) {
	for _, c := range []struct {
		name string
		expo bool
		form string
		nhcb bool
	}{
		{"explicit to native, both sides", false, Native, true},
		{"explicit to native, prometheus classic", false, Native, false},
		{"explicit to classic, both sides", false, Classic, false},
		{"exponential", true, Native, true},
	} {
		b.Run(c.name, func(b *testing.B) {
			ours, theirs := openStore(b, func(o *Options) { o.Histograms = c.form }), openStore(b)
			f := newFleet(20, c.expo)
			var our, their time.Duration
			var m wire.Metrics
			for round := 0; b.Loop(); round++ {
				f.next()
				for _, body := range f.bodies {
					t0 := time.Now()
					if err := ourTake(ours, fleetOrigin, &m, body); err != nil {
						b.Fatal(err)
					}
					t1 := time.Now()
					if err := prometheusTake(theirs, body, c.nhcb); err != nil {
						b.Fatal(err)
					}
					if round > 0 { // the first makes the series
						our += t1.Sub(t0)
						their += time.Since(t1)
					}
				}
			}
			if our > 0 {
				b.ReportMetric(float64(their)/float64(our), "times-cheaper")
			}
		})
	}
}

// BenchmarkNewSeries measures churn: every point makes a series.
func BenchmarkNewSeries(b *testing.B) {
	for _, who := range []string{"ours", "prometheus"} {
		b.Run(who, func(b *testing.B) {
			s := openStore(b, func(o *Options) { o.MaxSeriesPerInstance = 1 << 30; o.MaxSeries = 1 << 30 })
			n := 0
			var m wire.Metrics
			b.ReportAllocs()
			for b.Loop() {
				b.StopTimer()
				md, ms := gateway("n-1")
				for range 100 {
					n++
					counter(ms, "c", now.Add(-time.Minute), now, 1, "http.route", fmt.Sprintf("/%d", n), "http.request.method", "GET")
				}
				body := encode(md)
				b.StartTimer()
				var err error
				if who == "ours" {
					err = ourTake(s, node1, &m, body)
				} else {
					err = prometheusTake(s, body, true)
				}
				if err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(n), "ns/series")
		})
	}
}

// BenchmarkNewSeriesRatio interleaves ours and Prometheus's on payloads in which
// every series is new, and reports the ratio of the median times of a batch:
// plain counters, and a gateway that comes back as another process, stored
// native or classic on both sides, and native here, classic there.
func BenchmarkNewSeriesRatio(b *testing.B) {
	unlimited := func(o *Options) { o.MaxSeriesPerInstance, o.MaxSeries = 1<<30, 1<<30 }
	n := 0
	counters := func() pmetric.Metrics {
		md, ms := gateway("n-1")
		m := ms.AppendEmpty()
		m.SetName("c")
		sum := m.SetEmptySum()
		sum.SetIsMonotonic(true)
		sum.SetAggregationTemporality(pmetric.AggregationTemporalityCumulative)
		for range 100 {
			n++
			dp := sum.DataPoints().AppendEmpty()
			dp.SetStartTimestamp(stamp(now.Add(-time.Minute)))
			dp.SetTimestamp(stamp(now))
			dp.SetIntValue(1)
			put(dp.Attributes(), "http.route", fmt.Sprintf("/%d", n), "http.request.method", "GET")
		}
		return md
	}
	f := newFleet(1, false)
	restart := func() pmetric.Metrics {
		n++
		f.nodes[0].ResourceMetrics().At(0).Resource().Attributes().PutStr(binnacle.AttrProcess, fmt.Sprint("p-", n))
		return f.nodes[0]
	}
	f.next()
	for _, c := range []struct {
		name string
		next func() pmetric.Metrics
		form string
		nhcb bool
	}{
		{"counters", counters, Native, true},
		{"restart, native on both sides", restart, Native, true},
		{"restart, classic on both sides", restart, Classic, false},
		{"restart, prometheus classic", restart, Native, false},
	} {
		b.Run(c.name, func(b *testing.B) {
			ours, theirs := openStore(b, unlimited, func(o *Options) { o.Histograms = c.form }), openStore(b)
			var our, their []time.Duration
			var m wire.Metrics
			mine := func(body []byte) error { return ourTake(ours, node1, &m, body) }
			timed := func(f func([]byte) error, body []byte) time.Duration {
				t0 := time.Now()
				if err := f(body); err != nil {
					b.Fatal(err)
				}
				return time.Since(t0)
			}
			others := func(body []byte) error { return prometheusTake(theirs, body, c.nhcb) }
			for round := 0; b.Loop(); round++ {
				body := encode(c.next())
				if round%2 == 0 { // neither finds the payload always warm
					our = append(our, timed(mine, body))
				}
				their = append(their, timed(others, body))
				if round%2 == 1 {
					our = append(our, timed(mine, body))
				}
			}
			slices.Sort(our)
			slices.Sort(their)
			b.ReportMetric(float64(our[len(our)/2])/float64(their[len(their)/2]), "of-prometheus")
			b.ReportMetric(float64(our[len(our)/2].Nanoseconds()), "ns/batch")
		})
	}
}
