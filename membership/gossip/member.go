package gossip

import (
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/memberlist"

	"github.com/binnacle-project/binnacle"
)

// Kind is what gossip tells of a member.
type Kind string

// The kinds of gossip events.
const (
	Alive   Kind = "alive"
	Suspect Kind = "suspect"
	Dead    Kind = "dead"
	Left    Kind = "left"
	// UDPBlocked says that the member answers over TCP only, and
	// UDPOpen that it answers over UDP again.
	UDPBlocked Kind = "udp_blocked"
	UDPOpen    Kind = "udp_open"
	// Conflict says that somebody at another address uses its id.
	Conflict Kind = "conflict"
)

// Event is a hint about one member.
type Event struct {
	Kind   Kind
	Member Member
	At     time.Time
	// Cause is a sentence for people, empty when the kind says it all.
	Cause string
}

// Member is another member of the gossip, as this one sees it.
type Member struct {
	ID      binnacle.NodeID
	Manager bool
	// Gossip is its signed gossip address.
	Gossip netip.AddrPort
	Meta   Metadata
	// State is Alive, Suspect, Dead or Left.
	State Kind
	Since time.Time
	// UDPBlocked is when it was last found to answer over TCP only, zero if
	// UDP works.
	UDPBlocked time.Time

	condemned time.Time // called dead by others, not yet by this one
}

// Members returns the others, whatever their state, ordered by id. The caller
// owns the slice.
func (g *Gossip) Members() []Member {
	g.mu.Lock()
	defer g.mu.Unlock()
	return slices.SortedFunc(maps.Values(g.members), func(a, b Member) int { return strings.Compare(string(a.ID), string(b.ID)) })
}

// heard takes a record that NotifyAlive let through.
func (g *Gossip) heard(n *memberlist.Node) {
	rec, err := g.verify.open(n.Meta)
	if err != nil || rec.id == g.opts.Identity.ID {
		return
	}
	g.mu.Lock()
	m, known := g.members[rec.id]
	if !known || m.State != Alive {
		m.State, m.Since = Alive, time.Now()
	}
	was := m.Meta.udpBlocked
	m.ID, m.Manager, m.Gossip, m.Meta = rec.id, rec.manager(), rec.gossip, rec.meta
	m.condemned = time.Time{}
	g.members[rec.id] = m
	g.mu.Unlock()
	g.peers.seen(m.ID, m.Gossip, time.Now())
	g.queue.put(Event{Kind: Alive, Member: m, At: time.Now()})
	if m.Meta.udpBlocked != was {
		g.udpSaid(m)
	}
}

// suspected is called when a member answered this one in no way.
func (g *Gossip) suspected(id binnacle.NodeID) {
	g.change(id, func(m *Member) Kind {
		if m.State == Alive {
			m.State, m.Since = Suspect, time.Now()
		}
		return m.State
	}, "it answered no probe")
}

// cleared is called when a suspect turned out to answer.
func (g *Gossip) cleared(id binnacle.NodeID) {
	g.change(id, func(m *Member) Kind {
		if m.State == Suspect && m.condemned.IsZero() {
			m.State, m.Since = Alive, time.Now()
		}
		return m.State
	}, "")
}

// change applies f to a known member and queues the event that f names.
func (g *Gossip) change(id binnacle.NodeID, f func(*Member) Kind, cause string) {
	g.mu.Lock()
	m, ok := g.members[id]
	if !ok {
		g.mu.Unlock()
		return
	}
	kind := f(&m)
	g.members[id] = m
	g.mu.Unlock()
	if m.State == Left {
		g.peers.left(id)
	}
	g.queue.put(Event{Kind: kind, Member: m, At: time.Now(), Cause: cause})
}
