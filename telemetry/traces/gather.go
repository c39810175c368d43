package traces

import "time"

// A block that a slow stream has filled in half a second is small: dear in bytes for
// each span, and one more for each search to read. So it goes to disk as a part, which
// is a block without an index that waits in hour 0, and its spans stay in memory, in
// the one block that all parts are gathered in. That is written, with its index, in
// place of them, once it is large or old.
const (
	// mergeSpans is the number of spans from which a block is not small.
	mergeSpans = 4 << 10
	// gatherFor bounds the time that spans are gathered. It bounds nothing but what a
	// start has to read, since they are durable and found all the while: ten minutes
	// of eight spans a second make a block of more than mergeSpans.
	gatherFor = 10 * time.Minute
)

// gathering is what parts are gathered in. Its owner guards it.
type gathering struct {
	*block
	parts []uint32  // their numbers
	since time.Time // when the first of them was written
}

// newGathering has room for as much as the block before.
func newGathering(before *block) *gathering { return &gathering{block: newBlockAfter(before)} }

// part is a small block on disk under its number.
type part struct {
	*block
	seq uint32
}

// due reports whether it is large or old. It is old at the end of an hour, too: what
// is gathered goes into the hour in which it came.
func (g *gathering) due(now time.Time) bool {
	if len(g.spans) == 0 {
		return false
	}
	return len(g.spans) >= maxBlockSpans || g.size() >= maxBlockBytes ||
		now.Sub(g.since) >= gatherFor || partitionOf(now) != partitionOf(g.since)
}

// add copies the spans of a part.
func (g *gathering) add(p part, now time.Time) {
	if len(g.parts) == 0 {
		g.since = now
	}
	keep := make([]bool, len(p.traces))
	for t := range keep {
		keep[t] = true
	}
	g.copyTraces(p.block, keep)
	g.parts = append(g.parts, p.seq)
}

// gatherLocked takes in parts that are on disk.
func (s *Store) gatherLocked(parts []part) {
	now := s.o.now()
	for _, p := range parts {
		if s.gathering.due(now) {
			s.turnGatheringLocked()
		}
		s.gathering.add(p, now)
	}
}

// turnGatheringLocked puts what was gathered among the blocks that wait to be written.
func (s *Store) turnGatheringLocked() {
	g := s.gathering
	s.sealing = append(s.sealing, &sealingBlock{block: g.block, merged: g})
	s.gathering = newGathering(g.block)
}

// restoreParts reads the parts that were on disk when the store was closed, or its
// process killed.
func (s *Store) restoreParts() error {
	s.gathering = newGathering(&block{})
	now := s.o.now()
	return s.restore(kindPart, func(seq uint32, b *block) {
		s.nextPart = max(s.nextPart, seq+1)
		s.gathering.add(part{b, seq}, now)
	})
}
