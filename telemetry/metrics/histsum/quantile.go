package histsum

import (
	"math"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser/posrange"
)

// quantiler takes quantiles of a group. It keeps the logarithms of the bounds of
// buckets. The zero value is ready.
type quantiler struct {
	schema int32
	lo     int
	logs   []float64 // of the bounds of bucket lo and those that follow, lower and upper
	sum    histogram.FloatHistogram
}

// of is promql.HistogramQuantile of the group's histogram at a step, of which it
// takes the usual case here: what it is to find lies in a bucket that is
// neither the zero bucket nor a custom one.
func (q *quantiler) of(phi float64, g *group, step int) (float64, error) {
	count := g.count[step] + g.countC[step]
	sum := g.sum[step] + g.sumC[step]
	if g.width == 0 || count == 0 || math.IsNaN(sum) || g.schema == histogram.CustomBucketsSchema {
		return q.slow(phi, g, step)
	}
	n := g.n[step*g.width : (step+1)*g.width]
	c := g.c[step*g.width:][:len(n)]
	var rank, have, here float64
	at := 0
	if phi < 0.5 {
		rank = phi * count
		if zero := g.zero[step] + g.zeroC[step]; zero > 0 {
			if have = zero; have >= rank {
				return q.slow(phi, g, step)
			}
		}
		for at = 0; at < len(n); at++ {
			if here = n[at] + c[at]; here == 0 {
				continue
			}
			if have += here; have >= rank {
				break
			}
		}
	} else {
		rank = (1 - phi) * count
		for at = len(n) - 1; at >= 0; at-- {
			if here = n[at] + c[at]; here == 0 {
				continue
			}
			if have += here; have >= rank {
				break
			}
		}
	}
	if have = min(have, count); have < rank || at < 0 || at == len(n) {
		return q.slow(phi, g, step)
	}
	if phi < 0.5 {
		rank -= have - here
	} else {
		rank = have - rank
	}
	q.cover(g)
	lower, upper := q.logs[g.lo+at-q.lo], q.logs[g.lo+at-q.lo+1]
	fraction := rank / here
	return math.Exp2(lower + (upper-lower)*fraction), nil
}

// cover makes sure of the logarithms that g needs.
func (q *quantiler) cover(g *group) {
	if q.schema == g.schema && len(q.logs) > 0 && g.lo >= q.lo && g.lo+g.width < q.lo+len(q.logs) {
		return
	}
	q.schema, q.lo, q.logs = g.schema, g.lo, q.logs[:0]
	h := histogram.FloatHistogram{
		Schema:          g.schema,
		PositiveSpans:   []histogram.Span{{Offset: int32(g.lo), Length: uint32(g.width)}},
		PositiveBuckets: make([]float64, g.width),
	}
	for it := h.PositiveBucketIterator(); it.Next(); {
		b := it.At()
		if len(q.logs) == 0 {
			q.logs = append(q.logs, math.Log2(b.Lower))
		}
		q.logs = append(q.logs, math.Log2(b.Upper))
	}
}

func (q *quantiler) slow(phi float64, g *group, step int) (float64, error) {
	g.histogram(step, &q.sum)
	v, notes := promql.HistogramQuantile(phi, &q.sum, "", posrange.PositionRange{})
	if len(notes) > 0 {
		return 0, errIrregular // the engine knows where in the query it is
	}
	return v, nil
}
