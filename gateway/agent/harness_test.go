package agent

import (
	"compress/gzip"
	"context"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/binnacle-project/binnacle"
	"github.com/binnacle-project/binnacle/api"
	"github.com/binnacle-project/binnacle/gateway/control"
	"github.com/binnacle-project/binnacle/gateway/engine"
	"github.com/binnacle-project/binnacle/gateway/worker"
	"github.com/binnacle-project/binnacle/licensing"
	"github.com/binnacle-project/binnacle/membership"
	"github.com/binnacle-project/binnacle/membership/pki"
)

// silentWorker is the argument of a worker that records no telemetry.
const silentWorker = "-without-telemetry"

// TestMain makes the test binary a worker when an agent starts it as one.
func TestMain(m *testing.M) {
	if launch := os.Getenv(control.WorkerEnv); launch != "" {
		if slices.Contains(os.Args, silentWorker) {
			var l control.Launch
			json.Unmarshal([]byte(launch), &l)
			l.Relay = ""
			b, _ := json.Marshal(l)
			os.Setenv(control.WorkerEnv, string(b))
		}
		os.Exit(worker.Main())
	}
	os.Exit(m.Run())
}

// waitFor polls cond, which must become true. The bound is generous: it only
// ends tests that fail.
func waitFor(t testing.TB, what string, cond func() bool) {
	t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for !cond() {
		if time.Now().After(deadline) {
			t.Fatalf("waited 30 s for: %s", what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// fakeManager is the node API on real TLS, with knobs. It has no store: a test
// sets the plan and the configurations.
type fakeManager struct {
	t      testing.TB
	auth   *pki.Authority
	addr   string // stays the same over stop and start
	secret string

	mu       sync.Mutex
	srv      *http.Server
	plan     api.Plan
	changed  chan struct{}
	configs  map[string][]byte
	nodes    map[string]binnacle.NodeID // by key fingerprint
	enrolls  int
	refusal  *api.Problem // what enrollment answers, if set
	gone     bool         // nodes are unknown
	expired  bool         // certificates are too old for all but a renewal
	renewals int
	statuses []api.Status
	polls    int
	exports  []string // "path revision"
	lie      []byte   // sent for every configuration, if set
}

func newManager(t testing.TB) *fakeManager {
	t.Helper()
	auth, err := pki.OpenAuthority(filepath.Join(t.TempDir(), "ca"))
	if err != nil {
		t.Fatal(err)
	}
	m := &fakeManager{t: t, auth: auth, secret: strings.Repeat("s", 43), changed: make(chan struct{}),
		configs: map[string][]byte{}, nodes: map[string]binnacle.NodeID{}}
	m.plan = api.Plan{Epoch: 1, Serial: 1, Telemetry: api.TelemetryPlan{Interval: 10}}
	m.addr = "127.0.0.1:0"
	m.start()
	t.Cleanup(m.stop)
	return m
}

// start opens the port, the same one as before.
func (m *fakeManager) start() {
	m.t.Helper()
	tc, err := m.auth.ServerTLS([]string{"127.0.0.1"})
	if err != nil {
		m.t.Fatal(err)
	}
	ln, err := net.Listen("tcp", m.addr)
	if err != nil {
		m.t.Fatal(err)
	}
	m.addr = ln.Addr().String()
	mux := http.NewServeMux()
	mux.HandleFunc("POST /v1/enroll", m.enroll)
	mux.HandleFunc("POST /v1/renew", m.renew)
	mux.HandleFunc("GET /v1/nodes/{id}/plan", m.getPlan)
	mux.HandleFunc("PUT /v1/nodes/{id}/status", m.putStatus)
	mux.HandleFunc("GET /v1/configs/{sha}", m.getConfig)
	mux.HandleFunc("POST /v1/metrics", m.otlp)
	mux.HandleFunc("POST /v1/traces", m.otlp)
	srv := &http.Server{Handler: mux, TLSConfig: tc, ErrorLog: log.New(io.Discard, "", 0)}
	m.mu.Lock()
	m.srv = srv
	m.mu.Unlock()
	go srv.ServeTLS(ln, "", "")
}

// stop cuts every connection, as a crash does.
func (m *fakeManager) stop() {
	m.mu.Lock()
	srv := m.srv
	m.srv = nil
	m.mu.Unlock()
	if srv != nil {
		srv.Close()
	}
}

func (m *fakeManager) token() string {
	return membership.JoinToken{ID: "test", Secret: m.secret, Fingerprint: m.auth.Fingerprint()}.String()
}

func problem(w http.ResponseWriter, p api.Problem) {
	w.Header().Set("Content-Type", api.ProblemType)
	w.WriteHeader(p.Status)
	json.NewEncoder(w).Encode(p)
}

func (m *fakeManager) enroll(w http.ResponseWriter, r *http.Request) {
	var req api.EnrollRequest
	if err := json.NewDecoder(r.Body).Decode(&req); err != nil || req.TokenID != "test" || req.Secret != m.secret {
		problem(w, api.Problem{Title: "Unauthorized", Status: http.StatusForbidden, Detail: "the join token is not valid"})
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.enrolls++
	if m.refusal != nil {
		problem(w, *m.refusal)
		return
	}
	pub, fp, err := pki.ParseCSR([]byte(req.CSR))
	if err != nil {
		problem(w, api.Problem{Title: "Bad Request", Status: http.StatusBadRequest, Detail: err.Error()})
		return
	}
	id, ok := m.nodes[fp]
	if !ok {
		id = binnacle.NodeID(fmt.Sprintf("n-%d", len(m.nodes)+1))
		m.nodes[fp] = id
	}
	cert, _, err := m.auth.IssueNode([]byte(req.CSR), id)
	if err != nil {
		problem(w, api.Problem{Title: "Error", Status: http.StatusInternalServerError, Detail: err.Error()})
		return
	}
	m.gone = false
	json.NewEncoder(w).Encode(api.EnrollResponse{
		NodeID: id, Cluster: m.auth.Cluster(), Name: req.Name, Group: binnacle.DefaultGroup,
		Certificate: string(cert), CA: string(m.auth.CAPEM()),
		MembershipCert: base64.StdEncoding.EncodeToString(m.auth.MembershipCert(id, pub)),
		Plan:           m.plan, Lease: "lease-of-" + string(id),
	})
}

// known lets only enrolled nodes through, by certificate.
func (m *fakeManager) known(w http.ResponseWriter, r *http.Request) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(r.TLS.PeerCertificates) == 0 || m.gone {
		problem(w, api.Problem{Title: "Unauthorized", Status: http.StatusUnauthorized, Detail: "this node is not known"})
		return false
	}
	return true
}

func (m *fakeManager) renew(w http.ResponseWriter, r *http.Request) {
	var req api.RenewRequest
	if !m.known(w, r) || json.NewDecoder(r.Body).Decode(&req) != nil {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	_, fp, err := pki.ParseCSR([]byte(req.CSR))
	if err != nil {
		m.t.Errorf("renewal: %v", err)
	}
	cert, _, err := m.auth.IssueNode([]byte(req.CSR), m.nodes[fp])
	if err != nil {
		m.t.Errorf("renewal: %v", err)
	}
	m.expired = false
	m.renewals++
	json.NewEncoder(w).Encode(api.RenewResponse{Certificate: string(cert)})
}

func (m *fakeManager) getPlan(w http.ResponseWriter, r *http.Request) {
	if !m.known(w, r) {
		return
	}
	m.mu.Lock()
	if m.expired {
		m.mu.Unlock()
		problem(w, api.Problem{Title: "Unauthorized", Status: http.StatusUnauthorized, Detail: "the certificate has expired"})
		return
	}
	m.polls++
	p, changed := m.plan, m.changed
	m.mu.Unlock()
	if r.Header.Get("If-None-Match") == p.ETag() {
		select {
		case <-changed:
		case <-r.Context().Done():
			return
		}
		m.mu.Lock()
		p = m.plan
		m.mu.Unlock()
	}
	if r.Header.Get(binnacle.HeaderLeaseExpires) == "" {
		w.Header().Set(binnacle.HeaderLease, "lease-by-poll")
	}
	w.Header().Set("ETag", p.ETag())
	if r.Header.Get("If-None-Match") == p.ETag() {
		w.WriteHeader(http.StatusNotModified)
		return
	}
	json.NewEncoder(w).Encode(p)
}

func (m *fakeManager) putStatus(w http.ResponseWriter, r *http.Request) {
	if !m.known(w, r) {
		return
	}
	var s api.Status
	if err := json.NewDecoder(r.Body).Decode(&s); err != nil {
		problem(w, api.Problem{Title: "Bad Request", Status: http.StatusBadRequest, Detail: err.Error()})
		return
	}
	m.mu.Lock()
	m.statuses = append(m.statuses, s)
	m.mu.Unlock()
	w.WriteHeader(http.StatusNoContent)
}

func (m *fakeManager) getConfig(w http.ResponseWriter, r *http.Request) {
	if !m.known(w, r) {
		return
	}
	m.mu.Lock()
	raw, ok := m.configs[r.PathValue("sha")]
	if m.lie != nil {
		raw = m.lie
	}
	m.mu.Unlock()
	if !ok {
		problem(w, api.Problem{Title: "Not Found", Status: http.StatusNotFound})
		return
	}
	w.Header().Set("Content-Encoding", "gzip")
	zw := gzip.NewWriter(w)
	zw.Write(raw)
	zw.Close()
}

func (m *fakeManager) otlp(w http.ResponseWriter, r *http.Request) {
	if !m.known(w, r) {
		return
	}
	io.Copy(io.Discard, r.Body)
	m.mu.Lock()
	m.exports = append(m.exports, r.URL.Path+" "+r.Header.Get(binnacle.HeaderRevision))
	m.mu.Unlock()
}

// change edits the plan under the lock and wakes the polls.
func (m *fakeManager) change(edit func(p *api.Plan)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	edit(&m.plan)
	close(m.changed)
	m.changed = make(chan struct{})
}

// push makes raw revision n and wants it everywhere.
func (m *fakeManager) push(n binnacle.Revision, raw []byte) api.RevisionRef {
	ref := api.RevisionRef{Number: n, SHA256: hashOf(raw)}
	m.mu.Lock()
	m.configs[ref.SHA256] = raw
	m.mu.Unlock()
	sig := api.SignRevision(m.auth.Key(), m.auth.Cluster(), binnacle.DefaultGroup, ref)
	m.change(func(p *api.Plan) {
		p.Serial++
		p.Revision = &api.PlanRevision{RevisionRef: ref, Signature: sig}
	})
	return ref
}

// last returns the newest status reported.
func (m *fakeManager) last() api.Status {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.statuses) == 0 {
		return api.Status{}
	}
	return m.statuses[len(m.statuses)-1]
}

func (m *fakeManager) count(f func() int) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return f()
}

// applied waits until the manager was told that ref serves.
func (m *fakeManager) applied(ref api.RevisionRef) {
	m.t.Helper()
	waitFor(m.t, fmt.Sprintf("revision %d applied", ref.Number), func() bool {
		s := m.last()
		return s.Applied != nil && s.Applied.RevisionRef == ref
	})
}

// node is one node under test: its files and, while it runs, its agent.
type node struct {
	t       testing.TB
	m       *fakeManager
	file    string
	state   string
	token   string
	port    int
	backend *httptest.Server
	gossip  string
	exe     string        // what workers are started from; this program if empty
	delay   time.Duration // before a stop closes the listeners
	program *Program
	allow   engine.AllowList
	// workerArgs are what workers are told beside their program.
	workerArgs []string

	agent *Agent
	stop  func() error
}

// freePort returns a port that was free a moment ago.
func freePort(t testing.TB) int {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	return ln.Addr().(*net.TCPAddr).Port
}

// newNode prepares a node with a backend that echoes what it is asked for.
func newNode(t testing.TB, m *fakeManager) *node {
	t.Helper()
	dir := t.TempDir()
	n := &node{t: t, m: m, file: filepath.Join(dir, "krakend.json"), state: filepath.Join(dir, "state"), token: filepath.Join(dir, "join.token"), port: freePort(t), gossip: GossipOff}
	n.backend = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if d, err := time.ParseDuration(r.URL.Query().Get("wait")); err == nil {
			time.Sleep(d) // a slow backend
		}
		io.WriteString(w, r.URL.Path)
	}))
	t.Cleanup(n.backend.Close)
	n.write(n.token, []byte(m.token()))
	n.write(n.file, n.config("own"))
	return n
}

func (n *node) write(path string, b []byte) {
	n.t.Helper()
	if err := os.WriteFile(path, b, 0o600); err != nil {
		n.t.Fatal(err)
	}
}

// config is a configuration whose endpoint /which answers "/<name>".
func (n *node) config(name string) []byte { return n.configAt(n.port, name, "") }

func (n *node) configAt(port int, name, more string) []byte {
	return fmt.Appendf(nil, `{
  "version": 3, "port": %d, "listen_ip": "127.0.0.1", "timeout": "5s"%s,
  "endpoints": [ { "endpoint": "/which", "output_encoding": "no-op", "input_query_strings": ["wait"],
    "backend": [ { "host": [%q], "url_pattern": "/%s", "encoding": "no-op" } ] } ]
}`, port, more, n.backend.URL, name)
}

// run starts the agent; its end is checked at the end of the test.
func (n *node) run() *node {
	n.t.Helper()
	exe, err := os.Executable()
	if err != nil {
		n.t.Fatal(err)
	}
	if n.exe != "" {
		exe = n.exe
	}
	o := DefaultOptions()
	o.ConfigFile, o.Managers, o.TokenFile, o.StateDir = n.file, []string{n.m.addr}, n.token, n.state
	o.Name, o.Gossip = "node-a", n.gossip
	o.Program, o.Allow = n.program, n.allow
	o.WorkerCommand, o.DieWithParent = append([]string{exe}, n.workerArgs...), true
	o.LogLevel = "INFO"
	o.ServedAfter = 50 * time.Millisecond
	o.DrainDelay = n.delay
	o.VerifyLease = func(token string, _ ed25519.PublicKey, _ binnacle.ClusterID, _ binnacle.NodeID, _ string) (licensing.Lease, error) {
		if !strings.HasPrefix(token, "lease") {
			return licensing.Lease{}, errors.New("no lease")
		}
		now := time.Now()
		return licensing.Lease{ID: token, Epoch: 1 << 40, Issued: now, Expires: now.Add(time.Hour)}, nil
	}
	o.Log = testLog(n.t)
	a, err := New(o)
	if err != nil {
		n.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- a.Run(ctx) }()
	var once sync.Once
	var result error
	n.agent = a
	n.stop = func() error {
		once.Do(func() {
			http.DefaultClient.CloseIdleConnections() // the drain would give them 1.5 s
			cancel()
			result = <-done
		})
		return result
	}
	n.t.Cleanup(func() {
		if err := n.stop(); err != nil {
			n.t.Errorf("agent: %v", err)
		}
	})
	waitFor(n.t, "the node to serve", func() bool {
		select {
		case err := <-done:
			done <- err
			n.t.Fatalf("agent ended: %v", err)
		default:
		}
		return n.agent.Status().Worker.Serving
	})
	return n
}

// status asks the node for a path, and returns the status of the answer and
// whether it closes the connection; 0 without an answer.
func (n *node) status(path string) (code int, closes bool) {
	resp, err := http.Get(fmt.Sprintf("http://127.0.0.1:%d%s", n.port, path))
	if err != nil {
		return 0, false
	}
	defer resp.Body.Close()
	return resp.StatusCode, resp.Close
}

// get asks the node for a path.
func (n *node) get(path string) (string, error) {
	resp, err := http.Get(fmt.Sprintf("http://127.0.0.1:%d%s", n.port, path))
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("status %d: %s", resp.StatusCode, b)
	}
	return string(b), err
}

// which fails unless the node answers with that configuration.
func (n *node) which(want string) {
	n.t.Helper()
	if got, err := n.get("/which"); err != nil || got != "/"+want {
		n.t.Errorf("GET /which: got %q, %v; want /%s", got, err, want)
	}
}

// load sends requests, on kept and on new connections, until stopped; the
// result is how many were sent and what failed.
func (n *node) load(clients int) (stop func() (sent int, failed []error)) {
	done := make(chan struct{})
	var wg sync.WaitGroup
	var mu sync.Mutex
	sent := 0
	var failed []error
	for i := range clients {
		wg.Go(func() {
			c := &http.Client{Transport: &http.Transport{DisableKeepAlives: i%4 == 3}, Timeout: 20 * time.Second}
			defer c.CloseIdleConnections()
			url := fmt.Sprintf("http://127.0.0.1:%d/which", n.port)
			if i%4 == 1 {
				url += "?wait=100ms"
			}
			for {
				select {
				case <-done:
					return
				default:
				}
				resp, err := c.Get(url)
				if err == nil {
					_, err = io.Copy(io.Discard, resp.Body)
					resp.Body.Close()
					if err == nil && resp.StatusCode != http.StatusOK {
						err = fmt.Errorf("status %d", resp.StatusCode)
					}
				}
				mu.Lock()
				sent++
				if err != nil {
					failed = append(failed, err)
				}
				mu.Unlock()
			}
		})
	}
	return func() (int, []error) {
		close(done)
		wg.Wait()
		return sent, failed
	}
}
