package traces

import "time"

// A block that a slow stream has filled in half a second is small: dear in bytes for
// each span, and one more for each search to read. So it goes to disk as a part, which
// is a block without an index, and its spans stay in memory, in
// the one block that all parts are gathered in. That is written, with its index, in
// place of them, once it is large or old.
const (
	// mergeSpans and mergeBytes are the spans or the bytes of memory from which a block is
	// not small.
	mergeSpans = 4 << 10
	mergeBytes = maxBlockBytes / 4
	// gatherFor bounds the time that spans are gathered. It bounds nothing but what a
	// start has to read, since they are durable and found all the while: ten minutes
	// of eight spans a second make a block of more than mergeSpans.
	gatherFor = 10 * time.Minute
)

func (b *block) small() bool { return len(b.spans) < mergeSpans && b.size() < mergeBytes }

// gathering is what parts are gathered in. Its owner guards it.
type gathering struct {
	*block
	parts [][]byte  // their keys
	hour  partition // in which all of them came
	since time.Time // when the first of them was added
}

// newGathering has room for as much as the block before.
func newGathering(before *block) *gathering { return &gathering{block: newBlockAfter(before)} }

// part is a small block on disk.
type part struct {
	*block
	key  []byte
	hour partition // in which it came
}

// due reports whether it is large or old. It is old at the end of its hour, too: what
// is gathered goes into the hour in which it came, and with that.
func (g *gathering) due(now time.Time) bool {
	if len(g.spans) == 0 {
		return false
	}
	return len(g.spans) >= maxBlockSpans || g.size() >= maxBlockBytes ||
		now.Sub(g.since) >= gatherFor || partitionOf(now) != g.hour
}

// add copies the spans of a part.
func (g *gathering) add(p part, now time.Time) {
	if len(g.parts) == 0 {
		g.hour, g.since = p.hour, now
	}
	keep := make([]bool, len(p.traces))
	for t := range keep {
		keep[t] = true
	}
	g.copyTraces(p.block, keep)
	g.parts = append(g.parts, p.key)
}

// gatherLocked takes in parts that are on disk.
func (s *Store) gatherLocked(parts []part) {
	for _, p := range parts {
		now := s.o.now()
		if g := s.gathering; g.due(now) || len(g.parts) > 0 && g.hour != p.hour {
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
// process killed. Those of hours before wait to be written, and go when their hour does.
func (s *Store) restoreParts() error {
	s.gathering, s.sealing = newGathering(&block{}), nil
	return s.restore(kindPart, func(hour partition, seq uint32, b *block) {
		s.nextPart = max(s.nextPart, seq+1)
		s.gatherLocked([]part{{b, seqKey(hour, kindPart, seq), hour}})
	})
}
