package api

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/binnacle-project/binnacle"
)

// EnrollRequest is the body of POST /v1/enroll.
type EnrollRequest struct {
	// TokenID and Secret are the first two parts of the join token.
	TokenID string `json:"token_id"`
	Secret  string `json:"secret"`
	// CSR is a PEM certificate request for the node's own new key.
	CSR string `json:"csr"`
	// Name and Group may be empty: the manager then chooses.
	Name   string            `json:"name,omitempty"`
	Group  binnacle.Group    `json:"group,omitempty"`
	Labels map[string]string `json:"labels,omitempty"`
	// Address is host:port of the traffic listener, GossipAddress of gossip.
	Address       string `json:"address"`
	GossipAddress string `json:"gossip_address,omitempty"`
	Version       string `json:"version"`
}

// EnrollResponse answers it. Everything a node needs comes back.
type EnrollResponse struct {
	NodeID  binnacle.NodeID    `json:"node_id"`
	Cluster binnacle.ClusterID `json:"cluster"`
	Name    string             `json:"name"`
	Group   binnacle.Group     `json:"group"`
	// Certificate is the node's client certificate, CA the cluster's, both PEM.
	Certificate string `json:"certificate"`
	CA          string `json:"ca"`
	// MembershipCert binds node id and key for gossip metadata (base64).
	MembershipCert string `json:"membership_cert"`
	GossipLabel    string `json:"gossip_label"`
	Plan           Plan   `json:"plan"`
	Lease          string `json:"lease"`
}

// RenewRequest is the body of POST /v1/renew; the connection's certificate,
// which may have expired, says who asks.
type RenewRequest struct {
	CSR string `json:"csr"`
}

// RenewResponse answers it.
type RenewResponse struct {
	Certificate    string `json:"certificate"`
	CA             string `json:"ca"`
	MembershipCert string `json:"membership_cert"`
}

// Plan is what the manager wants of one node now. Nodes refuse an older
// (Epoch, Serial); the same one is no change.
type Plan struct {
	Epoch    uint64        `json:"epoch"`
	Serial   uint64        `json:"serial"`
	Revision *PlanRevision `json:"revision"`
	// Restart is done once per id; nil when there is no order.
	Restart   *RestartOrder `json:"restart"`
	Drain     bool          `json:"drain"`
	Gossip    GossipPlan    `json:"gossip"`
	Telemetry TelemetryPlan `json:"telemetry"`
	Poll      PollPlan      `json:"poll"`
}

// PlanRevision names the revision to run and proves it.
type PlanRevision struct {
	RevisionRef
	// Signature is the cluster key's over RevisionText, base64.
	Signature string `json:"signature"`
}

// RestartOrder asks for one graceful restart of the worker.
type RestartOrder struct {
	ID string `json:"id"`
}

// GossipPlan carries the keys, the one to use first, and the seeds.
type GossipPlan struct {
	Keys  []GossipKey `json:"keys"`
	Seeds []string    `json:"seeds"`
}

// GossipKey is one AES-256 key of the gossip keyring.
type GossipKey struct {
	ID  string `json:"id"`
	Key []byte `json:"key"`
}

// TelemetryPlan says how often nodes export, in seconds.
type TelemetryPlan struct {
	Interval float64 `json:"interval"`
}

// PollPlan spreads retries after a failure: Phase is in seconds.
type PollPlan struct {
	Phase float64 `json:"phase"`
}

// ETag returns the entity tag of a plan: a hash of all of it. It never covers
// the lease.
func (p Plan) ETag() string {
	b, err := json.Marshal(p)
	if err != nil {
		panic(fmt.Sprintf("BUG: plan does not marshal: %v", err))
	}
	sum := sha256.Sum256(b)
	return `"` + hex.EncodeToString(sum[:12]) + `"`
}

// Newer reports whether p supersedes the plan with old's epoch and serial.
func (p Plan) Newer(old Plan) bool {
	if p.Epoch != old.Epoch {
		return p.Epoch > old.Epoch
	}
	return p.Serial > old.Serial
}

// RevisionText is the text that the cluster key signs for a revision. The
// purpose comes first, so that no signature can serve another purpose.
func RevisionText(cluster binnacle.ClusterID, group binnacle.Group, ref RevisionRef) []byte {
	return fmt.Appendf(nil, "binnacle revision v1\ncluster %s\ngroup %s\nnumber %d\nsha256 %s\n", cluster, group, ref.Number, ref.SHA256)
}

// SignRevision signs ref with the cluster key.
func SignRevision(key ed25519.PrivateKey, cluster binnacle.ClusterID, group binnacle.Group, ref RevisionRef) string {
	return base64.StdEncoding.EncodeToString(ed25519.Sign(key, RevisionText(cluster, group, ref)))
}

// ErrBadSignature is returned for a revision that the cluster key did not sign.
var ErrBadSignature = errors.New("the cluster key did not sign this revision")

// VerifyRevision checks a plan's revision against the cluster key.
func VerifyRevision(key ed25519.PublicKey, cluster binnacle.ClusterID, group binnacle.Group, r PlanRevision) error {
	sig, err := base64.StdEncoding.DecodeString(r.Signature)
	if err != nil || len(key) != ed25519.PublicKeySize || !ed25519.Verify(key, RevisionText(cluster, group, r.RevisionRef), sig) {
		return fmt.Errorf("revision %d of group %s: %w", r.Number, group, ErrBadSignature)
	}
	return nil
}
