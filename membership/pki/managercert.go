package pki

import (
	"crypto/ed25519"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"net"
	"net/url"
	"sync"
	"time"
)

// ownCert is the manager's own certificate on :9899, issued at first use and
// again after a third of its life.
type ownCert struct {
	authority *Authority
	hosts     []string

	mu    sync.Mutex
	cert  *tls.Certificate
	renew time.Time
}

func (o *ownCert) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	now := time.Now()
	if o.cert != nil && now.Before(o.renew) {
		return o.cert, nil
	}
	cert, err := o.authority.issueManager(o.hosts, now)
	if err != nil {
		return nil, err
	}
	o.cert, o.renew = cert, now.Add(managerCertLife/3)
	return cert, nil
}

func (a *Authority) issueManager(hosts []string, now time.Time) (*tls.Certificate, error) {
	pub, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		return nil, fmt.Errorf("make the manager's key: %w", err)
	}
	tmpl := &x509.Certificate{
		Subject:     pkix.Name{CommonName: "Binnacle manager of " + string(a.cluster)},
		NotBefore:   now.Add(-clockSlack),
		NotAfter:    now.Add(managerCertLife),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		URIs:        []*url.URL{managerURI(a.cluster)},
	}
	for _, h := range hosts {
		if ip := net.ParseIP(h); ip != nil {
			tmpl.IPAddresses = append(tmpl.IPAddresses, ip)
		} else if h != "" {
			tmpl.DNSNames = append(tmpl.DNSNames, h)
		}
	}
	der, err := a.issue(tmpl, pub)
	if err != nil {
		return nil, fmt.Errorf("issue the manager's certificate for %q: %w", hosts, err)
	}
	return &tls.Certificate{Certificate: [][]byte{der, a.cert.Raw}, PrivateKey: key}, nil
}
