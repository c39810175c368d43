package membership

import (
	"fmt"
	"net/netip"
	"time"

	"github.com/VictoriaMetrics/metrics"
	"github.com/hashicorp/memberlist"

	"github.com/binnacle-project/binnacle"
)

// gossipHooks is what memberlist calls. Much of it runs under memberlist's
// lock: each returns at once and hands on to the queue.
type gossipHooks struct{ g *Gossip }

// NodeMeta gives the newest sealed metadata.
func (h *gossipHooks) NodeMeta(int) []byte { return *h.g.sealed.Load() }

// Nothing but membership is gossiped: no messages, no broadcasts, no state.

func (h *gossipHooks) NotifyMsg([]byte)                {}
func (h *gossipHooks) GetBroadcasts(_, _ int) [][]byte { return nil }
func (h *gossipHooks) LocalState(bool) []byte          { return nil }
func (h *gossipHooks) MergeRemoteState([]byte, bool)   {}

// NotifyAlive drops the record of anyone who does not prove to be a member: a
// gossip key alone makes no node.
func (h *gossipHooks) NotifyAlive(n *memberlist.Node) error {
	g := h.g
	rec, err := g.verify.open(n.Meta)
	if err != nil {
		g.count.refused("certificate").Inc()
		return err
	}
	addr, _ := netip.AddrFromSlice(n.Addr)
	switch seen := netip.AddrPortFrom(addr.Unmap(), n.Port); {
	case string(rec.id) != n.Name:
		g.count.refused("name").Inc()
		return fmt.Errorf("it shows the metadata of %s", rec.id)
	case rec.gossip != seen:
		g.count.refused("address").Inc()
		return fmt.Errorf("its key signed the address %s, the record says %s", rec.gossip, seen)
	}
	if g.opts.Allow == nil || rec.id == g.opts.Identity.ID || rec.manager() {
		return nil
	}
	if err := g.opts.Allow(rec.id, rec.key); err != nil {
		g.count.refused("not_allowed").Inc()
		return err
	}
	return nil
}

// NotifyJoin is called for a member that was unknown, dead or left.
func (h *gossipHooks) NotifyJoin(n *memberlist.Node) { h.g.heard(n) }

// NotifyUpdate is called for new metadata.
func (h *gossipHooks) NotifyUpdate(n *memberlist.Node) { h.g.heard(n) }

// NotifyLeave is called for one that left or died; its last metadata say which.
func (h *gossipHooks) NotifyLeave(n *memberlist.Node) { h.g.condemned(binnacle.NodeID(n.Name)) }

// NotifyConflict is called when two addresses claim one id.
func (h *gossipHooks) NotifyConflict(existing, other *memberlist.Node) {
	h.g.change(binnacle.NodeID(existing.Name), func(*Member) GossipKind { return GossipConflict },
		fmt.Sprintf("both %s and %s gossip under this id: is a state folder shared or copied?", existing.Address(), other.Address()))
}

// AckPayload adds nothing to acknowledgments.
func (h *gossipHooks) AckPayload() []byte { return nil }

// NotifyPingComplete is called for each direct answer over UDP, which clears
// suspicions.
func (h *gossipHooks) NotifyPingComplete(n *memberlist.Node, _ time.Duration, _ []byte) {
	g, id := h.g, binnacle.NodeID(n.Name)
	g.mu.Lock()
	m := g.members[id]
	g.mu.Unlock()
	if m.State == GossipSuspect {
		g.cleared(id)
	}
	g.udpAnswered(m)
}

// heard takes a record that NotifyAlive let through.
func (g *Gossip) heard(n *memberlist.Node) {
	rec, err := g.verify.open(n.Meta)
	if err != nil || rec.id == g.opts.Identity.ID {
		return
	}
	g.mu.Lock()
	m, known := g.members[rec.id]
	if !known || m.State != GossipAlive {
		m.State, m.Since = GossipAlive, time.Now()
	}
	was := m.Meta.udpBlocked
	m.ID, m.Manager, m.Gossip, m.Meta = rec.id, rec.manager(), rec.gossip, rec.meta
	m.condemned = time.Time{}
	g.members[rec.id] = m
	g.mu.Unlock()
	g.peers.seen(m.ID, m.Gossip, time.Now())
	g.queue.put(GossipEvent{Kind: GossipAlive, Member: m, At: time.Now()})
	if m.Meta.udpBlocked != was {
		g.udpSaid(m)
	}
}

// suspected is called when a member answered this one in no way.
func (g *Gossip) suspected(id binnacle.NodeID) {
	g.change(id, func(m *Member) GossipKind {
		if m.State == GossipAlive {
			m.State, m.Since = GossipSuspect, time.Now()
		}
		return m.State
	}, "it answered no probe")
}

// cleared is called when a suspect turned out to answer.
func (g *Gossip) cleared(id binnacle.NodeID) {
	g.change(id, func(m *Member) GossipKind {
		if m.State == GossipSuspect && m.condemned.IsZero() {
			m.State, m.Since = GossipAlive, time.Now()
		}
		return m.State
	}, "")
}

// change applies f to a known member and queues the event that f names.
func (g *Gossip) change(id binnacle.NodeID, f func(*Member) GossipKind, cause string) {
	g.mu.Lock()
	m, ok := g.members[id]
	if !ok {
		g.mu.Unlock()
		return
	}
	kind := f(&m)
	g.members[id] = m
	g.mu.Unlock()
	if m.State == GossipLeft {
		g.peers.left(id)
	}
	g.queue.put(GossipEvent{Kind: kind, Member: m, At: time.Now(), Cause: cause})
}

type gossipCounters struct {
	set                                   *metrics.Set
	dropped, joins, joinFailures, handoff *metrics.Counter
	undecryptable, foreign, refuted       *metrics.Counter
}

func newGossipCounters(set *metrics.Set) gossipCounters {
	return gossipCounters{
		set:           set,
		dropped:       set.GetOrCreateCounter(`binnacle_gossip_events_dropped_total`),
		joins:         set.GetOrCreateCounter(`binnacle_gossip_joins_total{result="ok"}`),
		joinFailures:  set.GetOrCreateCounter(`binnacle_gossip_joins_total{result="failed"}`),
		handoff:       set.GetOrCreateCounter(`binnacle_gossip_messages_dropped_total`),
		undecryptable: set.GetOrCreateCounter(`binnacle_gossip_refused_packets_total{reason="key"}`),
		foreign:       set.GetOrCreateCounter(`binnacle_gossip_refused_packets_total{reason="label"}`),
		refuted:       set.GetOrCreateCounter(`binnacle_gossip_refutations_total`),
	}
}

func (c *gossipCounters) refused(reason string) *metrics.Counter {
	return c.set.GetOrCreateCounter(`binnacle_gossip_refused_records_total{reason="` + reason + `"}`)
}

func (c *gossipCounters) event(k GossipKind) *metrics.Counter {
	return c.set.GetOrCreateCounter(`binnacle_gossip_events_total{kind="` + string(k) + `"}`)
}

// registerGauges exports the members by state and memberlist's own health. A
// set that already has them, from an earlier life, keeps those of the newest.
func (g *Gossip) registerGauges(set *metrics.Set) {
	gauge := func(name string, f func() float64) {
		set.UnregisterMetric(name)
		set.GetOrCreateGauge(name, f)
	}
	for _, s := range []GossipKind{GossipAlive, GossipSuspect, GossipDead, GossipLeft} {
		gauge(`binnacle_gossip_members{state="`+string(s)+`"}`, func() float64 {
			g.mu.Lock()
			defer g.mu.Unlock()
			n := 0
			for _, m := range g.members {
				if m.State == s {
					n++
				}
			}
			return float64(n)
		})
	}
	gauge(`binnacle_gossip_udp_blocked`, func() float64 {
		if g.UDPBlocked() {
			return 1
		}
		return 0
	})
	gauge(`binnacle_gossip_health_score`, func() float64 { return float64(g.list.GetHealthScore()) })
}
