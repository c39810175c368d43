package activity

import (
	"math"

	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/pmetric"
)

// readExplicit reads a point into in.cur; false is a malformed one.
func (a *Aggregator) readExplicit(how metric, dp pmetric.HistogramDataPoint) bool {
	in := &a.in
	upper, counts := dp.ExplicitBounds(), dp.BucketCounts()
	in.counts = in.counts[:0]
	switch {
	case counts.Len() == 0: // sum and count only
		if dp.Count() > maxCount {
			return false
		}
		in.counts = append(in.counts, dp.Count())
		upper = pcommon.NewFloat64Slice()
	case counts.Len() != upper.Len()+1:
		return false
	default:
		for i := range counts.Len() {
			if counts.At(i) > maxCount {
				return false
			}
			in.counts = append(in.counts, counts.At(i))
		}
	}
	b, ok := a.layouts.get(upper.Len(), upper.At, how.factor)
	if !ok {
		return false
	}
	in.cur = point{n: in.counts, bounds: b, sum: seconds(dp.Sum(), how.factor)}
	in.times(dp.StartTimestamp(), dp.Timestamp())
	return true
}

// maxBuckets bounds an exponential point. SDKs use at most 160; 20 octaves at
// the finest scale that is read are 2^20 * 20, which nobody means.
const maxBuckets = 1 << 16

// maxCount bounds each count of a point, so that a made-up one cannot make a
// total wrap around: a million streams of it fit. It is five years of 100,000
// requests a second.
const maxCount = 1 << 44

// minScale is the coarsest scale that is read: one bucket for 2^1024.
const minScale = -10

// readExponential reads a point into in.cur; false is a malformed one.
// Negative observations, which durations cannot have, count as none at all
// long.
func (a *Aggregator) readExponential(how metric, dp pmetric.ExponentialHistogramDataPoint) bool {
	in := &a.in
	exp, offset := int(dp.Scale()), int(dp.Positive().Offset())
	n := dp.Positive().BucketCounts()
	if exp < minScale || exp > 20 || n.Len() > maxBuckets {
		return false
	}
	p := point{zero: dp.ZeroCount(), sum: seconds(dp.Sum(), how.factor)}
	if p.zero > maxCount || dp.Negative().BucketCounts().Len() > maxBuckets {
		return false
	}
	for _, c := range dp.Negative().BucketCounts().All() {
		if c > maxCount {
			return false
		}
		p.zero += c
	}
	shift := max(0, exp-scale)
	first := offset >> shift
	in.counts = in.counts[:0]
	for j, c := range n.All() {
		if c > maxCount {
			return false
		}
		at := (offset+j)>>shift - first
		for len(in.counts) <= at {
			in.counts = append(in.counts, 0)
		}
		in.counts[at] += c
	}
	p.n, p.exp = in.counts, int8(min(exp, scale))
	if how.factor != 1 && p.exp == scale {
		// Milliseconds: 2^(-80/8) is 1/1024, so that a bucket moves by 2.4 %.
		first -= 80
	}
	if first < math.MinInt32 || first > math.MaxInt32-maxBuckets {
		return false
	}
	p.offset = int32(first)
	in.cur = p
	in.times(dp.StartTimestamp(), dp.Timestamp())
	return true
}

// seconds brings a sum into seconds; what is no number is none.
func seconds(sum, factor float64) float64 {
	if math.IsNaN(sum) || math.IsInf(sum, 0) || sum < 0 {
		return 0
	}
	return sum * factor
}

// times sets the point's times. One of the future is of a clock that is ahead.
func (in *ingest) times(start, t pcommon.Timestamp) {
	in.cur.start = int64(min(start, math.MaxInt64))
	in.cur.t = int64(min(t, math.MaxInt64))
	if in.cur.t == 0 || in.cur.t > in.wall {
		in.cur.t = in.wall
	}
	in.cur.start = min(in.cur.start, in.cur.t)
}
