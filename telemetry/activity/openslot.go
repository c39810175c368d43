package activity

import "github.com/binnacle-project/binnacle"

// openSlot is the slot of the finest step that a key's bookings go to now. It
// is not packed, so that what many nodes tell of one backend within a step
// costs an addition each; the finest tier gets it when a newer begins.
type openSlot struct {
	at int32 // its end is at*fineStep, Unix seconds; 0 is none
	n  [binnacle.NumOutcomes]uint64
	h  counts
}

// add adds an increase of one outcome. The limited ones stay out of the
// latency, as in booking.
func (s *openSlot) add(o binnacle.Outcome, inc *increase) {
	s.n[o] += inc.count
	if o != binnacle.Limited {
		s.h.add(inc)
	}
}

// reset empties s and keeps its memory.
func (s *openSlot) reset() { *s = openSlot{h: counts{n: s.h.n[:0]}} }

// space is the memory that booking works in.
type space struct {
	sum    dense
	late   openSlot
	packed []byte // what is entered
	merged []byte // used by ring.put
}

// book adds an increase to the slot that holds t (Unix ns), seen at now (Unix
// s).
func (k *key) book(o binnacle.Outcome, inc *increase, t, now int64, ws *space) {
	at := slotOf(t, fineStep)
	if at < k.open.at { // late, or another node's clock is behind
		ws.late.reset()
		ws.late.at = at
		ws.late.add(o, inc)
		k.file(&ws.late, now, ws)
		return
	}
	if at > k.open.at {
		k.seal(now, ws)
		k.open.at = at
	}
	k.open.add(o, inc)
}

// seal files the open slot.
func (k *key) seal(now int64, ws *space) {
	if k.open.at != 0 {
		k.file(&k.open, now, ws)
		k.open.reset()
	}
}

// file adds s to the finest tier. Coarser ones get it once a slot of theirs is
// over, see carry: most of what is booked is packed once, and not once more for
// each tier.
func (k *key) file(s *openSlot, now int64, ws *space) {
	k.carry(1, whole(1, oldestSlot(1, now)-1), now, ws) // or it would be dropped
	k.carry(0, max(whole(0, oldestSlot(0, now)-1), whole(0, s.at)-perCoarser(0)), now, ws)
	k.carry(1, whole(1, coarserSlot(0, s.at))-perCoarser(1), now, ws)
	ws.packed = s.h.pack(ws.packed[:0])
	k.enter(0, s.at, &s.n, ws.packed, now, ws)
}
