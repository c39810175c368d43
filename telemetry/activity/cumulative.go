package activity

import (
	"slices"

	"github.com/prometheus/prometheus/model/histogram"
)

// counts are the counts of neighboring buckets, from base on.
type counts struct {
	zero    uint64
	base    int // OTLP index of n[0], at scale-coarser
	n       []uint64
	coarser uint8 // at most maxCoarser
}

func (c *counts) add(inc *increase) {
	c.zero += inc.zero
	if len(inc.buckets) == 0 {
		return
	}
	c.cover(inc.buckets[0].index>>c.coarser, inc.buckets[len(inc.buckets)-1].index>>c.coarser)
	for _, b := range inc.buckets {
		c.n[b.index>>c.coarser-c.base] += b.n
	}
}

// at adds n to bucket i.
func (c *counts) at(i int, n uint64) {
	c.cover(i, i)
	c.n[i-c.base] += n
}

// octave is how many buckets a power of two has. The counts begin and end with
// whole octaves.
func (c *counts) octave() int { return 1 << (scale - c.coarser) }

// whole reports whether c.n, beginning at base, is of whole octaves.
func (c *counts) whole(base int) bool { return base%c.octave() == 0 && len(c.n)%c.octave() == 0 }

// coarsen merges neighbors until c is as coarse as to; it never gets finer.
func (c *counts) coarsen(to uint8) {
	if to > c.coarser {
		c.base, c.n = downscale(c.n, c.base, c.n, int(to-c.coarser))
		c.coarser = to
	}
}

// cover makes room for the buckets from lo to hi, in steps of an octave,
// because neighbors follow. Both must be within minIndex and maxIndex, in
// buckets as wide as c's.
func (c *counts) cover(lo, hi int) {
	octave := c.octave()
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
	c.coarsen(inc.coarser)
	c.count += inc.count
	c.sum += inc.sum
	if inc.spread { // so that a sample's layout changes once for a bucket of the sender's
		c.cover(int(inc.lo)>>c.coarser, int(inc.hi)>>c.coarser)
	}
	c.counts.add(inc)
}

// alike returns c and o as coarse as the coarser of them.
func (c *cumulative) alike(o *cumulative) (*cumulative, *cumulative) {
	switch {
	case c.coarser < o.coarser:
		c = c.clone()
		c.coarsen(o.coarser)
	case c.coarser > o.coarser:
		o = o.clone()
		o.coarsen(c.coarser)
	}
	return c, o
}

// covers reports whether c is at least o in each bucket.
func (c *cumulative) covers(o *cumulative) bool {
	c, o = c.alike(o)
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
	c.coarsen(o.coarser)
	_, o = c.alike(o)
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
	c, o = c.alike(o)
	inc := increase{zero: c.zero - min(c.zero, o.zero), sum: max(0, c.sum-o.sum), coarser: c.coarser}
	inc.count = inc.zero
	for j, n := range c.n {
		if i := c.base + j - o.base; i >= 0 && i < len(o.n) {
			n -= min(n, o.n[i])
		}
		if n > 0 {
			tellExponential(c.base+j, scale-int(c.coarser), n, &inc)
		}
	}
	return inc
}

func (c *cumulative) clone() *cumulative {
	d := &cumulative{}
	d.set(c)
	return d
}

// set makes c a copy of o, in its own memory.
func (c *cumulative) set(o *cumulative) {
	mine := c.n
	*c = *o
	c.n = append(mine[:0], o.n...)
}

// sample is a histogram with room for the spans and buckets of most, in one
// allocation.
type sample struct {
	histogram.Histogram
	spans   [2]histogram.Span
	buckets [24]int64
}

// native returns c as a Prometheus native histogram. The zero bucket has no
// width: what it holds took no time.
//
// Octaves are written whole, and empty ones too but for a long row of them between
// others: an empty bucket costs a bit, where one that fills later makes the TSDB
// write the chunk anew. like is c, or what c grows to next, which may be coarser.
func (c *cumulative) native(like *cumulative) *histogram.Histogram {
	if c.coarser != like.coarser {
		c, like = c.alike(like)
	}
	mem := &sample{}
	h := &mem.Histogram
	h.Schema, h.Count, h.Sum, h.ZeroCount = scale-int32(like.coarser), c.count, c.sum, c.zero
	if len(like.n) == 0 {
		return h
	}
	h.PositiveSpans, h.PositiveBuckets = mem.spans[:0], mem.buckets[:0]
	written := 0
	for from := 0; from < len(like.n); {
		to, after := like.row(from)
		written, from = written+to-from, after
	}
	if written > len(mem.buckets) {
		h.PositiveBuckets = make([]int64, 0, written)
	}
	var prev int64
	next := 0 // index after the last bucket written
	for from := 0; from < len(like.n); {
		to, after := like.row(from)
		// Prometheus numbers buckets by their upper bound, OTLP by the lower.
		i := like.base + from + 1
		h.PositiveSpans = append(h.PositiveSpans, histogram.Span{Offset: int32(i - next), Length: uint32(to - from)})
		next = i + to - from
		for j := from + like.base - c.base; j < to+like.base-c.base; j++ {
			var v int64
			if j >= 0 && j < len(c.n) {
				v = int64(c.n[j])
			}
			h.PositiveBuckets = append(h.PositiveBuckets, v-prev)
			prev = v
		}
		from = after
	}
	return h
}

// shortRow is how many empty buckets in a row are written all the same.
const shortRow = 8

// row returns where the octaves from from on that are written end, and where the
// next begin: after a row of empty ones that is longer than shortRow.
func (c *counts) row(from int) (to, next int) {
	octave, filled := c.octave(), -1
	for j := from; j < len(c.n); j += octave {
		if !anyCount(c.n[j : j+octave]) {
			continue
		}
		if filled >= 0 && j-filled > shortRow {
			return filled, j
		}
		filled = j + octave
	}
	return len(c.n), len(c.n)
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
	if h.Schema > scale || h.Schema < scale-maxCoarser || len(h.NegativeBuckets) > 0 {
		return nil, false
	}
	c = &cumulative{count: h.Count, sum: h.Sum, counts: counts{zero: h.ZeroCount, coarser: uint8(scale - h.Schema)}}
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
				c.at(min(max(i-1, minIndex>>c.coarser), maxIndex>>c.coarser), uint64(n))
			}
			i, k = i+1, k+1
		}
	}
	return c, true
}
