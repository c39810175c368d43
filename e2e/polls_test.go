package e2e

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	mathrand "math/rand/v2"
	"net"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/binnacle-project/binnacle"
	"github.com/binnacle-project/binnacle/api"
)

// A pollNode is what a manager sees of a node: one connection with the node's own
// certificate, a poll that waits on it, and for each new plan a fetch of the
// configuration and a status. It runs no gateway, so that thousands fit beside
// the manager.
type pollNode struct {
	f     *pollFleet
	id    binnacle.NodeID
	cert  tls.Certificate
	roots *x509.CertPool
	lease string        // its expiry, RFC 3339
	phase time.Duration // of its plan

	conn *tls.Conn
	br   *bufio.Reader
	etag string
}

// pollFleet is all of them, and what they have seen.
type pollFleet struct {
	addr  string
	ctx   context.Context
	nodes []*pollNode

	mu        sync.Mutex
	sha       string         // of the revision that is waited for
	body      []byte         // its compressed bytes, checked once
	confirmed []time.Time    // when its statuses were answered
	all       chan struct{}  // closed when all have
	errs      map[string]int // other than a manager that is away
	arrivals  []time.Time    // of connections made after a break

	polls atomic.Int64
	wg    sync.WaitGroup // of the nodes' lives
}

// newPollFleet enrolls n nodes through the node API. Each polls from then on until
// the test ends.
func newPollFleet(t *testing.T, c *cluster, n int) *pollFleet {
	t.Helper()
	f := &pollFleet{addr: c.nodeAPI, ctx: t.Context(), errs: map[string]int{}, nodes: make([]*pollNode, n)}
	t.Cleanup(f.wg.Wait) // after the end of t.Context()
	id, rest, _ := strings.Cut(c.token("join.token"), ".")
	secret, _, _ := strings.Cut(rest, ".")
	client := api.NewNodeClient(c.nodeAPI, &http.Transport{
		TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, MaxIdleConnsPerHost: 32, // what the agent does here is tested there
	})
	gate := make(chan struct{}, 64) // for handshakes
	next := atomic.Int64{}
	fails := make(chan error, 32)
	var wg sync.WaitGroup
	for range 32 {
		wg.Go(func() {
			for {
				i := int(next.Add(1)) - 1
				if i >= n {
					return
				}
				_, key, err := ed25519.GenerateKey(rand.Reader)
				if err != nil {
					fails <- err
					return
				}
				csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
				if err != nil {
					fails <- err
					return
				}
				got, err := client.Enroll(t.Context(), api.EnrollRequest{TokenID: id, Secret: secret, Name: fmt.Sprintf("sim-%05d", i), Version: "sim",
					CSR: string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: csr})), Address: fmt.Sprintf("127.0.0.1:%d", 10000+i)})
				if err != nil {
					next.Add(int64(n)) // the others end, too
					fails <- err
					return
				}
				block, _ := pem.Decode([]byte(got.Certificate))
				roots := x509.NewCertPool()
				if block == nil || !roots.AppendCertsFromPEM([]byte(got.CA)) {
					fails <- errors.New("the answer has no certificate")
					return
				}
				f.nodes[i] = &pollNode{f: f, id: got.NodeID, roots: roots, lease: leaseEnd(got.Lease), etag: got.Plan.ETag(),
					phase: time.Duration(got.Plan.Poll.Phase * float64(time.Second)),
					cert:  tls.Certificate{Certificate: [][]byte{block.Bytes}, PrivateKey: key}}
				f.wg.Go(func() { f.nodes[i].run(gate) })
			}
		})
	}
	wg.Wait()
	select {
	case err := <-fails:
		t.Fatalf("enroll: %v", err)
	default:
	}
	return f
}

// leaseEnd reads the expiry of a lease, without checking it.
func leaseEnd(jwt string) string {
	parts := strings.Split(jwt, ".")
	if len(parts) != 3 {
		return ""
	}
	var claims struct {
		Exp int64 `json:"exp"`
	}
	if b, err := base64.RawURLEncoding.DecodeString(parts[1]); err != nil || json.Unmarshal(b, &claims) != nil {
		return ""
	}
	return time.Unix(claims.Exp, 0).UTC().Format(time.RFC3339)
}

// run is one node's life. The pause after a failure is the agent's.
func (n *pollNode) run(gate chan struct{}) {
	defer n.close()
	failures := 0
	for f := n.f; f.ctx.Err() == nil; failures++ {
		err := n.connect(gate)
		for err == nil {
			if err = n.poll(); err == nil {
				failures = 0
			}
		}
		n.close()
		if f.ctx.Err() != nil {
			return
		}
		var op *net.OpError
		if !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) && !errors.As(err, &op) {
			f.mu.Lock()
			f.errs[err.Error()]++
			f.mu.Unlock()
		}
		select {
		case <-f.ctx.Done():
		case <-time.After(n.pause(failures)):
		}
		gate = nil
	}
}

// pause is the agent's: it doubles from a second to 15, up to half of it taken off,
// and the first also waits for the node's phase.
func (n *pollNode) pause(failures int) time.Duration {
	d := time.Duration((0.5 + mathrand.Float64()/2) * float64(min(time.Second<<min(failures, 5), 15*time.Second)))
	if failures == 0 {
		d += n.phase % (15 * time.Second)
	}
	return d
}

func (n *pollNode) connect(gate chan struct{}) error {
	if gate != nil {
		gate <- struct{}{}
		defer func() { <-gate }()
	}
	raw, err := (&net.Dialer{Timeout: 5 * time.Second}).DialContext(n.f.ctx, "tcp", n.f.addr)
	if err != nil {
		return err
	}
	c := tls.Client(raw, &tls.Config{Certificates: []tls.Certificate{n.cert}, MinVersion: tls.VersionTLS13, InsecureSkipVerify: true,
		VerifyConnection: func(s tls.ConnectionState) error {
			_, err := s.PeerCertificates[0].Verify(x509.VerifyOptions{Roots: n.roots})
			return err
		}})
	if err := c.HandshakeContext(n.f.ctx); err != nil {
		raw.Close()
		return err
	}
	context.AfterFunc(n.f.ctx, func() { raw.Close() })
	n.conn, n.br = c, bufio.NewReaderSize(c, 4096)
	if gate == nil {
		n.f.mu.Lock()
		n.f.arrivals = append(n.f.arrivals, time.Now())
		n.f.mu.Unlock()
	}
	return nil
}

func (n *pollNode) close() {
	if n.conn != nil {
		n.conn.Close()
		n.conn, n.br = nil, nil
	}
}

// call is one request on the node's connection; the answer's body is read.
func (n *pollNode) call(request string, body []byte) (*http.Response, []byte, error) {
	if _, err := n.conn.Write(append([]byte(request), body...)); err != nil {
		return nil, nil, err
	}
	resp, err := http.ReadResponse(n.br, nil)
	if err != nil {
		return nil, nil, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return resp, b, err
}

// poll is one long poll, and what follows from it.
func (n *pollNode) poll() error {
	resp, body, err := n.call(fmt.Sprintf("GET /v1/nodes/%s/plan HTTP/1.1\r\nHost: m\r\nIf-None-Match: %s\r\nPrefer: wait=30\r\n%s: %s\r\n\r\n",
		n.id, n.etag, binnacle.HeaderLeaseExpires, n.lease), nil)
	if err != nil {
		return err
	}
	n.f.polls.Add(1)
	if l := resp.Header.Get(binnacle.HeaderLease); l != "" {
		n.lease = leaseEnd(l)
	}
	switch resp.StatusCode {
	case http.StatusNotModified:
		return nil
	case http.StatusOK:
	default:
		return fmt.Errorf("a poll was answered %d: %.200s", resp.StatusCode, body)
	}
	var plan api.Plan
	if err := json.Unmarshal(body, &plan); err != nil {
		return err
	}
	n.etag = resp.Header.Get("ETag")
	if plan.Revision == nil {
		return nil
	}
	resp, zipped, err := n.call(fmt.Sprintf("GET /v1/configs/%s HTTP/1.1\r\nHost: m\r\nAccept-Encoding: gzip\r\n\r\n", plan.Revision.SHA256), nil)
	if err != nil {
		return err
	}
	if err := n.f.check(plan.Revision.SHA256, zipped); err != nil || resp.StatusCode != http.StatusOK {
		return fmt.Errorf("the configuration, %d: %w", resp.StatusCode, err)
	}
	e := &api.LedgerEntry{RevisionRef: plan.Revision.RevisionRef, Time: time.Now().UTC()}
	status, err := json.Marshal(api.Status{Version: "sim", Address: "127.0.0.1:8080", Serving: true, Attempted: e, Applied: e})
	if err != nil {
		return err
	}
	resp, body, err = n.call(fmt.Sprintf("PUT /v1/nodes/%s/status HTTP/1.1\r\nHost: m\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n", n.id, len(status)), status)
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusNoContent {
		return fmt.Errorf("a status was answered %d: %.200s", resp.StatusCode, body)
	}
	n.f.confirm(plan.Revision.SHA256)
	return nil
}

// check unpacks the first copy of a configuration and compares its hash; the
// others must be the same bytes.
func (f *pollFleet) check(sha string, zipped []byte) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if sha != f.sha {
		return nil // of a rollout that is over
	}
	if f.body == nil {
		zr, err := gzip.NewReader(bytes.NewReader(zipped))
		if err != nil {
			return err
		}
		raw, err := io.ReadAll(zr)
		if err != nil {
			return err
		}
		if sum := sha256.Sum256(raw); hex.EncodeToString(sum[:]) != sha {
			return errors.New("the bytes are not those of the hash")
		}
		f.body = zipped
	}
	if !bytes.Equal(f.body, zipped) {
		return errors.New("two nodes got different bytes")
	}
	return nil
}

func (f *pollFleet) confirm(sha string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if sha != f.sha {
		return
	}
	if f.confirmed = append(f.confirmed, time.Now()); len(f.confirmed) == len(f.nodes) {
		close(f.all)
	}
}

// expect begins to wait for a revision.
func (f *pollFleet) expect(sha string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.sha, f.body, f.confirmed, f.all = sha, nil, nil, make(chan struct{})
}

// usage is what the manager's process has used.
type usage struct {
	cpu       time.Duration
	rss, peak int // MiB
	files     int // of rss: the program itself, and files mapped into memory
}

func usageOf(t *testing.T, pid int) usage {
	t.Helper()
	stat := must(os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid)))
	_, after, _ := strings.Cut(string(stat), ") ")
	fields := strings.Fields(after)
	ticks := must(strconv.Atoi(fields[11])) + must(strconv.Atoi(fields[12]))
	u := usage{cpu: time.Duration(ticks) * 10 * time.Millisecond}
	for line := range strings.Lines(string(must(os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))))) {
		if f := strings.Fields(line); len(f) > 1 {
			switch f[0] {
			case "VmRSS:":
				u.rss = must(strconv.Atoi(f[1])) >> 10
			case "VmHWM:":
				u.peak = must(strconv.Atoi(f[1])) >> 10
			case "RssFile:":
				u.files = must(strconv.Atoi(f[1])) >> 10
			}
		}
	}
	return u
}

// waiting returns how many polls the manager holds.
func waiting(c *cluster) (int, error) {
	req, err := http.NewRequest(http.MethodGet, c.base+"/metrics", nil)
	if err != nil {
		return 0, err
	}
	req.Header.Set("Authorization", "Bearer "+c.token("admin.token"))
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	for line := range strings.Lines(string(b)) {
		if v, ok := strings.CutPrefix(line, "binnacle_plan_waiters "); ok {
			return strconv.Atoi(strings.TrimSpace(v))
		}
	}
	return 0, err
}

// largeConfig is about 200 kB; no two are the same.
func largeConfig(name string) []byte {
	endpoints := []any{}
	for i := range 757 {
		path := fmt.Sprintf("/%s/%04d/{id}", name, i)
		endpoints = append(endpoints, map[string]any{"endpoint": path, "method": "GET", "output_encoding": "no-op", "timeout": "3s",
			"input_headers": []string{"Authorization", "X-Request-Id", fmt.Sprintf("X-Tenant-%08x", mathrand.Uint32())},
			"backend":       []any{map[string]any{"host": []string{fmt.Sprintf("http://service-%08x.internal:8080", mathrand.Uint32())}, "url_pattern": path, "encoding": "no-op"}}})
	}
	b, err := json.Marshal(map[string]any{"version": 3, "name": name, "endpoints": endpoints})
	if err != nil {
		panic(err)
	}
	return b
}

// TestPolls has nodes that wait for a revision get and confirm one of 200 kB, over
// mutual TLS from one manager: 200 of them, or with BINNACLE_LOAD=full 1,000
// and 10,000, which then also stay idle for a minute and come back after the
// manager was away.
func TestPolls(t *testing.T) {
	full := os.Getenv("BINNACLE_LOAD") == "full"
	sizes := []struct {
		nodes  int
		within time.Duration
	}{{200, 3 * time.Second}}
	if full {
		sizes[0].nodes, sizes[0].within = 1000, time.Second
		sizes = append(sizes, struct {
			nodes  int
			within time.Duration
		}{10_000, 3 * time.Second})
	}
	for _, size := range sizes {
		t.Run(strconv.Itoa(size.nodes), func(t *testing.T) { testPolls(t, size.nodes, size.within, full) })
	}
}

func testPolls(t *testing.T, nodes int, within time.Duration, full bool) {
	c := startManager(t, "--gossip-addr", "off")
	began := time.Now()
	before := usageOf(t, c.manager.cmd.Process.Pid)
	f := newPollFleet(t, c, nodes)
	held := func() {
		eventually(t, 2*time.Minute, "all polls wait", func() error {
			if n, err := waiting(c); err != nil || n < nodes {
				return fmt.Errorf("%d wait, %v", n, err)
			}
			return nil
		})
	}
	held()
	after := usageOf(t, c.manager.cmd.Process.Pid)
	t.Logf("%d nodes enrolled, shook hands and polled within %.1f s, which took %.2f ms of the manager's CPU each; it holds them in %d MiB (%d of them files)",
		nodes, time.Since(began).Seconds(), milliseconds(after.cpu-before.cpu, nodes), after.rss, after.files)

	rounds := 1
	if full {
		rounds = 3
	}
	for round := range rounds {
		config := largeConfig(fmt.Sprintf("r%d", round))
		rev, err := c.client.CreateRevision(t.Context(), binnacle.DefaultGroup, api.NewRevision{Config: config})
		if err != nil {
			t.Fatal(err)
		}
		held()
		f.expect(rev.SHA256)
		before = usageOf(t, c.manager.cmd.Process.Pid)
		began = time.Now()
		ro, err := c.client.StartRollout(t.Context(), binnacle.DefaultGroup, api.NewRollout{Revision: rev.Number})
		if err != nil {
			t.Fatal(err)
		}
		select {
		case <-f.all:
		case <-time.After(time.Minute):
			t.Fatalf("%d of %d confirmed within a minute; errors %v", len(f.confirmed), nodes, f.errs)
		}
		eventually(t, 10*time.Second, "the rollout completes", func() error {
			r, err := c.client.Rollout(t.Context(), ro.ID)
			if err != nil || r.State != api.RolloutCompleted {
				return fmt.Errorf("%s, %d confirmed, %v", r.State, len(r.Confirmed), err)
			}
			return nil
		})
		completed := time.Since(began)
		after = usageOf(t, c.manager.cmd.Process.Pid)
		f.mu.Lock()
		took := make([]time.Duration, nodes)
		for i, at := range f.confirmed {
			took[i] = at.Sub(began)
		}
		zipped := len(f.body)
		f.mu.Unlock()
		slices.Sort(took)
		p99 := took[nodes*99/100]
		t.Logf("%d nodes, %d kB (%d kB compressed): confirmed p50 %.2f s, p99 %.2f s, all %.2f s; rollout completed after %.2f s; manager %.2f s of CPU, %d MiB resident, %d at most",
			nodes, len(config)/1000, zipped/1000, took[nodes/2].Seconds(), p99.Seconds(), took[nodes-1].Seconds(), completed.Seconds(), (after.cpu - before.cpu).Seconds(), after.rss, after.peak)
		if p99 > within {
			t.Errorf("%d nodes: p99 %v; want %v", nodes, p99, within)
		}
		if after.peak > 700 {
			t.Errorf("%d nodes: %d MiB resident; want under 700", nodes, after.peak)
		}
	}
	if full {
		idle(t, c, f, time.Minute)
		outage(t, c, f)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.errs) > 0 {
		t.Errorf("errors of nodes: %v", f.errs)
	}
}

// milliseconds is a share in milliseconds.
func milliseconds(d time.Duration, nodes int) float64 { return d.Seconds() * 1e3 / float64(nodes) }

// idle measures what unchanged polls cost.
func idle(t *testing.T, c *cluster, f *pollFleet, d time.Duration) {
	before, polls := usageOf(t, c.manager.cmd.Process.Pid), f.polls.Load()
	time.Sleep(d) // what is measured
	after := usageOf(t, c.manager.cmd.Process.Pid)
	n := f.polls.Load() - polls
	t.Logf("idle for %v: %d unchanged polls, %.2f %% of one core, %.0f us each with all else that a manager does", d, n,
		100*(after.cpu-before.cpu).Seconds()/d.Seconds(), (after.cpu-before.cpu).Seconds()*1e6/float64(max(n, 1)))
}

// outage kills the manager, starts it again after a while, and counts who comes
// back when.
func outage(t *testing.T, c *cluster, f *pollFleet) {
	_ = syscall.Kill(-c.manager.cmd.Process.Pid, syscall.SIGKILL)
	<-c.manager.done
	time.Sleep(30 * time.Second) // two rounds of retries: who retries when no longer knows of the kill
	f.mu.Lock()
	f.arrivals = nil
	f.mu.Unlock()
	c.runManager()
	held := func() error {
		if n, err := waiting(c); err != nil || n < len(f.nodes) {
			return fmt.Errorf("%d wait, %v", n, err)
		}
		return nil
	}
	eventually(t, 2*time.Minute, "all are back", held)
	f.mu.Lock()
	defer f.mu.Unlock()
	perSecond := map[int]int{}
	began := slices.MinFunc(f.arrivals, time.Time.Compare) // the manager listens
	last := time.Duration(0)
	for _, at := range f.arrivals {
		perSecond[int(at.Sub(began)/time.Second)]++
		last = max(last, at.Sub(began))
	}
	peak := 0
	for _, n := range perSecond {
		peak = max(peak, n)
	}
	mean := float64(len(f.arrivals)) / max(last.Seconds(), 1)
	t.Logf("after an outage %d came back in %.1f s, at most %d in a second: %.1f times the mean of the return, which is what is promised, and %.1f times the polls of a second at rest", len(f.arrivals), last.Seconds(), peak,
		float64(peak)/mean, float64(peak)/(float64(len(f.nodes))/30))
	if float64(peak) > 3*mean {
		t.Errorf("arrivals peak at %.1f times their mean; want at most 3", float64(peak)/mean)
	}
}
