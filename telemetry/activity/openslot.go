package activity

import (
	"time"

	"github.com/binnacle-project/binnacle"
)

// openSlot is the slot of the finest step that a key's bookings go to now. It
// is not packed, so that what many nodes tell of one backend within a step
// costs an addition each; the packed slots get it at once when a newer begins.
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
	sum  dense
	late openSlot
}

// book adds an increase to the slot that holds t (Unix ns), seen at now (Unix
// s).
func (k *key) book(o binnacle.Outcome, inc *increase, t, now int64, ws *space) {
	at := slotOf(t, fineStep)
	if at < k.open.at { // late, or another node's clock is behind
		ws.late.reset()
		ws.late.at = at
		ws.late.add(o, inc)
		k.file(&ws.late, now, &ws.sum)
		return
	}
	if at > k.open.at {
		k.seal(now, &ws.sum)
		k.open.at = at
	}
	k.open.add(o, inc)
}

// seal files the open slot.
func (k *key) seal(now int64, work *dense) {
	if k.open.at != 0 {
		k.file(&k.open, now, work)
		k.open.reset()
	}
}

// file adds s to the slots of all tiers that hold it.
func (k *key) file(s *openSlot, now int64, work *dense) {
	end := int64(s.at) * fineStep * int64(time.Second)
	for tier := range k.rings {
		step := tiers[tier].step
		oldest := int32((now - tiers[tier].keep) / step)
		k.rings[tier].book(slotOf(end, step), oldest, s, work)
	}
}
