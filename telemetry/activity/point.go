package activity

// point is one point of a histogram stream, as far as the next increase needs
// it: cumulative since start. An exponential point is kept at our scale or, if
// the sender's is coarser, at the sender's.
type point struct {
	start, t int64 // Unix ns; start 0 is unknown
	sum      float64
	zero     uint64
	// n counts by bucket: the explicit ones of bounds, or exponential ones from
	// offset at exp when bounds is nil.
	n      []uint64
	bounds *bounds
	exp    int8
	offset int32
}

// coarser returns how many steps coarser than scale the point's buckets are.
func (p *point) coarser() uint8 {
	if p.bounds != nil {
		return p.bounds.coarser
	}
	return uint8(min(scale-int(p.exp), maxCoarser))
}

func (p *point) count() uint64 {
	c := p.zero
	for _, n := range p.n {
		c += n
	}
	return c
}

// verdict says how a point relates to the one before of its stream.
type verdict uint8

const (
	// next continues the stream: the increase is the difference.
	next verdict = iota
	// reset begins a new life of the stream: the increase is all of it.
	reset
	// duplicate was seen already.
	duplicate
	// outOfOrder is older than what was seen and contained in it.
	outOfOrder
	// conflict is of a second writer on the same identity, whose life began
	// before the one that is followed. To follow both by turns would count
	// everything again at each turn, so that the younger one wins.
	conflict
	numVerdicts
)

func (v verdict) String() string {
	return [numVerdicts]string{"next", "reset", "duplicate", "out_of_order", "conflict"}[v]
}

// judge decides what p is after prev. grown says whether no count of p is
// lower than prev's.
//
// A start time that moved is a reset if the counts fell or if the new life
// began after the last point of the old one. A start time that moved into the
// old life while counts only grew is a sender that is vague about its start:
// to call it a reset would count everything twice.
//
// Source: OTLP metrics data model, "Resets and gaps", "Overlap".
func judge(prev, p *point, grown bool) verdict {
	switch {
	case p.t == prev.t && p.start == prev.start:
		return duplicate
	case p.t <= prev.t:
		return outOfOrder
	case p.start < prev.start && p.start != 0:
		return conflict
	case p.start == prev.start, p.start == 0, prev.start == 0:
		if grown {
			return next
		}
		return reset
	case p.start >= prev.t, !grown:
		return reset
	}
	return next
}

// subtract returns the increase from prev to p in our buckets and whether no
// count fell. When one did, the increase is meaningless. A nil prev is an empty
// point. Where the layouts cannot be compared (the bounds changed within a
// life) the counts are compared in total and told over p's own distribution.
func subtract(prev, p *point, scratch *scratch) (increase, bool) {
	inc := increase{buckets: scratch.buckets[:0], coarser: p.coarser()}
	defer func() { scratch.buckets = inc.buckets[:0] }()
	inc.sum = p.sum
	if prev != nil {
		inc.sum = max(0, p.sum-prev.sum)
	}
	switch {
	case prev == nil:
		p.tell(p.zero, p.n, int(p.exp), int(p.offset), &inc)
	case p.bounds != prev.bounds:
		return subtractTotals(prev, p, &inc)
	case p.bounds != nil:
		diff, ok := subtractCounts(prev.n, p.n, scratch)
		if !ok {
			return inc, false
		}
		p.tell(0, diff, 0, 0, &inc)
		if len(p.bounds.upper) == 0 && inc.count > 0 && inc.sum > 0 {
			// A histogram without buckets: the mean is all that is known.
			inc.buckets = append(inc.buckets[:0], bucket{indexOf(inc.sum / float64(inc.count)), inc.count})
		}
	default:
		if p.zero < prev.zero {
			return inc, false
		}
		exp := min(p.exp, prev.exp)
		po, pn := align(prev, exp, &scratch.a)
		co, cn := align(p, exp, &scratch.b)
		diff, ok := subtractExponential(po, pn, co, cn, scratch)
		if !ok {
			return inc, false
		}
		p.tell(p.zero-prev.zero, diff, int(exp), co, &inc)
	}
	return inc, true
}

// scratch is the memory that subtract works in; what it returns lives there
// until the next call.
type scratch struct {
	buckets []bucket
	a, b, d []uint64
}

// tell appends counts of p's layout, at scale exp from offset if exponential,
// in our buckets.
func (p *point) tell(zero uint64, n []uint64, exp, offset int, inc *increase) {
	inc.zero += zero
	inc.count += zero
	for j, c := range n {
		switch {
		case c == 0:
		case p.bounds != nil:
			p.bounds.spread[j].tell(c, inc)
		case exp == scale:
			inc.count += c
			inc.buckets = append(inc.buckets, bucket{clampIndex(offset + j), c})
		default:
			tellExponential(offset+j, exp, c, inc)
		}
	}
}

// align returns p's buckets at scale exp, which is at most p's own.
func align(p *point, exp int8, mem *[]uint64) (int, []uint64) {
	if p.exp == exp {
		return int(p.offset), p.n
	}
	offset, n := downscale(*mem, int(p.offset), p.n, int(p.exp-exp))
	*mem = n
	return offset, n
}

func subtractCounts(prev, n []uint64, scratch *scratch) ([]uint64, bool) {
	d := scratch.d[:0]
	for j, c := range n {
		if j < len(prev) {
			if c < prev[j] {
				return nil, false
			}
			c -= prev[j]
		}
		d = append(d, c)
	}
	scratch.d = d
	return d, len(prev) <= len(n)
}

// subtractExponential subtracts at one scale; the result begins at co.
func subtractExponential(po int, prev []uint64, co int, n []uint64, scratch *scratch) ([]uint64, bool) {
	for j, c := range prev { // what lies outside of n must be empty
		if i := po + j - co; c > 0 && (i < 0 || i >= len(n)) {
			return nil, false
		}
	}
	d := scratch.d[:0]
	for j, c := range n {
		if i := co + j - po; i >= 0 && i < len(prev) {
			if c < prev[i] {
				return nil, false
			}
			c -= prev[i]
		}
		d = append(d, c)
	}
	scratch.d = d
	return d, true
}

// subtractTotals is for points whose layouts differ.
func subtractTotals(prev, p *point, inc *increase) (increase, bool) {
	before, now := prev.count(), p.count()
	if now < before {
		return *inc, false
	}
	all := increase{}
	p.tell(p.zero, p.n, int(p.exp), int(p.offset), &all)
	n := now - before
	inc.count = n
	var seen, given uint64
	share := func(c uint64) uint64 { // runs over all buckets, so that the shares add up to n
		seen += c
		upTo := n
		if seen < now {
			upTo = min(n, uint64(float64(n)*(float64(seen)/float64(now))+0.5))
		}
		got := upTo - min(upTo, given)
		given += got
		return got
	}
	inc.zero = share(all.zero)
	for _, b := range all.buckets {
		if got := share(b.n); got > 0 {
			inc.buckets = append(inc.buckets, bucket{b.index, got})
		}
	}
	return *inc, true
}
