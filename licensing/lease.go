package licensing

import (
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/binnacle-project/binnacle"
)

// DefaultLeaseLife is how long a lease lasts: long enough for a manager that
// is lost on a Friday to be found on a Monday.
const DefaultLeaseLife = 5 * 24 * time.Hour

// Lease is the signed, time-limited right of one node to act as a full member.
type Lease struct {
	// ID tells this lease from the node's others.
	ID      string
	Cluster binnacle.ClusterID
	Node    binnacle.NodeID
	// KeyFP is the fingerprint of the node's key.
	KeyFP string
	// Epoch is that of control state when the lease was given. A lease is
	// honored to its end in later epochs, too.
	Epoch   uint64
	Plan    string
	Issued  time.Time
	Expires time.Time
	// FallbackRate applies after the end, in requests per second; nil means no
	// limit.
	FallbackRate *float64
	Features     []string
}

// leaseClaims is the payload on the wire.
type leaseClaims struct {
	plain
	ID       string   `json:"jti"`
	Cluster  string   `json:"iss"`
	Node     string   `json:"sub"`
	Issued   unix     `json:"iat"`
	Expires  unix     `json:"exp"`
	KeyFP    string   `json:"key"`
	Epoch    uint64   `json:"epoch"`
	Plan     string   `json:"plan"`
	Features []string `json:"features,omitempty"`
	Fallback rate     `json:"fallback_rate"`
}

// issueLease signs a lease with the cluster key.
func issueLease(key ed25519.PrivateKey, l Lease) (string, error) {
	token, err := sign(key, typLease, "", &leaseClaims{
		ID: strings.ToLower(rand.Text()[:16]), Cluster: string(l.Cluster), Node: string(l.Node),
		Issued: unixOf(l.Issued), Expires: unixOf(l.Expires), KeyFP: l.KeyFP, Epoch: l.Epoch,
		Plan: l.Plan, Features: l.Features, Fallback: rate{true, l.FallbackRate},
	})
	if err != nil {
		return "", fmt.Errorf("sign a lease for node %s: %w", l.Node, err)
	}
	return token, nil
}

// VerifyLease checks a lease on the node's side: that the cluster's key signed
// it, for this cluster, this node and this key of it. It does not ask a clock:
// how much of a lease is left is counted by a Tenure.
func VerifyLease(token string, clusterKey ed25519.PublicKey, cluster binnacle.ClusterID, id binnacle.NodeID, keyFP string) (Lease, error) {
	var c leaseClaims
	err := open(token, typLease, &c, func(string) (ed25519.PublicKey, error) {
		if len(clusterKey) != ed25519.PublicKeySize {
			return nil, fmt.Errorf("%w: the node has no key of its cluster", ErrUnknownKey)
		}
		return clusterKey, nil
	})
	if err != nil {
		return Lease{}, fmt.Errorf("the lease is not taken: %w", err)
	}
	wrong := func(what, got, want string) error {
		return fmt.Errorf("the lease is not taken: %w: its %s is %s, and here it is %q", ErrOtherHolder, what, show(got), want)
	}
	switch {
	case c.Cluster != string(cluster):
		return Lease{}, wrong("cluster", c.Cluster, string(cluster))
	case c.Node != string(id):
		return Lease{}, wrong("node", c.Node, string(id))
	case c.KeyFP != keyFP:
		return Lease{}, wrong("key", c.KeyFP, keyFP)
	case c.ID == "" || len(c.ID) > maxText:
		return Lease{}, fmt.Errorf("the lease is not taken: %w: its id is missing or too long", ErrClaims)
	case !c.Issued.ok() || !c.Expires.ok() || c.Expires <= c.Issued || !c.Fallback.ok():
		return Lease{}, fmt.Errorf("the lease is not taken: %w: a time or the fallback rate is out of range", ErrClaims)
	}
	return Lease{
		ID: c.ID, Cluster: cluster, Node: id, KeyFP: keyFP, Epoch: c.Epoch, Plan: c.Plan,
		Issued: c.Issued.time(), Expires: c.Expires.time(),
		FallbackRate: c.Fallback.get(), Features: c.Features,
	}, nil
}

// IsExpired reports whether err says that a token was good and has ended.
func IsExpired(err error) bool { return errors.Is(err, ErrExpired) }
