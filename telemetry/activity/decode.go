package activity

import (
	"math"

	"github.com/binnacle-project/binnacle/otlp/wire"
)

// readExplicit reads a point into in.cur; false is a malformed one.
func (a *Aggregator) readExplicit(how metric, dp *wire.Point) bool {
	in := &a.in
	upper, n := dp.Bounds, dp.Counts.Len()
	in.counts = in.counts[:0]
	switch {
	case n == 0: // sum and count only
		if dp.Count > maxCount {
			return false
		}
		in.counts = append(in.counts, dp.Count)
		upper = nil
	case n != upper.Len()+1:
		return false
	default:
		for i := range n {
			c := dp.Counts.Uint64(i)
			if c > maxCount {
				return false
			}
			in.counts = append(in.counts, c)
		}
	}
	b, ok := a.layouts.get(upper, how.factor)
	if !ok {
		return false
	}
	in.cur = point{n: in.counts, bounds: b, sum: seconds(dp.Sum, how.factor)}
	in.times(dp.Start, dp.Time)
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
func (a *Aggregator) readExponential(how metric, dp *wire.Point) bool {
	in := &a.in
	exp, offset := int(dp.Scale), int(dp.Positive.Offset)
	if exp < minScale || exp > 20 || len(dp.Positive.Counts) > maxBucketBytes || len(dp.Negative.Counts) > maxBucketBytes ||
		dp.Positive.Counts.Len() > maxBuckets || dp.Negative.Counts.Len() > maxBuckets {
		return false
	}
	p := point{zero: dp.Zero, sum: seconds(dp.Sum, how.factor)}
	if p.zero > maxCount {
		return false
	}
	var c uint64
	for v := dp.Negative.Counts; len(v) > 0; {
		if c, v = v.Next(); c > maxCount {
			return false
		}
		p.zero += c
	}
	kept, first, shift := kept(exp, offset, how.factor)
	var ok bool
	if in.counts, ok = merged(in.counts[:0], dp.Positive.Counts, offset, shift); !ok {
		return false
	}
	p.n, p.exp = in.counts, int8(kept)
	if first < math.MinInt32 || first > math.MaxInt32-maxBuckets {
		return false
	}
	p.offset = int32(first)
	in.cur = p
	in.times(dp.Start, dp.Time)
	return true
}

// kept says how the buckets of scale exp from offset on are kept: at which scale,
// from where on, and by how many powers of two they are merged.
func kept(exp, offset int, factor float64) (scaleKept, first, shift int) {
	shift = max(0, exp-scale)
	first = offset >> shift
	if factor != 1 && exp >= scale {
		// Milliseconds: 2^(-80/8) is 1/1024, so that a bucket moves by 2.4 %.
		first -= 80
	}
	return min(exp, scale), first, shift
}

// merged appends the counts of buckets from offset on, 2^shift neighbors as one;
// false is of a count that nobody means.
func merged(to []uint64, counts wire.Varints, offset, shift int) ([]uint64, bool) {
	var c uint64
	if shift == 0 {
		for v := counts; len(v) > 0; {
			if c, v = v.Next(); c > maxCount {
				return to, false
			}
			to = append(to, c)
		}
		return to, true
	}
	first, j := offset>>shift, 0
	for v := counts; len(v) > 0; j++ {
		if c, v = v.Next(); c > maxCount {
			return to, false
		}
		at := (offset+j)>>shift - first
		for len(to) <= at {
			to = append(to, 0)
		}
		to[at] += c
	}
	return to, true
}

// maxBucketBytes is what maxBuckets take at most.
const maxBucketBytes = maxBuckets * 10

// seconds brings a sum into seconds; what is no number is none.
func seconds(sum, factor float64) float64 {
	if math.IsNaN(sum) || math.IsInf(sum, 0) || sum < 0 {
		return 0
	}
	return sum * factor
}

// times sets the point's times. One of the future is of a clock that is ahead.
func (in *ingest) times(start, t uint64) {
	in.cur.start = int64(min(start, math.MaxInt64))
	in.cur.t = int64(min(t, math.MaxInt64))
	if in.cur.t == 0 || in.cur.t > in.wall {
		in.cur.t = in.wall
	}
	in.cur.start = min(in.cur.start, in.cur.t)
}
