package traces

import (
	"encoding/binary"
	"math/bits"
)

// rowSet is a set of rows of a block: what the index says may match.
type rowSet struct {
	n     int      // rows of the block
	words []uint64 // nil: all of them
}

func (r *rowSet) has(row int) bool {
	return r.words == nil || row < r.n && r.words[row/64]>>(row%64)&1 != 0
}

// few reports whether it has at most limit rows.
func (r *rowSet) few(limit int) bool {
	if r.words == nil {
		return r.n <= limit
	}
	n := 0
	for _, w := range r.words {
		n += bits.OnesCount64(w)
	}
	return n <= limit
}

// any reports whether it has one of the rows from … to.
func (r *rowSet) any(from, to int) bool {
	for row := from; row < to; row++ {
		if r.has(row) {
			return true
		}
	}
	return false
}

func (r *rowSet) empty() bool {
	if r.words == nil {
		return r.n == 0
	}
	for _, w := range r.words {
		if w != 0 {
			return false
		}
	}
	return true
}

// and keeps the rows that a posting has. An error leaves what it cannot decide.
func (r *rowSet) and(posting []byte) error {
	p := reader{b: posting}
	kind := p.byte()
	if kind == postingAny {
		return p.err
	}
	words := make([]uint64, (r.n+63)/64)
	switch kind {
	case postingRows, postingBut:
		row := -1
		for len(p.b) > 0 {
			row += int(p.below(r.n)) + 1
			if row >= r.n {
				p.fail()
			}
			if p.err != nil {
				return p.err
			}
			words[row/64] |= 1 << (row % 64)
		}
		if kind == postingBut {
			for i := range words {
				words[i] = ^words[i]
			}
			if n := r.n % 64; n != 0 {
				words[len(words)-1] &= 1<<n - 1
			}
		}
	case postingBits:
		for i := range words {
			words[i] = binary.LittleEndian.Uint64(p.take8())
		}
		if p.err != nil {
			return p.err
		}
	default:
		return errBadKind
	}
	r.keep(words)
	return nil
}

func (r *rowSet) keep(words []uint64) {
	if r.words == nil {
		r.words = words
		return
	}
	for i := range r.words {
		r.words[i] &= words[i]
	}
}

// durations keeps the rows whose class is between two; classes that are too
// few decide nothing.
func (r *rowSet) durations(classes []byte, lo, hi byte) {
	if len(classes) < r.n {
		return
	}
	if r.words == nil {
		r.words = make([]uint64, (r.n+63)/64)
		for row := range r.n {
			if c := classes[row]; c >= lo && c <= hi {
				r.words[row/64] |= 1 << (row % 64)
			}
		}
		return
	}
	for i, w := range r.words {
		for ; w != 0; w &= w - 1 {
			row := i*64 + bits.TrailingZeros64(w)
			if row >= r.n {
				break
			}
			if c := classes[row]; c < lo || c > hi {
				r.words[i] &^= 1 << (row % 64)
			}
		}
	}
}

// lookUp keeps the rows that may have a term, by the page of its hash.
func (r *rowSet) lookUp(page []byte, h uint64) error {
	p := reader{b: page}
	bloom := p.bytes()
	for n := p.count(6); n > 0 && p.err == nil; n-- {
		low := p.take(4)
		posting := p.bytes()
		if p.err == nil && binary.LittleEndian.Uint32(low) == uint32(h) {
			return r.and(posting)
		}
	}
	if p.err != nil {
		return p.err
	}
	if !bloomHas(bloom, h) {
		r.words = []uint64{}
		r.n = 0
	}
	return nil
}
