package pagetls

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// serve answers over TLS on loopback and returns its address.
func serve(t *testing.T, c *tls.Config) string {
	t.Helper()
	ln, err := tls.Listen("tcp", "127.0.0.1:0", c)
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: http.NotFoundHandler(), ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug)}
	go func() { _ = s.Serve(ln) }()
	t.Cleanup(func() { _ = s.Close() })
	return ln.Addr().String()
}

func trusting(t *testing.T, caFile string) *x509.CertPool {
	t.Helper()
	b, err := os.ReadFile(caFile)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(b) {
		t.Fatalf("%s holds no certificate", caFile)
	}
	return pool
}

func TestAutoIsTrustedByItsAuthority(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "tls")
	a, err := Auto(dir, []string{"gw.example", "::", ""})
	if err != nil {
		t.Fatal(err)
	}
	addr := serve(t, a.Config())
	pool := trusting(t, a.CAFile())
	for _, name := range []string{"127.0.0.1", "gw.example"} {
		conn, err := tls.Dial("tcp", addr, &tls.Config{RootCAs: pool, ServerName: name})
		if err != nil {
			t.Fatalf("dial as %s: %v", name, err)
		}
		if got := conn.ConnectionState().PeerCertificates[0].PublicKeyAlgorithm; got != x509.ECDSA {
			t.Errorf("the certificate's key is %v; want ECDSA, which browsers accept", got)
		}
		conn.Close()
	}
	if _, err := tls.Dial("tcp", addr, &tls.Config{RootCAs: pool, ServerName: "elsewhere.example"}); err == nil {
		t.Error("the certificate is good for elsewhere.example, which nobody named")
	}

	again, err := Auto(dir, nil)
	if err != nil || again.Fingerprint() != a.Fingerprint() {
		t.Fatalf("a second start: authority %v, %v; want the same", again, err)
	}
	if fi, err := os.Stat(filepath.Join(dir, caKeyFile)); err != nil || fi.Mode().Perm() != 0o600 {
		t.Errorf("the authority's key: %v, %v; want mode 0600", fi, err)
	}
}

func TestAutoRefusesHalfAnAuthority(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "tls")
	if _, err := Auto(dir, nil); err != nil {
		t.Fatal(err)
	}
	key := filepath.Join(dir, caKeyFile)
	if err := os.WriteFile(key, []byte("garbage"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Auto(dir, nil); err == nil || !strings.Contains(err.Error(), "move the folder away") {
		t.Errorf("with a garbled key: %v; want what to do", err)
	}
	if err := os.Remove(key); err != nil {
		t.Fatal(err)
	}
	if _, err := Auto(dir, nil); !errors.Is(err, os.ErrNotExist) || !strings.Contains(err.Error(), "restore both") {
		t.Errorf("without the key: %v; want what to do", err)
	}
}

func TestAutoRenews(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "tls")
	synctest.Test(t, func(t *testing.T) {
		a, err := Auto(dir, []string{"127.0.0.1"})
		if err != nil {
			t.Fatal(err)
		}
		first, err := a.get(&tls.ClientHelloInfo{})
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(leafLife/3 - time.Minute)
		if same, _ := a.get(&tls.ClientHelloInfo{}); same != first {
			t.Error("a new certificate before a third of the life was gone")
		}
		time.Sleep(2 * time.Minute)
		next, err := a.get(&tls.ClientHelloInfo{})
		if err != nil || next == first {
			t.Fatalf("after a third of the life: the same certificate (%v)", err)
		}
		leaf, err := x509.ParseCertificate(next.Certificate[0])
		if err != nil || !leaf.NotAfter.Equal(time.Now().Add(leafLife).Truncate(time.Second)) {
			t.Errorf("the new one ends %v (%v); want %v from now", leaf.NotAfter, err, leafLife)
		}
	})
}

// pairOf leaves the current certificate of a new authority as two PEM files and
// returns its serial number.
func pairOf(t *testing.T, certFile, keyFile string) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "tls")
	if _, err := Auto(dir, nil); err != nil {
		t.Fatal(err)
	}
	for from, to := range map[string]string{CAFile: certFile, caKeyFile: keyFile} {
		b, err := os.ReadFile(filepath.Join(dir, from))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(to, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	pair, err := tls.LoadX509KeyPair(certFile, keyFile)
	if err != nil {
		t.Fatal(err)
	}
	return pair.Leaf.SerialNumber.String()
}

func TestFilesAreReadAgain(t *testing.T) {
	dir := t.TempDir()
	certFile, keyFile := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	if _, err := Files(certFile, keyFile, slog.New(slog.DiscardHandler)); !errors.Is(err, os.ErrNotExist) {
		t.Fatalf("Files without files: %v; want that they are missing", err)
	}
	first := pairOf(t, certFile, keyFile)
	synctest.Test(t, func(t *testing.T) {
		c, err := Files(certFile, keyFile, slog.New(slog.NewTextHandler(t.Output(), nil)))
		if err != nil {
			t.Fatal(err)
		}
		serves := func() string {
			t.Helper()
			cert, err := c.GetCertificate(&tls.ClientHelloInfo{})
			if err != nil {
				t.Fatal(err)
			}
			return cert.Leaf.SerialNumber.String()
		}
		if got := serves(); got != first {
			t.Fatalf("serves %s; want %s", got, first)
		}
		if err := os.WriteFile(certFile, []byte("half a renewal"), 0o600); err != nil {
			t.Fatal(err)
		}
		time.Sleep(lookEvery)
		if got := serves(); got != first {
			t.Errorf("with a bad file serves %s; want the last good %s", got, first)
		}
		second := pairOf(t, certFile, keyFile)
		if got := serves(); got != first {
			t.Errorf("serves %s within %v; want no look at the files yet", got, lookEvery)
		}
		time.Sleep(lookEvery)
		if got := serves(); got != second {
			t.Errorf("after the renewal serves %s; want %s", got, second)
		}
	})
}
