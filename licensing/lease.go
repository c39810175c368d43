package licensing

import (
	"crypto/ed25519"
	"time"

	"github.com/binnacle-project/binnacle"
)

// Lease is the signed, time-limited right of one node to act as a full member.
type Lease struct {
	Cluster binnacle.ClusterID
	Node    binnacle.NodeID
	// KeyFP is the fingerprint of the node's key.
	KeyFP   string
	Epoch   uint64
	Plan    string
	Issued  time.Time
	Expires time.Time
	// FallbackRate applies after the end, in requests per second; nil means no
	// limit.
	FallbackRate *float64
	Features     []string
}

// VerifyLease checks a lease on the node's side.
func VerifyLease(token string, clusterKey ed25519.PublicKey, cluster binnacle.ClusterID, id binnacle.NodeID, keyFP string, now time.Time) (Lease, error) {
	return Lease{}, nil
}
