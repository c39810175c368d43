package traces

import (
	"math/bits"
	"math/rand/v2"
)

// numbering numbers values in the order in which they come, in open addressing: a
// map would cost more than all the rest of an index. Where a value stands is seeded,
// as values are of anybody's choice.
type numbering struct {
	slots []numberSlot
	n     uint32
	seed  uint64 // odd
	shift uint
}

type numberSlot struct {
	v uint64
	n uint32 // from 1 on; 0 marks a free slot
}

// reset empties it and makes room for n values.
func (s *numbering) reset(n int) {
	log := bits.Len(uint(2*n + 1))
	if cap(s.slots) < 1<<log {
		s.slots = make([]numberSlot, 1<<log)
	}
	s.slots = s.slots[:1<<log]
	clear(s.slots)
	s.n, s.seed, s.shift = 0, rand.Uint64()|1, uint(64-log)
}

// number returns the number of v, from 0 on. There must be room.
func (s *numbering) number(v uint64) uint32 {
	mask := uint64(len(s.slots) - 1)
	for i := s.home(v); ; i = (i + 1) & mask {
		switch slot := &s.slots[i]; {
		case slot.n == 0:
			s.n++
			*slot = numberSlot{v, s.n}
			return s.n - 1
		case slot.v == v:
			return slot.n - 1
		}
	}
}

// home is where v would stand in an empty table.
func (s *numbering) home(v uint64) uint64 {
	h := v * s.seed
	return (h ^ h>>32) * 0x9e3779b97f4a7c15 >> s.shift
}
