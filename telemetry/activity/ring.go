package activity

import (
	"encoding/binary"
	"math"
	"time"

	"github.com/binnacle-project/binnacle"
)

// ring holds a tier's slots that are not empty, oldest first, in one piece of
// memory: a window is added up by reading on, where slots of their own, tens for
// each of tens of thousands of aggregates, would each be a cache miss and some
// work for the collector. A slot is
//
//	int32    at; the slot's end is at*step, Unix seconds
//	uint16   bytes that follow, at most maxSlot
//	uvarint  requests, for each outcome
//	packed   latency of all but the limited, see dense.pack
type ring []byte

// slotHead is the length of at and of what follows.
const slotHead = 6

// maxSlot is what a slot takes at most: a gap of two bytes and a count of ten for
// each bucket that there is.
const maxSlot = (int(binnacle.NumOutcomes)+1)*binary.MaxVarintLen64 + numIndexes*12

var _ [math.MaxUint16 - maxSlot]struct{} // it fits

func (r ring) at() int32 { return int32(binary.LittleEndian.Uint32(r)) }

// end returns where the first slot ends.
func (r ring) end() int { return slotHead + int(binary.LittleEndian.Uint16(r[4:])) }

// first adds the requests of the first slot to n, and returns its latency.
func (r ring) first(n *[binnacle.NumOutcomes]uint64) (packed []byte) {
	b := r[slotHead:r.end()]
	for o := range n {
		if b[0] < 0x80 { // the usual case
			n[o] += uint64(b[0])
			b = b[1:]
			continue
		}
		v, used := binary.Uvarint(b)
		n[o] += v
		b = b[used:]
	}
	return b
}

// appendSlot appends the slot at with the requests n and the packed latency.
func (r ring) appendSlot(at int32, n *[binnacle.NumOutcomes]uint64, packed []byte) ring {
	begin := len(r)
	b := binary.LittleEndian.AppendUint32(r, uint32(at))
	b = append(b, 0, 0)
	for _, v := range n {
		b = binary.AppendUvarint(b, v)
	}
	b = append(b, packed...)
	binary.LittleEndian.PutUint16(b[begin+4:], uint16(len(b)-begin-slotHead))
	return b
}

// put adds the requests n and the packed latency to slot at, and drops slots older
// than oldest.
func (r *ring) put(at, oldest int32, n *[binnacle.NumOutcomes]uint64, packed []byte, ws *space) {
	s := *r
	drop := 0
	for drop < len(s) && s[drop:].at() < oldest {
		drop += s[drop:].end()
	}
	if drop > 0 {
		s = s[:copy(s, s[drop:])]
	}
	i := 0
	for i < len(s) && s[i:].at() < at {
		i += s[i:].end()
	}
	if i == len(s) { // the usual case
		*r = s.appendSlot(at, n, packed)
		return
	}
	all, rest := *n, i
	if s[i:].at() == at {
		ws.sum.reset()
		ws.sum.addPacked(s[i:].first(&all))
		ws.sum.addPacked(packed)
		ws.merged = ws.sum.pack(ws.merged[:0])
		packed, rest = ws.merged, rest+s[i:].end()
	}
	younger := append(ring(nil), s[rest:]...)
	*r = append(s[:i].appendSlot(at, &all, packed), younger...)
}

// add adds the slots of one tier in p.
func (s *sum) add(r ring, tier int, p span) {
	step := tiers[tier].step
	for ; len(r) > 0; r = r[r.end():] {
		at := r.at()
		if at <= p.from {
			continue
		}
		end := int64(at) * step
		if at > p.to {
			if tier == 0 {
				s.ahead = min(s.ahead, end) // as are all that follow
			}
			return
		}
		s.h.addPacked(r.first(&s.n))
		s.oldest = min(s.oldest, end)
	}
}

// slotOf returns the number of the slot that holds t (Unix ns).
func slotOf(t, step int64) int32 {
	ns := step * int64(time.Second)
	q := t / ns
	if t%ns != 0 {
		q++
	}
	return int32(q)
}
