package membership

import (
	"crypto/ed25519"
	"crypto/tls"
	"fmt"
	"net/http"
	"time"

	"github.com/binnacle-project/binnacle"
	"github.com/binnacle-project/binnacle/membership/pki"
)

// Authenticate says which node a connection belongs to, by its certificate; it
// is called for each request, reads memory only, and sees a revocation at once.
// An expired certificate is let through where allowExpired says so, which is
// for POST /v1/renew.
//
// Errors are *api.Problem: 401 without a certificate, with an expired one and
// for a node that is not registered, 403 for one that was revoked.
func (r *Registry) Authenticate(cs *tls.ConnectionState, allowExpired bool) (Record, error) {
	if cs == nil || len(cs.PeerCertificates) == 0 {
		r.count.refused("no_certificate").Inc()
		return Record{}, problem(http.StatusUnauthorized, "A node certificate is required",
			"the connection shows no client certificate: enroll with POST /v1/enroll and use the certificate it answers")
	}
	cert := cs.PeerCertificates[0]
	fp := pki.Fingerprint(cert.RawSubjectPublicKeyInfo)
	r.mu.RLock()
	n := r.byKey[fp]
	var rec Record
	if n != nil {
		rec = n.rec
	}
	r.mu.RUnlock()
	switch id, err := pki.NodeOf(cert, r.o.Authority.Cluster()); {
	case n == nil || err != nil || id != rec.ID:
		r.count.refused("unknown").Inc()
		return Record{}, problem(http.StatusUnauthorized, "The node is not registered",
			"this manager does not know the node %.60q by its key: it was forgotten; enroll it again with a join token", cert.Subject.CommonName)
	case !rec.Revoked.IsZero():
		r.count.refused("revoked").Inc()
		return Record{}, errRevoked(rec)
	case !allowExpired && time.Now().After(cert.NotAfter):
		r.count.refused("expired").Inc()
		return Record{}, problem(http.StatusUnauthorized, "The node's certificate has expired",
			"the certificate of %s expired at %s: renew it with POST /v1/renew", rec.ID, cert.NotAfter.Format(time.RFC3339))
	}
	return rec, nil
}

func errRevoked(rec Record) error {
	return problem(http.StatusForbidden, "The node was revoked",
		"node %s was revoked at %s by %s: its key is barred for good; to run this machine again, remove its state folder and enroll it anew", rec.ID, rec.Revoked.Format(time.RFC3339), rec.RevokedBy)
}

// GossipAllow refuses gossip of nodes that are not registered or were revoked,
// for gossip.Options.Allow of a manager.
func (r *Registry) GossipAllow(id binnacle.NodeID, key ed25519.PublicKey) error {
	r.mu.RLock()
	defer r.mu.RUnlock()
	n := r.nodes[id]
	if n == nil || !n.rec.Revoked.IsZero() || !key.Equal(ed25519.PublicKey(n.rec.PublicKey)) {
		return fmt.Errorf("node %s is not registered with this key", id)
	}
	return nil
}
