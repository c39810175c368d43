package activity

import (
	"encoding/binary"
	"math"

	"github.com/prometheus/prometheus/model/histogram"
)

// scale is the resolution of all latency that is kept here: each power of two
// is cut into 2^scale buckets, so that a bucket's bounds are 9.05 % apart and
// the middle of one is at most 4.4 % from any value in it. That is finer than
// what a reader of a p99 acts on, and twice as coarse as scale 4, which would
// double the buckets to store, write and query.
const scale = 3

// Buckets are numbered as OTLP does: bucket i holds (2^(i/8), 2^((i+1)/8)]
// seconds. Those outside of minIndex..maxIndex, i.e. of 60 ns to 18 hours, are
// booked on the nearest one.
const (
	minIndex   = -24 << scale
	maxIndex   = 16<<scale - 1
	numIndexes = maxIndex - minIndex + 1
)

func clampIndex(i int) int { return min(max(i, minIndex), maxIndex) }

// lowerBound returns the exclusive lower bound of bucket i in seconds.
func lowerBound(i int) float64 { return math.Exp2(float64(i) / (1 << scale)) }

// indexOf returns the bucket that holds v, which must be positive.
func indexOf(v float64) int {
	frac, exp := math.Frexp(v) // v = frac * 2^exp, frac in [0.5, 1)
	if frac == 0.5 {           // a power of two is the upper bound of its bucket
		return clampIndex((exp-1)<<scale - 1)
	}
	return clampIndex(int(math.Ceil(math.Log2(v)*(1<<scale))) - 1)
}

// bucket is one filled bucket of an increase.
type bucket struct {
	index int
	n     uint64
}

// increase is what happened between two points of a stream. The counts of
// buckets and zero add up to count.
type increase struct {
	count   uint64
	sum     float64 // seconds
	zero    uint64  // observations of (nearly) no time
	buckets []bucket
}

// dense is a histogram to add into: a work space, not a store.
type dense struct {
	zero   uint64
	lo, hi int // filled part of n, as positions; lo > hi when empty
	n      [numIndexes]uint64
}

func newDense() *dense { return &dense{lo: numIndexes, hi: -1} }

// reset empties d at the cost of what was filled.
func (d *dense) reset() {
	if d.lo <= d.hi {
		clear(d.n[d.lo : d.hi+1])
	}
	d.zero, d.lo, d.hi = 0, numIndexes, -1
}

// add puts n observations into bucket index.
func (d *dense) add(index int, n uint64) {
	p := clampIndex(index) - minIndex
	d.n[p] += n
	d.lo, d.hi = min(d.lo, p), max(d.hi, p)
}

func (d *dense) addIncrease(inc *increase) {
	d.zero += inc.zero
	for _, b := range inc.buckets {
		d.add(b.index, b.n)
	}
}

func (d *dense) addDense(o *dense) {
	d.zero += o.zero
	if o.lo > o.hi {
		return
	}
	for p := o.lo; p <= o.hi; p++ {
		d.n[p] += o.n[p]
	}
	d.lo, d.hi = min(d.lo, o.lo), max(d.hi, o.hi)
}

func (d *dense) count() uint64 {
	c := d.zero
	for p := d.lo; p <= d.hi; p++ {
		c += d.n[p]
	}
	return c
}

// quantiles fills out[i] with the qs[i]-quantile in seconds; qs must rise. Within a
// bucket it interpolates by logarithm, as PromQL does for exponential
// histograms, so that the API and a query over the roll-ups agree. An empty
// histogram gives NaN.
func (d *dense) quantiles(qs, out []float64) {
	total := d.count()
	if total == 0 {
		for i := range qs {
			out[i] = math.NaN()
		}
		return
	}
	cum, p := d.zero, d.lo-1
	for i, q := range qs {
		rank := q * float64(total)
		for float64(cum) < rank && p < d.hi {
			p++
			cum += d.n[p]
		}
		if p < d.lo { // within the zero bucket
			out[i] = 0
			continue
		}
		in := 1.0
		if n := d.n[p]; n > 0 {
			in = 1 - (float64(cum)-rank)/float64(n)
		}
		out[i] = math.Exp2((float64(p+minIndex) + in) / (1 << scale))
	}
}

// pack appends d in its compact form, that of the slots in memory and of the
// checkpoint:
//
//	uvarint zero
//	for each filled bucket: uvarint gap from the one before (from minIndex for
//	the first, so that a gap of 0 is the next bucket), uvarint count
func (d *dense) pack(b []byte) []byte {
	b = binary.AppendUvarint(b, d.zero)
	last := -1
	for p := d.lo; p <= d.hi; p++ {
		if d.n[p] == 0 {
			continue
		}
		b = binary.AppendUvarint(b, uint64(p-last-1))
		b = binary.AppendUvarint(b, d.n[p])
		last = p
	}
	return b
}

// addPacked adds what pack wrote. It reports false, having added a part, when
// b is not of that form; counts may wrap, which costs an attacker's own
// checkpoint only.
func (d *dense) addPacked(b []byte) bool {
	zero, n := binary.Uvarint(b)
	if n <= 0 {
		return len(b) == 0
	}
	b = b[n:]
	d.zero += zero
	p := -1
	for len(b) > 0 {
		var gap, c uint64
		if len(b) >= 2 && b[0] < 0x80 && b[1] < 0x80 { // the usual case
			gap, c, b = uint64(b[0]), uint64(b[1]), b[2:]
		} else {
			if gap, n = binary.Uvarint(b); n <= 0 {
				return false
			}
			b = b[n:]
			if c, n = binary.Uvarint(b); n <= 0 {
				return false
			}
			b = b[n:]
		}
		if gap >= numIndexes || p+1+int(gap) >= numIndexes {
			return false
		}
		p += 1 + int(gap)
		d.n[p] += c
		d.lo, d.hi = min(d.lo, p), max(d.hi, p)
	}
	return true
}

// deal shares things out over n equal units of time, one after the other in
// turn, beginning with unit first. Its shares are whole, even, and add up.
type deal struct{ n, first uint64 }

// upTo returns how many of the first total things the units before u got.
func (d deal) upTo(total, u uint64) uint64 {
	dealt := func(total uint64) uint64 { return total/d.n*u + min(total%d.n, u) }
	return dealt(total+d.first) - dealt(d.first)
}

// to returns how many of total things units from to to-1 get.
func (d deal) to(total, from, to uint64) uint64 {
	return d.upTo(total, to) - d.upTo(total, from)
}

// part adds to out what units from to to-1 get of d. The parts of all units
// add up to d exactly, bucket by bucket.
func (d *dense) part(out *dense, by deal, from, to uint64) {
	var before uint64 // observations dealt so far
	share := func(c uint64) uint64 {
		had := by.to(before, from, to)
		before += c
		return by.to(before, from, to) - had
	}
	out.zero += share(d.zero)
	for p := d.lo; p <= d.hi; p++ {
		if got := share(d.n[p]); got > 0 {
			out.add(p+minIndex, got)
		}
	}
}

// cumulative is the ever-growing histogram of one roll-up series.
type cumulative struct {
	count uint64
	sum   float64
	zero  uint64
	base  int // OTLP index of n[0]
	n     []uint64
}

func (c *cumulative) add(inc *increase) {
	c.count += inc.count
	c.sum += inc.sum
	c.zero += inc.zero
	for _, b := range inc.buckets {
		c.at(clampIndex(b.index), b.n)
	}
}

// at adds n to bucket i, growing the range in steps of an octave, because
// neighbors follow.
func (c *cumulative) at(i int, n uint64) {
	if len(c.n) == 0 {
		c.base = i &^ (1<<scale - 1)
		c.n = make([]uint64, 1<<scale)
	}
	if i < c.base {
		base := i &^ (1<<scale - 1)
		grown := make([]uint64, c.base-base+len(c.n))
		copy(grown[c.base-base:], c.n)
		c.base, c.n = base, grown
	}
	if need := i - c.base + 1; need > len(c.n) {
		grown := make([]uint64, (need+1<<scale-1)&^(1<<scale-1))
		copy(grown, c.n)
		c.n = grown
	}
	c.n[i-c.base] += n
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
func (c *cumulative) native() *histogram.Histogram {
	h := &histogram.Histogram{Schema: scale, Count: c.count, Sum: c.sum, ZeroCount: c.zero}
	var prev int64
	next := 0 // index after the last bucket written
	for j, n := range c.n {
		if n == 0 {
			continue
		}
		// Prometheus numbers buckets by their upper bound, OTLP by the lower.
		i := c.base + j + 1
		switch {
		case len(h.PositiveSpans) == 0:
			h.PositiveSpans = append(h.PositiveSpans, histogram.Span{Offset: int32(i), Length: 1})
		case i == next:
			h.PositiveSpans[len(h.PositiveSpans)-1].Length++
		default:
			h.PositiveSpans = append(h.PositiveSpans, histogram.Span{Offset: int32(i - next), Length: 1})
		}
		h.PositiveBuckets = append(h.PositiveBuckets, int64(n)-prev)
		prev, next = int64(n), i+1
	}
	return h
}

// fromNative reads a stored roll-up sample. ok is false for one that this
// package did not write.
func fromNative(h *histogram.Histogram) (c *cumulative, ok bool) {
	if h.Schema != scale || len(h.NegativeBuckets) > 0 {
		return nil, false
	}
	c = &cumulative{count: h.Count, sum: h.Sum, zero: h.ZeroCount}
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
