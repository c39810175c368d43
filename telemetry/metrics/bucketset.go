package metrics

import (
	"context"
	"fmt"
	"math"
	"slices"
	"sort"
	"strings"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/util/annotations"
)

// newBucketSet turns native histogram series into their _bucket{le} series,
// sorted by labels. Each histogram is read once, and its buckets are held in
// memory until the query ends; more than cells of them are an error.
//
// The le values of a histogram with custom buckets are its bounds; when these
// change, a series has samples only while its bound was in use, as classic
// storage would have it. Those of an exponential one are leSteps.
//
// A lookup wants only the labels.
func newBucketSet(ctx context.Context, set storage.SeriesSet, name, base string, le []*labels.Matcher, cells int, lookup bool) storage.SeriesSet {
	out := &bucketSet{inner: set, at: -1}
	steps := leSteps(base)
	it := chunkenc.Iterator(nil)
	for set.Next() {
		if out.err = ctx.Err(); out.err != nil {
			return out
		}
		native := set.At()
		rows := bucketRows{steps: steps, want: func(v string) bool {
			return !slices.ContainsFunc(le, func(m *labels.Matcher) bool { return !m.Matches(v) })
		}}
		it = native.Iterator(it)
		if out.err = rows.read(it, &cells); out.err != nil {
			return out
		}
		b := labels.NewBuilder(native.Labels())
		for _, r := range rows.rows {
			if lookup {
				r.v = nil
			}
			out.series = append(out.series, &bucketSeries{lbls: b.Set(nameLabel, name).Set(leLabel, r.le).Labels(), t: rows.t, row: r})
		}
	}
	out.err = set.Err()
	slices.SortFunc(out.series, func(a, b *bucketSeries) int { return labels.Compare(a.lbls, b.lbls) })
	return out
}

// bucketRows are the buckets of one native series over time.
type bucketRows struct {
	steps []leStep
	want  func(le string) bool

	t    []int64 // times of all samples
	rows map[float64]*bucketRow

	// last is the layout of the sample before, with the row of each bound.
	lastBounds []float64
	lastRows   []*bucketRow
}

// bucketRow is one le: v[i] belongs to t[from+i], or is absent.
type bucketRow struct {
	le   string
	from int
	v    []float64
}

// absent is a NaN of our own for a sample without this le. It is neither the
// marker of staleness nor a NaN that arithmetic makes.
var absent = math.Float64frombits(0x7ff8_0000_b177_ac1e)

func isAbsent(v float64) bool { return math.Float64bits(v) == math.Float64bits(absent) }

// isStale says whether a histogram is the marker that ends a series.
func isStale(h *histogram.FloatHistogram) bool { return value.IsStaleNaN(h.Sum) }

// read takes in all samples. It takes what it holds from cells.
func (b *bucketRows) read(it chunkenc.Iterator, cells *int) error {
	b.rows = map[float64]*bucketRow{}
	var fh histogram.FloatHistogram
	for vt := it.Next(); vt != chunkenc.ValNone; vt = it.Next() {
		if vt == chunkenc.ValFloat {
			continue
		}
		t, h := it.AtFloatHistogram(&fh)
		b.t = append(b.t, t)
		switch {
		case isStale(h):
			for _, r := range b.rows {
				if n := len(b.t) - 1 - r.from; n <= len(r.v) { // was there until now
					b.set(r, h.Sum)
				}
			}
		case h.UsesCustomBuckets():
			b.custom(h)
		default:
			b.exponential(h)
		}
		if *cells -= len(b.lastRows) + 1; *cells < 0 {
			return fmt.Errorf("query loads too many histogram buckets at once: ask for fewer series or a shorter range, or use the native histogram")
		}
	}
	return it.Err()
}

// row returns the row of a bound, made at need; nil if le does not match.
func (b *bucketRows) row(bound float64, le string) *bucketRow {
	r, ok := b.rows[bound]
	if !ok && b.want(le) {
		r = &bucketRow{le: le, from: len(b.t) - 1}
		b.rows[bound] = r
	}
	return r
}

// set gives r its value for the newest time, and marks the times since its last
// one.
func (b *bucketRows) set(r *bucketRow, v float64) {
	if r == nil {
		return
	}
	for len(r.v) < len(b.t)-1-r.from {
		r.v = append(r.v, absent)
	}
	r.v = append(r.v, v)
}

// custom takes in a histogram with custom buckets.
func (b *bucketRows) custom(h *histogram.FloatHistogram) {
	if b.lastRows == nil || !slices.Equal(b.lastBounds, h.CustomValues) {
		b.lastBounds = slices.Clone(h.CustomValues)
		b.lastRows = b.lastRows[:0]
		for _, bound := range h.CustomValues {
			b.lastRows = append(b.lastRows, b.row(bound, formatBound(bound)))
		}
		b.lastRows = append(b.lastRows, b.row(math.Inf(1), "+Inf"))
	}
	sum, bucket := 0.0, 0
	walk := newSpanWalk(h.PositiveSpans, h.PositiveBuckets)
	for ; bucket < len(b.lastRows)-1; bucket++ {
		sum += walk.upTo(int32(bucket))
		b.set(b.lastRows[bucket], sum)
	}
	b.set(b.lastRows[bucket], h.Count)
}

// exponential takes in an exponential histogram at the steps that are
// boundaries of its buckets: these counts are exact.
func (b *bucketRows) exponential(h *histogram.FloatHistogram) {
	b.lastBounds, b.lastRows = nil, nil
	// Below every step, all of which are positive.
	sum := h.ZeroCount
	for _, c := range h.NegativeBuckets {
		sum += c
	}
	walk := newSpanWalk(h.PositiveSpans, h.PositiveBuckets)
	for _, s := range b.steps {
		index, exact := s.index(h.Schema)
		if !exact {
			continue
		}
		sum += walk.upTo(index)
		b.set(b.row(s.bound, s.le), sum)
	}
	b.set(b.row(math.Inf(1), "+Inf"), h.Count)
}

// spanWalk adds up the buckets of a histogram from the lowest on.
type spanWalk struct {
	spans   []histogram.Span
	buckets []float64
	index   int32 // of buckets[0]
	left    uint32
}

func newSpanWalk(spans []histogram.Span, buckets []float64) *spanWalk {
	w := &spanWalk{spans: spans, buckets: buckets}
	w.enter()
	return w
}

// enter moves on to the next span that has buckets.
func (w *spanWalk) enter() {
	for w.left == 0 && len(w.spans) > 0 {
		w.index += w.spans[0].Offset
		w.left = w.spans[0].Length
		w.spans = w.spans[1:]
	}
}

// upTo returns the sum of the buckets up to the index that were not yet
// returned.
func (w *spanWalk) upTo(index int32) float64 {
	sum := 0.0
	for w.left > 0 && w.index <= index && len(w.buckets) > 0 {
		sum += w.buckets[0]
		w.buckets = w.buckets[1:]
		w.index++
		w.left--
		w.enter()
	}
	return sum
}

// leStep is an upper bound that virtual buckets of exponential histograms have:
// 2^(half/2).
type leStep struct {
	half  int32
	bound float64
	le    string
}

// index returns the bucket of a schema whose upper bound the step is, and
// whether there is one.
func (s leStep) index(schema int32) (int32, bool) {
	switch {
	case schema >= 1:
		return s.half << (schema - 1), true
	default: // buckets of 2^(2^-schema): each (1<<(1-schema)) half steps
		width := int32(1) << (1 - schema)
		return s.half / width, s.half%width == 0
	}
}

// leSteps returns the le values of an exponential histogram: powers of the
// square root of 2, which every schema from 1 on has as boundaries, so that
// counts are exact, never fall when a sender lowers its scale, and add up over
// senders. Coarser schemas have every second or fourth of them. The range is
// chosen by the unit in the name.
//
//	_seconds         0.25 ms to 128 s
//	_milliseconds    1/4 to 131,072
//	_bytes           16 to 2^36 (64 GiB)
//	otherwise        1/1024 to 2^20
func leSteps(name string) []leStep {
	lo, hi := int32(-10), int32(20) // powers of two
	switch {
	case strings.HasSuffix(name, "_milliseconds"):
		lo, hi = -2, 17
	case strings.HasSuffix(name, "_seconds"):
		lo, hi = -12, 7
	case strings.HasSuffix(name, "_bytes"):
		lo, hi = 4, 36
	}
	steps := make([]leStep, 0, 2*(hi-lo)+1)
	for half := 2 * lo; half <= 2*hi; half++ {
		bound := math.Ldexp(1, int(half>>1))
		if half&1 != 0 {
			bound = math.Ldexp(math.Sqrt2, int(half>>1))
		}
		steps = append(steps, leStep{half, bound, formatBound(bound)})
	}
	return steps
}

// bucketSet is a list of series made beforehand.
type bucketSet struct {
	inner  storage.SeriesSet // read to its end
	series []*bucketSeries
	at     int
	err    error
}

func (s *bucketSet) Next() bool {
	s.at++
	return s.err == nil && s.at < len(s.series)
}

func (s *bucketSet) At() storage.Series { return s.series[s.at] }

func (s *bucketSet) Err() error { return s.err }

func (s *bucketSet) Warnings() annotations.Annotations { return s.inner.Warnings() }

type bucketSeries struct {
	lbls labels.Labels
	t    []int64
	row  *bucketRow
}

func (s *bucketSeries) Labels() labels.Labels { return s.lbls }

func (s *bucketSeries) Iterator(reuse chunkenc.Iterator) chunkenc.Iterator {
	it, ok := reuse.(*bucketIterator)
	if !ok {
		it = &bucketIterator{}
	}
	*it = bucketIterator{t: s.t[s.row.from:], v: s.row.v, at: -1}
	return it
}

// bucketIterator reads one row, passing over what is absent.
type bucketIterator struct {
	t  []int64
	v  []float64
	at int
}

func (it *bucketIterator) Next() chunkenc.ValueType {
	for it.at++; it.at < len(it.v); it.at++ {
		if !isAbsent(it.v[it.at]) {
			return chunkenc.ValFloat
		}
	}
	it.at = len(it.v)
	return chunkenc.ValNone
}

func (it *bucketIterator) Seek(t unixMillis) chunkenc.ValueType {
	if it.at >= 0 && it.at < len(it.v) && it.t[it.at] >= t {
		return chunkenc.ValFloat
	}
	from := max(it.at, 0)
	if from >= len(it.v) {
		it.at = len(it.v)
		return chunkenc.ValNone
	}
	it.at = from + sort.Search(len(it.v)-from, func(i int) bool { return it.t[from+i] >= t }) - 1
	return it.Next()
}

func (it *bucketIterator) At() (int64, float64) { return it.t[it.at], it.v[it.at] }

func (it *bucketIterator) AtHistogram(*histogram.Histogram) (int64, *histogram.Histogram) {
	panic("BUG: histogram asked of a float series")
}

func (it *bucketIterator) AtFloatHistogram(*histogram.FloatHistogram) (int64, *histogram.FloatHistogram) {
	panic("BUG: histogram asked of a float series")
}

func (it *bucketIterator) AtT() int64 { return it.t[it.at] }

func (it *bucketIterator) AtST() int64 { return 0 }

func (it *bucketIterator) Err() error { return nil }
