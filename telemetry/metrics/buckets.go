package metrics

import (
	"fmt"
	"math"
	"slices"

	"github.com/prometheus/prometheus/model/histogram"

	"github.com/binnacle-project/binnacle/otlp/wire"
)

// maxBuckets bounds one side of a histogram. SDKs send at most 160; a longer
// row of exponential buckets is merged, one of explicit buckets refused.
const maxBuckets = 2048

// dense is a row of buckets as OTLP has them: counts[i] is the count of the
// bucket with index offset+i. It begins and ends with a count that is not 0,
// or is empty.
type dense struct {
	offset int32
	counts []uint64
}

// load fills d from a payload's row of n buckets, reusing its memory.
func (d *dense) load(src wire.Buckets, n int) {
	d.counts = slices.Grow(d.counts[:0], n)
	d.offset = src.Offset
	filled := 0 // length without empty buckets at the end
	var c uint64
	for v := src.Counts; len(v) > 0; {
		if c, v = v.Next(); c != 0 {
			d.counts = append(d.counts, c)
			filled = len(d.counts)
		} else if filled == 0 {
			d.offset++
		} else {
			d.counts = append(d.counts, 0)
		}
	}
	d.counts = d.counts[:filled]
}

// downscale merges 2^by neighbors into one, as a scale lower by `by` has them.
func (d *dense) downscale(by int32) {
	if by <= 0 || len(d.counts) == 0 {
		return
	}
	if by > 31 {
		by = 31 // all of int32 is then in two buckets
	}
	first := d.offset >> by
	last := int32(0)
	for i, c := range d.counts {
		d.counts[i] = 0
		at := (d.offset+int32(i))>>by - first
		d.counts[at] += c
		last = at
	}
	d.counts = d.counts[:last+1]
	d.offset = first
}

// add adds o, of the same scale, to d.
func (d *dense) add(o dense) {
	switch {
	case len(o.counts) == 0:
		return
	case len(d.counts) == 0:
		d.offset = o.offset
		d.counts = append(d.counts, o.counts...)
		return
	}
	if gap := int(d.offset) - int(o.offset); gap > 0 {
		d.counts = slices.Insert(d.counts, 0, make([]uint64, gap)...)
		d.offset = o.offset
	}
	at := int(o.offset) - int(d.offset)
	if need := at + len(o.counts); need > len(d.counts) {
		d.counts = append(d.counts, make([]uint64, need-len(d.counts))...)
	}
	for i, c := range o.counts {
		d.counts[at+i] += c
	}
}

// width returns how many buckets d and o together span.
func width(d, o dense) int64 {
	switch {
	case len(d.counts) == 0:
		return int64(len(o.counts))
	case len(o.counts) == 0:
		return int64(len(d.counts))
	}
	lo := min(int64(d.offset), int64(o.offset))
	hi := max(int64(d.offset)+int64(len(d.counts)), int64(o.offset)+int64(len(o.counts)))
	return hi - lo
}

// layout remembers where the buckets of a series were last, so that samples of
// equal layout share their spans: nobody changes spans once stored.
type layout struct {
	pos, neg []histogram.Span
}

// laidOut returns the layout of s, which it keeps.
func (s *shape) laidOut() *layout {
	if s.layout == nil {
		s.layout = &layout{}
	}
	return s.layout
}

// bucketEncoder turns rows of buckets into Prometheus's spans and deltas. It is
// scratch memory; not safe for concurrent use.
type bucketEncoder struct {
	spans    []histogram.Span
	deltas   []int64
	recycler recycler
}

// maxGap is how many empty buckets are written out rather than begin another
// span, which costs as much. Prometheus does the same.
const maxGap = 2

// side encodes one row and returns spans that may be shared with known, and
// how many deltas it added to e.deltas. shift is what an index differs by:
// OTLP's exponential bucket i is Prometheus's i+1.
func (e *bucketEncoder) side(d dense, shift int32, known []histogram.Span) ([]histogram.Span, int, error) {
	if len(d.counts) == 0 {
		return nil, 0, nil
	}
	if int64(d.offset)+int64(len(d.counts))+int64(shift) > math.MaxInt32 {
		return nil, 0, fmt.Errorf("histogram bucket index %d is out of range", int64(d.offset)+int64(len(d.counts)))
	}
	e.spans = append(e.spans[:0], histogram.Span{Offset: d.offset + shift})
	begin := len(e.deltas)
	var prev int64
	empty := 0
	for _, c := range d.counts {
		if c == 0 {
			empty++
			continue
		}
		if c > math.MaxInt64 {
			return nil, 0, fmt.Errorf("histogram bucket count %d is out of range", c)
		}
		if empty > maxGap {
			e.spans = append(e.spans, histogram.Span{Offset: int32(empty)})
		} else {
			for range empty {
				e.deltas = append(e.deltas, -prev)
				prev = 0
				e.spans[len(e.spans)-1].Length++
			}
		}
		empty = 0
		e.deltas = append(e.deltas, int64(c)-prev)
		prev = int64(c)
		e.spans[len(e.spans)-1].Length++
	}
	n := len(e.deltas) - begin
	if slices.Equal(e.spans, known) {
		return known, n, nil
	}
	return slices.Clone(e.spans), n, nil
}

// encode makes the stored form of rows at the given schema and remembers its
// layout in l. It lies in small, unless it is too large for one: then small is
// nil.
func (e *bucketEncoder) encode(schema int32, pos, neg dense, shift int32, l *layout) (h *histogram.Histogram, small *smallHistogram, err error) {
	e.deltas = e.deltas[:0]
	ps, np, err := e.side(pos, shift, l.pos)
	if err != nil {
		return nil, nil, err
	}
	ns, nn, err := e.side(neg, shift, l.neg)
	if err != nil {
		return nil, nil, err
	}
	l.pos, l.neg = ps, ns

	var room []int64
	if n := np + nn; n <= len(small.room) {
		small = e.recycler.get()
		h, room = &small.Histogram, small.room[:n:n]
	} else {
		h, room = &histogram.Histogram{}, make([]int64, n)
	}
	copy(room, e.deltas)
	h.Schema = schema
	h.PositiveSpans, h.NegativeSpans = ps, ns
	if np > 0 {
		h.PositiveBuckets = room[:np:np]
	}
	if nn > 0 {
		h.NegativeBuckets = room[np:]
	}
	return h, small, nil
}
