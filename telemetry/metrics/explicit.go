package metrics

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"sync"

	"github.com/prometheus/prometheus/model/histogram"

	"github.com/binnacle-project/binnacle/otlp/wire"
)

// bounds are the upper bounds of explicit buckets. They are shared by all series
// that have them, and by stored samples, and never change.
type bounds struct {
	raw   string          // as sent
	upper []float64       // rising, without a last +Inf, which says nothing
	les   func() []string // the le values of classic buckets, +Inf last; made when first asked for
}

// newBounds reads bounds as sent.
func newBounds(sent wire.Fixed64s) (*bounds, error) {
	n := sent.Len()
	if n > maxBuckets {
		return nil, fmt.Errorf("histogram has %d bounds: at most %d are stored", n, maxBuckets)
	}
	b := &bounds{raw: string(sent), upper: make([]float64, 0, n)}
	for i := range n {
		v := sent.Float64(i)
		if i == n-1 && math.IsInf(v, 1) {
			break // the data model has no use for it, but senders send it
		}
		if math.IsNaN(v) || i > 0 && v <= b.upper[i-1] {
			return nil, fmt.Errorf("histogram bounds do not rise at %g", v)
		}
		b.upper = append(b.upper, v)
	}
	b.les = sync.OnceValue(func() []string {
		les := make([]string, 0, len(b.upper)+1)
		for _, v := range b.upper {
			les = append(les, formatBound(v))
		}
		return append(les, "+Inf")
	})
	return b, nil
}

// boundsTable shares equal bounds. Safe for concurrent use.
type boundsTable struct {
	mu sync.RWMutex
	m  map[string]*bounds // by raw
}

// maxBounds bounds the table; a fleet has a handful.
const maxBounds = 1024

func (t *boundsTable) get(sent wire.Fixed64s) (*bounds, error) {
	t.mu.RLock()
	b := t.m[string(sent)]
	t.mu.RUnlock()
	if b != nil {
		return b, nil
	}
	b, err := newBounds(sent)
	if err != nil {
		return nil, err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	switch known := t.m[b.raw]; {
	case known != nil:
		return known, nil
	case t.m == nil:
		t.m = map[string]*bounds{}
		fallthrough
	case len(t.m) < maxBounds:
		t.m[b.raw] = b
	}
	return b, nil
}

// explicit is an explicit-bucket histogram being read, added up or encoded.
// counts has one more element than the bounds.
type explicit struct {
	bounds *bounds
	counts []uint64
	count  uint64
	sum    float64
}

// load fills e from a data point, reusing the memory of its counts and, if they
// are equal, the bounds that are known.
func (e *explicit) load(p *wire.Point, known *bounds, table *boundsTable) error {
	n, buckets := p.Bounds.Len(), p.Counts.Len()
	if buckets != n+1 && !(buckets == 0 && n == 0) {
		return fmt.Errorf("histogram has %d bounds and %d buckets: want one bucket more than bounds, or none of both", n, buckets)
	}
	if known == nil || known.raw != string(p.Bounds) {
		var err error
		if known, err = table.get(p.Bounds); err != nil {
			return err
		}
	}
	e.bounds, e.count, e.sum = known, p.Count, p.Sum
	e.counts = slices.Grow(e.counts[:0], n+1)[:n+1]
	for i := range buckets {
		e.counts[i] = p.Counts.Uint64(i)
	}
	if buckets == 0 { // count and sum only
		e.counts[0] = e.count
	}
	if last := len(known.upper); last < n { // its last bound was +Inf
		e.counts[last] += e.counts[n]
		e.counts = e.counts[:n]
	}
	return nil
}

// add adds o, whose bounds must be equal, to e.
func (e *explicit) add(o *explicit) {
	for i, c := range o.counts {
		e.counts[i] += c
	}
	e.count += o.count
	e.sum += o.sum
}

// clone returns a copy that shares only the bounds.
func (e *explicit) clone() *explicit {
	c := *e
	c.counts = slices.Clone(e.counts)
	return &c
}

// wholeSpans are the spans of histograms that are stored with all their buckets.
var wholeSpans = func() (spans [len(smallHistogram{}.room) + 1][]histogram.Span) {
	for n := range spans {
		spans[n] = []histogram.Span{{Length: uint32(n)}}
	}
	return spans
}()

// appendDeltas appends counts as differences.
func appendDeltas(to []int64, counts []uint64) ([]int64, error) {
	var prev int64
	for _, c := range counts {
		if c > math.MaxInt64 {
			return nil, fmt.Errorf("histogram bucket count %d is out of range", c)
		}
		to = append(to, int64(c)-prev)
		prev = int64(c)
	}
	return to, nil
}

// encode returns the stored form: a native histogram with custom buckets. Where
// they are few, as nearly always, it has all of them, empty ones too: these cost a
// bit each, where a bucket that fills later makes the TSDB write the chunk anew.
func (e *explicit) encode(enc *bucketEncoder, s *shape) (*histogram.Histogram, *smallHistogram, error) {
	var h *histogram.Histogram
	var small *smallHistogram
	if len(e.counts) <= len(small.room) {
		small = enc.recycler.get()
		h = &small.Histogram
		var err error
		if h.PositiveBuckets, err = appendDeltas(small.room[:0], e.counts); err != nil {
			return nil, nil, err
		}
		h.Schema = histogram.CustomBucketsSchema
		h.PositiveSpans = wholeSpans[len(e.counts)]
	} else {
		row := dense{counts: e.counts}
		for len(row.counts) > 0 && row.counts[0] == 0 {
			row.counts = row.counts[1:]
			row.offset++
		}
		var err error
		if h, small, err = enc.encode(histogram.CustomBucketsSchema, row, dense{}, 0, s.laidOut()); err != nil {
			return nil, nil, err
		}
	}
	h.CustomValues = e.bounds.upper
	h.Count = e.count
	h.Sum = e.sum
	return h, small, nil
}

// formatBound writes a bound as the le label has it.
func formatBound(v float64) string { return strconv.FormatFloat(v, 'f', -1, 64) }
