package pagetls

import (
	"crypto/ecdsa"
	"crypto/elliptic"
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
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/binnacle-project/binnacle/state/atomicfile"
)

// Files of the authority within its folder.
const (
	// CAFile is what people import into a browser or give to a client.
	CAFile    = "ca.pem"
	caKeyFile = "ca-key.pem"
)

const (
	caLife = 10 * 365 * 24 * time.Hour
	// leafLife is short, because a new one costs nothing: it is made in memory
	// after a third of it, and at each start. It stays under the 398 days that
	// browsers accept.
	leafLife = 30 * 24 * time.Hour
	// slack backdates for clients whose clock is behind.
	slack = 24 * time.Hour
)

// Authority signs the certificates of the page. It is safe for concurrent use.
type Authority struct {
	dir  string
	key  *ecdsa.PrivateKey
	cert *x509.Certificate

	mu    sync.Mutex // guards what follows
	names []string
	ips   []net.IP
	leaf  *tls.Certificate
	renew time.Time
}

// Auto opens the authority kept in dir, and makes it when there is none. hosts
// are the names and addresses under which the page is asked for; an address of
// this machine at which a client arrives is added by itself.
//
// A folder with only one of the two files is refused: a new authority would
// make every browser that trusts the old one warn.
func Auto(dir string, hosts []string) (*Authority, error) {
	certPEM, certErr := os.ReadFile(filepath.Join(dir, CAFile))
	keyPEM, keyErr := os.ReadFile(filepath.Join(dir, caKeyFile))
	var err error
	switch {
	case errors.Is(certErr, fs.ErrNotExist) && errors.Is(keyErr, fs.ErrNotExist):
		if certPEM, keyPEM, err = create(dir); err != nil {
			return nil, fmt.Errorf("make an authority for the page: %w", err)
		}
	case certErr != nil || keyErr != nil:
		return nil, fmt.Errorf("open the page's authority: %w; restore both %s and %s, or move the folder %s away to make a new one",
			errors.Join(certErr, keyErr), CAFile, caKeyFile, dir)
	}
	pair, err := tls.X509KeyPair(certPEM, keyPEM)
	if err != nil {
		return nil, fmt.Errorf("open the page's authority in %s: %w; restore both files, or move the folder away to make a new one", dir, err)
	}
	key, ok := pair.PrivateKey.(*ecdsa.PrivateKey)
	if !ok || !pair.Leaf.IsCA {
		return nil, fmt.Errorf("open the page's authority in %s: want an ECDSA authority, found a %T (authority: %t)", dir, pair.PrivateKey, pair.Leaf.IsCA)
	}
	a := &Authority{dir: dir, key: key, cert: pair.Leaf}
	for _, h := range hosts {
		if ip := net.ParseIP(h); ip == nil && h != "" {
			a.names = append(a.names, h)
		} else if ip != nil && !ip.IsUnspecified() {
			a.ips = append(a.ips, ip)
		}
	}
	return a, nil
}

// Config returns the server's configuration.
func (a *Authority) Config() *tls.Config { return config(a.get) }

// CAFile returns the path of the certificate to trust.
func (a *Authority) CAFile() string { return filepath.Join(a.dir, CAFile) }

// Fingerprint returns the SHA-256 of the authority's certificate, in hex, as
// browsers show it.
func (a *Authority) Fingerprint() string {
	sum := sha256.Sum256(a.cert.Raw)
	return hex.EncodeToString(sum[:])
}

// get returns a certificate for a handshake, a new one after a third of its
// life or when the client came to an address that it does not name yet. Those
// are addresses of this machine, so they are few.
func (a *Authority) get(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	now := time.Now()
	fresh := a.leaf != nil && now.Before(a.renew)
	if hello.Conn != nil {
		if at, ok := hello.Conn.LocalAddr().(*net.TCPAddr); ok && !slices.ContainsFunc(a.ips, at.IP.Equal) {
			a.ips, fresh = append(a.ips, at.IP), false
		}
	}
	if fresh {
		return a.leaf, nil
	}
	leaf, err := a.issue(now)
	if err != nil {
		return nil, fmt.Errorf("issue the page's certificate: %w", err)
	}
	a.leaf, a.renew = leaf, now.Add(leafLife/3)
	return leaf, nil
}

func (a *Authority) issue(now time.Time) (*tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: serial(), Subject: pkix.Name{CommonName: "Binnacle manager"},
		NotBefore: now.Add(-slack), NotAfter: now.Add(leafLife),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		BasicConstraintsValid: true, DNSNames: a.names, IPAddresses: a.ips,
	}, a.cert, key.Public(), a.key)
	if err != nil {
		return nil, err
	}
	return &tls.Certificate{Certificate: [][]byte{der, a.cert.Raw}, PrivateKey: key}, nil
}

// create makes an authority in dir.
func create(dir string) (certPEM, keyPEM []byte, err error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	host, err := os.Hostname()
	if err != nil {
		host = "this machine"
	}
	tmpl := &x509.Certificate{
		SerialNumber: serial(), Subject: pkix.Name{CommonName: "Binnacle page of " + host},
		NotBefore: time.Now().Add(-slack), NotAfter: time.Now().Add(caLife),
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign, BasicConstraintsValid: true, IsCA: true, MaxPathLenZero: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		return nil, nil, err
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, nil, err
	}
	certPEM = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	keyPEM = pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8})
	return certPEM, keyPEM, atomicfile.WriteFolder(dir, map[string][]byte{CAFile: certPEM, caKeyFile: keyPEM})
}

func serial() *big.Int {
	b := make([]byte, 16)
	_, _ = rand.Read(b) // never fails (crypto/rand)
	b[0] &= 0x7f        // positive
	return new(big.Int).SetBytes(b)
}
