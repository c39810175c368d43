package e2e

import (
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/binnacle-project/binnacle/grafana"
)

// stockMore is what else krakend-otel sends: calls to backends, one of them
// failed, and the size of answers. The placeholders are start, now and counts.
const stockMore = `{"resourceMetrics":[{"resource":{"attributes":[
{"key":"service.name","value":{"stringValue":"stock-krakend"}},
{"key":"service.instance.id","value":{"stringValue":"old-gateway"}}]},
"scopeMetrics":[{"metrics":[
{"name":"http.client.duration","histogram":{"aggregationTemporality":2,"dataPoints":[{
"attributes":[{"key":"http.request.method","value":{"stringValue":"GET"}},{"key":"server.address","value":{"stringValue":"orders.internal"}},{"key":"server.port","value":{"intValue":"80"}},{"key":"http.response.status_code","value":{"intValue":"200"}}],
"startTimeUnixNano":"%[1]d","timeUnixNano":"%[2]d","count":"%[3]d","sum":1.5,"bucketCounts":["%[3]d","0","0"],"explicitBounds":[0.01,0.1]}]}},
{"name":"krakend.backend.duration","histogram":{"aggregationTemporality":2,"dataPoints":[{
"attributes":[{"key":"krakend.endpoint.route","value":{"stringValue":"/one/:id"}},{"key":"error","value":{"boolValue":true}}],
"startTimeUnixNano":"%[1]d","timeUnixNano":"%[2]d","count":"%[3]d","sum":1.5,"bucketCounts":["%[3]d","0","0"],"explicitBounds":[0.01,0.1]}]}},
{"name":"http.server.response.size","histogram":{"aggregationTemporality":2,"dataPoints":[{
"attributes":[{"key":"http.route","value":{"stringValue":"/one/:id"}}],
"startTimeUnixNano":"%[1]d","timeUnixNano":"%[2]d","count":"%[3]d","sum":150,"bucketCounts":["%[3]d","0","0"],"explicitBounds":[128,1024]}]}}]}]}]}`

// checkDashboards runs every query of every panel that ships, its variables
// filled in, against the traffic of the test: an error or an empty answer is a
// panel that would be blank.
func checkDashboards(t *testing.T, c *cluster) {
	// One dashboard is for gateways that only send OTLP.
	began := time.Now().Add(-time.Minute)
	for i, n := range []int{10, 30, 60} {
		for _, body := range []string{
			fmt.Sprintf(stockExport, began.UnixNano(), began.Add(time.Duration(20+10*i)*time.Second).UnixNano(), n, n),
			fmt.Sprintf(stockMore, began.UnixNano(), began.Add(time.Duration(20+10*i)*time.Second).UnixNano(), n),
		} {
			resp, err := http.Post(c.otlp+"/v1/metrics", "application/json", strings.NewReader(body))
			if err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
			if resp.StatusCode != http.StatusOK {
				t.Fatalf("send the metrics of a stock gateway: %s", resp.Status)
			}
		}
	}
	queries := 0
	for file, d := range grafana.Dashboards() {
		for _, p := range d.Panels {
			for _, q := range p.Targets {
				queries++
				var out struct {
					Data struct {
						Result []any `json:"result"`
					} `json:"data"`
				}
				what := fmt.Sprintf("%s, panel %q: %s", file, p.Title, grafana.Substitute(q.Expr))
				// Counters of the manager are copied every 15 s.
				eventually(t, 40*time.Second, what+" gives data", func() error {
					err := c.get("/prometheus/api/v1/query?query="+url.QueryEscape(grafana.Substitute(q.Expr)), c.token("reader.token"), &out)
					if err == nil && len(out.Data.Result) == 0 {
						err = fmt.Errorf("the answer is empty")
					}
					return err
				})
			}
		}
	}
	t.Logf("%d queries of %d dashboards give data", queries, len(grafana.Dashboards()))
}
