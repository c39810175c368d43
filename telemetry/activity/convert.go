package activity

import (
	"encoding/binary"
	"math"
	"slices"

	"github.com/binnacle-project/binnacle/otlp/wire"
)

// This file turns the bucket layouts that senders use into the one kept here.
// Counts and sums stay exact; where a source bucket is wider than ours, its
// observations are spread as a quantile query would assume them to lie, so
// that quantiles are as good as the source's buckets and no better. Windows keep
// the spread ones; roll-ups are no finer than the sender, see fit.

// maxBounds is how many bounds an explicit layout may have. SDKs use 10 to 20.
const maxBounds = 400

// bounds is an explicit bucket layout. It is shared by the streams that use it
// and never changes.
type bounds struct {
	upper   []float64 // seconds, strictly rising
	coarser uint8     // of increases, see fit
	number  uint64    // in layouts.numbered, from 1 on; 0 is none
	// spread says, for each bucket, how it falls on ours.
	spread []spread
}

// spread tells a source bucket's observations over consecutive buckets of
// ours: cum[j] is the share of them in buckets up to from+j; the last is 1. A
// nil cum is the zero bucket.
type spread struct {
	from int
	cum  []float64
	// few[n-1] says the same of n observations: one bucket for each.
	few [fewObservations][]int32
}

// fewObservations is how many observations of one bucket between two exports
// are usual enough to have the answer ready.
const fewObservations = 8

// newBounds prepares a layout; ok is false when upper is not strictly rising
// and finite, or too long.
func newBounds(upper []float64) (b *bounds, ok bool) {
	if len(upper) > maxBounds {
		return nil, false
	}
	for i, u := range upper {
		if math.IsNaN(u) || math.IsInf(u, 0) || i > 0 && u <= upper[i-1] {
			return nil, false
		}
	}
	b = &bounds{upper: upper, spread: make([]spread, len(upper)+1)}
	lo := 0.0 // durations are not negative
	for i, u := range upper {
		b.spread[i] = spreadOver(lo, u)
		lo = max(lo, u)
	}
	// What lies beyond the last bound is only known to: the bucket that begins
	// there, as PromQL answers the last bound for it.
	last := spread{cum: []float64{1}, from: maxIndex}
	if lo > 0 {
		last.from = indexOf(math.Nextafter(lo, math.Inf(1)))
	}
	b.spread[len(upper)] = last
	for i := range b.spread {
		b.spread[i].prepare()
	}
	b.coarser = fit(upper)
	return b, true
}

// fit returns how many steps coarser than scale a roll-up of a layout is: as many
// as leave its buckets narrower than most of the sender's. What a quantile of the
// roll-up errs by is then still what the sender's own buckets leave open; see
// TestRollupsAreAsGoodAsTheirSenders. It is 2 (buckets of 41 %) for the bounds that
// the OpenTelemetry conventions advise and 1 (19 %) for krakend-otel's.
func fit(upper []float64) uint8 {
	var ratios []float64
	for i := 1; i < len(upper); i++ {
		if upper[i-1] > 0 {
			ratios = append(ratios, upper[i]/upper[i-1])
		}
	}
	if len(ratios) == 0 {
		return 0 // all that is known of such a sender's latency is its mean
	}
	slices.Sort(ratios)
	median := ratios[len(ratios)/2]
	coarser := uint8(0)
	for coarser < maxCoarser && lowerBound(1<<(coarser+1)) <= median {
		coarser++
	}
	return coarser
}

// spreadOver spreads (lo, hi] evenly by logarithm, as PromQL interpolates within
// exponential buckets, and latencies lie in truth rather than evenly by value, as
// it interpolates within classic ones: a median is half as far off, see
// TestRollupsAreAsGoodAsTheirSenders. A first bucket, which begins at zero, is
// spread by value; its part under a 16th of its bound is booked on the bucket
// there, because buckets go on for ever towards zero.
func spreadOver(lo, hi float64) spread {
	if hi <= 0 {
		return spread{}
	}
	last := indexOf(hi)
	from := clampIndex(last - 4<<scale)
	if lo > 0 {
		from = indexOf(math.Nextafter(lo, math.Inf(1)))
	}
	s := spread{from: from, cum: make([]float64, last-from+1)}
	for j := range s.cum {
		share := lowerBound(from+j+1) / hi
		if lo > 0 {
			share = math.Log(lowerBound(from+j+1)/lo) / math.Log(hi/lo)
		}
		s.cum[j] = min(1, max(0, share))
	}
	s.cum[len(s.cum)-1] = 1
	return s
}

// tell appends the buckets that n observations of a source bucket fall on. The
// counts add up to n.
func (s *spread) tell(n uint64, inc *increase) {
	if n == 0 {
		return
	}
	inc.count += n
	if s.cum == nil {
		inc.zero += n
		return
	}
	if !inc.spread {
		inc.spread, inc.lo = true, int32(s.from)
	}
	inc.hi = int32(s.from + len(s.cum) - 1)
	if n <= fewObservations {
		for _, i := range s.few[n-1] {
			inc.buckets = append(inc.buckets, bucket{int(i), 1})
		}
		return
	}
	s.tellMany(n, inc)
}

// prepare fills few.
func (s *spread) prepare() {
	if s.cum == nil {
		return
	}
	for n := range s.few {
		var inc increase
		s.tellMany(uint64(n+1), &inc)
		for _, b := range inc.buckets {
			for range b.n {
				s.few[n] = append(s.few[n], int32(b.index))
			}
		}
	}
}

func (s *spread) tellMany(n uint64, inc *increase) {
	var given uint64
	for j, c := range s.cum {
		upTo := n
		if j < len(s.cum)-1 {
			upTo = min(n, uint64(math.Floor(float64(n)*c+0.5)))
		}
		if upTo > given {
			inc.buckets = append(inc.buckets, bucket{s.from + j, upTo - given})
			given = upTo
		}
	}
}

// tellExponential appends the buckets that n observations of bucket i at scale
// from (at most ours) fall on, evenly by logarithm.
func tellExponential(i, from int, n uint64, inc *increase) {
	inc.count += n
	shift := scale - from
	first, last := clampIndex(shiftLeft(i, shift)), clampIndex(shiftLeft(i+1, shift)-1)
	k := uint64(last - first + 1)
	var given uint64
	for j := range k {
		upTo := n/k*(j+1) + (n%k*(j+1)*2+k)/(2*k)
		if j == k-1 {
			upTo = n
		}
		if upTo > given {
			inc.buckets = append(inc.buckets, bucket{first + int(j), upTo - given})
			given = upTo
		}
	}
}

// shiftLeft is i<<n without overflow for what clampIndex takes next.
func shiftLeft(i, n int) int {
	if n > 20 || i > 1<<30 || i < -1<<30 {
		switch {
		case i > 0:
			return math.MaxInt32
		case i < 0:
			return math.MinInt32
		}
		return 0
	}
	return i << n
}

// downscale merges an exponential layout (offset, n) by 2^shift neighbors and
// returns the new one in dst's memory.
func downscale(dst []uint64, offset int, n []uint64, shift int) (int, []uint64) {
	dst = dst[:0]
	if len(n) == 0 {
		return 0, dst
	}
	shift = min(shift, 31)
	first := offset >> shift
	for j, c := range n {
		p := (offset+j)>>shift - first
		for len(dst) <= p {
			dst = append(dst, 0)
		}
		dst[p] += c
	}
	return first, dst
}

// layouts shares equal explicit layouts. Not safe for concurrent use.
type layouts struct {
	byBytes map[string]*bounds // by the bounds in seconds
	sent    map[string]*bounds // by what senders say: factor, then bounds in their unit
	key     []byte

	numbered []*bounds // those of byBytes
	stray    bool      // there are some that are in neither, because there are too many

	last       string // the newest key of sent that was asked for
	lastBounds *bounds
}

// maxLayouts bounds the tables; a fleet has a handful.
const maxLayouts = 1024

// get returns the layout for bounds given in the unit that factor turns into
// seconds; ok is false for what newBounds refuses.
func (l *layouts) get(sent wire.Fixed64s, factor float64) (*bounds, bool) {
	n := sent.Len()
	if n > maxBounds {
		return nil, false
	}
	l.key = append(binary.LittleEndian.AppendUint64(l.key[:0], math.Float64bits(factor)), sent...)
	if l.lastBounds != nil && l.last == string(l.key) {
		return l.lastBounds, true
	}
	b := l.sent[string(l.key)]
	if b == nil {
		upper := make([]float64, n)
		for i := range upper {
			upper[i] = sent.Float64(i) * factor
		}
		var ok bool
		if b, ok = l.of(upper); !ok {
			return nil, false
		}
		if l.sent == nil || len(l.sent) >= maxLayouts {
			l.sent = map[string]*bounds{}
		}
		l.sent[string(l.key)] = b
	}
	l.last, l.lastBounds = string(l.key), b
	return b, true
}

// of returns the one layout with the bounds upper, in seconds; it may keep them.
func (l *layouts) of(upper []float64) (*bounds, bool) {
	var key []byte
	for _, u := range upper {
		key = binary.LittleEndian.AppendUint64(key, math.Float64bits(u))
	}
	if b := l.byBytes[string(key)]; b != nil {
		return b, true
	}
	b, ok := newBounds(upper)
	switch {
	case !ok:
	case len(l.byBytes) >= maxLayouts:
		l.stray = true
	default:
		if l.byBytes == nil {
			l.byBytes = map[string]*bounds{}
		}
		l.byBytes[string(key)] = b
		l.numbered = append(l.numbered, b)
		b.number = uint64(len(l.numbered))
	}
	return b, ok
}
