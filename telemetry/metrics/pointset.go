package metrics

// pointSet holds the points of one family by the bytes of their attributes. It
// is a hash table whose chains run through the points: a new point costs one
// allocation and one probe, where a map of pointers costs two of each, and
// making points is half of what churn costs. The zero value is ready. Not safe
// for concurrent use.
type pointSet struct {
	buckets []pointChain // a power of two
	n       int
}

type pointChain struct {
	head *point
	marks
}

// marks remember six bits of each hash in a chain, so that a look for what is not
// there, as each new series begins with two, mostly ends before it reads memory
// that is far away. Bits of what was dropped stay until the table grows.
type marks uint64

func (m marks) has(hash uint64) bool { return m>>(hash>>58)&1 != 0 }
func (m *marks) mark(hash uint64)    { *m |= 1 << (hash >> 58) }

// get returns the point of key, whose hash is h, or nil.
func (ps *pointSet) get(h uint64, key []byte) *point {
	if ps.n == 0 {
		return nil
	}
	chain := &ps.buckets[h&uint64(len(ps.buckets)-1)]
	if !chain.has(h) {
		return nil
	}
	for p := chain.head; p != nil; p = p.next {
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
	ps.link(p)
	p.in = true
	ps.n++
}

func (ps *pointSet) link(p *point) {
	chain := &ps.buckets[p.hash&uint64(len(ps.buckets)-1)]
	p.next, chain.head = chain.head, p
	chain.mark(p.hash)
}

func (ps *pointSet) grow() {
	old := ps.buckets
	ps.buckets = make([]pointChain, max(4, 2*len(old)))
	for _, chain := range old {
		for p := chain.head; p != nil; {
			next := p.next
			ps.link(p)
			p = next
		}
	}
}

// drop takes out the points that f returns true for and returns how many.
func (ps *pointSet) drop(f func(*point) bool) (dropped int) {
	for i := range ps.buckets {
		at := &ps.buckets[i].head
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
	for _, chain := range ps.buckets {
		for p := chain.head; p != nil; p = p.next {
			f(p)
		}
	}
}
