package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/binnacle-project/binnacle"
	"github.com/binnacle-project/binnacle/api"
)

// requestsSent is how many requests the end-to-end test sends through the
// gateways, every trace sampled.
const requestsSent = 2000

// TestEndToEnd is the whole product once: a manager and three nodes as real
// processes, real requests to real backends, and what telemetry, discovery,
// configuration and membership make of them. Its parts build on each other.
func TestEndToEnd(t *testing.T) {
	b := startBackends(t)
	c := startManager(t, "--down-after", "6s", "--gateway-binary", filepath.Join(bin, "binnacle-gateway"))
	alive := map[string]api.NodeState{}
	for i := range 3 {
		name := fmt.Sprintf("gw-%d", i+1)
		c.addNode(name, b.config())
		alive[name] = api.Alive
	}
	nodes := c.waitStates(30*time.Second, alive)
	waitDiscovery(t, c, 3)

	s := send(t, c.nodes, requestsSent)
	t.Logf("sent %d requests: by status %v, by node %v, transport errors %d", requestsSent, s.byStatus, s.byNode, s.failed)
	if s.failed > 0 {
		t.Fatalf("%d of %d requests got no answer from a gateway", s.failed, requestsSent)
	}

	t.Run("activity by node", func(t *testing.T) { checkNodeActivity(t, c, s) })
	t.Run("activity by backend", func(t *testing.T) { checkBackendActivity(t, c, b) })
	t.Run("PromQL", func(t *testing.T) { checkPromQL(t, c) })
	t.Run("trace", func(t *testing.T) { checkTrace(t, c, s.trace) })
	t.Run("own telemetry", func(t *testing.T) { checkOwnTelemetry(t, c) })
	t.Run("page", func(t *testing.T) { checkPage(t, c, b) })
	t.Run("configuration", func(t *testing.T) { checkConfiguration(t, c, b) })
	t.Run("dashboards", func(t *testing.T) { checkDashboards(t, c) })
	t.Run("membership", func(t *testing.T) { checkMembership(t, c, nodes) })
}

// waitDiscovery waits until the load balancers' document names n nodes.
func waitDiscovery(t *testing.T, c *cluster, n int) {
	t.Helper()
	eventually(t, 30*time.Second, fmt.Sprintf("discovery names %d nodes", n), func() error {
		groups, err := c.client.Discovery(t.Context())
		if err != nil {
			return err
		}
		got := 0
		for _, g := range groups {
			got += len(g.Targets)
		}
		if got != n {
			return fmt.Errorf("it names %d", got)
		}
		return nil
	})
}

func checkNodeActivity(t *testing.T, c *cluster, s *sent) {
	// Nodes export every ten seconds.
	eventually(t, 45*time.Second, "requests_total of the nodes add up", func() error {
		nodes, err := c.client.Nodes(t.Context())
		if err != nil {
			return err
		}
		var total uint64
		got := map[string]int{}
		for _, n := range nodes {
			if n.State != api.Alive || !n.Managed {
				return fmt.Errorf("%s is %s, managed %v", n.Name, n.State, n.Managed)
			}
			if n.Activity == nil {
				return fmt.Errorf("%s has no activity", n.Name)
			}
			total += n.Activity.RequestsTotal
			got[n.Name] = int(n.Activity.RequestsTotal)
		}
		if len(nodes) != 3 || total != requestsSent || !maps.Equal(got, s.byNode) {
			return fmt.Errorf("%d nodes, %d in all, by node %v; want %v", len(nodes), total, got, s.byNode)
		}
		return nil
	})
	cl, err := c.client.Cluster(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if cl.Activity == nil || cl.Activity.RequestsTotal != requestsSent || cl.Activity.Latency == nil || cl.Activity.ErrorRatio == nil {
		t.Fatalf("cluster activity: got %+v; want %d requests with latency and error ratio", cl.Activity, requestsSent)
	}
	t.Logf("cluster: %d requests, error ratio %.4f, p99 %.1f ms", cl.Activity.RequestsTotal, *cl.Activity.ErrorRatio, 1e3*cl.Activity.Latency.P99)
}

func checkBackendActivity(t *testing.T, c *cluster, b *backends) {
	eventually(t, 30*time.Second, "each backend shows its own calls and errors", func() error {
		// The hour's window holds everything this test sent.
		var list api.List[api.Backend]
		if err := c.get("/v1/backends?window=3600", c.token("admin.token"), &list); err != nil {
			return err
		}
		got := map[binnacle.BackendID]*api.Activity{}
		for _, x := range list.Items {
			got[x.ID] = x.Activity
		}
		for addr, calls := range b.calls {
			a := got[binnacle.BackendID(addr)]
			if a == nil || a.RequestsTotal != uint64(calls.Load()) || a.Errors != uint64(b.failures[addr].Load()) {
				return fmt.Errorf("backend %s: got %+v; want %d requests, %d errors", addr, a, calls.Load(), b.failures[addr].Load())
			}
		}
		// Nobody listens there: each attempt is an error.
		gone := got[binnacle.BackendID(b.gone)]
		if gone == nil || gone.RequestsTotal == 0 || gone.Errors != gone.RequestsTotal {
			return fmt.Errorf("backend %s, where nobody listens: got %+v; want as many errors as requests", b.gone, gone)
		}
		return nil
	})
	for addr := range b.calls {
		t.Logf("backend %s: %d calls, %d errors", addr, b.calls[addr].Load(), b.failures[addr].Load())
	}
}

// promScalar evaluates an instant query that gives one number.
func promScalar(c *cluster, expr string) (float64, error) {
	var out struct {
		Data struct {
			Result []struct {
				Value [2]any `json:"value"`
			} `json:"result"`
		} `json:"data"`
	}
	if err := c.get("/prometheus/api/v1/query?query="+url.QueryEscape(expr), c.token("reader.token"), &out); err != nil {
		return 0, err
	}
	if len(out.Data.Result) != 1 {
		return 0, fmt.Errorf("%s: %d results; want one", expr, len(out.Data.Result))
	}
	s, _ := out.Data.Result[0].Value[1].(string)
	return strconv.ParseFloat(s, 64)
}

func checkPromQL(t *testing.T, c *cluster) {
	for _, expr := range []string{
		// Raw series of the gateways, and the roll-ups that screens read.
		`histogram_count(sum(http_server_request_duration_seconds{job="binnacle-gateway"}))`,
		`histogram_count(sum(group:http_server_request_duration_seconds{group="default"}))`,
		`histogram_count(sum(node:http_server_request_duration_seconds))`,
	} {
		eventually(t, 30*time.Second, expr, func() error {
			got, err := promScalar(c, expr)
			if err != nil {
				return err
			}
			if got != requestsSent {
				return fmt.Errorf("got %v; want %d", got, requestsSent)
			}
			return nil
		})
		t.Logf("%s = %d", expr, requestsSent)
	}
}

// jaegerTrace is what Jaeger's clients read of GET /api/traces/{id}.
type jaegerTrace struct {
	Data []struct {
		TraceID string `json:"traceID"`
		Spans   []struct {
			SpanID        string `json:"spanID"`
			OperationName string `json:"operationName"`
			References    []struct {
				RefType string `json:"refType"`
				SpanID  string `json:"spanID"`
			} `json:"references"`
			Tags []struct {
				Key   string `json:"key"`
				Value any    `json:"value"`
			} `json:"tags"`
		} `json:"spans"`
	} `json:"data"`
}

func checkTrace(t *testing.T, c *cluster, id string) {
	if id == "" {
		t.Fatal("no answer carried a traceresponse header")
	}
	eventually(t, 30*time.Second, "the trace is found", func() error {
		var tr jaegerTrace
		if err := c.get("/jaeger/api/traces/"+id, c.token("reader.token"), &tr); err != nil {
			return err
		}
		if len(tr.Data) != 1 || tr.Data[0].TraceID != id {
			return fmt.Errorf("got %d traces; want the one asked for", len(tr.Data))
		}
		kind := func(i int) string {
			for _, tag := range tr.Data[0].Spans[i].Tags {
				if tag.Key == "span.kind" {
					return fmt.Sprint(tag.Value)
				}
			}
			return ""
		}
		server := ""
		for i, sp := range tr.Data[0].Spans {
			if kind(i) == "server" {
				server = sp.SpanID
			}
		}
		clients := 0
		for i, sp := range tr.Data[0].Spans {
			if kind(i) == "client" && len(sp.References) == 1 && sp.References[0].RefType == "CHILD_OF" && sp.References[0].SpanID == server {
				clients++
			}
		}
		// The endpoint merges two backends.
		if server == "" || clients != 2 {
			b, _ := json.Marshal(tr)
			return fmt.Errorf("server span %q with %d client spans under it; want 2: %s", server, clients, b)
		}
		return nil
	})
	var services struct {
		Data []string `json:"data"`
	}
	if err := c.get("/jaeger/api/services", c.token("reader.token"), &services); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(strings.Join(services.Data, " "), "binnacle-gateway") {
		t.Errorf("services: got %v; want binnacle-gateway among them", services.Data)
	}
	var found jaegerTrace
	if err := c.get("/jaeger/api/traces?service=binnacle-gateway&limit=5&lookback=1h", c.token("reader.token"), &found); err != nil {
		t.Fatal(err)
	}
	if len(found.Data) != 5 {
		t.Errorf("search by service: got %d traces; want 5", len(found.Data))
	}
}

// checkOwnTelemetry sees that the manager's counters are in its own store.
func checkOwnTelemetry(t *testing.T, c *cluster) {
	eventually(t, 30*time.Second, "the manager's counters are in its own store", func() error {
		n, err := promScalar(c, `count({job="binnacle-manager", __name__=~"binnacle_.+"})`)
		if err == nil && n < 10 {
			err = fmt.Errorf("%v series; want at least 10", n)
		}
		return err
	})
}

func checkConfiguration(t *testing.T, c *cluster, b *backends) {
	dir := t.TempDir()
	next := b.configWith("/added")
	good := filepath.Join(dir, "new.json")
	writeJSON(t, good, next)

	// A revision under load: no request may fail.
	l := startLoad(c.nodes, "/healthy/1")
	began := time.Now()
	stdout, stderr, code := c.cli("config", "push", "--rollout=all", "-m", "adds /added", good)
	took := time.Since(began)
	for _, n := range c.nodes {
		if err := once(defaultClient, "http://"+n.addr+"/added"); err != nil {
			t.Errorf("%s after the rollout: GET /added: %v", n.name, err)
		}
	}
	l.stop()
	t.Logf("push and rollout took %v, under load %d requests, %d failed\n%s%s", took, l.requests.Load(), l.failures.Load(), stdout, stderr)
	if code != 0 {
		t.Fatalf("binnacle config push: exit code %d", code)
	}
	if n := l.failures.Load(); n > 0 {
		t.Errorf("%d of %d requests failed during the swap, the first: %s", n, l.requests.Load(), *l.firstFailure.Load())
	}
	nodes, err := c.client.Nodes(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range nodes {
		if n.Ledger == nil || n.Ledger.Desired == nil || n.Ledger.Applied == nil || n.Ledger.Attempted == nil {
			t.Fatalf("%s: ledger %+v; want desired, attempted and applied", n.Name, n.Ledger)
		}
		if n.Ledger.Desired.Number != 1 || n.Ledger.Applied.Number != 1 || n.Ledger.Applied.SHA256 != n.Ledger.Desired.SHA256 {
			t.Errorf("%s: desired %+v, applied %+v; want revision 1 in both", n.Name, n.Ledger.Desired, n.Ledger.Applied)
		}
		if d := n.Ledger.Applied.Time.Sub(began); d > rolloutBound {
			t.Errorf("%s confirmed %v after the push began; want within %v", n.Name, d, rolloutBound)
		}
	}
	// It becomes last good when it has served for ten seconds.
	eventually(t, 40*time.Second, "revision 1 is last good everywhere", func() error {
		nodes, err := c.client.Nodes(t.Context())
		if err != nil {
			return err
		}
		for _, n := range nodes {
			if n.Ledger == nil || n.Ledger.LastGood == nil || n.Ledger.LastGood.Number != 1 {
				return fmt.Errorf("%s: %+v", n.Name, n.Ledger)
			}
		}
		return nil
	})

	// Broken files are refused with every reason, and change nothing.
	for _, bad := range []struct {
		name, text string
		want       []string
	}{
		{"syntax", "{\n  \"version\": 3,\n  \"endpoints\": [,]\n}", []string{"line 3"}},
		{"version and parameter", `{"version": 2, "endpoints": [{"endpoint": "/a/{id}", "backend": [{"host": ["http://h:80"], "url_pattern": "/{nope}"}]}]}`, []string{"version 2 is not supported", "undefined output param 'nope'"}},
		{"two endpoints for one route", `{"version": 3, "endpoints": [{"endpoint": "/a/{id}", "backend": [{"host": ["http://h:80"], "url_pattern": "/x"}]}, {"endpoint": "/a/{other}", "backend": [{"host": ["http://h:80"], "url_pattern": "/x"}]}]}`, []string{"build", "/a/"}},
	} {
		file := filepath.Join(dir, "bad.json")
		if err := os.WriteFile(file, []byte(bad.text), 0o600); err != nil {
			t.Fatal(err)
		}
		_, stderr, code := c.cli("config", "push", "--rollout=all", file)
		if code != 3 {
			t.Errorf("%s: exit code %d; want 3 (refused)", bad.name, code)
		}
		for _, w := range bad.want {
			if !strings.Contains(stderr, w) {
				t.Errorf("%s: the message lacks %q: %s", bad.name, w, stderr)
			}
		}
		t.Logf("%s is refused: %s", bad.name, strings.TrimSpace(stderr))
	}
	revs, err := c.client.Revisions(t.Context(), binnacle.DefaultGroup)
	if err != nil || len(revs) != 1 {
		t.Errorf("after three broken pushes: %d revisions, %v; want 1", len(revs), err)
	}
}

// rolloutBound is the promise of a rollout to all: confirmed within two
// seconds of the push, the validation included.
const rolloutBound = 2 * time.Second

func checkMembership(t *testing.T, c *cluster, first []api.Node) {
	ids := map[string]binnacle.NodeID{}
	for _, n := range first {
		ids[n.Name] = n.ID
	}
	sameID := func(nodes []api.Node, name string) {
		t.Helper()
		for _, n := range nodes {
			if n.Name == name && n.ID != ids[name] {
				t.Errorf("%s came back as %s; it was %s", name, n.ID, ids[name])
			}
		}
	}
	victim, rest := c.nodes[0], c.nodes[1:]

	// kill -9: two serve on, discovery shrinks, the state tells.
	victim.kill(t)
	waitDiscovery(t, c, 2)
	for _, n := range rest {
		if err := once(defaultClient, "http://"+n.addr+"/healthy/2"); err != nil {
			t.Errorf("%s after the death of another node: %v", n.name, err)
		}
	}
	c.waitStates(45*time.Second, map[string]api.NodeState{victim.name: api.Unreachable, rest[0].name: api.Alive, rest[1].name: api.Alive})
	c.waitStates(30*time.Second, map[string]api.NodeState{victim.name: api.Down})
	// The state is computed when it is asked for; the event follows within a tick.
	eventually(t, 10*time.Second, "the event node.down is recorded", func() error {
		evs, err := c.client.Events(t.Context(), 0, 1000)
		if err == nil && !slices.ContainsFunc(evs, func(e api.Event) bool { return e.Kind == "node.down" }) {
			err = fmt.Errorf("it is not among %d events", len(evs))
		}
		return err
	})

	// It comes back as itself, with the revision it had, also before it has
	// heard from the manager.
	c.runNode(victim)
	sameID(c.waitStates(30*time.Second, map[string]api.NodeState{victim.name: api.Alive}), victim.name)
	waitDiscovery(t, c, 3)
	if err := once(defaultClient, "http://"+victim.addr+"/added"); err != nil {
		t.Errorf("%s after its return: GET /added: %v", victim.name, err)
	}

	// A clean stop is left at once.
	leaver := rest[0]
	leaver.stop(t)
	c.waitStates(5*time.Second, map[string]api.NodeState{leaver.name: api.Left})
	waitDiscovery(t, c, 2)
	c.runNode(leaver)
	sameID(c.waitStates(30*time.Second, map[string]api.NodeState{leaver.name: api.Alive}), leaver.name)

	// The manager dies: nodes serve on; it returns: they are its nodes again.
	c.manager.kill(t)
	for _, n := range c.nodes {
		if err := once(defaultClient, "http://"+n.addr+"/healthy/3"); err != nil {
			t.Errorf("%s without the manager: %v", n.name, err)
		}
	}
	c.runManager()
	want := map[string]api.NodeState{}
	for _, n := range c.nodes {
		want[n.name] = api.Alive
	}
	nodes := c.waitStates(60*time.Second, want)
	for _, n := range c.nodes {
		sameID(nodes, n.name)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	evs, err := c.client.Events(ctx, 0, 1000)
	if err != nil {
		t.Fatal(err)
	}
	kinds := map[string]int{}
	for _, e := range evs {
		kinds[e.Kind]++
	}
	t.Logf("events by kind: %v", kinds)
	for _, k := range []string{"node.joined", "node.unreachable", "node.down", "node.left", "node.alive"} {
		if kinds[k] == 0 {
			t.Errorf("no event %s was recorded; have %v", k, kinds)
		}
	}
}
