package agent

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"time"

	"github.com/binnacle-project/binnacle"
	"github.com/binnacle-project/binnacle/api"
	"github.com/binnacle-project/binnacle/gateway/agent/relay"
	"github.com/binnacle-project/binnacle/gateway/control"
	"github.com/binnacle-project/binnacle/membership/gossip"
)

// NodeStatus is a node's account to its own operator, who may be cut off from
// the manager: the answer to the status command.
type NodeStatus struct {
	Version string    `json:"version"`
	PID     int       `json:"pid"`
	Started time.Time `json:"started"`
	// Membership is "standalone", "member", "manager away" or "left"; Detail says
	// why it is not "member".
	Membership string             `json:"membership"`
	Detail     string             `json:"detail,omitempty"`
	Node       binnacle.NodeID    `json:"node,omitempty"`
	Name       string             `json:"name,omitempty"`
	Cluster    binnacle.ClusterID `json:"cluster,omitempty"`
	Group      binnacle.Group     `json:"group,omitempty"`
	Managers   []string           `json:"managers"`
	LastPoll   time.Time          `json:"last_poll,omitzero"`
	// CertificateUntil is when the node's certificate ends; it is renewed long
	// before.
	CertificateUntil time.Time `json:"certificate_until,omitzero"`

	Epoch  uint64 `json:"epoch,omitempty"`
	Serial uint64 `json:"serial,omitempty"`
	// Status is what the manager was told last.
	Status api.Status `json:"status"`

	Worker WorkerInfo `json:"worker"`
	Lease  LeaseNote  `json:"lease"`
	Gossip GossipInfo `json:"gossip"`
	Relay  relay.Info `json:"relay"`

	Stopping bool `json:"stopping,omitempty"`
}

// WorkerInfo tells of the process that serves.
type WorkerInfo struct {
	PID     int       `json:"pid,omitempty"`
	Started time.Time `json:"started,omitzero"`
	Serving bool      `json:"serving"`
	Crashes uint64    `json:"crashes"`
}

// GossipInfo tells of the gossip.
type GossipInfo struct {
	On      bool   `json:"on"`
	Address string `json:"address,omitempty"`
	Members int    `json:"members"`
	// Peers are the other members, managers among them, as this node sees them,
	// ordered by id.
	Peers []GossipPeer `json:"peers,omitempty"`
}

// GossipPeer is another member as this node sees it, with or without a manager.
type GossipPeer struct {
	ID      binnacle.NodeID `json:"id"`
	Manager bool            `json:"manager,omitempty"`
	// Address is where it serves traffic, or its gossip address for a manager.
	Address string `json:"address"`
	// State is alive, suspect, dead or left.
	State string    `json:"state"`
	Since time.Time `json:"since"`
}

// peersOf shows members.
func peersOf(members []gossip.Member) []GossipPeer {
	var out []GossipPeer
	for _, m := range members {
		p := GossipPeer{ID: m.ID, Manager: m.Manager, Address: m.Meta.Address, State: string(m.State), Since: m.Since}
		if m.Manager {
			p.Address = m.Gossip.String()
		}
		out = append(out, p)
	}
	return out
}

// Status returns the node's account.
func (a *Agent) Status() NodeStatus {
	s := NodeStatus{Version: binnacle.Version, PID: os.Getpid(), Started: a.started, Managers: a.opts.Managers, Status: a.reporter.get()}
	a.mu.Lock()
	s.Membership, s.Detail, s.Stopping = a.join, a.joinDetail, a.stopping
	s.Worker = WorkerInfo{PID: a.worker.pid, Started: a.worker.since, Serving: a.worker.serving}
	a.mu.Unlock()
	s.Worker.Crashes = a.metric("binnacle_agent_worker_crashes_total").Get()
	if id := a.identity.Load(); id != nil {
		s.Node, s.Name, s.Cluster, s.Group = id.NodeID, id.Name, id.Cluster, id.Group
		s.CertificateUntil = id.cert.Leaf.NotAfter
	}
	if t := a.lastPoll.Load(); t != 0 {
		s.LastPoll = time.Unix(0, t).UTC()
	}
	if p := a.plan.Load(); p != nil {
		s.Epoch, s.Serial = p.Epoch, p.Serial
	}
	s.Lease = a.lease.note()
	if s.Node != "" && !a.lease.member() {
		s.Membership, s.Detail = joinLeft, joinDetail("lease "+s.Lease.State, s.Membership, s.Detail)
	}
	s.Gossip.Address, s.Gossip.On = a.gossip.addr()
	s.Gossip.Peers = peersOf(a.gossip.members())
	s.Gossip.Members = len(s.Gossip.Peers)
	s.Relay = a.relay.Info()
	return s
}

// answer serves the agent's own socket.
func (a *Agent) answer(_ context.Context, method string, _ json.RawMessage) (any, []*os.File, error) {
	if method != control.MethodNode {
		return nil, nil, &control.Error{Method: method, Code: control.CodeUnknown, Message: fmt.Sprintf("an agent does not know the call %q", method)}
	}
	return a.Status(), nil, nil
}

// AskStatus asks the agent that uses the state folder.
func AskStatus(ctx context.Context, stateDir string) (NodeStatus, error) {
	var s NodeStatus
	c, err := control.Dial(ctx, stateDir, socketAgent)
	if err != nil {
		return s, fmt.Errorf("no agent runs with state_dir %s: %w", stateDir, err)
	}
	defer c.Close()
	return s, c.Call(ctx, control.MethodNode, nil, &s)
}
