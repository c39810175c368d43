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

// checkDashboards runs every query of every panel that ships, its variables
// filled in, against the traffic of the test: an error or an empty answer is a
// panel that would be blank.
func checkDashboards(t *testing.T, c *cluster) {
	// One dashboard is for gateways that only send OTLP.
	began := time.Now().Add(-time.Minute)
	for i, n := range []int{10, 30, 60} {
		body := fmt.Sprintf(stockExport, began.UnixNano(), began.Add(time.Duration(20+10*i)*time.Second).UnixNano(), n, n)
		resp, err := http.Post(c.otlp+"/v1/metrics", "application/json", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			t.Fatalf("send the metrics of a stock gateway: %s", resp.Status)
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
