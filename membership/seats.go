package membership

import (
	"cmp"
	"slices"
	"time"

	"github.com/binnacle-project/binnacle"
	"github.com/binnacle-project/binnacle/api"
)

// A seat is held from enrollment until the node is forgotten or revoked, or
// SeatHold after it left or went down. A node that returns later takes a seat
// anew. When there is none, it is over the license's seats: it goes on with the
// lease that it has, gets no other, and precedes nodes that never had one,
// because it counts and they are refused. Of the nodes that count, those that
// took their seats first have them.

// promiseFor is how long a seat that was promised is kept for a node that has
// not shown yet that it got its lease.
const promiseFor = time.Minute

// HeldSeats counts the seats that are taken: nodes that are not gone, and those
// that left or went down less than SeatHold ago. Nodes over the license's seats
// count, too.
func (r *Registry) HeldSeats(now time.Time) int {
	r.mu.RLock()
	defer r.mu.RUnlock()
	held := 0
	for _, n := range r.nodes {
		if r.holdsSeat(n, now) {
			held++
		}
	}
	return held
}

func (r *Registry) holdsSeat(n *node, now time.Time) bool {
	if !n.rec.Revoked.IsZero() {
		return false
	}
	if now.Sub(n.seatPromised) < promiseFor {
		return true
	}
	v := lifeOf(n.signs, now, r.o.Periods)
	return v.State != api.Left && v.State != api.Down || now.Sub(v.Since) < r.o.SeatHold
}

// awaitsSeat reports whether a node that has no seat any more asks for one: it
// precedes those that never had one.
func (r *Registry) awaitsSeat(n *node, now time.Time) bool {
	return n.rec.Revoked.IsZero() && lifeOf(n.signs, now, r.o.Periods).ServesOn
}

// provedLocked takes note that the node proved itself; one whose seat was given
// up takes it anew.
func (r *Registry) provedLocked(n *node, now time.Time) {
	if !r.holdsSeat(n, now) {
		n.seatSince, n.dirty = now, true
	}
	n.proved(now, r.o.Periods)
}

// Count returns how many nodes are registered, whatever their state.
func (r *Registry) Count() int {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return len(r.nodes)
}

// TakeSeat reports whether a node may be given a lease when the license has
// limit seats (0 is unlimited): it has one of them, or gets one that is free,
// which is then its own. It reads memory only.
func (r *Registry) TakeSeat(id binnacle.NodeID, limit int, now time.Time) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := r.nodes[id]
	if n == nil || !n.rec.Revoked.IsZero() || limit < 0 {
		return false
	}
	if limit > 0 {
		since, holds := n.seatSince, r.holdsSeat(n, now)
		if !holds {
			since = now
		}
		before := 0
		for _, o := range r.nodes {
			if o != n && r.holdsSeat(o, now) && seatOrder(o.seatSince, o.rec.ID, since, id) < 0 {
				before++
			}
		}
		if before >= limit {
			return false
		}
		if !holds {
			n.seatSince, n.dirty = now, true
		}
	}
	if !n.signs.LeaseEnded.IsZero() {
		n.seatPromised = now
	}
	return true
}

// OverSeats returns the nodes that hold a lease beyond the limit seats of the
// license (0 is unlimited), with when they began to count.
func (r *Registry) OverSeats(limit int, now time.Time) map[binnacle.NodeID]time.Time {
	if limit <= 0 {
		return nil
	}
	type holder struct {
		id    binnacle.NodeID
		since time.Time
	}
	var holders []holder
	r.mu.RLock()
	for id, n := range r.nodes {
		if r.holdsSeat(n, now) {
			holders = append(holders, holder{id, n.seatSince})
		}
	}
	r.mu.RUnlock()
	if len(holders) <= limit {
		return nil
	}
	slices.SortFunc(holders, func(a, b holder) int { return seatOrder(a.since, a.id, b.since, b.id) })
	over := make(map[binnacle.NodeID]time.Time)
	for _, h := range holders[limit:] {
		over[h.id] = h.since
	}
	return over
}

func seatOrder(a time.Time, aID binnacle.NodeID, b time.Time, bID binnacle.NodeID) int {
	return cmp.Or(a.Compare(b), cmp.Compare(aID, bID))
}
