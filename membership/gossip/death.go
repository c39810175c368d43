package gossip

import (
	"math"
	"time"

	"github.com/binnacle-project/binnacle"
)

// A death is looked at twice. Where packets are lost, the word by which a
// suspect clears itself does not reach everyone in time, and now and then one
// member alone counts it out: at 30 % loss some eight of fifty members a minute.
// The dead do not come back within seconds, and the wronged do, because
// memberlist tells them what is said of them and they deny it. So whoever is
// called dead is suspect for graceProbes more, and is called upon meanwhile.
const (
	// graceProbes is that time in probe intervals.
	graceProbes = 3
	// callers is how many of them are called upon at once, and maxCalls how many
	// wait for it. In a mass failure the others go without: it is a help and no
	// need.
	callers  = 4
	maxCalls = 16
)

// condemned is called, under memberlist's lock, for one that left or is called
// dead.
func (g *Gossip) condemned(id binnacle.NodeID) {
	g.change(id, func(m *Member) Kind {
		now := time.Now()
		switch {
		case m.Meta.Leaving:
			m.State, m.Since, m.condemned = Left, now, time.Time{}
		case m.State != Dead:
			if m.State != Suspect {
				m.Since = now
			}
			m.State, m.condemned = Suspect, now
			select {
			case g.calls <- m.Gossip:
			default:
			}
		}
		return m.State
	}, "others call it dead")
}

// call joins those who are called dead, so that they hear of it and deny it.
func (g *Gossip) call() {
	for {
		select {
		case a := <-g.calls:
			g.join(a)
		case <-g.ctx.Done():
			return
		}
	}
}

// deliver hands events to OnEvent and lets suspicions end that nobody cleared:
// a suspect that refutes is not always heard of.
func (g *Gossip) deliver() {
	tick := time.NewTicker(g.probeInterval)
	defer tick.Stop()
	for {
		select {
		case <-g.queue.wake:
			for _, e := range g.queue.take() {
				g.count.event(e.Kind).Inc()
				if g.opts.OnEvent != nil {
					g.opts.OnEvent(e)
				}
			}
		case now := <-tick.C:
			g.tidy(now)
		case <-g.ctx.Done():
			return
		}
	}
}

// forgetMembers is how long a dead or departed member stays listed.
const forgetMembers = 24 * time.Hour

func (g *Gossip) tidy(now time.Time) {
	g.mu.Lock()
	life := suspicionLife(len(g.members) + 1)
	var cleared, dead []binnacle.NodeID
	var blocked []Member
	for id, m := range g.members {
		switch {
		case !m.condemned.IsZero():
			if now.Sub(m.condemned) >= graceProbes*g.probeInterval {
				dead = append(dead, id)
			}
		case m.State == Suspect && now.Sub(m.Since) > life:
			cleared = append(cleared, id)
		case (m.State == Dead || m.State == Left) && now.Sub(m.Since) > forgetMembers:
			delete(g.members, id)
		case m.State == Alive && m.Meta.udpBlocked && now.Sub(m.UDPBlocked) >= udpRepeatEvery:
			blocked = append(blocked, m)
		}
	}
	g.mu.Unlock()
	for _, id := range cleared {
		g.cleared(id)
	}
	for _, id := range dead {
		g.died(id)
	}
	for _, m := range blocked {
		g.udpSaid(m)
	}
}

// died is called when nothing was heard of a condemned member in its grace.
func (g *Gossip) died(id binnacle.NodeID) {
	g.change(id, func(m *Member) Kind {
		if !m.condemned.IsZero() {
			m.State, m.Since, m.condemned = Dead, time.Now(), time.Time{}
		}
		return m.State
	}, "")
}

// suspicionLife is the longest that memberlist suspects one of n members
// before it is dead, and some more. The LAN profile's formula: 4 x log10(n) x
// 1 s, up to six times as long without confirmations.
func suspicionLife(n int) time.Duration {
	scale := math.Max(1, math.Log10(math.Max(1, float64(n))))
	return time.Duration(scale*24*float64(time.Second)) + 5*time.Second
}
