package gateway

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// certificate writes a new one of its own, with its key, beside the file.
func (s *site) certificate(serial int64) (cert, key string) {
	s.t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		s.t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: "g"}, NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, k.Public(), k)
	if err != nil {
		s.t.Fatal(err)
	}
	kb, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		s.t.Fatal(err)
	}
	dir := filepath.Dir(s.file)
	cert, key = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	for path, b := range map[string]*pem.Block{cert: {Type: "CERTIFICATE", Bytes: der}, key: {Type: "PRIVATE KEY", Bytes: kb}} {
		if err := os.WriteFile(path, pem.EncodeToMemory(b), 0o600); err != nil {
			s.t.Fatal(err)
		}
	}
	return cert, key
}

// serial asks over TLS and returns the serial number of the certificate, 0 when
// there is no answer.
func (s *site) serial() int64 {
	c := http.Client{Transport: &http.Transport{DisableKeepAlives: true, TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}, Timeout: 10 * time.Second}
	resp, err := c.Get(fmt.Sprintf("https://127.0.0.1:%d/which", s.port))
	if err != nil {
		return 0
	}
	defer resp.Body.Close()
	io.Copy(io.Discard, resp.Body)
	return resp.TLS.PeerCertificates[0].SerialNumber.Int64()
}

// secured puts a tls block in the file that is there.
func (s *site) secured(cert, key string) {
	s.t.Helper()
	b, err := os.ReadFile(s.file)
	if err != nil {
		s.t.Fatal(err)
	}
	b = fmt.Appendf(nil, `{ "tls": {"public_key": %q, "private_key": %q},%s`, cert, key, strings.TrimPrefix(string(b), "{"))
	if err := os.WriteFile(s.file, b, 0o600); err != nil {
		s.t.Fatal(err)
	}
}

// TestServerChanges reloads files that take another listening socket or another
// TLS configuration, of both kinds of gateway.
func TestServerChanges(t *testing.T) {
	for _, kind := range []string{"standalone", "member"} {
		t.Run(kind, func(t *testing.T) {
			s := newSite(t)
			block := ""
			if kind == "member" {
				block = s.lonely()
			}
			s.write("one", block)
			p := startProc(t, s.file)
			s.serves("one")
			reload := func() { p.cmd.Process.Signal(syscall.SIGHUP) }

			before := s.port
			s.port = freePort(t)
			s.write("two", block)
			reload()
			s.serves("two")
			s.port, before = before, s.port
			waitFor(t, "the former port to be closed", func() bool { _, err := s.get(); return err != nil })
			s.port = before

			cert, key := s.certificate(1)
			s.write("three", block)
			s.secured(cert, key)
			reload()
			waitFor(t, "TLS", func() bool { return s.serial() == 1 })

			// The same file, and another certificate in its place.
			s.certificate(2)
			reload()
			waitFor(t, "the renewed certificate", func() bool { return s.serial() == 2 })

			// A broken one changes nothing.
			if err := os.WriteFile(cert, []byte("cut o"), 0o600); err != nil {
				t.Fatal(err)
			}
			reload()
			s.write("four", block)
			reload()
			s.serves("four")

			p.cmd.Process.Signal(syscall.SIGTERM)
			if err := p.wait(); err != nil {
				t.Errorf("end: got %v; want a clean one", err)
			}
		})
	}
}

// TestSignalToTheGroupWithDelay is what Ctrl-C is to a node that gives its load
// balancers time: the worker has the signal as well, and serves on.
func TestSignalToTheGroupWithDelay(t *testing.T) {
	for _, kind := range []string{"standalone", "member"} {
		t.Run(kind, func(t *testing.T) {
			s := newSite(t)
			block := ""
			if kind == "member" {
				block = s.lonely()
			}
			s.write("one", block)
			p := startProc(t, s.file, envDelay+"=1s")
			s.serves("one")
			began := time.Now()
			if err := syscall.Kill(-p.cmd.Process.Pid, syscall.SIGTERM); err != nil {
				t.Fatal(err)
			}
			ready := func() int {
				resp, err := http.Get(fmt.Sprintf("http://127.0.0.1:%d/__health", s.port))
				if err != nil {
					return 0
				}
				resp.Body.Close()
				return resp.StatusCode
			}
			waitFor(t, "the health page to say so", func() bool { return ready() == 503 })
			if got, err := s.get(); err != nil || got != "/one" {
				t.Errorf("in the delay: got %q, %v", got, err)
			}
			if err := p.wait(); err != nil {
				t.Errorf("end: got %v; want a clean one", err)
			}
			if took := time.Since(began); took < time.Second {
				t.Errorf("the stop took %v; want at least 1s", took)
			}
		})
	}
}

// TestMemberInYAML joins by a file of another form, and reads it again.
func TestMemberInYAML(t *testing.T) {
	s := newSite(t)
	s.file = filepath.Join(filepath.Dir(s.file), "krakend.yaml")
	write := func(name string) {
		t.Helper()
		raw := fmt.Appendf(nil, `version: 3
port: %d
listen_ip: 127.0.0.1
extra_config:
  "@cluster": {manager: "127.0.0.1:1", token_file: join.token, gossip: "off", state_dir: %q}
endpoints:
  - endpoint: /which
    output_encoding: no-op
    backend: [{host: [%q], url_pattern: /%s, encoding: no-op}]
`, s.port, s.state, s.backend, name)
		if err := os.WriteFile(s.file, raw, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("one")
	p := startProc(t, s.file)
	s.serves("one")
	write("two")
	p.cmd.Process.Signal(syscall.SIGHUP)
	s.serves("two")
}
