package membership

import (
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"time"

	"github.com/binnacle-project/binnacle"
	"github.com/binnacle-project/binnacle/api"
)

// Keys of control state. A node has a record under its id, and its id under
// the fingerprint of its key, so that neither can be taken twice. What is known
// of its life is apart, because it changes more often.
const (
	prefixNodes = "membership/nodes/"
	prefixKeys  = "membership/keys/"
	prefixLives = "membership/lives/"
)

// Record is what enrollment fixed about a node. Records are values; Labels and
// PublicKey are shared and must not be changed.
type Record struct {
	ID     binnacle.NodeID   `json:"id"`
	Name   string            `json:"name"`
	Group  binnacle.Group    `json:"group"`
	Labels map[string]string `json:"labels,omitempty"`
	// KeyFP is the fingerprint of the node's key, PublicKey the Ed25519 key.
	KeyFP     string `json:"key_fp"`
	PublicKey []byte `json:"public_key"`
	// Address, GossipAddress and Version are as of the enrollment; the node
	// reports newer ones.
	Address       string    `json:"address"`
	GossipAddress string    `json:"gossip_address,omitempty"`
	Version       string    `json:"version"`
	Enrolled      time.Time `json:"enrolled"`
	// Token is the id of the join token used last.
	Token string `json:"token"`
	// Revoked is when the node was barred for good, zero for members.
	Revoked   time.Time `json:"revoked,omitzero"`
	RevokedBy string    `json:"revoked_by,omitempty"`
}

// life is what control state keeps of a node's life, written when its state or
// readiness changes, so that a manager's restart does not forget who left and
// who serves.
type life struct {
	State         api.NodeState `json:"state"`
	AliveSince    time.Time     `json:"alive_since"`
	LastPoll      time.Time     `json:"last_poll"`
	LostAt        time.Time     `json:"lost_at,omitzero"`
	DownAt        time.Time     `json:"down_at,omitzero"`
	LeftAt        time.Time     `json:"left_at,omitzero"`
	LeaseEnded    time.Time     `json:"lease_ended,omitzero"`
	SeatSince     time.Time     `json:"seat_since,omitzero"`
	DrainingSince time.Time     `json:"draining_since,omitzero"`
	Losses        []time.Time   `json:"losses,omitempty"`
	Joined        bool          `json:"joined"`
	Serving       bool          `json:"serving"`
	Address       string        `json:"address"`
	GossipAddress string        `json:"gossip_address,omitempty"`
	Version       string        `json:"version"`
}

// Bounds of what a node says of itself.
const (
	maxLabels       = 32
	maxLabelKey     = 63
	maxLabelValue   = 256
	maxVersionBytes = 64
	maxAddressBytes = 255
)

// checkEnroll checks the form of an enrollment and answers an *api.Problem.
func checkEnroll(q api.EnrollRequest) error {
	bad := func(format string, args ...any) error {
		return problem(http.StatusBadRequest, "The enrollment is not valid", format, args...)
	}
	if q.Name != "" {
		if err := binnacle.CheckName("node", q.Name); err != nil {
			return bad("%v", err)
		}
	}
	if q.Group != "" {
		if err := binnacle.CheckName("group", string(q.Group)); err != nil {
			return bad("%v", err)
		}
	}
	if len(q.Labels) > maxLabels {
		return bad("the node has %d labels; at most %d", len(q.Labels), maxLabels)
	}
	for k, v := range q.Labels {
		if k == "" || len(k) > maxLabelKey || len(v) > maxLabelValue {
			return bad("label %.70q: keys have 1 to %d characters, values at most %d", k, maxLabelKey, maxLabelValue)
		}
	}
	return checkReported(q.Address, q.GossipAddress, q.Version)
}

// checkReported checks what enrollment and status have in common.
func checkReported(address, gossip, version string) error {
	bad := func(format string, args ...any) error {
		return problem(http.StatusBadRequest, "The node's report is not valid", format, args...)
	}
	if err := checkHostPort(address); err != nil {
		return bad("address %.100q: %v", address, err)
	}
	if gossip != "" {
		if err := checkHostPort(gossip); err != nil {
			return bad("gossip_address %.100q: %v", gossip, err)
		}
	}
	if len(version) > maxVersionBytes {
		return bad("version has %d characters; at most %d", len(version), maxVersionBytes)
	}
	return nil
}

func checkHostPort(s string) error {
	if len(s) > maxAddressBytes {
		return fmt.Errorf("it has %d characters; at most %d", len(s), maxAddressBytes)
	}
	host, port, err := net.SplitHostPort(s)
	if err != nil {
		return fmt.Errorf("want host:port: %w", err)
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return fmt.Errorf("port %q is not a number from 1 to 65535", port)
	}
	ok := only(host, func(c byte) bool {
		return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '.' || c == '-' || c == '_' || c == ':' || c == '%'
	})
	if !ok {
		return fmt.Errorf("host %q is neither a name nor an address", host)
	}
	return nil
}

// reachable replaces a host that says nothing (empty, 0.0.0.0, ::) by the
// address that the node speaks from.
func reachable(address string, peer netip.Addr) string {
	host, port, err := net.SplitHostPort(address)
	if err != nil || !peer.IsValid() {
		return address
	}
	ip, err := netip.ParseAddr(host)
	if host == "" || err == nil && ip.IsUnspecified() {
		return net.JoinHostPort(peer.Unmap().WithZone("").String(), port)
	}
	return address
}
