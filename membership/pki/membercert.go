package pki

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"

	"github.com/binnacle-project/binnacle"
)

// A membership certificate binds a node's id to its key, signed by the cluster
// key, in few enough bytes for gossip metadata:
//
//	version 1 | length of id | id | public key (32) | signature (64)
//
// The signature is over membershipText, so that it says its purpose and its
// cluster. It has no expiry: gossip is a hint, and a node that was removed is
// shut out by a new gossip key.
const (
	memberCertVersion = 1
	MaxMemberID       = 48
	MaxMemberCert     = 2 + MaxMemberID + ed25519.PublicKeySize + ed25519.SignatureSize
)

// ErrNotMember is returned for a membership certificate that the cluster key
// did not sign.
var ErrNotMember = errors.New("the cluster key did not sign this membership")

// ManagerPrefix begins the ids under which managers gossip. Only the authority
// makes ids, so a node cannot take the role.
const ManagerPrefix = "m-"

// Identity is what a member of the gossip shows and signs with.
type Identity struct {
	ID   binnacle.NodeID
	Key  ed25519.PrivateKey
	Cert []byte // a membership certificate for ID and Key
}

// Manager reports whether the identity is a manager's.
func (i Identity) Manager() bool { return strings.HasPrefix(string(i.ID), ManagerPrefix) }

// MembershipCert issues the membership certificate of a node.
func (a *Authority) MembershipCert(id binnacle.NodeID, pub ed25519.PublicKey) []byte {
	if len(id) == 0 || len(id) > MaxMemberID {
		panic(fmt.Sprintf("BUG: node id %q has %d bytes; at most %d", id, len(id), MaxMemberID))
	}
	b := make([]byte, 0, MaxMemberCert)
	b = append(b, memberCertVersion, byte(len(id)))
	b = append(b, id...)
	b = append(b, pub...)
	return append(b, ed25519.Sign(a.key, membershipText(a.cluster, id, pub))...)
}

// ManagerIdentity makes the identity under which a manager gossips. It is the
// same for the same name; its key is new each time.
func (a *Authority) ManagerIdentity(name string) (Identity, error) {
	key, err := NewNodeKey()
	if err != nil {
		return Identity{}, err
	}
	sum := sha256.Sum256([]byte(string(a.cluster) + "\n" + name))
	id := binnacle.NodeID(ManagerPrefix + hex.EncodeToString(sum[:6]))
	return Identity{ID: id, Key: key, Cert: a.MembershipCert(id, key.Public().(ed25519.PublicKey))}, nil
}

// VerifyMembership checks a membership certificate against the cluster key and
// returns the node and key it names. The key refers to cert's bytes.
func VerifyMembership(caPub ed25519.PublicKey, cluster binnacle.ClusterID, cert []byte) (binnacle.NodeID, ed25519.PublicKey, error) {
	if len(cert) < 2 || cert[0] != memberCertVersion {
		return "", nil, fmt.Errorf("membership certificate of %d bytes: unknown form", len(cert))
	}
	n := int(cert[1])
	if n == 0 || n > MaxMemberID || len(cert) != 2+n+ed25519.PublicKeySize+ed25519.SignatureSize {
		return "", nil, fmt.Errorf("membership certificate of %d bytes: wrong length", len(cert))
	}
	id := binnacle.NodeID(cert[2 : 2+n])
	pub := ed25519.PublicKey(cert[2+n : 2+n+ed25519.PublicKeySize])
	sig := cert[2+n+ed25519.PublicKeySize:]
	if len(caPub) != ed25519.PublicKeySize || !ed25519.Verify(caPub, membershipText(cluster, id, pub), sig) {
		return "", nil, fmt.Errorf("member %q: %w", id, ErrNotMember)
	}
	return id, pub, nil
}

func membershipText(cluster binnacle.ClusterID, id binnacle.NodeID, pub ed25519.PublicKey) []byte {
	return fmt.Appendf(nil, "binnacle membership v1\ncluster %s\nnode %s\nkey %x\n", cluster, id, []byte(pub))
}
