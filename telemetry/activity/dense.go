package activity

import (
	"encoding/binary"
	"math"
)

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

func (d *dense) addCounts(c *counts) {
	d.zero += c.zero
	if len(c.n) == 0 {
		return
	}
	p := c.base - minIndex
	for j, n := range c.n {
		d.n[p+j] += n
	}
	d.lo, d.hi = min(d.lo, p), max(d.hi, p+len(c.n)-1)
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

// list appends the buckets that are filled, in order.
func (d *dense) list(to []bucket) []bucket {
	for p := d.lo; p <= d.hi; p++ {
		if d.n[p] > 0 {
			to = append(to, bucket{p + minIndex, d.n[p]})
		}
	}
	return to
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
	if d.lo > d.hi {
		return binary.AppendUvarint(b, d.zero)
	}
	return pack(b, d.zero, d.lo, d.n[d.lo:d.hi+1])
}

// pack is the same of c, which must be at scale.
func (c *counts) pack(b []byte) []byte { return pack(b, c.zero, c.base-minIndex, c.n) }

// pack packs counts whose first is at position p.
func pack(b []byte, zero uint64, p int, n []uint64) []byte {
	b = binary.AppendUvarint(b, zero)
	next := 0
	for j, c := range n {
		if c == 0 {
			continue
		}
		if gap := p + j - next; gap < 0x80 && c < 0x80 { // the usual case
			b = append(b, byte(gap), byte(c))
		} else {
			b = binary.AppendUvarint(b, uint64(gap))
			b = binary.AppendUvarint(b, c)
		}
		next = p + j + 1
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
