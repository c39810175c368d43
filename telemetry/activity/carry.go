package activity

import "github.com/binnacle-project/binnacle"

// This file moves what was booked from tier to tier. A slot of the finest tier is
// carried into the coarser one when the slot there that holds it is over, and so on,
// all that it holds at once. Until then a window that needs the coarse slot takes
// its fine ones, see key.sum.

// perCoarser is how many slots of a tier make one of the next.
func perCoarser(tier int) int32 { return int32(tiers[tier+1].step / tiers[tier].step) }

// coarserSlot is the slot of the next tier that holds slot at of a tier.
func coarserSlot(tier int, at int32) int32 { return (at + perCoarser(tier) - 1) / perCoarser(tier) }

// whole returns the last slot of a tier in the slot of the next that holds at.
func whole(tier int, at int32) int32 { return coarserSlot(tier, at) * perCoarser(tier) }

// oldestSlot is the oldest slot of a tier that is kept at now, Unix s.
func oldestSlot(tier int, now int64) int32 {
	return int32((now - tiers[tier].keep) / tiers[tier].step)
}

// carry adds the slots of a tier up to to, the last in a slot of the next, to that.
func (k *key) carry(tier int, to int32, now int64, ws *space) {
	from := k.carried[tier]
	if to <= from {
		return
	}
	k.carried[tier] = to
	r := k.rings[tier]
	for len(r) > 0 && r.at() <= from {
		r = r[r.end():]
	}
	for len(r) > 0 && r.at() <= to {
		last := whole(tier, r.at())
		var n [binnacle.NumOutcomes]uint64
		at, packed := coarserSlot(tier, last), r.first(&n)
		r = r[r.end():]
		if len(r) > 0 && r.at() <= last {
			ws.sum.reset()
			ws.sum.addPacked(packed)
			for ; len(r) > 0 && r.at() <= last; r = r[r.end():] {
				ws.sum.addPacked(r.first(&n))
			}
			ws.packed = ws.sum.pack(ws.packed[:0])
			packed = ws.packed
		}
		k.enter(tier+1, at, &n, packed, now, ws)
	}
}

// enter adds something to slot at of a tier, and to the next if nobody will carry
// it there: because the slot was carried already, or is not kept.
func (k *key) enter(tier int, at int32, n *[binnacle.NumOutcomes]uint64, packed []byte, now int64, ws *space) {
	oldest := oldestSlot(tier, now)
	if at >= oldest {
		k.rings[tier].put(at, oldest, n, packed, ws)
	}
	if tier+1 < numTiers && (at < oldest || at <= k.carried[tier]) {
		k.enter(tier+1, coarserSlot(tier, at), n, packed, now, ws)
	}
}
