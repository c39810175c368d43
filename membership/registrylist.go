package membership

import (
	"slices"
	"strings"
	"time"

	"github.com/binnacle-project/binnacle"
	"github.com/binnacle-project/binnacle/api"
)

// IsNode reports whether id is registered, also if revoked.
func (r *Registry) IsNode(id binnacle.NodeID) bool {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.nodes[id] != nil
}

// Record returns what enrollment fixed about a node.
func (r *Registry) Record(id binnacle.NodeID) (Record, bool) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	if n := r.nodes[id]; n != nil && n.rec.Revoked.IsZero() {
		return n.rec, true
	}
	return Record{}, false
}

// GroupOf returns a node's group, empty if it is not registered.
func (r *Registry) GroupOf(id binnacle.NodeID) binnacle.Group {
	r.mu.RLock()
	defer r.mu.RUnlock()
	if n := r.nodes[id]; n != nil {
		return n.rec.Group
	}
	return ""
}

// Nodes returns all nodes as of now, ordered by name and id, without lease,
// ledger and activity, which others know. The caller owns the slice; labels are
// shared.
func (r *Registry) Nodes(now time.Time) []api.Node {
	return r.list(now, func(api.Node, Verdict) bool { return true })
}

// Get returns one node as Nodes does.
func (r *Registry) Get(id binnacle.NodeID, now time.Time) (api.Node, bool) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	n := r.nodes[id]
	if n == nil || !n.rec.Revoked.IsZero() {
		return api.Node{}, false
	}
	return n.view(StateOf(n.signs, now, r.o.Periods)), true
}

func (r *Registry) list(now time.Time, keep func(api.Node, Verdict) bool) []api.Node {
	r.mu.RLock()
	defer r.mu.RUnlock()
	out := make([]api.Node, 0, len(r.nodes))
	for _, n := range r.nodes {
		if !n.rec.Revoked.IsZero() {
			continue
		}
		v := StateOf(n.signs, now, r.o.Periods)
		if view := n.view(v); keep(view, v) {
			out = append(out, view)
		}
	}
	sortNodes(out)
	return out
}

func (n *node) view(v Verdict) api.Node {
	return api.Node{
		ID:            n.rec.ID,
		Name:          n.rec.Name,
		Group:         n.rec.Group,
		Labels:        n.rec.Labels,
		Address:       n.address,
		GossipAddress: n.gossipAddress,
		Version:       n.versionName,
		Managed:       true,
		State:         v.State,
		StateSince:    v.Since,
		StateCause:    v.Cause,
		Conditions:    v.Conditions,
		Enrolled:      n.rec.Enrolled,
		LastPoll:      n.signs.LastPoll,
	}
}

func sortNodes(nodes []api.Node) {
	slices.SortFunc(nodes, func(a, b api.Node) int {
		if c := strings.Compare(a.Name, b.Name); c != 0 {
			return c
		}
		return strings.Compare(string(a.ID), string(b.ID))
	})
}

// Ready returns the nodes that may be given traffic: they serve, do not drain
// and are alive, or poll without a valid lease: that is no reason to take a node
// from its clients. A suspicion of gossip alone takes nobody away, either: a load
// balancer's own checks are faster and surer.
func (r *Registry) Ready(now time.Time) []api.Node {
	r.mu.RLock()
	defer r.mu.RUnlock()
	out := []api.Node{}
	for _, n := range r.nodes {
		if v := StateOf(n.signs, now, r.o.Periods); n.isReady(v) {
			out = append(out, n.view(v))
		}
	}
	sortNodes(out)
	return out
}

func (n *node) isReady(v Verdict) bool {
	return n.rec.Revoked.IsZero() && n.serving && n.signs.DrainingSince.IsZero() &&
		(v.State == api.Alive || v.State == api.Suspect && !v.Doubted || v.ServesOn)
}

// InGroup returns the ids of a group's nodes, whatever their state, in order.
// The caller owns the slice.
func (r *Registry) InGroup(g binnacle.Group) []binnacle.NodeID {
	r.mu.RLock()
	defer r.mu.RUnlock()
	out := []binnacle.NodeID{}
	for id, n := range r.nodes {
		if n.rec.Group == g && n.rec.Revoked.IsZero() {
			out = append(out, id)
		}
	}
	slices.Sort(out)
	return out
}

// AliveInGroup returns the ids of a group's nodes that are alive or suspect, in
// order. The caller owns the slice.
func (r *Registry) AliveInGroup(g binnacle.Group) []binnacle.NodeID {
	now := time.Now()
	r.mu.RLock()
	defer r.mu.RUnlock()
	out := []binnacle.NodeID{}
	for id, n := range r.nodes {
		if n.rec.Group != g || !n.rec.Revoked.IsZero() {
			continue
		}
		if v := lifeOf(n.signs, now, r.o.Periods); v.State == api.Alive || v.State == api.Suspect {
			out = append(out, id)
		}
	}
	slices.Sort(out)
	return out
}

// GossipReports returns the gossip keyrings, as gossip.KeyID names them, that
// the nodes have who are alive and gossip.
func (r *Registry) GossipReports() []string {
	r.mu.RLock()
	defer r.mu.RUnlock()
	now := time.Now()
	var out []string
	for _, n := range r.nodes {
		if v := lifeOf(n.signs, now, r.o.Periods); n.rec.Revoked.IsZero() && n.gossipAddress != "" && (v.State == api.Alive || v.State == api.Suspect) {
			out = append(out, n.gossipKey)
		}
	}
	return out
}
