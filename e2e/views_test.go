package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"github.com/binnacle-project/binnacle"
	"github.com/binnacle-project/binnacle/api"
)

// hostile is a text that must stay one wherever the page shows it. Node and group
// names cannot be so: both ends refuse them.
const hostile = `<img src=x onerror="window.owned=1"><script>window.owned=1</script>"'&`

// TestViews opens every view of the page against a real manager with real
// gateways, under names that try to become markup; clicks every action; and
// restarts the manager under an open page.
func TestViews(t *testing.T) {
	if testing.Short() {
		t.Skip("takes a minute")
	}
	b := startBackends(t)
	c := startManager(t, issueLicenses(t)...)
	conf := b.config()
	conf["extra_config"].(map[string]any)[binnacle.ConfigBlock] = map[string]any{"labels": map[string]any{"zone": hostile}}
	for _, name := range []string{"gw-1", "gw-2", "gw-3"} {
		c.addNode(name, conf)
	}
	nodes := c.waitStates(30*time.Second, map[string]api.NodeState{"gw-1": api.Alive, "gw-2": api.Alive, "gw-3": api.Alive})
	ids := map[string]string{}
	for _, n := range nodes {
		ids[n.Name] = string(n.ID)
	}
	load := startSteady(c.nodes, 40, "", "/healthy/%d", "/slow/%d", "/failing/%d", "/merged/%d")
	stopLoad := sync.OnceFunc(load.stop)
	t.Cleanup(stopLoad)
	sendHostile(t, c)
	push := func(name, message string) api.CreatedRevision {
		t.Helper()
		conf := b.config()
		conf["name"] = name
		raw, err := json.Marshal(conf)
		if err != nil {
			t.Fatal(err)
		}
		return must(c.client.CreateRevision(t.Context(), "default", api.NewRevision{Config: raw, Message: message}))
	}
	push("one", hostile)
	rollout := must(c.client.StartRollout(t.Context(), "default", api.NewRollout{Revision: 1, Strategy: "all"}))
	push("two", "the second")
	must(c.client.CreateToken(t.Context(), api.NewToken{Kind: "api", Name: hostile, Role: "viewer"}))

	browser := openBrowser(t)
	p := newTab(t, browser, c)
	p.waitFor(40*time.Second, "the store has a history", `document.querySelectorAll('.exemplar').length > 0 && document.querySelector('[data-testid="cluster-p99"]').dataset.value > 0`)
	p.calm("the first view")
	t.Run("views", func(t *testing.T) {
		checkViews(newTab(t, browser, c), c, b, ids, rollout.ID)
	})
	t.Run("the manager restarts", func(t *testing.T) {
		restartUnderPage(newTab(t, browser, c), c)
	})
	// A gate with few requests holds: no noise of this machine ends a rollout
	// before it is steered by hand.
	stopLoad()
	trickle(t, c.nodes, "/healthy/1")
	t.Run("actions", func(t *testing.T) {
		clickActions(newTab(t, browser, c), c, b, ids)
	})
}

// trickle sends a few requests per second to the nodes in turn until the test ends.
func trickle(t *testing.T, nodes []*node, path string) {
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	t.Cleanup(func() { cancel(); wg.Wait() })
	wg.Go(func() {
		tick := time.NewTicker(200 * time.Millisecond)
		defer tick.Stop()
		for i := 0; ; i++ {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
				_ = once(defaultClient, "http://"+nodes[i%len(nodes)].addr+path) // what fails is not the question
			}
		}
	})
}

// issueLicenses makes an issuer and a license and gives the manager's flags for them.
func issueLicenses(t *testing.T) []string {
	t.Helper()
	dir := t.TempDir()
	key := filepath.Join(dir, "issuer.key")
	for _, args := range [][]string{
		{"license", "keygen", "--out", key},
		{"license", "issue", "--key", key, "--customer", hostile, "--plan", "team", "--seats", "9", "--expires-in", "720h", "--out", filepath.Join(dir, "license.jwt")},
		{"license", "issue", "--key", key, "--customer", "Harbor Ltd", "--plan", "fleet", "--seats", "40", "--expires-in", "720h", "--out", filepath.Join(dir, "larger.jwt")},
	} {
		if out, err := exec.Command(filepath.Join(bin, "binnacle"), args...).CombinedOutput(); err != nil {
			t.Fatalf("binnacle %v: %v\n%s", args, err, out)
		}
	}
	return []string{"--license-keys", key + ".pub", "--license", filepath.Join(dir, "license.jwt")}
}

// sendHostile sends metrics and a trace of a gateway of which every word that a
// sender may choose is hostile.
func sendHostile(t *testing.T, c *cluster) {
	t.Helper()
	now := time.Now()
	attr := func(key, value string) map[string]any {
		return map[string]any{"key": key, "value": map[string]any{"stringValue": value}}
	}
	resource := map[string]any{"attributes": []any{attr("service.name", "stock"+hostile), attr("service.instance.id", hostile), attr("service.version", hostile)}}
	began, sent := now.Add(-time.Minute), 0
	point := func(attrs ...any) map[string]any {
		return map[string]any{"attributes": attrs, "startTimeUnixNano": fmt.Sprint(began.UnixNano()), "timeUnixNano": fmt.Sprint(began.Add(time.Duration(40+10*sent) * time.Second).UnixNano()),
			"count": fmt.Sprint(900 * sent), "sum": 12.5 * float64(sent), "bucketCounts": []string{fmt.Sprint(600 * sent), fmt.Sprint(200 * sent), fmt.Sprint(100 * sent)}, "explicitBounds": []float64{0.01, 0.1}}
	}
	histogram := func(name string, p map[string]any) map[string]any {
		return map[string]any{"name": name, "unit": "s", "histogram": map[string]any{"aggregationTemporality": 2, "dataPoints": []any{p}}}
	}
	span := map[string]any{
		"traceId": strings.Repeat("ab", 16), "spanId": strings.Repeat("cd", 8), "name": hostile, "kind": 2,
		"startTimeUnixNano": fmt.Sprint(now.Add(-time.Second).UnixNano()), "endTimeUnixNano": fmt.Sprint(now.UnixNano()),
		"attributes": []any{attr("http.route", hostile), attr(hostile, hostile)},
		"events":     []any{map[string]any{"name": hostile, "timeUnixNano": fmt.Sprint(now.UnixNano()), "attributes": []any{attr(hostile, hostile)}}},
		"status":     map[string]any{"code": 2, "message": hostile},
	}
	post := func(path string, body map[string]any) {
		t.Helper()
		raw, err := json.Marshal(body)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := http.Post(c.otlp+path, "application/json", bytes.NewReader(raw))
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			t.Fatalf("POST %s: %s", path, resp.Status)
		}
	}
	for sent = range 3 { // what increases is activity
		post("/v1/metrics", map[string]any{"resourceMetrics": []any{map[string]any{"resource": resource, "scopeMetrics": []any{map[string]any{"scope": map[string]any{"name": "io.krakend." + hostile}, "metrics": []any{
			histogram("http.server.request.duration", point(attr("http.request.method", "GET"), attr("http.route", "/"+hostile), attr("http.response.status_code", "200"))),
			histogram("http.client.request.duration", point(attr("http.request.method", "GET"), attr("server.address", hostile), attr("http.response.status_code", "503"), attr("error.type", "503"))),
		}}}}}})
	}
	post("/v1/traces", map[string]any{"resourceSpans": []any{map[string]any{"resource": resource, "scopeSpans": []any{map[string]any{"spans": []any{span}}}}}})
}

// overhang is how many pixels stand out sideways once what draws itself anew at
// another width has done so.
const overhang = `new Promise(done => {
	const end = Date.now() + 5000;
	const look = () => {
		const over = document.documentElement.scrollWidth - innerWidth;
		if (over <= 0 || Date.now() > end) done(over); else setTimeout(look, 50);
	};
	look();
})`

// checkViews looks at every view in both themes at three widths: what axe says,
// what stands out sideways, what became markup, what the browser complains of.
func checkViews(p *tab, c *cluster, b *backends, ids map[string]string, rollout string) {
	at := func(parts ...string) string {
		for i := range parts {
			parts[i] = url.PathEscape(parts[i])
		}
		return "/" + strings.Join(parts, "/")
	}
	for _, view := range []struct {
		path string
		// what must have become visible, as an expression
		shows string
	}{
		{"/", `document.querySelectorAll('[data-testid^="chart-"] canvas').length === 3 && document.querySelectorAll('.exemplar').length > 0`},
		{"/nodes", `document.querySelectorAll('[data-testid^="node-row-"]').length === 4 && document.querySelector('.spark') !== null`},
		{at("nodes", ids["gw-1"]), `document.querySelector('[data-testid="ribbon"]') !== null && ` + shows("lease", "ends in 4")},
		{at("nodes", hostile), shows("unmanaged", "krakend.json")},
		{"/backends", `document.querySelectorAll('[data-testid^="backend-row-"]').length >= 4`},
		{at("backends", hostOf(b.failing.URL)), `document.querySelectorAll('[data-testid^="cell-row-"]').length === 3`},
		{at("backends", hostile), `document.querySelector('h1').textContent.includes('<img src=x')`},
		{"/matrix", shows("findings", "from all 3 nodes")},
		{"/config", `document.querySelector('[data-testid="group-row-default"]') !== null`},
		{"/config/default?rollout=2&w=1h", `document.querySelectorAll('[data-testid^="revision-row-"]').length === 2 && ` + shows("rollout-form", "Roll out revision 2")},
		{"/config/default/upload", `document.querySelector('[data-testid="config-text"]') !== null`},
		{"/config/default/diff?from=1&to=2", `document.querySelector('[data-testid="sides"]') !== null`},
		{at("rollouts", rollout), shows("rollout-state", "completed")},
		{"/traces?service=binnacle-gateway", `document.querySelectorAll('[data-testid^="trace-row-"]').length > 3`},
		{at("traces", strings.Repeat("ab", 16)), shows("span-details", "<img src=x")},
		{"/license", shows("seats", "3 of 9")},
		{"/tokens", `document.querySelectorAll('[data-testid^="token-row-"]').length >= 5`},
		{"/events", `document.querySelectorAll('[data-testid^="event-"]').length > 5`},
		{"/nodes/n-nobody", `document.querySelector('.gone h1').textContent.includes('There is no node')`},
		{"/login?error=token", ``},
	} {
		p.theme("light")
		p.do(chromedp.EmulateViewport(1280, 900))
		p.open(c.base + view.path)
		if view.shows == "" { // the login page has no script
			p.wait(view.path+" is drawn", `document.querySelector('h1') !== null`)
		} else {
			p.wait(view.path+" is drawn", settled+` && (`+view.shows+`)`)
		}
		p.accessible(view.path + ", light")
		for _, width := range []int64{1280, 390, 2560} {
			for _, theme := range []string{"light", "dark"} {
				p.theme(theme)
				p.do(chromedp.EmulateViewport(width, 900))
				if over := eval[int](p, overhang); over > 0 {
					wide := eval[string](p, `[...document.querySelectorAll('body *')].filter(e => e.getBoundingClientRect().right > innerWidth + 1).map(e => e.tagName + '.' + e.className).slice(0, 8).join(' ')`)
					p.t.Errorf("%s at %d px is %d px too wide: %s", view.path, width, over, wide)
				}
				if theme == "dark" && width == 390 {
					p.accessible(view.path + ", dark, on a phone")
				}
			}
		}
		if n := eval[int](p, `document.querySelectorAll('main img:not([src="/favicon.svg"]), main script, main iframe').length`); n > 0 || eval[bool](p, `window.owned === 1`) {
			p.t.Errorf("%s: %d elements came from names; want none", view.path, n)
		}
		if view.path == "/nodes/n-nobody" {
			p.forgive() // asks for what is not there, and is told so
		}
		p.calm(view.path)
	}
}

// restartUnderPage stops the manager under an open page: the last data stay,
// grey and with their age, and it is live again by itself.
func restartUnderPage(p *tab, c *cluster) {
	p.open(c.base + "/")
	p.wait("the overview says since when", settled+` && `+shows("sentence", " since "))
	sentence := eval[string](p, `document.querySelector('[data-testid="sentence"]').textContent`)
	c.manager.stop(p.t)
	p.wait("the page says that its data are old", shows("stale", "No longer live")+` && /data are \d+.s old/.test(document.querySelector('[data-testid="link"]').textContent)`)
	if !eval[bool](p, `document.querySelector('main').classList.contains('stale') && getComputedStyle(document.querySelector('main')).filter.includes('grayscale')`) {
		p.t.Error("the old data are not grey")
	}
	if got := eval[string](p, `document.querySelector('[data-testid="sentence"]').textContent`); got != sentence {
		p.t.Errorf("the last sentence is gone: got %q; want %q", got, sentence)
	}
	p.accessible("a page whose manager is away")
	c.runManager()
	p.waitFor(60*time.Second, "the page is live again", `document.querySelector('[data-testid="stale"]') === null && `+settled)
	p.forgive()
}

// sibling reads a file beside another one.
func sibling(t *testing.T, path, name string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(filepath.Dir(path), name))
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(b))
}
