package metrics

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"go.opentelemetry.io/collector/pdata/pmetric"
)

// TestAgreesWithPrometheus stores random payloads by our path and by
// Prometheus's own OTLP translator, and wants the same series with the same
// values. What differs on purpose (identity labels, zero samples, exported_
// names, empty values of colliding keys) stays out of the payloads or of the
// comparison; so do scales above 8, where that version misplaces what follows
// an empty bucket (TestDownscale has them).
func TestAgreesWithPrometheus(t *testing.T) {
	for _, form := range []string{Native, Classic} {
		for seed := range uint64(8) {
			t.Run(fmt.Sprintf("%s/%d", form, seed), func(t *testing.T) {
				ours, theirs := openStore(t, func(o *Options) { o.Histograms = form }), openStore(t)
				r := rand.New(rand.NewPCG(seed, 1))
				for range 3 {
					md := randomPayload(r)
					write(t, ours, node1, md)
					if err := prometheusWrite(theirs, md, form == Native); err != nil {
						t.Fatal(err)
					}
				}
				got, want := query(t, ours, `{__name__!=""}`, now), query(t, theirs, `{__name__!=""}`, now)
				for _, l := range got {
					if !slices.Contains(want, l) {
						t.Errorf("only ours:        %s", l)
					}
				}
				for _, l := range want {
					if !slices.Contains(got, l) {
						t.Errorf("only prometheus's: %s", l)
					}
				}
				if len(got) < 5 {
					t.Errorf("only %d series: the test shows nothing", len(got))
				}
			})
		}
	}
}

// randomPayload makes one resource with metrics of every type, with names,
// units and attributes of the kinds that senders use and some that they should
// not. All points are of the time now, so that each payload adds new series.
func randomPayload(r *rand.Rand) pmetric.Metrics {
	pick := func(of ...string) string { return of[r.IntN(len(of))] }
	md, ms := payloadOf("service.name", pick("a", "b"), "service.instance.id", fmt.Sprint(r.IntN(1000)), "host.name", "h", "k8s.pod.uid", "u")
	if r.IntN(2) == 0 {
		md.ResourceMetrics().At(0).Resource().Attributes().PutStr("service.namespace", "ns")
	}
	start := now.Add(-time.Minute)
	attrs := func(i int) []string {
		kv := []string{"i", fmt.Sprint(i), "empty", ""}
		for range r.IntN(4) {
			kv = append(kv, pick("http.route", "http/route", "9lives", "_under", "ünïcode", "a b", "x__y", "Case"), pick("v", "ä", "1", "long "+strings.Repeat("x", 50)))
		}
		return kv
	}
	for n := range 6 + r.IntN(10) {
		name := pick("http.server.request.duration", "process.cpu.time", "queue size", "jvm.memory.used", "2nd.metric", "already_total", "a.ratio", "x/y") + fmt.Sprint(".", n)
		unit := pick("", "1", "s", "ms", "By", "%", "{request}", "m/s", "By/s")
		at := ms.Len()
		points := 1 + r.IntN(3)
		for i := range points {
			switch n % 5 {
			case 0:
				gauge(ms, name, now, float64(r.IntN(100)), attrs(i)...)
			case 1:
				counter(ms, name, start, now, int64(r.IntN(100)), attrs(i)...)
				ms.At(ms.Len() - 1).Sum().SetIsMonotonic(r.IntN(2) == 0)
			case 2:
				counts := make([]uint64, r.IntN(20))
				for k := range counts {
					counts[k] = uint64(r.IntN(3) * r.IntN(5))
				}
				dp := exponential(ms, name, start, now, int32(r.IntN(13)-4), int32(r.IntN(200)-100), counts, 3.5, attrs(i)...)
				dp.SetZeroCount(uint64(r.IntN(3)))
				dp.SetCount(dp.Count() + dp.ZeroCount())
			case 3:
				explicitHistogram(ms, name, start, now, []float64{0.005, 1, 2.5, 1000000}, []uint64{uint64(r.IntN(3)), 0, uint64(r.IntN(9)), 0, uint64(r.IntN(2))}, 3.5, attrs(i)...)
			case 4:
				m := ms.AppendEmpty()
				m.SetName(name)
				dp := m.SetEmptySummary().DataPoints().AppendEmpty()
				dp.SetTimestamp(stamp(now))
				dp.SetCount(4)
				dp.SetSum(2)
				q := dp.QuantileValues().AppendEmpty()
				q.SetQuantile(0.5)
				q.SetValue(r.Float64())
				put(dp.Attributes(), attrs(i)...)
			}
		}
		for i := at; i < ms.Len(); i++ {
			ms.At(i).SetUnit(unit)
		}
	}
	return md
}
