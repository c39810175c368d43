package pki

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"net/url"
	"strings"

	"github.com/binnacle-project/binnacle"
)

// maxPEM bounds certificates, keys and requests before they are parsed. Ours
// have less than 1 KiB.
const maxPEM = 16 << 10

// NewNodeKey makes a node's own key, an Ed25519 key. It never leaves the node.
func NewNodeKey() (ed25519.PrivateKey, error) {
	_, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		return nil, fmt.Errorf("make node key: %w", err)
	}
	return key, nil
}

// KeyPEM encodes a node's key for its state folder (PKCS #8).
func KeyPEM(key ed25519.PrivateKey) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("encode key: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), nil
}

// ParseKeyPEM decodes what KeyPEM encoded.
func ParseKeyPEM(b []byte) (ed25519.PrivateKey, error) { return parseKey(b) }

// KeyFingerprint returns the fingerprint by which the registry and leases know
// a node's key: the hex SHA-256 of its SubjectPublicKeyInfo.
func KeyFingerprint(pub ed25519.PublicKey) string {
	spki, err := x509.MarshalPKIXPublicKey(pub)
	if err != nil {
		panic(fmt.Sprintf("BUG: Ed25519 key of %d bytes does not marshal: %v", len(pub), err))
	}
	return Fingerprint(spki)
}

// NewCSR makes the certificate request that enrollment and renewal send. It
// proves possession of key and asks for nothing: the manager decides on names.
func NewCSR(key ed25519.PrivateKey) ([]byte, error) {
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{
		Subject: pkix.Name{CommonName: "binnacle node"},
	}, key)
	if err != nil {
		return nil, fmt.Errorf("make certificate request: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}), nil
}

// ParseCSR checks a certificate request and returns the key it proves, with
// its fingerprint.
func ParseCSR(csrPEM []byte) (pub ed25519.PublicKey, keyFP string, err error) {
	der, err := decodePEM(csrPEM, "CERTIFICATE REQUEST")
	if err != nil {
		return nil, "", fmt.Errorf("certificate request: %w", err)
	}
	csr, err := x509.ParseCertificateRequest(der)
	if err != nil {
		return nil, "", fmt.Errorf("certificate request: %w", err)
	}
	pub, ok := csr.PublicKey.(ed25519.PublicKey)
	if !ok {
		return nil, "", fmt.Errorf("certificate request: the key is %v; use Ed25519", csr.PublicKeyAlgorithm)
	}
	if err := csr.CheckSignature(); err != nil {
		return nil, "", fmt.Errorf("certificate request: it does not prove its key: %w", err)
	}
	return pub, Fingerprint(csr.RawSubjectPublicKeyInfo), nil
}

// CAPublicKey returns the cluster key and the cluster that caPEM, as an
// enrollment answers it, stand for.
func CAPublicKey(caPEM []byte) (ed25519.PublicKey, binnacle.ClusterID, error) {
	cert, err := parseCert(caPEM)
	if err != nil {
		return nil, "", fmt.Errorf("cluster certificate: %w", err)
	}
	pub, ok := cert.PublicKey.(ed25519.PublicKey)
	if !ok || !cert.IsCA {
		return nil, "", errors.New("cluster certificate: it is not that of an Ed25519 authority")
	}
	return pub, clusterOf(Fingerprint(cert.RawSubjectPublicKeyInfo)), nil
}

func parseKey(b []byte) (ed25519.PrivateKey, error) {
	der, err := decodePEM(b, "PRIVATE KEY")
	if err != nil {
		return nil, err
	}
	k, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		return nil, err
	}
	key, ok := k.(ed25519.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("the key is a %T; want an Ed25519 key", k)
	}
	return key, nil
}

func parseCert(b []byte) (*x509.Certificate, error) {
	der, err := decodePEM(b, "CERTIFICATE")
	if err != nil {
		return nil, err
	}
	return x509.ParseCertificate(der)
}

func decodePEM(b []byte, kind string) ([]byte, error) {
	if len(b) > maxPEM {
		return nil, fmt.Errorf("%d bytes are too many for PEM %s; at most %d", len(b), kind, maxPEM)
	}
	block, _ := pem.Decode(b)
	if block == nil || block.Type != kind {
		return nil, fmt.Errorf("not PEM of type %s", kind)
	}
	return block.Bytes, nil
}

// Names in certificates are URIs: binnacle://<cluster>/manager and
// binnacle://<cluster>/node/<id>. Host names change and are shared; these don't.

func managerURI(c binnacle.ClusterID) *url.URL {
	return &url.URL{Scheme: "binnacle", Host: string(c), Path: "/manager"}
}

func nodeURI(c binnacle.ClusterID, id binnacle.NodeID) *url.URL {
	return &url.URL{Scheme: "binnacle", Host: string(c), Path: "/node/" + string(id)}
}

// NodeOf returns the node that cert names within cluster c.
func NodeOf(cert *x509.Certificate, c binnacle.ClusterID) (binnacle.NodeID, error) {
	for _, u := range cert.URIs {
		if u.Scheme != "binnacle" || u.Host != string(c) {
			continue
		}
		if id, ok := strings.CutPrefix(u.Path, "/node/"); ok && id != "" {
			return binnacle.NodeID(id), nil
		}
	}
	return "", fmt.Errorf("certificate %q names no node of cluster %s", cert.Subject.CommonName, c)
}

// isManager reports whether cert names a manager of cluster c.
func isManager(cert *x509.Certificate, c binnacle.ClusterID) bool {
	want := managerURI(c).String()
	for _, u := range cert.URIs {
		if u.String() == want {
			return true
		}
	}
	return false
}
