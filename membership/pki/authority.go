package pki

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/binnacle-project/binnacle"
	"github.com/binnacle-project/binnacle/state/atomicfile"
)

// Lifetimes of certificates.
const (
	// NodeCertLife is how long a node's certificate is valid. It is identity
	// only, an expired one still serves to renew it, so the life is long enough
	// for a node that is away for weeks to come back without a detour.
	NodeCertLife = 90 * 24 * time.Hour
	// managerCertLife is short, because the manager issues its own anew while
	// it runs, after a third of it.
	managerCertLife = 30 * 24 * time.Hour
	// clockSlack backdates certificates for nodes whose clock is behind.
	clockSlack = 24 * time.Hour
)

// noExpiration is the notAfter of a certificate that is not meant to expire.
//
// Source: RFC 5280, section 4.1.2.5.
var noExpiration = time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC)

// File names within the authority's folder.
const (
	caKeyFile  = "key.pem"
	caCertFile = "cert.pem"
)

// Authority is the cluster key, an Ed25519 key, and the certificate authority
// that it is. Whoever holds the key is the cluster: it signs node certificates,
// membership certificates, revisions and leases. Authority is safe for
// concurrent use.
type Authority struct {
	key     ed25519.PrivateKey
	cert    *x509.Certificate
	certPEM []byte
	pool    *x509.CertPool
	fp      string
	cluster binnacle.ClusterID
}

// OpenAuthority reads the authority kept in the folder dir and makes one when
// dir does not exist or is empty. Making it is atomic: after a crash there is
// either none or a whole one. Files are mode 0600, the folder 0700.
//
// A folder with only one of the two files is refused: a new key would be a new
// cluster and lock every node out, which is for a person to decide.
func OpenAuthority(dir string) (*Authority, error) {
	keyPEM, keyErr := os.ReadFile(filepath.Join(dir, caKeyFile))
	certPEM, certErr := os.ReadFile(filepath.Join(dir, caCertFile))
	switch {
	case errors.Is(keyErr, fs.ErrNotExist) && errors.Is(certErr, fs.ErrNotExist):
		return createAuthority(dir)
	case keyErr != nil || certErr != nil:
		return nil, fmt.Errorf("open cluster key in %s: %w; restore both %s and %s from a backup, or move the folder away to begin a new cluster",
			dir, errors.Join(keyErr, certErr), caKeyFile, caCertFile)
	}
	a, err := parseAuthority(keyPEM, certPEM)
	if err != nil {
		return nil, fmt.Errorf("open cluster key in %s: %w", dir, err)
	}
	return a, nil
}

func createAuthority(dir string) (*Authority, error) {
	_, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		return nil, fmt.Errorf("make cluster key: %w", err)
	}
	a, err := NewAuthority(key)
	if err != nil {
		return nil, err
	}
	keyPEM, err := KeyPEM(key)
	if err != nil {
		return nil, fmt.Errorf("make cluster key: %w", err)
	}
	if err := atomicfile.WriteFolder(dir, map[string][]byte{caKeyFile: keyPEM, caCertFile: a.certPEM}); err != nil {
		return nil, fmt.Errorf("keep cluster key: %w", err)
	}
	return a, nil
}

// NewAuthority returns the authority of a cluster key, with a certificate of its own.
// Nothing is written to disk.
func NewAuthority(key ed25519.PrivateKey) (*Authority, error) {
	spki, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		return nil, fmt.Errorf("make cluster key: %w", err)
	}
	tmpl := &x509.Certificate{
		SerialNumber:          newSerial(),
		Subject:               pkix.Name{CommonName: "Binnacle cluster " + string(clusterOf(Fingerprint(spki)))},
		NotBefore:             time.Now().Add(-clockSlack),
		NotAfter:              noExpiration,
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		BasicConstraintsValid: true,
		IsCA:                  true,
		MaxPathLenZero:        true,
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		return nil, fmt.Errorf("make cluster certificate: %w", err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("make cluster certificate: %w", err)
	}
	return authorityOf(key, cert), nil
}

func parseAuthority(keyPEM, certPEM []byte) (*Authority, error) {
	key, err := parseKey(keyPEM)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", caKeyFile, err)
	}
	cert, err := parseCert(certPEM)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", caCertFile, err)
	}
	if pub, ok := cert.PublicKey.(ed25519.PublicKey); !ok || !pub.Equal(key.Public()) || !cert.IsCA {
		return nil, fmt.Errorf("%s is not the certificate of %s: restore both from the same backup", caCertFile, caKeyFile)
	}
	return authorityOf(key, cert), nil
}

func authorityOf(key ed25519.PrivateKey, cert *x509.Certificate) *Authority {
	fp := Fingerprint(cert.RawSubjectPublicKeyInfo)
	return &Authority{
		key:     key,
		cert:    cert,
		certPEM: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Raw}),
		pool:    poolOf(cert),
		fp:      fp,
		cluster: clusterOf(fp),
	}
}

// Cluster returns the id that follows from the cluster key.
func (a *Authority) Cluster() binnacle.ClusterID { return a.cluster }

// Key returns the cluster key. The caller must not change it.
func (a *Authority) Key() ed25519.PrivateKey { return a.key }

// PublicKey returns the public half of the cluster key.
func (a *Authority) PublicKey() ed25519.PublicKey { return a.key.Public().(ed25519.PublicKey) }

// Fingerprint returns the SHA-256 of the authority's public key (its
// SubjectPublicKeyInfo), 64 hex digits. Join tokens carry it.
func (a *Authority) Fingerprint() string { return a.fp }

// CAPEM returns the authority's certificate. The caller must not change it.
func (a *Authority) CAPEM() []byte { return a.certPEM }

// ServerTLS returns the configuration of the node API's listener: TLS 1.3, with
// a certificate for hosts (names or addresses) that the manager issues to
// itself and renews while it runs, sent with the authority's own so that a node
// can check a fingerprint.
//
// A client certificate is optional in the handshake, as enrollment has none.
// One that is given must be of this authority; it may have expired, because
// POST /v1/renew takes such a one: Registry.Authenticate refuses it elsewhere.
func (a *Authority) ServerTLS(hosts []string) (*tls.Config, error) {
	own := &ownCert{authority: a, hosts: hosts}
	if _, err := own.get(nil); err != nil {
		return nil, err
	}
	return &tls.Config{
		MinVersion:     tls.VersionTLS13,
		GetCertificate: own.get,
		// Neither VerifyClientCertIfGiven nor VerifyPeerCertificate: the first
		// refuses expired certificates, the second is not called on resumption.
		ClientAuth: tls.RequestClientCert,
		VerifyConnection: func(cs tls.ConnectionState) error {
			if len(cs.PeerCertificates) == 0 {
				return nil
			}
			return a.verifyNode(cs.PeerCertificates[0], time.Now())
		},
	}, nil
}

// verifyNode checks that cert was issued by this authority to a node. An
// expired certificate is judged by the last moment of its life.
func (a *Authority) verifyNode(cert *x509.Certificate, now time.Time) error {
	if now.After(cert.NotAfter) {
		now = cert.NotAfter
	}
	if _, err := cert.Verify(x509.VerifyOptions{
		Roots:       a.pool,
		CurrentTime: now,
		KeyUsages:   []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}); err != nil {
		return fmt.Errorf("client certificate %q is not of cluster %s: %w", cert.Subject.CommonName, a.cluster, err)
	}
	if _, err := NodeOf(cert, a.cluster); err != nil {
		return err
	}
	return nil
}

// IssueNode issues a certificate for the key that csrPEM proves to hold: 90
// days, for client authentication, with the node's id as its only name. What
// else the request asks for is ignored. keyFP is the fingerprint of the node's
// key, 64 hex digits.
func (a *Authority) IssueNode(csrPEM []byte, id binnacle.NodeID) (certPEM []byte, keyFP string, err error) {
	pub, keyFP, err := ParseCSR(csrPEM)
	if err != nil {
		return nil, "", err
	}
	now := time.Now()
	certPEM, err = a.Issue(pub, id, now.Add(-clockSlack), now.Add(NodeCertLife))
	return certPEM, keyFP, err
}

func (a *Authority) Issue(pub ed25519.PublicKey, id binnacle.NodeID, notBefore, notAfter time.Time) (certPEM []byte, err error) {
	der, err := a.issue(&x509.Certificate{
		Subject:     pkix.Name{CommonName: string(id)},
		NotBefore:   notBefore,
		NotAfter:    notAfter,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
		URIs:        []*url.URL{nodeURI(a.cluster, id)},
	}, pub)
	if err != nil {
		return nil, fmt.Errorf("issue certificate of node %s: %w", id, err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), nil
}

// issue completes tmpl and signs it for pub.
func (a *Authority) issue(tmpl *x509.Certificate, pub ed25519.PublicKey) (der []byte, err error) {
	tmpl.SerialNumber = newSerial()
	tmpl.KeyUsage = x509.KeyUsageDigitalSignature
	tmpl.BasicConstraintsValid = true
	return x509.CreateCertificate(rand.Reader, tmpl, a.cert, pub, a.key)
}

// newSerial returns a random certificate serial number of 127 bits, so that
// it is positive and none repeats.
func newSerial() *big.Int {
	b := make([]byte, 16)
	rand.Read(b) // never fails
	b[0] &= 0x7f
	return new(big.Int).SetBytes(b)
}

// Fingerprint returns the hex SHA-256 of a SubjectPublicKeyInfo.
func Fingerprint(spki []byte) string {
	sum := sha256.Sum256(spki)
	return hex.EncodeToString(sum[:])
}

// IsFingerprint reports whether s has the form of a fingerprint.
func IsFingerprint(s string) bool {
	_, err := hex.DecodeString(s)
	return err == nil && len(s) == 2*sha256.Size && strings.ToLower(s) == s
}

// clusterOf names the cluster of a key by its fingerprint.
func clusterOf(fp string) binnacle.ClusterID { return binnacle.ClusterID("c-" + fp[:12]) }

func poolOf(cert *x509.Certificate) *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(cert)
	return pool
}
