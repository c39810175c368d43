package gossip

import (
	"time"

	"github.com/binnacle-project/binnacle"
)

// Blocked UDP hides: memberlist goes on over TCP, slowly, and says so in its log
// only. Whoever probes a member finds out, but one among hundreds is probed by
// the manager every few minutes. The member itself finds out within seconds,
// because every probe of its own fails over UDP. It then says so of itself, and
// tells a manager over TCP.

// udpStreak is how many different members in a row have to answer over TCP only
// before a member takes it that its own UDP is at fault, and not theirs.
const udpStreak = 3

const causeUDPBlocked = "it answers over TCP but not over UDP: open UDP on the gossip port both ways"

// udpBlocked is called when a member answered over TCP but not over UDP.
func (g *Gossip) udpBlocked(id binnacle.NodeID) {
	g.cleared(id)
	g.mu.Lock()
	g.tcpOnly[id] = true
	own := len(g.tcpOnly) >= udpStreak
	g.mu.Unlock()
	if own {
		g.setOwnUDP(true)
		return
	}
	g.change(id, func(m *Member) Kind { m.UDPBlocked = time.Now(); return UDPBlocked }, causeUDPBlocked)
}

// udpAnswered is called when a member answered over UDP.
func (g *Gossip) udpAnswered(m Member) {
	g.mu.Lock()
	clear(g.tcpOnly)
	own := g.ownUDPBlocked
	g.mu.Unlock()
	if own {
		g.setOwnUDP(false)
	}
	if !m.UDPBlocked.IsZero() && !m.Meta.udpBlocked {
		g.change(m.ID, func(m *Member) Kind { m.UDPBlocked = time.Time{}; return UDPOpen }, "")
	}
}

// udpSaid is called when a member says something new of its own UDP.
func (g *Gossip) udpSaid(m Member) {
	g.change(m.ID, func(m *Member) Kind {
		if m.Meta.udpBlocked {
			m.UDPBlocked = time.Now()
			return UDPBlocked
		}
		m.UDPBlocked = time.Time{}
		return UDPOpen
	}, causeUDPBlocked)
}

// udpRepeatEvery is how often it is told that a member still says of itself that
// its UDP is blocked: a finding that is not repeated fades.
const udpRepeatEvery = time.Minute

// setOwnUDP takes note that this member's UDP is blocked, or is not any more,
// and has it announced. Those who were blamed at first are cleared.
func (g *Gossip) setOwnUDP(blocked bool) {
	g.mu.Lock()
	if g.ownUDPBlocked == blocked {
		g.mu.Unlock()
		return
	}
	g.ownUDPBlocked = blocked
	var blamed []binnacle.NodeID
	for id := range g.tcpOnly {
		blamed = append(blamed, id)
	}
	g.mu.Unlock()
	if blocked {
		g.log.Warn("gossip gets through over TCP but not over UDP; it works, slowly: open UDP on the gossip port both ways", "address", g.self)
	} else {
		g.log.Info("gossip gets through over UDP again", "address", g.self)
	}
	for _, id := range blamed {
		g.change(id, func(m *Member) Kind { m.UDPBlocked = time.Time{}; return UDPOpen }, "")
	}
	if err := g.reseal(); err != nil {
		g.log.Error("gossip cannot tell of its UDP", "error", err) // the same fields were sealed before
		return
	}
	g.announceSoon()
}

// UDPBlocked reports whether this member takes it that its own UDP is blocked.
func (g *Gossip) UDPBlocked() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.ownUDPBlocked
}

// tellManagers exchanges news with the managers that live, over TCP.
func (g *Gossip) tellManagers() {
	for _, m := range g.Members() {
		if m.Manager && m.State == Alive {
			g.join(m.Gossip)
		}
	}
}
