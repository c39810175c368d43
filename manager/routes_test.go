package manager

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/binnacle-project/binnacle/api"
	"github.com/binnacle-project/binnacle/manager/access"
	"github.com/binnacle-project/binnacle/membership"
)

// startTest runs a whole manager on loopback ports of its own.
func startTest(t *testing.T, change func(*Options)) *Manager {
	t.Helper()
	o := DefaultOptions()
	o.DataDir = t.TempDir()
	o.HTTPAddr, o.NodeAddr, o.GossipAddr = "127.0.0.1:0", "127.0.0.1:0", "127.0.0.1:0"
	o.OTLPGRPCAddr, o.OTLPHTTPAddr = "127.0.0.1:0", "127.0.0.1:0"
	if change != nil {
		change(&o)
	}
	m, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	ctx, cancel := context.WithCancel(context.Background())
	go func() { done <- m.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		select {
		case err := <-done:
			if err != nil {
				t.Errorf("stop the manager: %v", err)
			}
		case <-time.After(30 * time.Second):
			t.Error("the manager did not stop within 30 s")
		}
	})
	awaitReady(t, m, done)
	return m
}

// newJoinToken makes what nodes join with.
func newJoinToken(t *testing.T, m *Manager) membership.JoinToken {
	t.Helper()
	created, err := m.tokens.Create(t.Context(), api.NewToken{Kind: membership.KindJoin})
	if err != nil {
		t.Fatal(err)
	}
	token, err := membership.ParseJoinToken(created.Secret)
	if err != nil {
		t.Fatal(err)
	}
	return token
}

// awaitReady waits until m serves; done brings the error of its Run.
func awaitReady(t *testing.T, m *Manager, done <-chan error) {
	t.Helper()
	for !m.ready.Load() {
		select {
		case err := <-done:
			t.Fatalf("the manager ended: %v", err)
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// TestRoutesByRole walks the table with every role: a route answers 401 or 403
// to those who lack its role, and something else to those who have it.
func TestRoutesByRole(t *testing.T) {
	m := startTest(t, func(o *Options) { o.AnonymousRole = "nobody" })
	tokens := map[access.Role]string{}
	for _, r := range []access.Role{access.Viewer, access.Operator, access.Admin} {
		c, err := m.access.Create(t.Context(), api.NewToken{Name: "test " + r.String(), Role: r.String()})
		if err != nil {
			t.Fatal(err)
		}
		tokens[r] = c.Secret
	}
	h := m.operatorHandler()
	seen := map[string]bool{}
	for _, rt := range m.routes() {
		if seen[rt.pattern] {
			t.Errorf("%s stands twice in the table", rt.pattern)
		}
		seen[rt.pattern] = true
		method, path, _ := strings.Cut(rt.pattern, " ")
		path = strings.NewReplacer("{$}", "", "{id}", "n-none", "{group}", "default", "{n}", "1", "{sha256}", strings.Repeat("0", 64)).Replace(path)
		if strings.HasSuffix(path, "/stream") {
			continue // held open: their guard is the same code
		}
		for role := access.Nobody; role <= access.Admin; role++ {
			req := httptest.NewRequest(method, path, strings.NewReader("{}"))
			req.RemoteAddr = "192.0.2.1:1"
			if tokens[role] != "" {
				req.Header.Set("Authorization", "Bearer "+tokens[role])
			}
			w := httptest.NewRecorder()
			h.ServeHTTP(w, req)
			refused := w.Code == http.StatusUnauthorized || w.Code == http.StatusForbidden
			if may := role >= rt.role; may == refused {
				t.Errorf("%s as %v: status %d; the table asks for %v", rt.pattern, role, w.Code, rt.role)
			}
			if role == access.Nobody && refused && w.Code != http.StatusUnauthorized {
				t.Errorf("%s as nobody: status %d; want 401", rt.pattern, w.Code)
			}
			if w.Header().Get("Content-Security-Policy") == "" || w.Header().Get("X-Content-Type-Options") != "nosniff" {
				t.Errorf("%s as %v: the security headers are missing", rt.pattern, role)
			}
		}
	}
	// What is not in the table is refused to strangers and unknown to others.
	for role, want := range map[access.Role]int{access.Nobody: 401, access.Viewer: 404, access.Admin: 404} {
		for _, path := range []string{"/v1/nothing", "/debug/pprof/", "/v1/nodes/x/y/z", "/prometheus/api/v2/query"} {
			req := httptest.NewRequest("GET", path, nil)
			req.RemoteAddr = "192.0.2.1:1"
			if tokens[role] != "" {
				req.Header.Set("Authorization", "Bearer "+tokens[role])
			}
			w := httptest.NewRecorder()
			h.ServeHTTP(w, req)
			if w.Code != want {
				t.Errorf("GET %s as %v: status %d; want %d", path, role, w.Code, want)
			}
		}
	}
}

// TestRights: a single right opens what it names and nothing else.
func TestRights(t *testing.T) {
	m := startTest(t, func(o *Options) { o.AnonymousRole = "nobody" })
	b, err := os.ReadFile(filepath.Join(m.opts.DataDir, "tokens", "reader.token"))
	if err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]int{"/jaeger/api/services": 200, "/v1/nodes": 200, "/v1/groups": 403, "/v1/tokens": 403} {
		if got := get(t, m, path, strings.TrimSpace(string(b)), nil); got != want {
			t.Errorf("GET %s with reader.token: status %d; want %d", path, got, want)
		}
	}
}

func get(t *testing.T, m *Manager, path, token string, header map[string]string) int {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+m.HTTPAddr()+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	for k, v := range header {
		if k == "Host" {
			req.Host = v
		}
		req.Header.Set(k, v)
	}
	resp, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	_, _ = io.Copy(io.Discard, resp.Body)
	return resp.StatusCode
}

// TestBrowserGuards: another site's page may change nothing, a rebound name
// reads nothing, and a person without a session is sent to the login.
func TestBrowserGuards(t *testing.T) {
	m := startTest(t, nil)
	post := func(header map[string]string) int {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+m.HTTPAddr()+"/v1/login-codes", nil)
		if err != nil {
			t.Fatal(err)
		}
		for k, v := range header {
			req.Header.Set(k, v)
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		return resp.StatusCode
	}
	admin, err := os.ReadFile(filepath.Join(m.opts.DataDir, "tokens", "admin.token"))
	if err != nil {
		t.Fatal(err)
	}
	auth := "Bearer " + strings.TrimSpace(string(admin))
	if got := post(map[string]string{"Authorization": auth}); got != http.StatusCreated {
		t.Errorf("without a browser: status %d; want 201", got)
	}
	if got := post(map[string]string{"Authorization": auth, "Sec-Fetch-Site": "cross-site"}); got != http.StatusForbidden {
		t.Errorf("from another site: status %d; want 403", got)
	}
	if got := post(map[string]string{"Authorization": auth, "Origin": "http://evil.example"}); got != http.StatusForbidden {
		t.Errorf("from another origin: status %d; want 403", got)
	}
	if got := get(t, m, "/v1/nodes", "", nil); got != http.StatusOK {
		t.Errorf("anonymous from loopback: status %d; want 200", got)
	}
	if got := get(t, m, "/v1/nodes", "", map[string]string{"Host": "evil.example"}); got != http.StatusUnauthorized {
		t.Errorf("by a rebound name: status %d; want 401", got)
	}
	if got := get(t, m, "/nodes", "", map[string]string{"Host": "evil.example", "Accept": "text/html"}); got != http.StatusSeeOther {
		t.Errorf("a person without a session: status %d; want 303 to the login", got)
	}
}

func TestLocalPath(t *testing.T) {
	for in, want := range map[string]string{
		"": "/", "/": "/", "/nodes?state=down": "/nodes?state=down", "nodes": "/",
		"//evil.example": "/", "https://evil.example/": "/", `/\evil.example`: "/", "javascript:alert(1)": "/",
	} {
		if got := localPath(in); got != want {
			t.Errorf("localPath(%q): got %q; want %q", in, got, want)
		}
	}
}

func TestPreferWait(t *testing.T) {
	for in, want := range map[string]time.Duration{
		"": 0, "wait=30": 30 * time.Second, "respond-async, wait=10": 10 * time.Second, "Wait=\"5\"": 5 * time.Second,
		"wait=-1": 0, "wait=x": 0, "wait=999999": time.Minute,
	} {
		if got := preferWait(http.Header{"Prefer": {in}}, time.Minute); got != want {
			t.Errorf("preferWait(%q): got %v; want %v", in, got, want)
		}
	}
}

// TestPortInUse: the message names address and flag, and what was opened before
// is closed again.
func TestPortInUse(t *testing.T) {
	m := startTest(t, nil)
	o := DefaultOptions()
	o.DataDir = t.TempDir()
	o.HTTPAddr, o.NodeAddr, o.GossipAddr = "127.0.0.1:0", m.NodeAddr(), GossipOff
	o.OTLPGRPCAddr, o.OTLPHTTPAddr = "", ""
	_, err := New(o)
	if err == nil || !strings.Contains(err.Error(), m.NodeAddr()) || !strings.Contains(err.Error(), "--node-addr") {
		t.Fatalf("got %v; want the address and the flag", err)
	}
	o.NodeAddr = "127.0.0.1:0" // the state's lock is free again
	again, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	if err := again.Stop(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestOptionsNameTheFlag(t *testing.T) {
	for flag, change := range map[string]func(*Options){
		"--data-dir":               func(o *Options) { o.DataDir = "" },
		"--http-addr":              func(o *Options) { o.HTTPAddr = "9897" },
		"--node-addr":              func(o *Options) { o.NodeAddr = ":99999" },
		"--tls-cert":               func(o *Options) { o.TLSCert = "x" },
		"--tls ":                   func(o *Options) { o.TLS = "yes" },
		"--tls=auto":               func(o *Options) { o.TLS, o.TLSCert, o.TLSKey = TLSAuto, "x", "y" },
		"--anonymous-role":         func(o *Options) { o.AnonymousRole = "king" },
		"--metrics-histograms":     func(o *Options) { o.MetricsHistograms = "some" },
		"--metrics-retention":      func(o *Options) { o.MetricsRetention = 0 },
		"--otlp-max-request-bytes": func(o *Options) { o.MaxRequestBytes = 0 },
	} {
		o := DefaultOptions()
		change(&o)
		if err := o.Validate(); err == nil || !strings.Contains(err.Error(), flag) {
			t.Errorf("%s: got %v; want an error that names the flag", flag, err)
		}
	}
	if err := DefaultOptions().Validate(); err != nil {
		t.Errorf("the defaults are not valid: %v", err)
	}
}
