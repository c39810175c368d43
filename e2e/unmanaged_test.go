package e2e

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/binnacle-project/binnacle"
	"github.com/binnacle-project/binnacle/api"
)

// stockExport is what a stock KrakenD with krakend-otel sends: its own metric
// names, explicit buckets, routes in the router's form. The placeholders are
// start, now and the count of fast requests.
const stockExport = `{"resourceMetrics":[{"resource":{"attributes":[
{"key":"service.name","value":{"stringValue":"stock-krakend"}},
{"key":"service.instance.id","value":{"stringValue":"old-gateway"}}]},
"scopeMetrics":[{"metrics":[{"name":"http.server.duration","histogram":{"aggregationTemporality":2,"dataPoints":[{
"attributes":[{"key":"http.request.method","value":{"stringValue":"GET"}},{"key":"http.route","value":{"stringValue":"/one/:id"}},{"key":"http.response.status_code","value":{"intValue":"200"}}],
"startTimeUnixNano":"%d","timeUnixNano":"%d","count":"%d","sum":1.5,"bucketCounts":["%d","0","0"],"explicitBounds":[0.01,0.1]}]}}]}]}]}`

// TestUnmanaged: a stock gateway that only sends OTLP shows up as unmanaged,
// with its activity, and takes no seat; it cannot pretend to be a node.
func TestUnmanaged(t *testing.T) {
	c := startManager(t)
	began := time.Now().Add(-time.Minute)
	post := func(body string) (int, string) {
		t.Helper()
		resp, err := http.Post(c.otlp+"/v1/metrics", "application/json", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode, string(b)
	}
	export := func(at time.Time, n int) string {
		return fmt.Sprintf(stockExport, began.UnixNano(), at.UnixNano(), n, n)
	}
	for i, n := range []int{10, 30} {
		at := began.Add(time.Duration(40+10*i) * time.Second)
		if status, body := post(export(at, n)); status != http.StatusOK || strings.Contains(body, "rejected") {
			t.Fatalf("export %d: status %d: %s", i, status, body)
		}
	}
	var found api.Node
	eventually(t, 15*time.Second, "the stock gateway is listed", func() error {
		nodes, err := c.client.Nodes(t.Context())
		if err != nil {
			return err
		}
		for _, n := range nodes {
			if n.ID == "old-gateway" {
				found = n
				return nil
			}
		}
		return fmt.Errorf("have %v", nodes)
	})
	if found.Managed || found.State != api.Alive || found.Activity == nil || found.Activity.RequestsTotal != 30 || found.Lease != nil {
		t.Errorf("got %+v with activity %+v; want an unmanaged node, alive, with 30 requests and no lease", found, found.Activity)
	}
	cl, err := c.client.Cluster(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if cl.Unmanaged != 1 || cl.Nodes[api.Alive] != 0 || cl.License.SeatsUsed != 0 {
		t.Errorf("cluster: unmanaged %d, alive %d, seats %d; want 1, 0, 0", cl.Unmanaged, cl.Nodes[api.Alive], cl.License.SeatsUsed)
	}
	// The series has the sender's own name, also in its classic form.
	for expr, want := range map[string]float64{
		`histogram_count(sum(http_server_duration{job="stock-krakend"}))`: 30,
		`sum(http_server_duration_count{instance="old-gateway"})`:         30,
	} {
		if got, err := promScalar(c, expr); err != nil || got != want {
			t.Errorf("%s: got %v, %v; want %v", expr, got, err, want)
		}
	}

	// An enrolled node's identity is refused to it, and so is our namespace.
	b := startBackends(t)
	c.addNode("gw-1", b.config())
	c.waitStates(30*time.Second, map[string]api.NodeState{"gw-1": api.Alive})
	var id binnacle.NodeID
	for _, n := range mustNodes(t, c) {
		if n.Managed {
			id = n.ID
		}
	}
	forged := strings.Replace(export(began.Add(time.Minute), 99), "old-gateway", string(id), 1)
	if status, body := post(forged); status != http.StatusOK || !strings.Contains(body, "rejectedDataPoints") {
		t.Errorf("a forged node id: status %d: %s; want partial success with rejected points", status, body)
	}
}

func mustNodes(t *testing.T, c *cluster) []api.Node {
	t.Helper()
	nodes, err := c.client.Nodes(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return nodes
}
