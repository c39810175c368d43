package membership

import (
	"context"
	"encoding/base64"
	"net/http"
	"net/netip"
	"slices"
	"time"

	"github.com/binnacle-project/binnacle"
	"github.com/binnacle-project/binnacle/api"
	"github.com/binnacle-project/binnacle/membership/gossip"
)

// Polled takes note of a poll that is answered at once. Use Polling for polls
// that are held.
func (r *Registry) Polled(id binnacle.NodeID, peer netip.Addr) {
	r.Polling(id, peer, nil)(false)
}

// lingering is how long after its good-bye a node's polls do not bring it back:
// its last one may be answered, and asked again, while it stops. One that was
// started again so soon says so with its first status.
const lingering = 10 * time.Second

// heldPoll is a poll from its begin to its end.
type heldPoll struct {
	doubt   func() // may be nil
	doubted bool   // gossip called the node dead meanwhile
}

// Polling takes note that a node's poll is held from now on. The caller calls
// end, once, and says whether the poll's connection broke, which is the fastest
// sign of a killed node.
//
// doubt, if not nil, is called when gossip calls the node dead meanwhile, once,
// and must not block or call back: the caller then answers at once, which proves
// nothing, and a living node, which gossip cannot reach, asks again and proves it.
func (r *Registry) Polling(id binnacle.NodeID, peer netip.Addr, doubt func()) (end func(broken bool)) {
	now := time.Now()
	var of *node
	p := &heldPoll{doubt: doubt}
	r.sign(id, func(n *node) {
		switch {
		case !n.signs.LeaseEnded.IsZero():
			n.signs.LastPoll, n.signs.PollBroken = now, time.Time{}
		case now.Sub(n.signs.LeftAt) >= lingering:
			r.provedLocked(n, now)
		}
		n.peer = peer
		n.joined = true
		n.polls = append(n.polls, p)
		of = n
	})
	if of == nil {
		return func(bool) {}
	}
	return func(broken bool) {
		at := time.Now()
		r.mu.Lock()
		defer r.mu.Unlock()
		if i := slices.Index(of.polls, p); i >= 0 {
			of.polls = slices.Delete(of.polls, i, i+1)
		}
		switch s := &of.signs; {
		case !broken && !p.doubted && s.LeftAt.IsZero():
			s.LastPoll = at
		case broken && len(of.polls) == 0:
			s.PollBroken = at
			r.touchLocked(of)
		}
	}
}

// Reported takes a node's own account of itself. A leaving node has left when
// Reported returns, durably. What does not fit is refused with an *api.Problem.
func (r *Registry) Reported(ctx context.Context, id binnacle.NodeID, st api.Status) error {
	if err := checkReported(st.Address, st.GossipAddress, st.Version); err != nil {
		return err
	}
	now := time.Now()
	known := r.sign(id, func(n *node) {
		ended := n.signs.LeaseEnded
		switch {
		case st.Leaving:
			n.signs.LastPoll = now
			if n.signs.LeftAt.IsZero() {
				n.signs.LeftAt = now
			}
		case st.LeaseEnded:
			if ended.IsZero() {
				ended = now
			}
			r.provedLocked(n, now)
			n.signs.LeaseEnded = ended
		default:
			r.provedLocked(n, now)
		}
		n.dirty = n.dirty || ended != n.signs.LeaseEnded
		n.take(st, now)
		n.signs.GossipExpected = n.gossipAddress != "" && !r.o.GossipOff
	})
	if !known {
		return problem(http.StatusNotFound, "No such node", "no node %.60q is registered", string(id))
	}
	if st.Leaving {
		return r.note(ctx, now)
	}
	return nil
}

// SetGossip takes a hint of gossip. Hints about members that are no nodes of
// the registry, such as managers, are passed over.
func (r *Registry) SetGossip(e gossip.Event) {
	r.sign(e.Member.ID, func(n *node) {
		s := &n.signs
		switch e.Kind {
		case gossip.UDPBlocked:
			if s.UDPBlocked.IsZero() || e.At.Sub(s.UDPBlocked) >= r.o.Periods.UDPBlockedFor {
				s.UDPBlockedSince = e.At
			}
			s.UDPBlocked = e.At
		case gossip.UDPOpen:
			s.UDPBlocked = time.Time{}
		case gossip.Conflict:
			s.Conflict, s.ConflictCause = e.At, e.Cause
		default:
			// The newest word counts; an alive that repeats one does not move
			// its time.
			if e.Kind != s.Gossip || e.Kind != gossip.Alive {
				s.Gossip, s.GossipAt = e.Kind, e.At
			}
			if e.Kind == gossip.Dead {
				n.doubtPolls()
			}
		}
	})
}

// came takes note of an enrollment.
func (r *Registry) came(rec Record, peer netip.Addr, now time.Time) {
	r.sign(rec.ID, func(n *node) {
		r.provedLocked(n, now)
		n.peer = peer
		n.address, n.gossipAddress, n.versionName = rec.Address, rec.GossipAddress, rec.Version
		n.dirty = true
	})
	r.announceChange()
}

// sign applies f to a node that is registered and wakes Run. It reports whether
// there is one.
func (r *Registry) sign(id binnacle.NodeID, f func(*node)) bool {
	r.mu.Lock()
	n := r.nodes[id]
	if n != nil {
		f(n)
		r.touchLocked(n)
	}
	r.mu.Unlock()
	r.wake()
	return n != nil
}

// touchLocked has Run look at the node when it is awake, and not only with the
// next look at all.
func (r *Registry) touchLocked(n *node) {
	if !n.touched {
		n.touched = true
		r.touched = append(r.touched, n)
	}
}

func (r *Registry) wake() {
	select {
	case r.kick <- struct{}{}:
	default:
	}
}

// proved takes note that the node proved itself. Whoever was lost or had left
// is back.
func (n *node) proved(now time.Time, p Periods) {
	s := &n.signs
	if v := lifeOf(*s, now, p); v.State != api.Alive && v.State != api.Suspect {
		s.AliveSince = now
	}
	// Gossip was wrong about a death if the polls did not agree with it then: a
	// node that died and came back is no contradiction.
	if s.Gossip == gossip.Dead && s.PollBroken.IsZero() && s.LeftAt.IsZero() && now.Sub(s.LastPoll) < p.PollWithin {
		if !hintsWrong(*s, now, p) {
			s.GossipWrongSince = now
		}
		s.GossipWrong = now
	}
	s.LastPoll = now
	s.LeftAt, s.PollBroken, s.LeaseEnded = time.Time{}, time.Time{}, time.Time{}
	s.LostBefore, s.DownBefore = time.Time{}, time.Time{}
}

// doubtPolls tells those who hold the node's polls that gossip calls it dead.
func (n *node) doubtPolls() {
	for _, p := range n.polls {
		if !p.doubted && p.doubt != nil {
			p.doubt()
		}
		p.doubted = true
	}
}

// take takes what a status says beside the signs of life.
func (n *node) take(st api.Status, now time.Time) {
	address, gossip := reachable(st.Address, n.peer), reachable(st.GossipAddress, n.peer)
	if n.serving != st.Serving || n.address != address || n.gossipAddress != gossip || n.versionName != st.Version {
		n.dirty = true
	}
	n.gossipKey = st.GossipKeyID
	n.serving, n.address, n.gossipAddress, n.versionName = st.Serving, address, gossip, st.Version
	if st.Draining != !n.signs.DrainingSince.IsZero() {
		n.dirty = true
		n.signs.DrainingSince = time.Time{}
		if st.Draining {
			n.signs.DrainingSince = now
		}
	}
}

func encodeCert(b []byte) string { return base64.StdEncoding.EncodeToString(b) }

// DecodeMembershipCert reads the form of a membership certificate that answers
// carry.
func DecodeMembershipCert(s string) ([]byte, error) { return base64.StdEncoding.DecodeString(s) }
