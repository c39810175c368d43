package api

import (
	"time"

	"github.com/binnacle-project/binnacle"
)

// NodeState says what the manager knows of a node's life.
type NodeState string

// The states of a node.
const (
	Alive       NodeState = "alive"
	Suspect     NodeState = "suspect"
	Unreachable NodeState = "unreachable"
	Down        NodeState = "down"
	Left        NodeState = "left"
)

// Condition is something true of a node beside its state.
type Condition struct {
	// Kind is draining, flapping, gossip_conflict, udp_blocked, lease_ended,
	// over_seats or drifted.
	Kind  string    `json:"kind"`
	Cause string    `json:"cause"`
	Since time.Time `json:"since"`
}

// The kinds of conditions.
const (
	CondDraining       = "draining"
	CondFlapping       = "flapping"
	CondGossipConflict = "gossip_conflict"
	CondUDPBlocked     = "udp_blocked"
	CondLeaseEnded     = "lease_ended"
	CondOverSeats      = "over_seats"
	CondDrifted        = "drifted"
)

// Node is one entry of GET /v1/nodes.
type Node struct {
	ID     binnacle.NodeID   `json:"id"`
	Name   string            `json:"name"`
	Group  binnacle.Group    `json:"group"`
	Labels map[string]string `json:"labels,omitempty"`
	// Address is host:port where the node serves traffic.
	Address string `json:"address"`
	// GossipAddress is host:port of its gossip, or empty.
	GossipAddress string      `json:"gossip_address,omitempty"`
	Version       string      `json:"version"`
	Managed       bool        `json:"managed"`
	State         NodeState   `json:"state"`
	StateSince    time.Time   `json:"state_since,omitzero"`
	StateCause    string      `json:"state_cause,omitempty"`
	Conditions    []Condition `json:"conditions"`
	Enrolled      time.Time   `json:"enrolled,omitzero"`
	LastPoll      time.Time   `json:"last_poll,omitzero"`
	Lease         *LeaseInfo  `json:"lease"`
	Ledger        *Ledger     `json:"ledger"`
	Activity      *Activity   `json:"activity"`
}

// LeaseInfo shows a node's lease without its signature.
type LeaseInfo struct {
	Issued  time.Time `json:"issued"`
	Expires time.Time `json:"expires"`
	// State is valid, warning (half of its life is gone, or its last day runs)
	// or fallen, by the manager's clock; empty where the node itself counts.
	State string `json:"state,omitempty"`
}

// RevisionRef names one configuration of a group.
type RevisionRef struct {
	Number binnacle.Revision `json:"number"`
	SHA256 string            `json:"sha256"`
}

// LedgerEntry is one line of a node's ledger.
type LedgerEntry struct {
	RevisionRef
	Time  time.Time `json:"time"`
	Error string    `json:"error,omitempty"`
}

// Ledger says how far a node has come with its configuration. A version
// advances when the node has confirmed it, never when it was sent.
type Ledger struct {
	// Desired is set by the manager, the others by the node.
	Desired   *LedgerEntry `json:"desired"`
	Attempted *LedgerEntry `json:"attempted"`
	Applied   *LedgerEntry `json:"applied"`
	LastGood  *LedgerEntry `json:"last_good"`
}

// Status is the body of PUT /v1/nodes/{id}/status: the node's own account.
type Status struct {
	Version string `json:"version"`
	// Address is host:port where the node serves traffic now.
	Address       string       `json:"address"`
	GossipAddress string       `json:"gossip_address,omitempty"`
	Serving       bool         `json:"serving"`
	Draining      bool         `json:"draining,omitempty"`
	Attempted     *LedgerEntry `json:"attempted,omitempty"`
	Applied       *LedgerEntry `json:"applied,omitempty"`
	LastGood      *LedgerEntry `json:"last_good,omitempty"`
	// Overridden lists keys of the revision that the node's own file wins over.
	Overridden []string `json:"overridden,omitempty"`
	// RestartDone is the id of the last restart order carried out.
	RestartDone string `json:"restart_done,omitempty"`
	// GossipKeyID names the gossip key in use.
	GossipKeyID string `json:"gossip_key_id,omitempty"`
	// Crashes counts workers that ended without being asked to, since the agent
	// began.
	Crashes uint64 `json:"crashes,omitempty"`
	// LeaseEnded is true of a node that has no valid lease: it has left the
	// gossip, is under its fallback rate and takes no configuration.
	LeaseEnded bool `json:"lease_ended,omitempty"`
	// Leaving is set in the last status before a clean stop.
	Leaving bool `json:"leaving,omitempty"`
}
