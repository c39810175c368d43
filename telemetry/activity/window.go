package activity

import (
	"math"
	"slices"
	"time"

	"github.com/binnacle-project/binnacle"
)

// A window is made of slots: aligned steps of time with the increases that were
// booked in them. Each increase is booked in three tiers of coarser and
// coarser slots, and a window takes coarse slots for its old part and fine
// ones for its young end, so that an hour costs some 40 slots, not 1,800.
//
//	         <------- 300 s ------>
//	tier 1   | 30 | 30 | … | 30 |            whole slots
//	tier 0                      |2|2|…|2|    from the last whole slot to now
//	                                    ^ aligned now
//
// A slot holds (start, end]: a point at its end is in it. Only whole slots
// count, so that a window is exactly as long as it says up to 60 s, and up to one
// coarse slot shorter beyond; rates are over the true length.
var tiers = [numTiers]struct {
	step, keep int64 // seconds; keep leaves room for points that come late
}{
	{2, 120},
	{30, 660},
	{300, 3900},
}

const numTiers = 3

// fineStep is the step of the finest tier, and of the charts, in seconds.
const fineStep = 2

// slot holds what was booked in one step of time.
type slot struct {
	at int32 // the slot's end is at*step, Unix seconds
	n  [binnacle.NumOutcomes]uint32
	h  []byte // packed latency of all but the limited
}

// ring holds a tier's slots that are not empty, oldest first.
type ring []slot

// slotOf returns the number of the slot that holds t (Unix ns).
func slotOf(t, step int64) int32 {
	ns := step * int64(time.Second)
	q := t / ns
	if t%ns != 0 {
		q++
	}
	return int32(q)
}

// book adds b to slot at. It drops slots that are over the tier's keep, and adds
// nothing to one that is.
func (r *ring) book(at, oldest int32, b *openSlot, work *dense) {
	s := *r
	drop := 0
	for drop < len(s) && s[drop].at < oldest {
		drop++
	}
	s = slices.Delete(s, 0, drop)
	if at < oldest {
		*r = s
		return
	}
	i := len(s)
	for i > 0 && s[i-1].at >= at {
		i--
	}
	if i == len(s) || s[i].at != at {
		s = slices.Insert(s, i, slot{at: at})
	}
	for o, n := range b.n {
		s[i].n[o] = uint32(min(uint64(s[i].n[o])+n, math.MaxUint32))
	}
	work.reset()
	work.addPacked(s[i].h)
	work.addCounts(&b.h)
	if s[i].h == nil {
		s[i].h = slices.Clip(work.pack(nil))
	} else {
		s[i].h = work.pack(s[i].h[:0])
	}
	*r = s
}

// topTier returns the coarsest tier that a window of w seconds uses.
func topTier(w int64) int {
	switch {
	case w <= 60:
		return 0
	case w <= 300:
		return 1
	}
	return 2
}

// span is a part of a window: the slots from < at <= to of a tier.
type span struct{ from, to int32 }

// cut says which slots make up the window of w seconds that ends at now, and
// how many seconds these are. now must be a multiple of fineStep.
func cut(now, w int64) (parts [numTiers]span, seconds int64) {
	top := topTier(w)
	end := now
	for tier := range top {
		boundary := now - now%tiers[tier+1].step
		parts[tier] = span{int32(boundary / tiers[tier].step), int32(end / tiers[tier].step)}
		end = boundary
	}
	step := tiers[top].step
	begin := (now - w + step - 1) / step * step
	parts[top] = span{int32(begin / step), int32(end / step)}
	return parts, now - begin
}

// sum is a window added up.
type sum struct {
	n [binnacle.NumOutcomes]uint64
	h *dense
	// until is when (Unix seconds) the same window, moved on, may give another
	// sum although nothing was booked: when its oldest slot leaves it, or one
	// that is ahead of now enters. That whole slots of a finer tier become one of
	// a coarser changes nothing, but for what came too late for the finer.
	until int64
}

// leaves is when a slot that ends at end, in whatever tier it is now, leaves a
// window of w seconds, or up to one coarse slot earlier.
func leaves(end, w int64) int64 {
	step := tiers[topTier(w)].step
	return end - step + fineStep + w
}

// add adds the slots of one tier in p and lowers s.until.
func (s *sum) add(r ring, tier int, p span, w int64) {
	step := tiers[tier].step
	for i := len(r) - 1; i >= 0 && r[i].at > p.from; i-- {
		end := int64(r[i].at) * step
		if r[i].at > p.to {
			if tier == 0 {
				s.until = min(s.until, end) // ahead of now
			}
			continue
		}
		for o, n := range r[i].n {
			s.n[o] += uint64(n)
		}
		s.h.addPacked(r[i].h)
		s.until = min(s.until, leaves(end, w))
	}
}

// addOpen adds the open slot if it lies in p, a part of a tier. Coarser tiers do
// not hold it yet.
func (s *sum) addOpen(o *openSlot, tier int, p span, w int64) {
	if o.at == 0 {
		return
	}
	step := tiers[tier].step
	at := int32((int64(o.at)*fineStep + step - 1) / step)
	switch end := int64(at) * step; {
	case at <= p.from:
	case at > p.to:
		if tier == 0 {
			s.until = min(s.until, end)
		}
	default:
		for i, n := range o.n {
			s.n[i] += n
		}
		s.h.addCounts(&o.h)
		s.until = min(s.until, leaves(end, w))
	}
}
