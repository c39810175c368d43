package activity

import (
	"math"

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
	// step and keep are in seconds. What is older than keep no window takes from the
	// tier any more, also one that ended a minute ago, see matrixSteps.
	step, keep int64
}{
	{2, 60 + 12},
	{30, 300 + 90},
	{300, 3600 + 360},
}

const numTiers = 3

// fineStep is the step of the finest tier, and of the charts, in seconds.
const fineStep = 2

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
	// oldest is where its oldest slot ends, and ahead where the first does that
	// begins after the window, Unix seconds.
	oldest, ahead int64
}

// until is when (Unix seconds) the same window of w seconds, moved on, may give
// another sum although nothing was booked: when its oldest slot leaves it, or one
// that is ahead of it enters. That whole slots of a finer tier become one of a
// coarser changes nothing, but for what came too late for the finer.
func (s *sum) until(w int64) int64 { return min(s.ahead, leaves(s.oldest, w)) }

// leaves is when a slot that ends at end, in whatever tier it is now, leaves a
// window of w seconds, or up to one coarse slot earlier.
func leaves(end, w int64) int64 {
	if end == math.MaxInt64 { // there is none
		return end
	}
	step := tiers[topTier(w)].step
	return end - step + fineStep + w
}

// addOpen adds the open slot if it lies in p, a part of a tier. Coarser tiers do
// not hold it yet.
func (s *sum) addOpen(o *openSlot, tier int, p span) {
	if o.at == 0 {
		return
	}
	step := tiers[tier].step
	at := int32((int64(o.at)*fineStep + step - 1) / step)
	switch end := int64(at) * step; {
	case at <= p.from:
	case at > p.to:
		if tier == 0 {
			s.ahead = min(s.ahead, end)
		}
	default:
		for i, n := range o.n {
			s.n[i] += n
		}
		s.h.addCounts(&o.h)
		s.oldest = min(s.oldest, end)
	}
}
