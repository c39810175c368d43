package manager

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net"
	"net/http"
	"testing"
	"time"

	"github.com/VictoriaMetrics/metrics"

	"github.com/binnacle-project/binnacle"
	"github.com/binnacle-project/binnacle/api"
	"github.com/binnacle-project/binnacle/membership/pki"
)

func TestNodeBounds(t *testing.T) {
	for _, c := range []struct {
		want         int
		files        uint64
		polls, conns int
	}{
		{20_000, 1 << 20, 20_000, 40_000 + maxHandshakes},
		{20_000, math.MaxUint64, 20_000, 40_000 + maxHandshakes},
		{20_000, 20_000, 14_232, 18_976}, // polls before second connections
		{100, 4096, 100, 200 + maxHandshakes},
		{100, 10, 6, 8},
	} {
		if polls, conns := nodeBounds(c.want, c.files); polls != c.polls || conns != c.conns {
			t.Errorf("nodeBounds(%d, %d): got %d, %d; want %d, %d", c.want, c.files, polls, conns, c.polls, c.conns)
		}
	}
}

func TestGCPercent(t *testing.T) {
	const mib = 1 << 20
	for _, c := range []struct {
		name  string
		m     memory
		polls int
		want  int
	}{
		{"just started", memory{}, 0, 100},
		{"small", memory{40 * mib, 2 * mib}, 100, 100},
		{"some telemetry", memory{240 * mib, 10 * mib}, 100, 75},
		{"much telemetry, few nodes", memory{400 * mib, 20 * mib}, 100, 64},
		{"ten thousand nodes", memory{232 * mib, 83 * mib}, 10_000, 40},
		{"ten thousand nodes and much telemetry", memory{900 * mib, 100 * mib}, 10_000, 43},
		{"more polls than memory", memory{300 * mib, 0}, 100_000, 42},
	} {
		if got := gcPercent(c.m, c.polls); got != c.want {
			t.Errorf("%s: got %d; want %d", c.name, got, c.want)
		}
	}
}

// testNode is a node with a connection of its own.
type testNode struct {
	t    *testing.T
	id   binnacle.NodeID
	etag string
	conn *tls.Conn
	br   *bufio.Reader
}

func newTestNode(t *testing.T, m *Manager, name string) *testNode {
	t.Helper()
	token := newJoinToken(t, m)
	key, err := pki.NewNodeKey()
	if err != nil {
		t.Fatal(err)
	}
	csr, err := pki.NewCSR(key)
	if err != nil {
		t.Fatal(err)
	}
	got, err := api.NewNodeClient(m.NodeAddr(), &http.Transport{TLSClientConfig: pki.EnrollTLS(token.Fingerprint), DisableKeepAlives: true}).Enroll(t.Context(), api.EnrollRequest{
		TokenID: token.ID, Secret: token.Secret, Name: name, Version: "test", Address: "127.0.0.1:8080", CSR: string(csr),
	})
	if err != nil {
		t.Fatal(err)
	}
	cert, err := pki.NodeCertificate([]byte(got.Certificate), key)
	if err != nil {
		t.Fatal(err)
	}
	conf, err := pki.NodeTLS(cert, []byte(got.CA))
	if err != nil {
		t.Fatal(err)
	}
	conn, err := tls.Dial("tcp", m.NodeAddr(), conf)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(30 * time.Second))
	n := &testNode{t: t, id: got.NodeID, etag: got.Plan.ETag(), conn: conn, br: bufio.NewReader(conn)}
	// The first poll brings what became of the node since, such as a lease.
	n.ask(0)
	n.etag = n.answer(http.StatusOK, http.StatusNotModified).Header.Get("ETag")
	return n
}

// ask sends a poll.
func (n *testNode) ask(wait int) {
	n.t.Helper()
	if _, err := fmt.Fprintf(n.conn, "GET /v1/nodes/%s/plan HTTP/1.1\r\nHost: m\r\nIf-None-Match: %s\r\nPrefer: wait=%d\r\n%s: %s\r\n\r\n", n.id, n.etag, wait,
		binnacle.HeaderLeaseExpires, time.Now().Add(4*24*time.Hour+20*time.Hour).UTC().Format(time.RFC3339)); err != nil {
		n.t.Fatal(err)
	}
}

// answer reads one answer and checks its status.
func (n *testNode) answer(want ...int) *http.Response {
	n.t.Helper()
	resp, err := http.ReadResponse(n.br, nil)
	if err != nil {
		n.t.Fatalf("read an answer: %v; want %v", err, want)
	}
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		n.t.Fatal(err)
	}
	for _, w := range want {
		if resp.StatusCode == w {
			return resp
		}
	}
	n.t.Fatalf("got %s %.300s; want %v", resp.Status, body, want)
	return nil
}

// holds waits until the manager holds so many polls.
func holds(t *testing.T, m *Manager, want int) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); m.polls.count() != want; time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%d polls are held; want %d", m.polls.count(), want)
		}
	}
}

// A connection goes from the server to what holds polls and back, many times, also
// when the node sends the next request before it has its answer.
func TestPollKeepsItsConnection(t *testing.T) {
	m := startTest(t, nil)
	n := newTestNode(t, m, "gw-1")
	for range 3 {
		n.ask(1)
		if resp := n.answer(http.StatusNotModified); resp.Header.Get("Date") == "" || resp.Close {
			t.Errorf("got %v", resp.Header)
		}
	}
	n.ask(1)
	holds(t, m, 1)
	n.ask(0) // it does not wait
	n.ask(1)
	for range 3 {
		n.answer(http.StatusNotModified)
	}

	// An order reaches a poll that is held, and a poll that broke is none.
	n.ask(30)
	holds(t, m, 1)
	if err := m.rollout.Drain(t.Context(), n.id, true, "test"); err != nil {
		t.Fatal(err)
	}
	n.etag = n.answer(http.StatusOK).Header.Get("ETag")
	n.ask(30)
	holds(t, m, 1)
	n.conn.Close()
	holds(t, m, 0)

	// Who is forgotten is told so.
	n = newTestNode(t, m, "gw-2")
	n.ask(30)
	holds(t, m, 1)
	if err := m.registry.Revoke(t.Context(), n.id, "test"); err != nil {
		t.Fatal(err)
	}
	if err := m.rollout.Forget(n.id); err != nil {
		t.Fatal(err)
	}
	n.answer(http.StatusUnauthorized, http.StatusForbidden)
}

// Beyond its bounds a manager answers polls with when to come again, and serves
// those that it holds.
func TestPollsAreShed(t *testing.T) {
	m := startTest(t, func(o *Options) { o.MaxPolls = 2 })
	var nodes []*testNode
	for i := range 4 {
		nodes = append(nodes, newTestNode(t, m, fmt.Sprintf("gw-%d", i)))
	}
	nodes[0].ask(30)
	nodes[1].ask(1)
	holds(t, m, 2)
	nodes[2].ask(30)
	refused(t, nodes[2].answer(http.StatusServiceUnavailable))
	if n := m.polls.tooMany.Get(); n != 1 {
		t.Errorf("binnacle_node_shed_total counts %d; want 1", n)
	}
	nodes[1].answer(http.StatusNotModified)
	holds(t, m, 1)

	// The same for memory.
	m.polls.mu.Lock()
	m.polls.soft, m.polls.used = 1<<20, func() uint64 { return 2 << 20 }
	m.polls.mu.Unlock()
	nodes[3].ask(30)
	refused(t, nodes[3].answer(http.StatusServiceUnavailable))
	if n := m.polls.shortOfMemory.Get(); n != 1 {
		t.Errorf("binnacle_node_shed_total counts %d for memory; want 1", n)
	}
	holds(t, m, 1)
}

func refused(t *testing.T, resp *http.Response) {
	t.Helper()
	if after := resp.Header.Get("Retry-After"); after < "1" || !resp.Close {
		t.Errorf("a poll too many is answered with Retry-After %q, close %v; want seconds, and the connection closed", after, resp.Close)
	}
}

// Connections beyond the bound are closed before a handshake.
func TestConnectionsAreShed(t *testing.T) {
	raw, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := listenForNodes(raw, &tls.Config{}, 0, slog.New(slog.DiscardHandler), metrics.NewSet())
	defer l.Close()
	c, err := tls.Dial("tcp", l.Addr().String(), &tls.Config{InsecureSkipVerify: true})
	if err == nil {
		c.Close()
		t.Fatal("a connection too many got a handshake")
	}
	if n := l.shed.Get(); n != 1 {
		t.Errorf("binnacle_node_shed_total counts %d connections; want 1", n)
	}
}

// A manager that stops answers the polls that it holds, and closes their
// connections and those that are between two polls.
func TestStopAnswersPolls(t *testing.T) {
	o := DefaultOptions()
	o.DataDir = t.TempDir()
	o.HTTPAddr, o.NodeAddr, o.GossipAddr, o.OTLPGRPCAddr, o.OTLPHTTPAddr = "127.0.0.1:0", "127.0.0.1:0", GossipOff, "", ""
	m, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- m.Run(ctx) }()
	awaitReady(t, m, done)
	held, resting := newTestNode(t, m, "gw-1"), newTestNode(t, m, "gw-2")
	held.ask(30)
	resting.ask(1)
	holds(t, m, 2)
	resting.answer(http.StatusNotModified)
	began := time.Now()
	stop()
	if resp := held.answer(http.StatusNotModified); !resp.Close {
		t.Error("the last answer does not say that it is the last")
	}
	for _, n := range []*testNode{held, resting} {
		if b, err := n.br.ReadByte(); err == nil {
			t.Errorf("got %q after the stop; want the end of the connection", b)
		}
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
	if d := time.Since(began); d > 5*time.Second {
		t.Errorf("the stop took %v", d)
	}
}
