package agent

import (
	"crypto/ed25519"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"time"

	"github.com/binnacle-project/binnacle"
	"github.com/binnacle-project/binnacle/api"
	"github.com/binnacle-project/binnacle/membership/pki"
)

// savedIdentity is what enrollment gave, as kept on disk beside the key.
type savedIdentity struct {
	NodeID         binnacle.NodeID    `json:"node_id"`
	Cluster        binnacle.ClusterID `json:"cluster"`
	Name           string             `json:"name"`
	Group          binnacle.Group     `json:"group"`
	Certificate    string             `json:"certificate"`
	CA             string             `json:"ca"`
	MembershipCert string             `json:"membership_cert"`
	GossipLabel    string             `json:"gossip_label"`
	Enrolled       time.Time          `json:"enrolled"`
}

// identity is a member's: immutable, replaced as a whole when the certificate
// is renewed.
type identity struct {
	savedIdentity
	key        ed25519.PrivateKey
	cert       tls.Certificate
	clusterKey ed25519.PublicKey
	membership []byte
	tls        *tls.Config
}

// newIdentity checks all of s: what does not fit together is of no use.
func newIdentity(s savedIdentity, key ed25519.PrivateKey) (*identity, error) {
	if err := checkNodeID(s.NodeID); err != nil {
		return nil, err
	}
	id := &identity{savedIdentity: s, key: key}
	var err error
	if id.cert, err = pki.NodeCertificate([]byte(s.Certificate), key); err != nil {
		return nil, err
	}
	var cluster binnacle.ClusterID
	if id.clusterKey, cluster, err = pki.CAPublicKey([]byte(s.CA)); err != nil {
		return nil, err
	}
	if cluster != s.Cluster {
		return nil, fmt.Errorf("the answer speaks of cluster %s, its certificate of %s", s.Cluster, cluster)
	}
	if id.tls, err = pki.NodeTLS(id.cert, []byte(s.CA)); err != nil {
		return nil, err
	}
	if s.MembershipCert != "" {
		if id.membership, err = base64.StdEncoding.DecodeString(s.MembershipCert); err != nil {
			return nil, fmt.Errorf("membership certificate: %w", err)
		}
	}
	return id, nil
}

// checkNodeID keeps an id usable in paths and labels, whoever made it.
func checkNodeID(id binnacle.NodeID) error { return binnacle.CheckName("node id", string(id)) }

func (id *identity) keyFingerprint() string {
	return pki.KeyFingerprint(id.key.Public().(ed25519.PublicKey))
}

// renewed returns id with what a renewal gave.
func (id *identity) renewed(r api.RenewResponse) (*identity, error) {
	s := id.savedIdentity
	s.Certificate = r.Certificate
	if r.CA != "" {
		s.CA = r.CA
	}
	if r.MembershipCert != "" {
		s.MembershipCert = r.MembershipCert
	}
	return newIdentity(s, id.key)
}

// loadKey returns the node's key, making it at the first start. It is kept
// apart from the rest, so that a node that lost the rest gets its id back.
func (s *stateDir) loadKey() (ed25519.PrivateKey, error) {
	b, err := s.load(fileKey)
	if err == nil {
		key, err := pki.ParseKeyPEM(b)
		if err != nil {
			return nil, fmt.Errorf("the node's key %s: %w; remove the file to enroll as a new node", s.path(fileKey), err)
		}
		return key, nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	key, err := pki.NewNodeKey()
	if err != nil {
		return nil, err
	}
	pem, err := pki.KeyPEM(key)
	if err != nil {
		return nil, err
	}
	return key, s.saveTwice(fileKey, pem)
}

// loadIdentity returns the identity of an earlier enrollment, nil when there is
// none that can be used. Another cluster than want (from the join token; empty
// for any) is not the one this node shall be in.
func (s *stateDir) loadIdentity(key ed25519.PrivateKey, want binnacle.ClusterID) (*identity, error) {
	var saved savedIdentity
	if err := s.loadJSON(fileIdentity, &saved); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil, nil
		}
		return nil, err
	}
	if want != "" && saved.Cluster != want {
		s.log.Warn("the join token is for another cluster than the one this node was in; it enrolls anew", "was", saved.Cluster, "token", want)
		return nil, nil
	}
	id, err := newIdentity(saved, key)
	if err != nil {
		s.log.Warn("what an earlier enrollment left cannot be used; the node enrolls anew", "err", err)
		return nil, nil
	}
	return id, nil
}

func (s *stateDir) saveIdentity(id *identity) error {
	if err := s.saveJSON(fileIdentity, id.savedIdentity); err != nil {
		return err
	}
	return s.saveJSON(fileIdentity, id.savedIdentity) // twice, see saveTwice
}

// transport returns a connection pool with tc, speaking HTTP/1.1: a long poll,
// a report and an export are three connections, none behind the other.
func transport(tc *tls.Config) *http.Transport {
	return &http.Transport{
		TLSClientConfig:        tc,
		DialContext:            dialer.DialContext,
		TLSHandshakeTimeout:    10 * time.Second,
		MaxIdleConnsPerHost:    4,
		IdleConnTimeout:        2 * time.Minute,
		ExpectContinueTimeout:  time.Second,
		MaxResponseHeaderBytes: 64 << 10,
		// No Proxy: the manager's address is meant as it is written.
	}
}
