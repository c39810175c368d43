package activity

import (
	"slices"

	"github.com/prometheus/prometheus/model/histogram"
)

// counts are the counts of neighboring buckets, from base on.
type counts struct {
	zero uint64
	base int // OTLP index of n[0]
	n    []uint64
}

func (c *counts) add(inc *increase) {
	c.zero += inc.zero
	if len(inc.buckets) == 0 {
		return
	}
	c.cover(inc.buckets[0].index, inc.buckets[len(inc.buckets)-1].index)
	for _, b := range inc.buckets {
		c.n[b.index-c.base] += b.n
	}
}

// at adds n to bucket i.
func (c *counts) at(i int, n uint64) {
	c.cover(i, i)
	c.n[i-c.base] += n
}

// octave is how many buckets a power of two has. The counts begin and end with
// whole octaves.
const octave = 1 << scale

// cover makes room for the buckets from lo to hi, in steps of an octave,
// because neighbors follow. Both must be within minIndex and maxIndex.
func (c *counts) cover(lo, hi int) {
	from, to := lo&^(octave-1), (hi+octave)&^(octave-1)
	switch {
	case len(c.n) == 0:
		c.base = from
	case from < c.base:
		c.n = slices.Insert(c.n, 0, make([]uint64, c.base-from)...)
		c.base = from
	}
	if have, need := len(c.n), to-c.base; need > have {
		c.n = slices.Grow(c.n, need-have)[:need]
		clear(c.n[have:])
	}
}

// cumulative is the ever-growing histogram of one roll-up series.
type cumulative struct {
	count uint64
	sum   float64
	counts
}

func (c *cumulative) add(inc *increase) {
	c.count += inc.count
	c.sum += inc.sum
	c.counts.add(inc)
}

// covers reports whether c is at least o in each bucket.
func (c *cumulative) covers(o *cumulative) bool {
	if c.count < o.count || c.zero < o.zero {
		return false
	}
	for j, n := range o.n {
		if n == 0 {
			continue
		}
		i := o.base + j - c.base
		if i < 0 || i >= len(c.n) || c.n[i] < n {
			return false
		}
	}
	return true
}

// addCumulative adds o to c.
func (c *cumulative) addCumulative(o *cumulative) {
	c.count += o.count
	c.sum += o.sum
	c.zero += o.zero
	for j, n := range o.n {
		if n > 0 {
			c.at(o.base+j, n)
		}
	}
}

// since returns what c has beyond o, bucket by bucket and never negative.
func (c *cumulative) since(o *cumulative) increase {
	inc := increase{zero: c.zero - min(c.zero, o.zero), sum: max(0, c.sum-o.sum)}
	inc.count = inc.zero
	for j, n := range c.n {
		if i := c.base + j - o.base; i >= 0 && i < len(o.n) {
			n -= min(n, o.n[i])
		}
		if n > 0 {
			inc.buckets = append(inc.buckets, bucket{c.base + j, n})
			inc.count += n
		}
	}
	return inc
}

func (c *cumulative) clone() *cumulative {
	d := *c
	d.n = append([]uint64(nil), c.n...)
	return &d
}

// native returns c as a Prometheus native histogram. The zero bucket has no
// width: what it holds took no time.
//
// Octaves in which like has anything are written whole, empty buckets too: each
// costs a bit, where a bucket that fills later makes the TSDB write the chunk anew.
// like is c, or what c grows to next.
func (c *cumulative) native(like *cumulative) *histogram.Histogram {
	h := &histogram.Histogram{Schema: scale, Count: c.count, Sum: c.sum, ZeroCount: c.zero}
	filled := 0
	for j := 0; j < len(like.n); j += octave {
		if anyCount(like.n[j : j+octave]) {
			filled += octave
		}
	}
	if filled == 0 {
		return h
	}
	h.PositiveBuckets = make([]int64, 0, filled)
	var prev int64
	next := 0 // index after the last bucket written
	for j := 0; j < len(like.n); j += octave {
		if !anyCount(like.n[j : j+octave]) {
			continue
		}
		// Prometheus numbers buckets by their upper bound, OTLP by the lower.
		i := like.base + j + 1
		if len(h.PositiveSpans) > 0 && i == next {
			h.PositiveSpans[len(h.PositiveSpans)-1].Length += octave
		} else {
			h.PositiveSpans = append(h.PositiveSpans, histogram.Span{Offset: int32(i - next), Length: octave})
		}
		mine := j + like.base - c.base
		for k := range octave {
			var v int64
			if mine >= 0 && mine < len(c.n) {
				v = int64(c.n[mine+k])
			}
			h.PositiveBuckets = append(h.PositiveBuckets, v-prev)
			prev = v
		}
		next = i + octave
	}
	return h
}

func anyCount(n []uint64) bool {
	var all uint64
	for _, v := range n {
		all |= v
	}
	return all != 0
}

// fromNative reads a stored roll-up sample. ok is false for one that this
// package did not write.
func fromNative(h *histogram.Histogram) (c *cumulative, ok bool) {
	if h.Schema != scale || len(h.NegativeBuckets) > 0 {
		return nil, false
	}
	c = &cumulative{count: h.Count, sum: h.Sum, counts: counts{zero: h.ZeroCount}}
	i, k := 0, 0
	var n int64
	for _, s := range h.PositiveSpans {
		i += int(s.Offset)
		for range s.Length {
			if k >= len(h.PositiveBuckets) {
				return nil, false
			}
			n += h.PositiveBuckets[k]
			if n < 0 {
				return nil, false
			}
			if n > 0 {
				c.at(clampIndex(i-1), uint64(n))
			}
			i, k = i+1, k+1
		}
	}
	return c, true
}
