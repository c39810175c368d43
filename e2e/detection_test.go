package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/binnacle-project/binnacle/api"
)

// startSometimes is a backend that fails so many of a hundred requests, evenly
// spread.
func startSometimes(t *testing.T, percent int) string {
	var n atomic.Int64
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if n.Add(1)*int64(percent)%100 < int64(percent) {
			http.Error(w, "no", http.StatusInternalServerError)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(map[string]string{"path": r.URL.Path})
	}))
	t.Cleanup(s.Close)
	return s.URL
}

// serverErrors is what nodes have told the manager: raw points, of which the
// roll-ups that gates read are made later.
const serverErrors = `sum(http_server_request_duration_seconds_count{http_response_status_code="500"})`

// allRequests is what both nodes have served, by the roll-ups that gates read.
const allRequests = `sum(histogram_count(group:http_server_request_duration_seconds))`

// badPoint waits until the manager has a point with more errors than before, and
// returns when that was, to 50 ms.
func badPoint(t *testing.T, c *cluster, before float64) time.Time {
	t.Helper()
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		if queryNumber(t, c, serverErrors) > before {
			return time.Now()
		}
	}
	t.Fatal("no error arrived within a minute")
	return time.Time{}
}

func queryNumber(t *testing.T, c *cluster, query string) float64 {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, c.base+"/prometheus/api/v1/query?query="+url.QueryEscape(query), nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+c.token("admin.token"))
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var got struct {
		Data struct {
			Result []struct {
				Value [2]any `json:"value"`
			} `json:"result"`
		} `json:"data"`
	}
	if err := json.NewDecoder(resp.Body).Decode(&got); err != nil {
		t.Fatal(err)
	}
	if len(got.Data.Result) == 0 {
		return 0
	}
	s, _ := got.Data.Result[0].Value[1].(string)
	n, _ := strconv.ParseFloat(s, 64)
	return n
}

// TestRollbackIsOrdered measures, on two real gateways under load, the time from
// the arrival of the first point that counts an error of the canary to the order to
// roll back, at default settings: with a tenth of requests failing at 100 a second
// on each side, or with BINNACLE_LOAD=full at 500, down to two in a hundred.
func TestRollbackIsOrdered(t *testing.T) {
	rate, shares, before := 100, []int{10}, 10*time.Second
	if os.Getenv("BINNACLE_LOAD") == "full" {
		rate, shares, before = 500, []int{100, 50, 10, 5, 2}, 30*time.Second
	}
	c := startManager(t)
	b := startRolloutBackends(t)
	for i := range 2 {
		c.addNode(fmt.Sprintf("edge-%d", i+1), b.config("own", nil))
	}
	c.waitStates(60*time.Second, map[string]api.NodeState{"edge-1": api.Alive, "edge-2": api.Alive})
	push := func(conf map[string]any, rollout string) {
		t.Helper()
		file := filepath.Join(t.TempDir(), "krakend.json")
		writeJSON(t, file, conf)
		if out, stderr, code := c.cli("config", "push", "--rollout="+rollout, "--wait=false", file); code != 0 {
			t.Fatalf("push: exit code %d: %s%s", code, out, stderr)
		}
	}
	last := func() api.Rollout {
		t.Helper()
		all, err := c.client.Rollouts(t.Context())
		if err != nil || len(all) == 0 {
			t.Fatalf("rollouts: %v, %v", all, err)
		}
		return all[len(all)-1]
	}
	push(b.config("base", nil), "all")
	eventually(t, 20*time.Second, "both run the first revision", func() error {
		if r := last(); r.State != api.RolloutCompleted {
			return fmt.Errorf("%s is %s", r.ID, r.State)
		}
		return nil
	})
	load := startSteady(c.nodes, rate, b.token, "/a/%d", "/b/%d")
	defer load.stop()
	eventually(t, before+time.Minute, "there is traffic that the gates take for usual", func() error {
		if n, want := queryNumber(t, c, allRequests), float64(len(c.nodes)*rate)*before.Seconds(); n < want {
			return fmt.Errorf("%.0f requests are counted; want %.0f", n, want)
		}
		return nil
	})
	for _, percent := range shares {
		failing := startSometimes(t, percent)
		conf := b.config(fmt.Sprintf("%d percent", percent), func(one, two map[string]any) { at(failing)(one); at(failing)(two) })
		load.take()
		usual := queryNumber(t, c, serverErrors)
		push(conf, "steps")
		ro, arrived := api.Rollout{}, badPoint(t, c, usual)
		eventually(t, 2*time.Minute, "it is rolled back", func() error {
			if ro = last(); ro.State != api.RolloutFailed {
				return fmt.Errorf("%s is %s: %s", ro.ID, ro.State, ro.Reason)
			}
			return nil
		})
		ordered := ro.Steps[ro.Step].Ended
		bad, _ := load.take()
		v := ro.Steps[ro.Step].Verdict
		if v == nil {
			t.Fatalf("%d %% of errors: it failed without a verdict: %s", percent, ro.Reason)
		}
		t.Logf("%d %% of requests fail, %d requests/s a side: ordered back %.1f s after the first bad point arrived, at look %d; failed requests by node: %v\n%s", percent, rate, ordered.Sub(arrived).Seconds(), v.Looks, bad, v.Reason)
		if took := ordered.Sub(arrived); took > 30*time.Second {
			t.Errorf("%d %% of errors: the order came %v after the first bad point; want 30 s", percent, took)
		}
	}
}
