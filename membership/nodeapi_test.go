package membership

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/tls"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"testing"
	"time"

	"github.com/binnacle-project/binnacle/api"
	"github.com/binnacle-project/binnacle/membership/pki"
	"github.com/binnacle-project/binnacle/state/statetest"
)

// nodeAPI serves what the manager's node API needs of this package, over real
// TLS, and returns its address.
func nodeAPI(t *testing.T, c *cluster) string {
	t.Helper()
	answer := func(w http.ResponseWriter, v any, err error) {
		var p *api.Problem
		if errors.As(err, &p) {
			w.WriteHeader(p.Status)
			v = p
		} else if err != nil {
			w.WriteHeader(http.StatusInternalServerError)
			v = err.Error()
		}
		if err := json.NewEncoder(w).Encode(v); err != nil {
			t.Errorf("answer: %v", err)
		}
	}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /v1/enroll", func(w http.ResponseWriter, r *http.Request) {
		var q api.EnrollRequest
		if err := json.NewDecoder(r.Body).Decode(&q); err != nil {
			t.Error(err)
		}
		peer := netip.MustParseAddrPort(r.RemoteAddr).Addr()
		rec, certPEM, err := c.reg.Enroll(r.Context(), q, peer)
		answer(w, api.EnrollResponse{NodeID: rec.ID, Certificate: string(certPEM), CA: string(c.authority.CAPEM()), MembershipCert: certOf(c.reg, rec, err)}, err)
	})
	mux.HandleFunc("POST /v1/renew", func(w http.ResponseWriter, r *http.Request) {
		var q api.RenewRequest
		if err := json.NewDecoder(r.Body).Decode(&q); err != nil {
			t.Error(err)
		}
		rec, certPEM, err := c.reg.Renew(r.Context(), r.TLS, []byte(q.CSR))
		answer(w, api.RenewResponse{Certificate: string(certPEM), MembershipCert: certOf(c.reg, rec, err)}, err)
	})
	// A poll that is held until the client goes.
	mux.HandleFunc("GET /plan", func(w http.ResponseWriter, r *http.Request) {
		rec, err := c.reg.Authenticate(r.TLS, false)
		if err != nil {
			answer(w, nil, err)
			return
		}
		if r.URL.Query().Has("hold") {
			end := c.reg.Polling(rec.ID, testPeer, nil)
			<-r.Context().Done()
			end(true)
			return
		}
		answer(w, rec.ID, nil)
	})
	conf, err := c.authority.ServerTLS([]string{"127.0.0.1"})
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewUnstartedServer(mux)
	// httptest would put a certificate of its own first.
	ln := tls.NewListener(srv.Listener, conf)
	srv.Listener = ln
	srv.Start()
	t.Cleanup(srv.Close)
	return "https://" + ln.Addr().String()
}

func certOf(r *Registry, rec Record, err error) string {
	if err != nil {
		return ""
	}
	return r.MembershipCert(rec)
}

// call posts v, or gets when v is nil, and decodes a success into out.
func call(ctx context.Context, conf *tls.Config, url string, v, out any) (int, error) {
	tr := &http.Transport{TLSClientConfig: conf, DialContext: (&net.Dialer{Timeout: 5 * time.Second}).DialContext}
	defer tr.CloseIdleConnections()
	method, body := http.MethodGet, io.Reader(nil)
	if v != nil {
		b, err := json.Marshal(v)
		if err != nil {
			return 0, err
		}
		method, body = http.MethodPost, bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, url, body)
	if err != nil {
		return 0, err
	}
	resp, err := (&http.Client{Transport: tr}).Do(req)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != 200 {
		return resp.StatusCode, nil
	}
	return 200, json.NewDecoder(resp.Body).Decode(out)
}

// A node's way over real connections: enroll, authenticate, let the certificate
// expire, renew, break a poll, be revoked.
func TestNodeOverTLS(t *testing.T) {
	ctx := t.Context()
	c := newCluster(t, statetest.New(t), nil)
	addr := nodeAPI(t, c)
	key, err := pki.NewNodeKey()
	if err != nil {
		t.Fatal(err)
	}

	var er api.EnrollResponse
	if status, err := call(ctx, pki.EnrollTLS(c.token.Fingerprint), addr+"/v1/enroll", c.request(key, "gw-1"), &er); status != 200 {
		t.Fatalf("enroll: %d, %v", status, err)
	}
	pub, clusterID, err := pki.CAPublicKey([]byte(er.CA))
	if err != nil || clusterID != c.authority.Cluster() {
		t.Fatalf("CA of the answer: %s, %v", clusterID, err)
	}
	mc, err := DecodeMembershipCert(er.MembershipCert)
	if err != nil {
		t.Fatal(err)
	}
	if id, memberKey, err := pki.VerifyMembership(pub, clusterID, mc); err != nil || id != er.NodeID || !memberKey.Equal(key.Public()) {
		t.Errorf("membership certificate: %s, %v", id, err)
	}
	client := func(certPEM string, key ed25519.PrivateKey) *tls.Config {
		cert, err := pki.NodeCertificate([]byte(certPEM), key)
		if err != nil {
			t.Fatal(err)
		}
		conf, err := pki.NodeTLS(cert, []byte(er.CA))
		if err != nil {
			t.Fatal(err)
		}
		return conf
	}
	plan := func(conf *tls.Config) int {
		var id string
		status, err := call(ctx, conf, addr+"/plan", nil, &id)
		if err != nil {
			t.Errorf("plan: %v", err)
		}
		return status
	}
	if got := plan(client(er.Certificate, key)); got != 200 {
		t.Errorf("with a certificate: %d; want 200", got)
	}
	if got := plan(pki.EnrollTLS(c.token.Fingerprint)); got != 401 {
		t.Errorf("without one: %d; want 401", got)
	}

	// An expired certificate serves to renew, and for nothing else.
	now := time.Now()
	der, err := c.authority.Issue(key.Public().(ed25519.PublicKey), er.NodeID, now.Add(-10*time.Hour), now.Add(-time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	expired := client(string(der), key)
	if got := plan(expired); got != 401 {
		t.Errorf("with an expired certificate: %d; want 401", got)
	}
	csr, err := pki.NewCSR(key)
	if err != nil {
		t.Fatal(err)
	}
	var rr api.RenewResponse
	if status, err := call(ctx, expired, addr+"/v1/renew", api.RenewRequest{CSR: string(csr)}, &rr); status != 200 {
		t.Fatalf("renew: %d, %v", status, err)
	}
	if got := plan(client(rr.Certificate, key)); got != 200 {
		t.Errorf("with the renewed certificate: %d; want 200", got)
	}
	otherKey, err := pki.NewNodeKey()
	if err != nil {
		t.Fatal(err)
	}
	otherCSR, err := pki.NewCSR(otherKey)
	if err != nil {
		t.Fatal(err)
	}
	if status, _ := call(ctx, expired, addr+"/v1/renew", api.RenewRequest{CSR: string(otherCSR)}, &rr); status != 400 {
		t.Errorf("renew for another key: %d; want 400", status)
	}

	// A poll whose client is killed is noticed at once.
	pollCtx, kill := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		call(pollCtx, client(rr.Certificate, key), addr+"/plan?hold", nil, nil) //nolint:errcheck // it is killed
	}()
	eventually(t, "the poll is held", func() bool {
		c.reg.mu.RLock()
		defer c.reg.mu.RUnlock()
		return len(c.reg.nodes[er.NodeID].polls) == 1
	})
	kill()
	<-done
	eventually(t, "the node is suspect", func() bool {
		n, _ := c.reg.Get(er.NodeID, time.Now())
		return n.State == api.Suspect
	})

	if err := c.reg.Revoke(ctx, er.NodeID, "alice"); err != nil {
		t.Fatal(err)
	}
	if got := plan(client(rr.Certificate, key)); got != 403 {
		t.Errorf("after revocation: %d; want 403", got)
	}
	if status, _ := call(ctx, expired, addr+"/v1/renew", api.RenewRequest{CSR: string(csr)}, &rr); status != 403 {
		t.Errorf("renew after revocation: %d; want 403", status)
	}
}
