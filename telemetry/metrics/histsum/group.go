package histsum

import (
	"slices"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/util/kahansum"
)

// group is the sum of the series with the same labels, one histogram for each
// step. Like the engine it adds with a compensation for what rounding loses.
type group struct {
	steps int
	seen  []bool
	// schema and bounds are those of all its series; of none yet if !known.
	known  bool
	schema int32
	bounds []float64
	// count, sum and zero of each step, and their compensations.
	count, sum, zero    []float64
	countC, sumC, zeroC []float64
	// Buckets lo … lo+width of each step, and their compensations.
	lo, width int
	n, c      []float64
	diff      []float64 // of one series at one step
	spaces    []spacing // of each step
}

func (g *group) reset(steps int) {
	g.steps, g.lo, g.width, g.known = steps, 0, 0, false
	g.seen = zeroed(g.seen, steps)
	for _, f := range []*[]float64{&g.count, &g.sum, &g.zero, &g.countC, &g.sumC, &g.zeroC} {
		*f = zeroed(*f, steps)
	}
	g.n, g.c = g.n[:0], g.c[:0]
	g.spaces = zeroed(g.spaces, steps)
}

// zeroed returns n zeros, in the memory of s if there is enough.
func zeroed[T any](s []T, n int) []T {
	if cap(s) < n {
		return make([]T, n)
	}
	s = s[:n]
	clear(s)
	return s
}

// cover makes room for the buckets of r, which must be of the kind of those that
// are there.
func (g *group) cover(r *rows, cells int) error {
	if !g.known {
		g.known, g.schema, g.bounds = true, r.schema, append(g.bounds[:0], r.bounds...)
	} else if g.schema != r.schema || !slices.Equal(g.bounds, r.bounds) {
		return errIrregular
	}
	lo, hi := g.lo, g.lo+g.width
	for i, off := range r.off[1:] {
		from, n := int(r.lo[i]), off-r.off[i]
		if n == 0 || from >= lo && from+n <= hi {
			continue
		}
		if lo == hi {
			lo, hi = from, from+n
		}
		lo, hi = min(lo, from), max(hi, from+n)
	}
	if lo == g.lo && hi-lo == g.width {
		return nil
	}
	if hi-lo > maxWidth || g.steps*(hi-lo) > cells {
		return errIrregular
	}
	width := hi - lo
	g.diff = zeroed(g.diff, width)
	if g.width == 0 {
		g.lo, g.width = lo, width
		g.n, g.c = zeroed(g.n, g.steps*width), zeroed(g.c, g.steps*width)
		return nil
	}
	n, c := make([]float64, g.steps*width), make([]float64, g.steps*width)
	for step := range g.steps {
		to := step*width + g.lo - lo
		copy(n[to:], g.n[step*g.width:(step+1)*g.width])
		copy(c[to:], g.c[step*g.width:(step+1)*g.width])
	}
	g.lo, g.width, g.n, g.c = lo, width, n, c
	return nil
}

// add adds the rate or increase of rows from … to at a step whose window begins
// after begin and ends at end, milliseconds; perSecond is what an increase is divided by.
// The arithmetic, and its order, is that of PromQL's rate.
func (g *group) add(step int, r *rows, from, to int, begin, end int64, perSecond float64) {
	count, sum, zero := r.count[to], r.sum[to], r.zero[to]
	lo, diff := r.row(to)
	resets := slices.Contains(r.reset[from+1:to+1], true)
	first, before := r.row(from)
	if !resets && first == lo && len(before) == len(diff) {
		into := g.diff[:len(diff)]
		for i, n := range diff {
			into[i] = n - before[i]
		}
		diff = into
		count, sum, zero = count-r.count[from], sum-r.sum[from], zero-r.zero[from]
	} else {
		lo, diff = g.lo, g.diff[:g.width]
		clear(diff)
		g.plus(diff, r, to, 1)
		if !r.reset[from+1] { // else what was before the first reset is not of this window
			g.plus(diff, r, from, -1)
			count, sum, zero = count-r.count[from], sum-r.sum[from], zero-r.zero[from]
		}
		for i := from + 2; i <= to; i++ {
			if r.reset[i] {
				g.plus(diff, r, i-1, 1)
				count, sum, zero = count+r.count[i-1], sum+r.sum[i-1], zero+r.zero[i-1]
			}
		}
	}
	factor := g.spaces[step].factor(r.t[from], r.t[to], begin, end, to-from, r.count[from], count, perSecond)
	n := g.n[step*g.width : (step+1)*g.width]
	if len(diff) > 0 {
		n = n[lo-g.lo:][:len(diff)]
	}
	if !g.seen[step] { // to zeros: nothing is lost
		g.seen[step] = true
		g.count[step], g.sum[step], g.zero[step] = count*factor, sum*factor, zero*factor
		for i, d := range diff {
			n[i] = d * factor
		}
		return
	}
	g.count[step], g.countC[step] = kahansum.Inc(count*factor, g.count[step], g.countC[step])
	g.sum[step], g.sumC[step] = kahansum.Inc(sum*factor, g.sum[step], g.sumC[step])
	g.zero[step], g.zeroC[step] = kahansum.Inc(zero*factor, g.zero[step], g.zeroC[step])
	if len(diff) == 0 {
		return
	}
	c := g.c[step*g.width+lo-g.lo:][:len(diff)]
	n = n[:len(diff)]
	for i, d := range diff {
		// As kahansum.Inc, which looks first which of the two is larger: what the
		// sum loses is the same. All are finite.
		x, old := float64(d*factor), n[i]
		sum := float64(old + x)
		part := float64(sum - old)
		n[i] = sum
		c[i] += float64(float64(old-float64(sum-part)) + float64(x-part))
	}
}

// plus adds a row's buckets to diff, or takes them off.
func (g *group) plus(diff []float64, r *rows, row int, sign float64) {
	lo, b := r.row(row)
	if len(b) == 0 {
		return
	}
	into := diff[lo-g.lo:][:len(b)]
	for i, n := range b {
		into[i] += sign * n
	}
}

// histogram puts the sum of a step into h, which is used again.
func (g *group) histogram(step int, h *histogram.FloatHistogram) {
	h.Schema, h.CustomValues = g.schema, g.bounds
	h.Count = g.count[step] + g.countC[step]
	h.Sum = g.sum[step] + g.sumC[step]
	h.ZeroCount = g.zero[step] + g.zeroC[step]
	h.PositiveSpans, h.PositiveBuckets = h.PositiveSpans[:0], h.PositiveBuckets[:0]
	if g.width == 0 {
		return
	}
	h.PositiveSpans = append(h.PositiveSpans, histogram.Span{Offset: int32(g.lo), Length: uint32(g.width)})
	c := g.c[step*g.width:]
	for i, n := range g.n[step*g.width : (step+1)*g.width] {
		h.PositiveBuckets = append(h.PositiveBuckets, n+c[i])
	}
}
