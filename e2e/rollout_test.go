package e2e

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/binnacle-project/binnacle"
	"github.com/binnacle-project/binnacle/api"
)

// steadyLoad sends about the same number of requests per second to each node and
// counts per node what was no 200.
type steadyLoad struct {
	mu       sync.Mutex
	requests map[string]int
	bad      map[string]int
	first    map[string]string
	quit     chan struct{}
	wg       sync.WaitGroup
}

// bearer sends every request with a token.
type bearer struct {
	token string
	to    http.RoundTripper
}

func (b bearer) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.Header.Set("Authorization", "Bearer "+b.token)
	return b.to.RoundTrip(r)
}

// startSteady sends so many requests per second to each node.
func startSteady(nodes []*node, perNode int, token string, paths ...string) *steadyLoad {
	l := &steadyLoad{requests: map[string]int{}, bad: map[string]int{}, first: map[string]string{}, quit: make(chan struct{})}
	client := &http.Client{Timeout: 5 * time.Second, Transport: bearer{token, &http.Transport{MaxIdleConnsPerHost: 256}}}
	for i, n := range nodes {
		l.wg.Go(func() {
			tick := time.NewTicker(time.Second / time.Duration(perNode))
			defer tick.Stop()
			for k := i; ; k++ {
				select {
				case <-l.quit:
					return
				case <-tick.C:
				}
				path := fmt.Sprintf(paths[k%len(paths)], k)
				l.wg.Go(func() { // open loop: a slow answer holds nothing up
					err := once(client, "http://"+n.addr+path)
					l.mu.Lock()
					defer l.mu.Unlock()
					l.requests[n.name]++
					if err != nil {
						l.bad[n.name]++
						if l.first[n.name] == "" {
							l.first[n.name] = path + ": " + err.Error()
						}
					}
				})
			}
		})
	}
	return l
}

func (l *steadyLoad) stop() { close(l.quit); l.wg.Wait() }

// take returns and forgets the failures by node.
func (l *steadyLoad) take() (bad map[string]int, first map[string]string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	bad, first = l.bad, l.first
	l.bad, l.first = map[string]int{}, map[string]string{}
	return bad, first
}

// rolloutBackends: one answers, one fails, one takes 800 ms. Two publish keys:
// those that the clients' token is signed with, and others.
type rolloutBackends struct{ good, failing, slow, keys, otherKeys, token string }

func startRolloutBackends(t *testing.T) rolloutBackends {
	server := func(h http.HandlerFunc) string {
		s := httptest.NewServer(h)
		t.Cleanup(s.Close)
		return s.URL
	}
	ok := func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(map[string]string{"path": r.URL.Path})
	}
	keys := func(secret string) string {
		return server(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json") // without it the gateway takes no key
			fmt.Fprintf(w, `{"keys": [{"kty": "oct", "kid": "one", "alg": "HS256", "k": %q}]}`, base64.RawURLEncoding.EncodeToString([]byte(secret)))
		})
	}
	secret := "the secret of those who sign tokens"
	claims := jwt.NewWithClaims(jwt.SigningMethodHS256, jwt.MapClaims{"sub": "client", "exp": time.Now().Add(time.Hour).Unix()})
	claims.Header["kid"] = "one"
	token, err := claims.SignedString([]byte(secret))
	if err != nil {
		t.Fatal(err)
	}
	return rolloutBackends{
		keys: keys(secret), otherKeys: keys("another secret, of nobody who signs"), token: token,
		good:    server(ok),
		failing: server(func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "no", http.StatusInternalServerError) }),
		slow: server(func(w http.ResponseWriter, r *http.Request) {
			time.Sleep(800 * time.Millisecond) // the latency that is being served
			ok(w, r)
		}),
	}
}

// rolloutConfig has two endpoints on the good backend; change makes it another
// revision.
func (b rolloutBackends) config(name string, change func(a, b map[string]any)) map[string]any {
	ep := func(path string) map[string]any {
		return map[string]any{"endpoint": path, "method": "GET", "timeout": "3s", "output_encoding": "no-op",
			"extra_config": map[string]any{"auth/validator": map[string]any{"alg": "HS256", "jwk_url": b.keys, "disable_jwk_security": true, "cache": true}},
			"backend":      []any{map[string]any{"host": []string{b.good}, "url_pattern": path, "encoding": "no-op"}}}
	}
	one, two := ep("/a/{id}"), ep("/b/{id}")
	if change != nil {
		change(one, two)
	}
	return map[string]any{"version": 3, "name": name, "endpoints": []any{one, two}}
}

func at(host string) func(map[string]any) {
	return func(ep map[string]any) { ep["backend"].([]any)[0].(map[string]any)["host"] = []string{host} }
}

// with sets one key of a namespace of an endpoint.
func with(ep map[string]any, namespace, key string, value any) {
	ep["extra_config"].(map[string]any)[namespace].(map[string]any)[key] = value
}

// TestRolloutsInSteps runs five gateways under load as real processes and rolls
// out revisions that are bad in different ways, and one that is fine. The bad
// ones touch the canary at most and are rolled back, without a failed request on
// any other node.
func TestRolloutsInSteps(t *testing.T) {
	if testing.Short() {
		t.Skip("takes three minutes")
	}
	c := startManager(t)
	b := startRolloutBackends(t)
	for i := range 5 {
		c.addNode(fmt.Sprintf("edge-%d", i+1), b.config("own", nil))
	}
	want := map[string]api.NodeState{}
	for _, n := range c.nodes {
		want[n.name] = api.Alive
	}
	names := map[binnacle.NodeID]string{}
	for _, n := range c.waitStates(60*time.Second, want) {
		names[n.ID] = n.Name
	}
	push := func(conf map[string]any, args ...string) (stdout, stderr string, code int) {
		file := filepath.Join(t.TempDir(), "krakend.json")
		writeJSON(t, file, conf)
		return c.cli(append(append([]string{"config", "push"}, args...), file)...)
	}
	if _, stderr, code := push(b.config("base", nil), "--rollout=all"); code != 0 {
		t.Fatalf("the first revision: exit code %d: %s", code, stderr)
	}
	load := startSteady(c.nodes, 40, b.token, "/a/%d", "/b/%d")
	defer load.stop()
	time.Sleep(15 * time.Second) // what the gates take for usual: not a hope, but traffic
	if bad, first := load.take(); len(bad) > 0 {
		t.Fatalf("before any rollout: failures %v: %v", bad, first)
	}
	current := binnacle.Revision(1)

	// check looks at what a rollout left behind: failures on the canary alone,
	// and everybody on the revision that they should run.
	check := func(t *testing.T, ro api.Rollout, run binnacle.Revision) {
		t.Helper()
		bad, first := load.take()
		canary := ""
		if len(ro.Steps) > 0 && len(ro.Steps[0].Added) > 0 {
			canary = names[ro.Steps[0].Added[0]]
		}
		for name, n := range bad {
			if name != canary {
				t.Errorf("%d requests failed on %s, which is not the canary: %s", n, name, first[name])
			}
		}
		told := map[string]bool{}
		for _, s := range ro.Steps {
			for _, id := range s.Added {
				told[names[id]] = true
			}
		}
		if ro.State == api.RolloutFailed && len(told) > 1 {
			t.Errorf("nodes %v had the revision; want the canary at most", told)
		}
		eventually(t, 15*time.Second, fmt.Sprintf("all run revision %d", run), func() error {
			nodes, err := c.client.Nodes(t.Context())
			if err != nil {
				return err
			}
			for _, n := range nodes {
				if n.Ledger == nil || n.Ledger.Applied == nil || n.Ledger.Applied.Number != run {
					return fmt.Errorf("%s: %+v", n.Name, n.Ledger)
				}
			}
			return nil
		})
		t.Logf("%d failed on the canary %s, none elsewhere", bad[canary], canary)
	}
	last := func(t *testing.T) api.Rollout {
		t.Helper()
		ros, err := c.client.Rollouts(t.Context())
		if err != nil || len(ros) == 0 {
			t.Fatalf("rollouts: %v, %v", ros, err)
		}
		return ros[len(ros)-1]
	}
	for _, tc := range []struct {
		name   string
		change func(one, two map[string]any)
		within time.Duration // from the canary's first second to the verdict
		reason string
	}{
		{"500 on one endpoint", func(_, two map[string]any) { at(b.failing)(two) }, 30 * time.Second, "errors"},
		{"800 ms more", func(one, two map[string]any) { at(b.slow)(one); at(b.slow)(two) }, 30 * time.Second, "slow"},
		{"JWT validation broken: 401 for all", func(one, two map[string]any) {
			with(one, "auth/validator", "jwk_url", b.otherKeys)
			with(two, "auth/validator", "jwk_url", b.otherKeys)
		}, 30 * time.Second, "401"},
		{"refused by the node", func(one, _ map[string]any) {
			one["backend"].([]any)[0].(map[string]any)["host"] = []string{"http://${env:NOT_ALLOWED_HERE}"}
		}, 10 * time.Second, "NOT_ALLOWED_HERE"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			began := time.Now()
			stdout, stderr, code := push(b.config(tc.name, tc.change), "--rollout=steps", "--wait", "--steps", "1/30s,100%/30s")
			took := time.Since(began)
			ro := last(t)
			t.Logf("rolled back %v after the push began\n%s%s", took.Round(100*time.Millisecond), stdout, stderr)
			if code != 4 || ro.State != api.RolloutFailed || !strings.Contains(ro.Reason, tc.reason) {
				t.Errorf("exit code %d, %s: %s; want 4, failed, for %q", code, ro.State, ro.Reason, tc.reason)
			}
			if took > tc.within {
				t.Errorf("it took %v; want under %v", took, tc.within)
			}
			check(t, ro, current)
		})
	}
	t.Run("crashes after a while", func(t *testing.T) {
		after := 15 * time.Second
		if os.Getenv("BINNACLE_LOAD") == "full" {
			after = time.Minute
		}
		crash := time.Now().Add(after).Truncate(time.Second).Add(time.Second) // as os.time counts
		conf := b.config("crashes", func(one, _ map[string]any) {
			one["extra_config"].(map[string]any)["modifier/lua-endpoint"] = map[string]any{
				"allow_open_libs": true, "pre": fmt.Sprintf("if os.time() >= %d then os.exit(3) end", crash.Unix()),
			}
		})
		stdout, stderr, code := push(conf, "--rollout=steps", "--steps", "1/90s,100%/30s")
		took := time.Since(crash)
		ro := last(t)
		t.Logf("it crashed %v after the push began and was rolled back %v later\n%s%s", after, took.Round(100*time.Millisecond), stdout, stderr)
		if code != 4 || ro.State != api.RolloutFailed || !strings.Contains(ro.Reason, "crashed") {
			t.Errorf("exit code %d, %s: %s; want 4, failed, for a crash", code, ro.State, ro.Reason)
		}
		if took < 0 || took > 30*time.Second {
			t.Errorf("rolled back %v after the crash; want at most 30 s, and not before", took)
		}
		check(t, ro, current)
	})
	t.Run("the manager is killed in the middle of a step", func(t *testing.T) {
		stdout, stderr, code := push(b.config("killed", func(_, two map[string]any) { two["timeout"] = "2s" }), "--rollout=steps", "--wait=false", "--steps", "1/4s,50%/12s,100%/4s")
		if code != 0 {
			t.Fatalf("exit code %d: %s%s", code, stdout, stderr)
		}
		var before api.Rollout
		eventually(t, 60*time.Second, "the second step bakes", func() error {
			if before = last(t); before.Step != 1 || before.Steps[1].State != api.StepBaking {
				return fmt.Errorf("%s: step %d, %s", before.State, before.Step+1, before.Reason)
			}
			return nil
		})
		c.manager.kill(t)
		c.runManager()
		after := last(t)
		if after.ID != before.ID || after.Step != 1 || !slices.Equal(after.Steps[1].Added, before.Steps[1].Added) || !after.Steps[1].BakeStarted.Equal(before.Steps[1].BakeStarted) {
			t.Errorf("before the kill step %d, %+v; after it step %d, %+v", before.Step+1, before.Steps, after.Step+1, after.Steps)
		}
		t.Logf("killed in step 2 of 3 with nodes %v ahead; %s goes on in step %d", before.Steps[1].Added, after.ID, after.Step+1)
		eventually(t, 90*time.Second, "it completes", func() error {
			if after = last(t); after.State != api.RolloutCompleted {
				return fmt.Errorf("%s: step %d, %s", after.State, after.Step+1, after.Reason)
			}
			return nil
		})
		current = after.To
		if bad, first := load.take(); len(bad) > 0 {
			t.Errorf("failures %v: %v; want none", bad, first)
		}
		check(t, after, current)
	})
	t.Run("panics at build: refused before any node", func(t *testing.T) {
		before := len(must(c.client.Rollouts(t.Context())))
		_, stderr, code := push(b.config("clash", func(one, two map[string]any) { two["endpoint"] = "/a/{other}" }), "--rollout=steps")
		if after := len(must(c.client.Rollouts(t.Context()))); code != 3 || after != before {
			t.Errorf("exit code %d, %d rollouts more: %s; want 3 and none", code, after-before, stderr)
		}
		t.Logf("%s", strings.TrimSpace(stderr))
	})
	t.Run("a route with traffic goes only with --yes", func(t *testing.T) {
		gone := b.config("gone", nil)
		gone["endpoints"] = gone["endpoints"].([]any)[:1]
		stdout, stderr, code := push(gone, "--rollout=steps")
		if code != 3 || !strings.Contains(stdout, "THIS ENDPOINT HAS TRAFFIC") || !strings.Contains(stderr, "--yes") {
			t.Errorf("exit code %d: %s%s; want 3, told loudly", code, stdout, stderr)
		}
		t.Logf("%s%s", stdout, stderr)
	})
	t.Run("a fine one completes", func(t *testing.T) {
		began := time.Now()
		stdout, stderr, code := push(b.config("fine", func(one, _ map[string]any) { one["timeout"] = "2s" }), "--rollout=steps", "--steps", "1/8s,50%/8s,100%/12s")
		ro := last(t)
		t.Logf("took %v\n%s%s", time.Since(began).Round(time.Second), stdout, stderr)
		if code != 0 || ro.State != api.RolloutCompleted {
			t.Fatalf("exit code %d, %s: %s; want 0, completed", code, ro.State, ro.Reason)
		}
		current = ro.To
		if bad, first := load.take(); len(bad) > 0 {
			t.Errorf("failures %v: %v; want none", bad, first)
		}
		check(t, ro, current)
		// The same again, as a pipeline that runs twice: nothing is to do.
		stdout, stderr, code = push(b.config("fine", func(one, _ map[string]any) { one["timeout"] = "2s" }), "--rollout=steps", "--wait")
		if again := last(t); code != 0 || !strings.Contains(stdout, "runs it already") || again.ID != ro.ID {
			t.Errorf("the same pushed again: exit code %d, rollout %s after %s: %s%s", code, again.ID, ro.ID, stdout, stderr)
		}
		eventually(t, 30*time.Second, "the report is written", func() error {
			r, err := c.client.Rollout(t.Context(), ro.ID)
			if err != nil {
				return err
			}
			if r.Report == nil || len(r.Report.Endpoints) != 2 || r.Report.All.After.Requests == 0 {
				return fmt.Errorf("%+v", r.Report)
			}
			return nil
		})
		shown, _, _ := c.cli("rollout", "status", ro.ID)
		t.Logf("\n%s", shown)
	})
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}
