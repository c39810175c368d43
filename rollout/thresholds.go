package rollout

import (
	"context"
	"fmt"
	"math"
	"time"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/promql"
)

// slowFactor, slow50Plus and slow99Plus make a threshold of a quantile: a node
// that is somewhat slower than its neighbors is no failure.
const (
	slowFactor = 1.5
	slow50Plus = 0.005
	slow99Plus = 0.010
)

// thresholds returns what slow means: over the quantiles of a window that ends
// at the moment at, by endpoint, and "" for all traffic.
func (r *reader) thresholds(ctx context.Context, s side, window time.Duration, at time.Time) (map[string][2]float64, error) {
	out := make(map[string][2]float64)
	for i, q := range []struct{ quantile, plus float64 }{{0.5, slow50Plus}, {0.99, slow99Plus}} {
		for _, expr := range []string{
			fmt.Sprintf(`histogram_quantile(%g, sum(increase(%s[%s])))`, q.quantile, s.all(), promDuration(window)),
			fmt.Sprintf(`histogram_quantile(%g, sum by (%s, %s) (increase(%s[%s])))`, q.quantile, labelMethod, labelRoute, s.endpoints(""), promDuration(window)),
		} {
			v, err := r.t.Query(ctx, expr, at)
			if err != nil {
				return nil, err
			}
			for _, x := range v {
				name := endpointName(x.Metric)
				if math.IsNaN(x.F) || x.F <= 0 || name == "" && !x.Metric.IsEmpty() {
					continue
				}
				slow := out[name]
				slow[i] = snap(x.F*slowFactor + q.plus)
				out[name] = slow
			}
		}
	}
	for name, slow := range out { // both or none
		if slow[0] == 0 || slow[1] == 0 {
			delete(out, name)
		}
	}
	return out, nil
}

// slowerThan counts the requests over a threshold, which is a bound of buckets.
func slowerThan(threshold float64) func(promql.Sample) float64 {
	return func(s promql.Sample) float64 {
		if s.H == nil {
			return 0
		}
		return countAbove(s.H, threshold)
	}
}

func countAbove(h *histogram.FloatHistogram, threshold float64) float64 {
	n := 0.0
	for it := h.PositiveBucketIterator(); it.Next(); {
		if b := it.At(); b.Lower >= threshold*(1-1e-9) {
			n += b.Count
		}
	}
	return n
}

// snap returns the smallest bound of the roll-ups' buckets that is not under v:
// powers of two, each cut into eight.
func snap(v float64) float64 { return math.Exp2(math.Ceil(8*math.Log2(v)-1e-6) / 8) }
