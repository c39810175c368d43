package membership

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/binnacle-project/binnacle/api"
	"github.com/binnacle-project/binnacle/membership/gossip"
)

// Periods are the time limits by which states are decided.
type Periods struct {
	// PollWithin is how long a node may be silent: the longest wait of a poll
	// and a margin for one failed try.
	PollWithin time.Duration
	// BrokenSuspect is how long after a held poll's connection broke, without
	// another, a node is suspect, and BrokenLost when it is unreachable. A
	// killed process breaks its connections at once; one that only lost a
	// connection polls again within a second or two.
	BrokenSuspect time.Duration
	BrokenLost    time.Duration
	// GossipLost is how long after gossip called a node dead, and its held poll was
	// answered for that, it is unreachable unless it polls again. Whoever lives
	// does so within a second.
	GossipLost time.Duration
	// DownAfter is from unreachable to down.
	DownAfter time.Duration
	// GossipGrace is how long a node may poll without a word of it in gossip,
	// before that is worth a condition: it rejoins within some ten seconds.
	GossipGrace time.Duration
	// HintsWrong is how long gossip is not believed alone about a node that it
	// was wrong about.
	HintsWrong time.Duration
	// FlapCount losses within FlapWindow make a node flapping.
	FlapWindow time.Duration
	FlapCount  int
	// UDPBlockedFor is how long a finding of blocked UDP holds.
	UDPBlockedFor time.Duration
}

// DefaultPeriods returns the limits for nodes that poll with a wait of 30 s.
func DefaultPeriods() Periods {
	return Periods{
		PollWithin:    45 * time.Second,
		BrokenSuspect: time.Second,
		BrokenLost:    5 * time.Second,
		GossipLost:    3 * time.Second,
		DownAfter:     5 * time.Minute,
		GossipGrace:   time.Minute,
		HintsWrong:    10 * time.Minute,
		FlapWindow:    10 * time.Minute,
		FlapCount:     3,
		UDPBlockedFor: 5 * time.Minute,
	}
}

// Signs are the signs of life of one node, all there is to decide its state
// by. A zero time means never.
type Signs struct {
	// AliveSince is when the node enrolled or came back last.
	AliveSince time.Time
	// LastPoll is the last time that the node proved itself to the manager by
	// enrolling, beginning or ending a poll, or reporting.
	LastPoll time.Time
	// PollBroken is when a held poll broke off and no other was held, cleared by
	// the next.
	PollBroken time.Time
	// LeftAt is when the node said that it stops; cleared when it comes back.
	LeftAt time.Time
	// LeaseEnded is when the node said that it has no valid lease any more;
	// cleared when it says that it has. Its polls ask for one and are no return.
	LeaseEnded time.Time

	// Resumed is when this manager began to watch; silence before it proves
	// nothing. LostBefore and DownBefore are when a manager before it found the
	// node unreachable and down, zero if it did not.
	Resumed                time.Time
	LostBefore, DownBefore time.Time

	// Gossip is the newest word of gossip, empty for none, and GossipAt when it
	// came.
	Gossip   gossip.Kind
	GossipAt time.Time
	// GossipExpected is true where both the node and the manager gossip.
	GossipExpected bool
	// GossipWrong is when a poll last proved gossip wrong about the node's
	// death, and GossipWrongSince when that began.
	GossipWrong, GossipWrongSince time.Time
	// UDPBlocked is when UDP was last found blocked, UDPBlockedSince when first.
	UDPBlocked, UDPBlockedSince time.Time
	// Conflict is when two addresses were last seen to claim the node's id,
	// ConflictCause the sentence about it.
	Conflict      time.Time
	ConflictCause string

	// DrainingSince is when the node began to drain, zero if it does not.
	DrainingSince time.Time
	// Losses are the last times at which the node was lost, oldest first.
	Losses []time.Time
}

// Verdict is what StateOf decides.
type Verdict struct {
	State api.NodeState
	// Since is when the state began, as near as the signs tell.
	Since time.Time
	// Cause is a sentence for people.
	Cause string
	// Doubted is true for a suspect whose poll is broken, which traffic should
	// avoid. A suspicion of gossip alone is too weak for that.
	Doubted bool
	// ServesOn is true of a node that left because its lease ended and is heard
	// of all the same: no license takes it away from its clients.
	ServesOn bool
	// Conditions are ordered by kind; never nil.
	Conditions []api.Condition
}

// StateOf decides a node's state at the time now from its signs of life.
//
// The poll is the truth: who polls in time is alive, and only who does not can
// be down. Gossip is a hint: it makes a node suspect, or unreachable when it
// says that the node is dead and no poll since denies it. A node that said
// good-bye has left at once. StateOf depends on nothing else.
func StateOf(s Signs, now time.Time, p Periods) Verdict {
	v := lifeOf(s, now, p)
	v.Conditions = conditionsOf(s, v, now, p)
	return v
}

// lifeOf decides all but the conditions.
func lifeOf(s Signs, now time.Time, p Periods) Verdict {
	if !s.LeftAt.IsZero() {
		return Verdict{State: api.Left, Since: s.LeftAt, Cause: "it said that it stops"}
	}
	if !s.LeaseEnded.IsZero() {
		return Verdict{
			State: api.Left, Since: s.LeaseEnded, Cause: "its lease ended",
			ServesOn: s.PollBroken.IsZero() && now.Sub(latest(s.LastPoll, s.Resumed)) < p.PollWithin,
		}
	}
	if !s.DownBefore.IsZero() && !s.LastPoll.After(s.DownBefore) {
		return Verdict{State: api.Down, Since: s.DownBefore, Cause: causeLostBefore}
	}
	if lost, cause := lostAt(s, now, p); !lost.IsZero() {
		// Time without a manager counts, but each new manager gives a node the
		// time of one poll before it gives it up.
		if down := latest(lost.Add(p.DownAfter), s.Resumed.Add(p.PollWithin)); !now.Before(down) {
			return Verdict{State: api.Down, Since: down, Cause: cause}
		}
		return Verdict{State: api.Unreachable, Since: lost, Cause: cause}
	}
	if !s.PollBroken.IsZero() && now.Sub(s.PollBroken) >= p.BrokenSuspect {
		return Verdict{State: api.Suspect, Since: s.PollBroken.Add(p.BrokenSuspect), Cause: "the connection of its poll broke", Doubted: true}
	}
	if s.Gossip == gossip.Suspect && !hintsWrong(s, now, p) {
		return Verdict{State: api.Suspect, Since: s.GossipAt, Cause: "gossip: it answered no probe"}
	}
	if calledDead(s, now, p) {
		return Verdict{State: api.Suspect, Since: s.GossipAt, Cause: "gossip: no member reaches it"}
	}
	return Verdict{State: api.Alive, Since: s.AliveSince}
}

const causeLostBefore = "it was lost before the manager started, and did not come back"

// lostAt returns when the node was lost and why, or the zero time.
func lostAt(s Signs, now time.Time, p Periods) (time.Time, string) {
	if !s.LostBefore.IsZero() && !s.LastPoll.After(s.LostBefore) {
		return s.LostBefore, causeLostBefore
	}
	if calledDead(s, now, p) {
		if at := s.GossipAt.Add(p.GossipLost); !now.Before(at) {
			return at, "gossip: no member reaches it, and it has not polled since"
		}
	}
	if !s.PollBroken.IsZero() {
		if at := s.PollBroken.Add(p.BrokenLost); !now.Before(at) {
			return at, "the connection of its poll broke, and it has not polled since"
		}
	}
	if at := latest(s.LastPoll, s.Resumed).Add(p.PollWithin); !now.Before(at) {
		return at, fmt.Sprintf("it has not polled for %v", p.PollWithin)
	}
	return time.Time{}, ""
}

// calledDead reports whether gossip says that the node is dead, and no poll denies
// it.
func calledDead(s Signs, now time.Time, p Periods) bool {
	return s.Gossip == gossip.Dead && s.GossipAt.After(s.LastPoll) && !hintsWrong(s, now, p)
}

// hintsWrong reports whether a poll proved gossip wrong about the node's death
// not long ago.
func hintsWrong(s Signs, now time.Time, p Periods) bool {
	return !s.GossipWrong.IsZero() && now.Sub(s.GossipWrong) < p.HintsWrong
}

func conditionsOf(s Signs, v Verdict, now time.Time, p Periods) []api.Condition {
	conds := []api.Condition{}
	add := func(kind string, since time.Time, cause string) {
		conds = append(conds, api.Condition{Kind: kind, Since: since, Cause: cause})
	}
	if n := recentLosses(s.Losses, now, p); n >= p.FlapCount {
		add(api.CondFlapping, s.Losses[len(s.Losses)-n+p.FlapCount-1], fmt.Sprintf("lost %d times within %v", n, p.FlapWindow))
	}
	if v.State == api.Left && s.LeftAt.IsZero() {
		cause := "it serves under its fallback rate and asks for a lease"
		if !v.ServesOn {
			cause = "it served under its fallback rate and is not heard of any more"
		}
		add(api.CondLeaseEnded, s.LeaseEnded, cause)
	}
	if v.State == api.Alive || v.State == api.Suspect {
		if !s.DrainingSince.IsZero() {
			add(api.CondDraining, s.DrainingSince, "it takes no new traffic")
		}
		if since, cause := gossipConflict(s, now, p); cause != "" {
			add(api.CondGossipConflict, since, cause)
		}
		if !s.UDPBlocked.IsZero() && now.Sub(s.UDPBlocked) < p.UDPBlockedFor {
			add(api.CondUDPBlocked, s.UDPBlockedSince, "gossip reaches it over TCP but not over UDP: open UDP on the gossip port both ways")
		}
	}
	slices.SortFunc(conds, func(a, b api.Condition) int { return strings.Compare(a.Kind, b.Kind) })
	return conds
}

// gossipConflict says where gossip and poll contradict each other.
func gossipConflict(s Signs, now time.Time, p Periods) (time.Time, string) {
	switch {
	case !s.Conflict.IsZero() && now.Sub(s.Conflict) < p.HintsWrong:
		return s.Conflict, s.ConflictCause
	case s.Gossip == gossip.Dead && hintsWrong(s, now, p):
		return s.GossipWrongSince, "gossip calls it dead while it polls: its gossip port, UDP and TCP, cannot be reached"
	case s.GossipExpected && s.Gossip != gossip.Alive && s.Gossip != gossip.Suspect:
		if at := latest(latest(s.AliveSince, s.GossipAt), s.Resumed).Add(p.GossipGrace); !now.Before(at) {
			return at, "it polls but gossip does not hear of it: its gossip port or the manager's, UDP and TCP, cannot be reached"
		}
	}
	return time.Time{}, ""
}

// recentLosses counts the losses within the window.
func recentLosses(losses []time.Time, now time.Time, p Periods) int {
	n := 0
	for _, t := range losses {
		if now.Sub(t) < p.FlapWindow {
			n++
		}
	}
	return n
}

func latest(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
