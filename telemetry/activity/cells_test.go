package activity

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/pmetric"

	"github.com/binnacle-project/binnacle"
)

// TestCellsChangeNothing feeds the same random exports to an aggregator that
// finds its streams by cells and to one that looks them up, with all that ends the
// short way: resets, other layouts, late and repeated exports, other revisions,
// forgotten nodes.
func TestCellsChangeNothing(t *testing.T) {
	for seed := range uint64(40) {
		r := rand.New(rand.NewPCG(seed, 1))
		now := time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)
		open := func() *Aggregator {
			a, err := Open(Options{})
			if err != nil {
				t.Fatal(err)
			}
			a.in.now = func() time.Time { return now }
			return a
		}
		with, without, c := open(), open(), cells{}
		start, revision := now, binnacle.Revision(1)
		bounds := []float64{0.01, 0.1, 1}
		counts := map[string][]uint64{}
		var last pmetric.Metrics
		for step := range 60 {
			now = now.Add(time.Duration(1+r.IntN(20)) * time.Second)
			switch r.IntN(20) {
			case 0:
				start, counts = now.Add(-time.Second), map[string][]uint64{}
			case 1:
				bounds = []float64{0.01, 0.1, float64(1 + r.IntN(3))}
			case 2:
				revision++
			case 3:
				with.Forget("n1")
				without.Forget("n1")
			case 4:
				clear(counts) // falls without a new start
			}
			md := pmetric.NewMetrics()
			if step > 0 && r.IntN(10) == 0 {
				md = last // comes twice
			} else {
				rm := md.ResourceMetrics().AppendEmpty()
				rm.Resource().Attributes().PutStr("service.name", "binnacle-gateway")
				for scope := range 2 {
					sm := rm.ScopeMetrics().AppendEmpty()
					sm.Scope().SetName(fmt.Sprint("scope", scope))
					m := sm.Metrics().AppendEmpty()
					m.SetName(binnacle.MetricServerDuration)
					m.SetUnit([]string{"s", "ms"}[scope])
					exponential := seed%2 == 1
					if exponential {
						m.SetEmptyExponentialHistogram().SetAggregationTemporality(pmetric.AggregationTemporalityCumulative)
					} else {
						m.SetEmptyHistogram().SetAggregationTemporality(pmetric.AggregationTemporalityCumulative)
					}
					for _, i := range r.Perm(4) {
						if r.IntN(5) == 0 {
							continue
						}
						at := now.Add(-time.Duration(r.IntN(2)*r.IntN(30)) * time.Second)
						attributes := func(m pcommon.Map) {
							m.PutStr("http.route", fmt.Sprint("/", i))
							m.PutInt("http.response.status_code", int64(200+100*i))
						}
						key := fmt.Sprint(scope, i)
						if counts[key] == nil {
							counts[key] = make([]uint64, 4)
						}
						var n uint64
						for k := range counts[key] {
							counts[key][k] += uint64(r.IntN(12))
							n += counts[key][k]
						}
						if exponential { // bounds are a scale of 0 to 9, and more buckets at either end
							dp := m.ExponentialHistogram().DataPoints().AppendEmpty()
							times(dp, start, at)
							attributes(dp.Attributes())
							grown := int(counts[key][0]) / 50
							dp.SetScale(int32(3*bounds[2] - 3 + float64(i)))
							dp.SetZeroCount(counts[key][3])
							dp.Positive().SetOffset(int32(-20 - grown/3))
							dp.Positive().BucketCounts().FromRaw(append(make([]uint64, grown), counts[key][:1+r.IntN(4)]...))
							dp.SetSum(float64(n) / 8)
							continue
						}
						dp := m.Histogram().DataPoints().AppendEmpty()
						times(dp, start, at)
						attributes(dp.Attributes())
						dp.ExplicitBounds().FromRaw(bounds)
						dp.BucketCounts().FromRaw(counts[key])
						dp.SetCount(n)
						dp.SetSum(float64(n) / 8)
					}
				}
				last = md
			}
			o := managed("n1", "default", revision)
			feedBytes(t, with, o, md, c)
			feedBytes(t, without, o, md, nil)
		}
		got, want := dump(with), dump(without)
		if !slices.Equal(got, want) {
			t.Fatalf("seed %d:\n with cells %q\n without    %q", seed, got, want)
		}
		if len(want) < 8 {
			t.Fatalf("seed %d: only %d aggregates: the test shows nothing", seed, len(want))
		}
	}
}

// dump tells all that an aggregator has counted.
func dump(a *Aggregator) (out []string) {
	for id, k := range a.keys.byID {
		out = append(out, fmt.Sprint("key ", id, k.total, k.lastFed, k.open, k.rings))
	}
	for id, r := range a.rollups {
		out = append(out, fmt.Sprint("roll-up ", id, r.cum))
	}
	slices.Sort(out)
	return out
}
