package traces

// byTrace orders spans by the number of their trace, in linear time: the order
// of the rows of a block on disk. It also returns for each trace where it
// begins, and one end more. The slices given are used for what it returns.
func (b *block) byTrace(order, firsts []uint32) ([]uint32, []uint32) {
	if cap(firsts) < len(b.traces)+1 {
		firsts = make([]uint32, len(b.traces)+1)
	}
	firsts = firsts[:len(b.traces)+1]
	clear(firsts)
	for i := range b.spans {
		firsts[b.spans[i].trace+1]++
	}
	for i := 1; i < len(firsts); i++ {
		firsts[i] += firsts[i-1]
	}
	if cap(order) < len(b.spans) {
		order = make([]uint32, len(b.spans))
	}
	order = order[:len(b.spans)]
	for i := range b.spans {
		t := b.spans[i].trace
		order[firsts[t]] = uint32(i)
		firsts[t]++
	}
	copy(firsts[1:], firsts) // each was moved to its end, which is the next one's begin
	firsts[0] = 0
	return order, firsts
}
