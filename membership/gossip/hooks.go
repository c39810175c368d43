package gossip

import (
	"fmt"
	"net/netip"
	"time"

	"github.com/hashicorp/memberlist"

	"github.com/binnacle-project/binnacle"
)

// hooks is what memberlist calls. Much of it runs under memberlist's
// lock: each returns at once and hands on to the queue.
type hooks struct{ g *Gossip }

// NodeMeta gives the newest sealed metadata.
func (h *hooks) NodeMeta(int) []byte { return *h.g.sealed.Load() }

// Nothing but membership is gossiped: no messages, no broadcasts, no state.

func (h *hooks) NotifyMsg([]byte) {}

func (h *hooks) GetBroadcasts(_, _ int) [][]byte { return nil }

func (h *hooks) LocalState(bool) []byte { return nil }

func (h *hooks) MergeRemoteState([]byte, bool) {}

// NotifyAlive drops the record of anyone who does not prove to be a member: a
// gossip key alone makes no node.
func (h *hooks) NotifyAlive(n *memberlist.Node) error {
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
func (h *hooks) NotifyJoin(n *memberlist.Node) { h.g.heard(n) }

// NotifyUpdate is called for new metadata.
func (h *hooks) NotifyUpdate(n *memberlist.Node) { h.g.heard(n) }

// NotifyLeave is called for one that left or died; its last metadata say which.
func (h *hooks) NotifyLeave(n *memberlist.Node) { h.g.condemned(binnacle.NodeID(n.Name)) }

// NotifyConflict is called when two addresses claim one id.
func (h *hooks) NotifyConflict(existing, other *memberlist.Node) {
	h.g.change(binnacle.NodeID(existing.Name), func(*Member) Kind { return Conflict },
		fmt.Sprintf("both %s and %s gossip under this id: is a state folder shared or copied?", existing.Address(), other.Address()))
}

// AckPayload adds nothing to acknowledgments.
func (h *hooks) AckPayload() []byte { return nil }

// NotifyPingComplete is called for each direct answer over UDP, which clears
// suspicions.
func (h *hooks) NotifyPingComplete(n *memberlist.Node, _ time.Duration, _ []byte) {
	g, id := h.g, binnacle.NodeID(n.Name)
	g.mu.Lock()
	m := g.members[id]
	g.mu.Unlock()
	if m.State == Suspect {
		g.cleared(id)
	}
	g.udpAnswered(m)
}
