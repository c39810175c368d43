package pki

import (
	"crypto/ed25519"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"time"

	"github.com/binnacle-project/binnacle"
)

// ErrNotManager is returned in the handshake when the server at a manager's
// address does not prove to be a manager of the expected cluster.
var ErrNotManager = errors.New("the server is not a manager of this cluster")

// EnrollTLS returns the client configuration for POST /v1/enroll: it accepts
// only a server whose chain contains the authority with that fingerprint (the
// last part of a join token) and which that authority calls a manager. Host
// names are not looked at.
func EnrollTLS(fingerprint string) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13,
		// Replaced by VerifyConnection below, which is stricter.
		InsecureSkipVerify: true,
		VerifyConnection: func(cs tls.ConnectionState) error {
			ca := findCA(cs.PeerCertificates, fingerprint)
			if ca == nil {
				return fmt.Errorf("%w: its chain does not contain the authority %s… that the join token names; check the manager's address, or take a token of the cluster it serves", ErrNotManager, short(fingerprint))
			}
			return verifyManager(cs.PeerCertificates[0], ca, time.Now())
		},
	}
}

// NodeTLS returns the client configuration of an enrolled node: it shows cert,
// also after its expiry, and accepts only managers of the cluster whose
// authority is caPEM. Host names are not looked at: the certificate names the
// role.
func NodeTLS(cert tls.Certificate, caPEM []byte) (*tls.Config, error) {
	ca, err := parseCert(caPEM)
	if err != nil {
		return nil, fmt.Errorf("cluster certificate: %w", err)
	}
	return &tls.Config{
		MinVersion: tls.VersionTLS13,
		// Always the one certificate, whatever authorities the server names.
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &cert, nil },
		ClientSessionCache:   tls.NewLRUClientSessionCache(8),
		InsecureSkipVerify:   true, // replaced by VerifyConnection
		VerifyConnection: func(cs tls.ConnectionState) error {
			if len(cs.PeerCertificates) == 0 {
				return fmt.Errorf("%w: it sent no certificate", ErrNotManager)
			}
			return verifyManager(cs.PeerCertificates[0], ca, time.Now())
		},
	}, nil
}

// NodeCertificate joins a node's certificate and key for NodeTLS.
func NodeCertificate(certPEM []byte, key ed25519.PrivateKey) (tls.Certificate, error) {
	cert, err := parseCert(certPEM)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("node certificate: %w", err)
	}
	if pub, ok := cert.PublicKey.(ed25519.PublicKey); !ok || !pub.Equal(key.Public()) {
		return tls.Certificate{}, errors.New("node certificate: it is not for this node's key")
	}
	return tls.Certificate{Certificate: [][]byte{cert.Raw}, PrivateKey: key, Leaf: cert}, nil
}

// RenewAt returns when a node should renew its certificate: after a third of
// its life. It accepts what NodeCertificate returned.
func RenewAt(cert tls.Certificate) time.Time {
	if cert.Leaf == nil {
		return time.Time{}
	}
	return cert.Leaf.NotAfter.Add(-NodeCertLife * 2 / 3)
}

func verifyManager(leaf, ca *x509.Certificate, now time.Time) error {
	cluster := clusterOf(Fingerprint(ca.RawSubjectPublicKeyInfo))
	if _, err := leaf.Verify(x509.VerifyOptions{
		Roots:       poolOf(ca),
		CurrentTime: now,
		KeyUsages:   []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}); err != nil {
		return fmt.Errorf("%w %s: %w", ErrNotManager, cluster, err)
	}
	if !isManager(leaf, cluster) {
		return fmt.Errorf("%w %s: its certificate is for %q", ErrNotManager, cluster, leaf.Subject.CommonName)
	}
	return nil
}

// findCA returns the authority with that fingerprint among certs, or nil.
func findCA(certs []*x509.Certificate, fp string) *x509.Certificate {
	for _, c := range certs {
		if c.IsCA && Fingerprint(c.RawSubjectPublicKeyInfo) == fp {
			return c
		}
	}
	return nil
}

func short(s string) string { return s[:min(12, len(s))] }

// ClusterOf returns the cluster that an authority's fingerprint, as a join
// token carries it, stands for.
func ClusterOf(fingerprint string) (binnacle.ClusterID, error) {
	if !IsFingerprint(fingerprint) {
		return "", fmt.Errorf("fingerprint %q is not 64 hex digits", fingerprint)
	}
	return clusterOf(fingerprint), nil
}
