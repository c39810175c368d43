package membership

import (
	"fmt"
	"strings"
	"time"

	"github.com/binnacle-project/binnacle"
	"github.com/binnacle-project/binnacle/api"
)

// settleFor is how long a node that came back while something new was wanted of
// it has to take or refuse that, before it gets traffic with what it has.
const settleFor = 30 * time.Second

// ServesRight decides whether what a node serves is right for traffic, and says
// why not. n has its ledger, and is alive or suspect.
//
// Right is the revision wanted of it, and, while it has not confirmed that one
// or has refused it, the one before: a rollout takes no node away, and neither
// does a revision that every node refuses. So a node that has drifted stays: it
// runs what once was rolled out, and says that it drifts in a condition. Not
// right are:
//
//   - a node that enrolled after a revision was wanted, and has run none yet:
//     its own file is not what its group serves;
//   - for a while, a node that came back after a new revision was wanted and
//     has not answered to it.
func ServesRight(n api.Node, now time.Time) (bool, string) {
	l := n.Ledger
	if l == nil || l.Desired == nil || l.Desired.Number == 0 {
		return true, "" // nothing is wanted but the node's own file
	}
	want := l.Desired
	if l.Applied != nil && l.Applied.SHA256 == want.SHA256 {
		return true, ""
	}
	if (l.Applied == nil || l.Applied.Number == 0) && n.Enrolled.After(want.Time) {
		return false, fmt.Sprintf("it runs its own file and has not run any revision of group %s yet; revision %d is wanted", n.Group, want.Number)
	}
	refused := l.Attempted != nil && l.Attempted.SHA256 == want.SHA256 && l.Attempted.Error != ""
	if n.State == api.Alive && n.StateSince.After(want.Time) && !refused && now.Sub(n.StateSince) < settleFor {
		return false, fmt.Sprintf("it came back and has not taken revision %d yet", want.Number)
	}
	return true, ""
}

// candidate is a node that serves, as far as is known, and does not drain.
type candidate struct {
	node api.Node
	// ready nodes are alive; others were lost while they served.
	ready bool
}

// chooseTraffic chooses the nodes of each group that load balancers are told
// of: those that are ready and serve what is right. Where a group has no ready
// node at all, it is those that were lost while they served: an empty answer
// takes a service away though all that failed may be the manager's network, and
// a load balancer checks the health of what it is given.
func chooseTraffic(all []candidate, now time.Time) []api.Node {
	some := map[binnacle.Group]bool{}
	for _, c := range all {
		some[c.node.Group] = some[c.node.Group] || c.ready
	}
	out := []api.Node{}
	for _, c := range all {
		if !c.ready && some[c.node.Group] {
			continue
		}
		if ok, _ := ServesRight(c.node, now); ok || !c.ready {
			out = append(out, c.node)
		}
	}
	return out
}

// InTraffic returns the nodes that load balancers are told of, ordered by name
// and id. One whose lease has ended serves like any other; one that said that it
// stops is never among them. ledger gives the ledger of a node, nil for none; it is called without
// a lock. The caller owns the slice.
func (r *Registry) InTraffic(now time.Time, ledger func(binnacle.NodeID) *api.Ledger) []api.Node {
	r.mu.RLock()
	all := make([]candidate, 0, len(r.nodes))
	for _, n := range r.nodes {
		if !n.rec.Revoked.IsZero() || !n.serving || !n.signs.DrainingSince.IsZero() || !n.signs.LeftAt.IsZero() {
			continue
		}
		v := StateOf(n.signs, now, r.o.Periods)
		all = append(all, candidate{n.view(v), n.isReady(v)})
	}
	r.mu.RUnlock()
	for i := range all {
		all[i].node.Ledger = ledger(all[i].node.ID)
	}
	nodes := chooseTraffic(all, now)
	sortNodes(nodes)
	return nodes
}

// HTTPSD lists nodes in the form of Prometheus HTTP service discovery, a target
// group for each node, so that each has its labels. Give it the nodes that are
// ready. The answer is never nil: an empty list is a list.
//
// Source: Prometheus, "Writing HTTP Service Discovery".
func HTTPSD(nodes []api.Node) []api.TargetGroup {
	out := make([]api.TargetGroup, 0, len(nodes))
	for _, n := range nodes {
		labels := map[string]string{
			"__meta_binnacle_node":    string(n.ID),
			"__meta_binnacle_name":    n.Name,
			"__meta_binnacle_group":   string(n.Group),
			"__meta_binnacle_version": n.Version,
		}
		for k, v := range n.Labels {
			labels["__meta_binnacle_label_"+labelName(k)] = v
		}
		out = append(out, api.TargetGroup{Targets: []string{n.Address}, Labels: labels})
	}
	return out
}

// labelName makes a key fit for the name of a Prometheus label.
func labelName(s string) string {
	return strings.Map(func(r rune) rune {
		if 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' || r == '_' {
			return r
		}
		return '_'
	}, s)
}
