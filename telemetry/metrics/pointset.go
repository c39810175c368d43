package metrics

// pointSet holds the points of one family by the bytes of their attributes. It
// is a hash table whose chains run through the points: a new point costs one
// allocation and one probe, where a map of pointers costs two of each, and
// making points is half of what churn costs. The zero value is ready. Not safe
// for concurrent use.
type pointSet struct {
	buckets []*point // a power of two
	n       int
}

// get returns the point of key, whose hash is h, or nil.
func (ps *pointSet) get(h uint64, key []byte) *point {
	if ps.n == 0 {
		return nil
	}
	for p := ps.buckets[h&uint64(len(ps.buckets)-1)]; p != nil; p = p.next {
		if p.hash == h && p.key == string(key) {
			return p
		}
	}
	return nil
}

// add takes in a point whose hash and key are set and in no set yet.
func (ps *pointSet) add(p *point) {
	if ps.n >= len(ps.buckets) {
		ps.grow()
	}
	b := &ps.buckets[p.hash&uint64(len(ps.buckets)-1)]
	p.next, *b = *b, p
	p.in = true
	ps.n++
}

func (ps *pointSet) grow() {
	old := ps.buckets
	ps.buckets = make([]*point, max(4, 2*len(old)))
	for _, p := range old {
		for p != nil {
			next := p.next
			b := &ps.buckets[p.hash&uint64(len(ps.buckets)-1)]
			p.next, *b = *b, p
			p = next
		}
	}
}

// drop takes out the points that f returns true for and returns how many.
func (ps *pointSet) drop(f func(*point) bool) (dropped int) {
	for i := range ps.buckets {
		at := &ps.buckets[i]
		for p := *at; p != nil; p = p.next {
			if f(p) {
				*at = p.next
				p.in = false
				dropped++
			} else {
				at = &p.next
			}
		}
	}
	if ps.n -= dropped; ps.n == 0 {
		ps.buckets = nil
	}
	return dropped
}

// each calls f for all points.
func (ps *pointSet) each(f func(*point)) {
	for _, p := range ps.buckets {
		for ; p != nil; p = p.next {
			f(p)
		}
	}
}
