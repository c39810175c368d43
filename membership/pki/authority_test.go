package pki

import (
	"crypto/ed25519"
	"crypto/tls"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/binnacle-project/binnacle"
)

func newAuthority(t testing.TB) *Authority {
	t.Helper()
	a, err := OpenAuthority(filepath.Join(t.TempDir(), "ca"))
	if err != nil {
		t.Fatalf("OpenAuthority: %v", err)
	}
	return a
}

func TestAuthorityIsKept(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data", "ca")
	a, err := OpenAuthority(dir)
	if err != nil {
		t.Fatalf("first OpenAuthority: %v", err)
	}
	b, err := OpenAuthority(dir)
	if err != nil {
		t.Fatalf("second OpenAuthority: %v", err)
	}
	if a.Cluster() != b.Cluster() || !a.Key().Equal(b.Key()) || a.Fingerprint() != b.Fingerprint() {
		t.Errorf("reopened authority is %s; want %s", b.Cluster(), a.Cluster())
	}
	if c := string(a.Cluster()); len(c) != 14 || c != "c-"+a.Fingerprint()[:12] {
		t.Errorf("cluster id is %q; want c- and 12 hex digits of %s", c, a.Fingerprint())
	}
	if _, cluster, err := CAPublicKey(a.CAPEM()); err != nil || cluster != a.Cluster() {
		t.Errorf("CAPublicKey: got %s, %v; want %s", cluster, err, a.Cluster())
	}
	for path, want := range map[string]os.FileMode{dir: 0o700, filepath.Join(dir, caKeyFile): 0o600, filepath.Join(dir, caCertFile): 0o600} {
		if fi, err := os.Stat(path); err != nil || fi.Mode().Perm() != want {
			t.Errorf("%s: mode %v, %v; want %v", path, fi.Mode().Perm(), err, want)
		}
	}
}

func TestAuthorityRefusesHalfAFolder(t *testing.T) {
	for _, lost := range []string{caKeyFile, caCertFile} {
		dir := filepath.Join(t.TempDir(), "ca")
		if _, err := OpenAuthority(dir); err != nil {
			t.Fatal(err)
		}
		if err := os.Remove(filepath.Join(dir, lost)); err != nil {
			t.Fatal(err)
		}
		if _, err := OpenAuthority(dir); err == nil || !strings.Contains(err.Error(), "restore") {
			t.Errorf("without %s: got %v; want an error that says to restore", lost, err)
		}
	}
	// The certificate of another key, and files cut at every length.
	dir, other := filepath.Join(t.TempDir(), "ca"), newAuthority(t)
	if _, err := OpenAuthority(dir); err != nil {
		t.Fatal(err)
	}
	cert := filepath.Join(dir, caCertFile)
	whole, err := os.ReadFile(cert)
	if err != nil {
		t.Fatal(err)
	}
	for _, content := range [][]byte{other.CAPEM(), whole[:len(whole)/2], {}} {
		if err := os.WriteFile(cert, content, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := OpenAuthority(dir); err == nil {
			t.Errorf("with a certificate of %d bytes: opened; want an error", len(content))
		}
	}
}

// nodeCert enrolls a key by hand, valid from notBefore for life.
func nodeCert(t testing.TB, a *Authority, id binnacle.NodeID, notBefore time.Time, life time.Duration) (tls.Certificate, ed25519.PrivateKey) {
	t.Helper()
	key, err := NewNodeKey()
	if err != nil {
		t.Fatal(err)
	}
	certPEM, err := a.Issue(key.Public().(ed25519.PublicKey), id, notBefore, notBefore.Add(life))
	if err != nil {
		t.Fatal(err)
	}
	cert, err := NodeCertificate(certPEM, key)
	if err != nil {
		t.Fatal(err)
	}
	return cert, key
}

// handshake listens with server, dials with client, and returns what the
// server saw and both sides' errors.
func handshake(t *testing.T, server, client *tls.Config) (seen tls.ConnectionState, serverErr, clientErr error) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	done := make(chan struct{})
	go func() {
		defer close(done)
		conn, err := ln.Accept()
		if err != nil {
			serverErr = err
			return
		}
		defer conn.Close()
		conn.SetDeadline(time.Now().Add(10 * time.Second))
		tc := tls.Server(conn, server)
		if serverErr = tc.Handshake(); serverErr == nil {
			seen = tc.ConnectionState()
			_, serverErr = tc.Write([]byte("x"))
		}
	}()
	conn, err := tls.DialWithDialer(&net.Dialer{Timeout: 10 * time.Second}, "tcp", ln.Addr().String(), client)
	clientErr = err
	if err == nil {
		conn.SetDeadline(time.Now().Add(10 * time.Second))
		// In TLS 1.3 the client learns of a refusal with its first read, which
		// also takes in session tickets.
		_, clientErr = conn.Read(make([]byte, 1))
		conn.Close()
	}
	<-done
	return seen, serverErr, clientErr
}

func TestHandshakes(t *testing.T) {
	a, other := newAuthority(t), newAuthority(t)
	server, err := a.ServerTLS([]string{"127.0.0.1", "manager.example"})
	if err != nil {
		t.Fatal(err)
	}
	node := func(cert tls.Certificate, ca *Authority) *tls.Config {
		c, err := NodeTLS(cert, ca.CAPEM())
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	now := time.Now()
	valid, _ := nodeCert(t, a, "n-1", now.Add(-time.Hour), 90*24*time.Hour)
	expired, _ := nodeCert(t, a, "n-1", now.Add(-10*time.Hour), time.Hour)
	foreign, _ := nodeCert(t, other, "n-1", now.Add(-time.Hour), 90*24*time.Hour)
	managerCert, err := a.issueManager(nil, now)
	if err != nil {
		t.Fatal(err)
	}

	tests := []struct {
		name    string
		client  *tls.Config
		certs   int
		refused string // "client" or "server" refuses
	}{
		{"enroll with the right fingerprint", EnrollTLS(a.Fingerprint()), 0, ""},
		{"enroll with another cluster's", EnrollTLS(other.Fingerprint()), 0, "client"},
		{"node", node(valid, a), 1, ""},
		{"expired node", node(expired, a), 1, ""},
		{"node of another cluster", node(foreign, a), 0, "server"},
		{"node that expects another cluster", node(valid, other), 0, "client"},
		{"a manager's certificate as a node's", node(*managerCert, a), 0, "server"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			seen, serverErr, clientErr := handshake(t, server, tt.client)
			switch tt.refused {
			case "":
				if serverErr != nil || clientErr != nil {
					t.Fatalf("server %v, client %v; want a connection", serverErr, clientErr)
				}
				if len(seen.PeerCertificates) != tt.certs || seen.Version != tls.VersionTLS13 {
					t.Errorf("server saw %d certificates over %s; want %d over TLS 1.3", len(seen.PeerCertificates), tls.VersionName(seen.Version), tt.certs)
				}
			case "client":
				if !errors.Is(clientErr, ErrNotManager) {
					t.Errorf("client: got %v; want %v", clientErr, ErrNotManager)
				}
			case "server":
				if serverErr == nil || clientErr == nil {
					t.Errorf("server %v, client %v; want both to fail", serverErr, clientErr)
				}
			}
		})
	}

	t.Run("a node is no manager", func(t *testing.T) {
		impostor := &tls.Config{MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{{
			Certificate: [][]byte{valid.Certificate[0], a.cert.Raw}, PrivateKey: valid.PrivateKey,
		}}}
		for name, client := range map[string]*tls.Config{"enroll": EnrollTLS(a.Fingerprint()), "node": node(valid, a)} {
			if _, _, err := handshake(t, impostor, client); !errors.Is(err, ErrNotManager) {
				t.Errorf("%s: got %v; want %v", name, err, ErrNotManager)
			}
		}
	})
	t.Run("resumption shows the certificate again", func(t *testing.T) {
		client := node(valid, a)
		for i := range 2 {
			seen, serverErr, clientErr := handshake(t, server, client)
			if serverErr != nil || clientErr != nil {
				t.Fatalf("server %v, client %v", serverErr, clientErr)
			}
			if len(seen.PeerCertificates) != 1 || seen.DidResume != (i == 1) {
				t.Errorf("connection %d: resumed %v with %d certificates", i, seen.DidResume, len(seen.PeerCertificates))
			}
		}
	})
}

func TestManagerRenewsItsOwnCertificate(t *testing.T) {
	a := newAuthority(t)
	own := &ownCert{authority: a, hosts: []string{"10.0.0.5"}}
	first, err := own.get(nil)
	if err != nil {
		t.Fatal(err)
	}
	again, _ := own.get(nil)
	if again != first {
		t.Error("second handshake: another certificate; want the same")
	}
	own.renew = time.Now().Add(-time.Second)
	if renewed, err := own.get(nil); err != nil || renewed == first {
		t.Errorf("after a third of its life: got %p, %v; want another than %p", renewed, err, first)
	}
}

func TestIssueNode(t *testing.T) {
	a := newAuthority(t)
	key, err := NewNodeKey()
	if err != nil {
		t.Fatal(err)
	}
	csr, err := NewCSR(key)
	if err != nil {
		t.Fatal(err)
	}
	certPEM, fp, err := a.IssueNode(csr, "n-7")
	if err != nil {
		t.Fatal(err)
	}
	if want := KeyFingerprint(key.Public().(ed25519.PublicKey)); fp != want {
		t.Errorf("fingerprint is %s; want %s", fp, want)
	}
	cert, err := NodeCertificate(certPEM, key)
	if err != nil {
		t.Fatal(err)
	}
	if id, err := NodeOf(cert.Leaf, a.Cluster()); err != nil || id != "n-7" {
		t.Errorf("certificate names %q, %v; want n-7", id, err)
	}
	if d := time.Until(RenewAt(cert)); d < 29*24*time.Hour || d > 31*24*time.Hour {
		t.Errorf("renew in %v; want some 30 days", d)
	}
	if _, err := NodeCertificate(certPEM, a.Key()); err == nil {
		t.Error("a certificate for another key was accepted")
	}
	for _, bad := range [][]byte{nil, []byte("x"), certPEM, csr[:len(csr)/2], make([]byte, maxPEM+1)} {
		if _, _, err := a.IssueNode(bad, "n-7"); err == nil {
			t.Errorf("a request of %d bytes was accepted", len(bad))
		}
	}
	pemKey, err := KeyPEM(key)
	if err != nil {
		t.Fatal(err)
	}
	if back, err := ParseKeyPEM(pemKey); err != nil || !back.Equal(key) {
		t.Errorf("ParseKeyPEM(KeyPEM(key)): got another key, %v", err)
	}
}

func FuzzParseCSR(f *testing.F) {
	key, _ := NewNodeKey()
	csr, _ := NewCSR(key)
	f.Add(csr)
	f.Add([]byte("-----BEGIN CERTIFICATE REQUEST-----\n-----END CERTIFICATE REQUEST-----\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		pub, fp, err := ParseCSR(b)
		if err == nil && (len(pub) != ed25519.PublicKeySize || fp != KeyFingerprint(pub)) {
			t.Fatalf("accepted a key of %d bytes with fingerprint %s", len(pub), fp)
		}
	})
}
