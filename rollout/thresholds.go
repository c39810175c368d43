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
	fineness, err := r.fineness(ctx, s, window, at)
	if err != nil {
		return nil, err
	}
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
				slow[i] = snap(x.F*slowFactor+q.plus, fineness)
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

// fineness returns into how many buckets the roll-ups of a side cut each power of
// two, by the coarsest of them: a bound of those is a bound of all.
func (r *reader) fineness(ctx context.Context, s side, window time.Duration, at time.Time) (float64, error) {
	schema := finest
	for _, selector := range []string{s.all(), s.endpoints("")} {
		v, err := r.t.Query(ctx, fmt.Sprintf("sum(last_over_time(%s[%s]))", selector, promDuration(window)), at)
		if err != nil {
			return 0, err
		}
		for _, x := range v {
			if x.H != nil {
				schema = min(schema, x.H.Schema)
			}
		}
	}
	return math.Exp2(float64(schema)), nil
}

// finest is the schema of the finest roll-ups: each power of two is cut into
// eight.
const finest int32 = 3

// snap returns the smallest bound of the roll-ups' buckets that is not under v,
// where they cut each power of two into fineness.
func snap(v, fineness float64) float64 {
	return math.Exp2(math.Ceil(fineness*math.Log2(v)-1e-6) / fineness)
}
