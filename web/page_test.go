package web

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	cdplog "github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"

	"github.com/binnacle-project/binnacle"
	"github.com/binnacle-project/binnacle/api"
)

// The built page in a real browser, under the manager's content security
// policy, against an API of which the test decides every word.

// policy is the strictest one that the page must work with.
const policy = "default-src 'self'; object-src 'none'; base-uri 'none'; frame-ancestors 'none'; form-action 'self'; style-src 'self'"

// fakeAPI answers what the page reads. It is safe for concurrent use.
type fakeAPI struct {
	*httptest.Server

	mu       sync.Mutex // guards what follows
	overview func() api.Overview
	away     bool
	streams  int           // open ones
	gone     chan struct{} // closed to end the streams when away turns true
}

func startAPI(t *testing.T, overview func() api.Overview) *fakeAPI {
	t.Helper()
	f := &fakeAPI{overview: overview, gone: make(chan struct{})}
	mux := http.NewServeMux()
	mux.Handle("/", Handler())
	mux.HandleFunc("GET /v1/me", func(w http.ResponseWriter, _ *http.Request) {
		writeTestJSON(w, map[string]any{"name": "admin", "role": "admin", "rights": []string{}})
	})
	mux.HandleFunc("GET /v1/activity/stream", f.stream)
	mux.HandleFunc("GET /v1/events", func(w http.ResponseWriter, r *http.Request) {
		writeTestJSON(w, api.List[api.Event]{Items: []api.Event{{ID: 1, Time: time.Now().Add(-time.Minute), Kind: "node.joined", Node: "n-1", Actor: hostile, Message: hostile}}})
	})
	mux.HandleFunc("GET /v1/events/stream", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
	})
	mux.HandleFunc("GET /prometheus/api/v1/query_range", queryRange)
	mux.HandleFunc("GET /prometheus/api/v1/query", func(w http.ResponseWriter, _ *http.Request) {
		writeTestJSON(w, map[string]any{"status": "success", "data": map[string]any{"resultType": "vector", "result": []any{}}})
	})
	mux.HandleFunc("GET /prometheus/api/v1/query_exemplars", func(w http.ResponseWriter, _ *http.Request) {
		at := float64(time.Now().Add(-time.Minute).UnixMilli()) / 1000
		writeTestJSON(w, map[string]any{"status": "success", "data": []any{map[string]any{
			"seriesLabels": map[string]string{"http_request_method": "GET", "http_route": hostile},
			"exemplars":    []any{map[string]any{"labels": map[string]string{"trace_id": "abcd"}, "value": "0.5", "timestamp": at}},
		}}})
	})
	mux.HandleFunc("GET /v1/activity", func(w http.ResponseWriter, r *http.Request) {
		writeTestJSON(w, api.ActivityList{By: api.ActivityBy(r.URL.Query().Get("by")), Window: 60, Time: time.Now(), Rows: []api.ActivityRow{}})
	})
	mux.HandleFunc("GET /v1/backends/{id}", func(w http.ResponseWriter, r *http.Request) {
		for _, b := range overview().Backends {
			if string(b.ID) == r.PathValue("id") {
				writeTestJSON(w, b)
				return
			}
		}
		http.NotFound(w, r)
	})
	f.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		f.mu.Lock()
		away := f.away
		f.mu.Unlock()
		if away && (strings.HasPrefix(r.URL.Path, "/v1/") || strings.HasPrefix(r.URL.Path, "/prometheus/")) {
			http.Error(w, `{"title":"Service Unavailable","status":503,"detail":"the manager is stopping"}`, http.StatusServiceUnavailable)
			return
		}
		w.Header().Set("Content-Security-Policy", policy)
		mux.ServeHTTP(w, r)
	}))
	t.Cleanup(func() {
		f.setAway(true)
		f.CloseClientConnections()
		f.Close()
	})
	return f
}

func writeTestJSON(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v)
}

// setAway makes the API end its streams and refuse calls, or answer again.
func (f *fakeAPI) setAway(away bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if away && !f.away {
		close(f.gone)
	} else if !away && f.away {
		f.gone = make(chan struct{})
	}
	f.away = away
}

func (f *fakeAPI) stream(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	gone := f.gone
	f.streams++
	f.mu.Unlock()
	defer func() {
		f.mu.Lock()
		f.streams--
		f.mu.Unlock()
	}()
	w.Header().Set("Content-Type", "text/event-stream")
	tick := time.NewTicker(500 * time.Millisecond)
	defer tick.Stop()
	for {
		o := f.overview()
		o.Time = time.Now()
		b, err := json.Marshal(o)
		if err != nil {
			panic(err)
		}
		if _, err := fmt.Fprintf(w, "event: overview\ndata: %s\n\n", b); err != nil {
			return
		}
		if err := http.NewResponseController(w).Flush(); err != nil {
			return
		}
		select {
		case <-tick.C:
		case <-gone:
			return
		case <-r.Context().Done():
			return
		}
	}
}

// queryRange answers each query with one flat series.
func queryRange(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	number := func(key string) float64 {
		v, err := strconv.ParseFloat(q.Get(key), 64)
		if err != nil {
			http.Error(w, "no "+key, http.StatusBadRequest)
		}
		return v
	}
	start, end, step := number("start"), number("end"), number("step")
	metric, value := map[string]string{"outcome": "ok"}, "12.5"
	if strings.Contains(q.Get("query"), "histogram_quantile") {
		metric, value = map[string]string{"quantile": "p99"}, "0.25"
	}
	var values [][2]any
	for t := start; t <= end; t += step {
		values = append(values, [2]any{t, value})
	}
	writeTestJSON(w, map[string]any{"status": "success", "data": map[string]any{"resultType": "matrix", "result": []any{map[string]any{"metric": metric, "values": values}}}})
}

// hostile is a name that must stay text.
const hostile = `<img src=x onerror="document.title='owned'"><script>document.title='owned'</script>"'&`

func activityOf(requests, errors, total uint64) *api.Activity {
	ratio := float64(errors) / float64(requests)
	return &api.Activity{
		Window: 60, Requests: requests, RequestsPerSecond: float64(requests) / 60, Errors: errors, ErrorRatio: &ratio,
		Latency: &api.Latency{P50: 0.004, P95: 0.02, P99: 0.11}, RequestsTotal: total, LastSeen: time.Now(),
	}
}

func fleet() api.Overview {
	nodes := []api.Node{
		{ID: "n-1", Name: hostile, Group: hostile, Managed: true, State: api.Alive, Conditions: []api.Condition{}, Activity: activityOf(600, 6, 1234567)},
		{ID: "n-2", Name: "gw-2", Group: "default", Managed: true, State: api.Down, StateCause: "no poll for 5 min", StateSince: time.Now().Add(-time.Hour)},
	}
	return api.Overview{
		Cluster: api.Cluster{
			ID: "c-1", Version: binnacle.Version, Nodes: map[api.NodeState]int{api.Alive: 1, api.Down: 1},
			Activity: activityOf(600, 6, 1234567), License: api.LicenseSummary{Plan: "community", State: "valid", SeatsUsed: 2}, Rollouts: []api.Rollout{},
		},
		Nodes:    nodes,
		Backends: []api.Backend{{ID: "billing.internal:8080", Address: "billing.internal", Port: 8080, Activity: activityOf(600, 321, 4321), Nodes: []api.ActivityRow{{Node: "n-1", Activity: activityOf(600, 321, 4321)}}}},
		Recent:   activityOf(20, 1, 0),
	}
}

// tab is one page of a browser; what the browser complains about is collected.
type tab struct {
	t   *testing.T
	ctx context.Context

	mu         sync.Mutex // guards complaints
	complaints []string
}

// openBrowser starts headless Chromium, or skips the test where there is none.
func openBrowser(t *testing.T) context.Context {
	t.Helper()
	if _, built := Assets(); !built {
		t.Skip("the page is not built: run `make web`")
	}
	path, err := exec.LookPath("chromium")
	if err != nil {
		t.Skip("chromium is not installed: `make test` installs it where it can")
	}
	opts := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(path), chromedp.NoSandbox,
		chromedp.Flag("disable-gpu", true), chromedp.Flag("disable-quic", true), chromedp.Flag("disable-component-update", true))
	alloc, cancel := chromedp.NewExecAllocator(t.Context(), opts...)
	t.Cleanup(cancel)
	ctx, cancel := chromedp.NewContext(alloc)
	t.Cleanup(cancel)
	if err := chromedp.Do(ctx); err != nil {
		t.Fatalf("start chromium: %v", err)
	}
	return ctx
}

// tabLife bounds what a test does in one tab.
const tabLife = 90 * time.Second

func open(t *testing.T, browser context.Context, url string, width, height int64) *tab {
	t.Helper()
	ctx, cancel := chromedp.NewContext(browser)
	t.Cleanup(cancel)
	if err := chromedp.Do(ctx); err != nil { // a tab, before its time is bounded
		t.Fatal(err)
	}
	ctx, cancel = context.WithTimeout(ctx, tabLife)
	t.Cleanup(cancel)
	p := &tab{t: t, ctx: ctx}
	err := chromedp.Listen(ctx, func(ev any) {
		p.mu.Lock()
		defer p.mu.Unlock()
		switch e := ev.(type) {
		case *runtime.EventExceptionThrown:
			p.complaints = append(p.complaints, e.ExceptionDetails.Text)
		case *cdplog.EventEntryAdded:
			if e.Entry.Level == cdplog.EntryLevelError {
				p.complaints = append(p.complaints, e.Entry.Text+" "+e.Entry.URL)
			}
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := chromedp.Do(ctx, chromedp.EmulateViewport(width, height), chromedp.Navigate(url)); err != nil {
		t.Fatalf("open %s: %v", url, err)
	}
	return p
}

// wait waits until a JavaScript expression is true, over navigations too.
func (p *tab) wait(what, expression string) {
	p.t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for {
		ok, err := chromedp.Run(p.ctx, chromedp.Evaluate[bool](expression))
		if err == nil && ok {
			return
		}
		if time.Now().After(deadline) || p.ctx.Err() != nil {
			text, _ := chromedp.Run(p.ctx, chromedp.Evaluate[string]("location.href + '\\n' + document.body.innerText"))
			p.t.Fatalf("waiting until %s: %v; the page says:\n%s", what, err, text)
		}
		time.Sleep(30 * time.Millisecond)
	}
}

func eval[T any](p *tab, expression string) T {
	p.t.Helper()
	v, err := chromedp.Run(p.ctx, chromedp.Evaluate[T](expression))
	if err != nil {
		p.t.Fatalf("%s: %v", expression, err)
	}
	return v
}

// calm fails the test when the browser complained of anything: a script's
// error, a file that did not come, something that the policy refused.
func (p *tab) calm() {
	p.t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.complaints) > 0 {
		p.t.Errorf("the browser complained:\n%s", strings.Join(p.complaints, "\n"))
	}
}

const drawn = `document.querySelectorAll('[data-testid^="chart-"] canvas').length === 3`

func TestOverviewInBrowser(t *testing.T) {
	browser := openBrowser(t)
	f := startAPI(t, fleet)
	p := open(t, browser, f.URL, 1280, 900)
	p.wait("three charts are drawn", drawn)

	value := func(row, col string) string {
		return eval[string](p, fmt.Sprintf(`document.querySelector('[data-testid="%s"] [data-col="%s"]').dataset.value`, row, col))
	}
	for _, tt := range []struct{ what, got, want string }{
		{"requests of the node", value("node-row-n-1", "requests_total"), "1234567"},
		{"errors of the backend", value("backend-row-billing.internal:8080", "errors"), "321"},
		{"requests of the cluster", eval[string](p, `document.querySelector('[data-testid="cluster-requests-total"]').dataset.value`), "1234567"},
		{"the sentence", eval[string](p, `document.querySelector('[data-testid="sentence"]').textContent.split('.')[0]`), "1 of 2 nodes serve"},
	} {
		if tt.got != tt.want {
			t.Errorf("%s: got %s; want %s", tt.what, tt.got, tt.want)
		}
	}

	t.Run("hostile names stay text", func(t *testing.T) {
		if n := eval[int](p, `document.querySelectorAll('main img, main script').length`); n != 0 {
			t.Errorf("%d elements came from names; want none", n)
		}
		if title := eval[string](p, `document.title`); title != "Binnacle" {
			t.Errorf("title %q; want Binnacle", title)
		}
		if got := eval[string](p, `document.querySelector('[data-testid="node-row-n-1"] [data-col="name"]').textContent`); got != hostile {
			t.Errorf("the name reads %q; want %q", got, hostile)
		}
	})

	t.Run("the cursor reads all charts, a drag zooms, a double click returns", func(t *testing.T) {
		box := eval[[]float64](p, `(() => { const r = document.querySelector('[data-testid="chart-rps"] .u-over').getBoundingClientRect(); return [r.left, r.top, r.width, r.height]; })()`)
		x, y := box[0]+box[2]/2, box[1]+box[3]/2
		if err := chromedp.Do(p.ctx, chromedp.MouseEvent(chromedp.MouseMoved, x, y)); err != nil {
			t.Fatal(err)
		}
		p.wait("the time under the cursor stands there", `document.querySelector('.cursor-time').textContent !== ''`)
		if err := chromedp.Do(p.ctx, chromedp.DragAndDropXY(x, y, x+box[2]/4, y)); err != nil {
			t.Fatal(err)
		}
		p.wait("the zoom is in the URL", `/[?&]from=\d+&to=\d+/.test(location.search)`)
		if err := chromedp.Do(p.ctx, chromedp.MouseClickXY(x, y, chromedp.ClickCount(1)), chromedp.MouseClickXY(x, y, chromedp.ClickCount(2))); err != nil {
			t.Fatal(err)
		}
		p.wait("the zoom is gone", `location.search === ''`)
	})

	t.Run("an exemplar leads to its trace", func(t *testing.T) {
		p.wait("a point lies over the latency chart", `document.querySelector('.exemplar') !== null`)
		href := eval[string](p, `(e => e.getAttribute('href') + ' ' + e.getAttribute('aria-label').slice(0, 20))(document.querySelector('.exemplar'))`)
		if want := "/traces/abcd GET <img src=x onerr"; href != want {
			t.Errorf("got %q; want %q", href, want)
		}
	})

	t.Run("the window can be held still, and let go", func(t *testing.T) {
		toggle := `document.querySelector('[data-testid="live-toggle"]')`
		eval[chromedp.Void](p, toggle+`.click()`)
		p.wait("the held window is in the URL", `/[?&]from=\d+&to=\d+/.test(location.search) && `+toggle+`.getAttribute('aria-pressed') === 'false'`)
		eval[chromedp.Void](p, toggle+`.click()`)
		p.wait("it is live again", `location.search === '' && `+toggle+`.getAttribute('aria-pressed') === 'true'`)
	})

	t.Run("links move without loading, and each view survives a reload", func(t *testing.T) {
		eval[chromedp.Void](p, `window.stayed = true; document.querySelector('[data-testid="node-row-n-2"] [data-col="group"]').click()`)
		p.wait("the node's page is there", `location.pathname === '/nodes/n-2' && document.querySelector('h1').textContent === 'gw-2'`)
		if !eval[bool](p, `window.stayed === true`) {
			t.Error("the page was loaded again")
		}
		for _, path := range []string{"/nodes/n-2", "/nodes", "/backends", "/backends/billing.internal%3A8080", "/events"} {
			if err := chromedp.Do(p.ctx, chromedp.Navigate(f.URL+path)); err != nil {
				t.Fatal(err)
			}
			p.wait(path+" is drawn", `document.querySelector('main h1') !== null && document.querySelector('[data-testid="link"]').textContent === 'live'`)
		}
	})
	p.calm()
}

// TestKeyboard goes through a view without a mouse.
func TestKeyboard(t *testing.T) {
	browser := openBrowser(t)
	f := startAPI(t, fleet)
	p := open(t, browser, f.URL+"/nodes", 1280, 900)
	p.wait("rows are drawn", `document.querySelectorAll('[data-testid^="node-row-"]').length === 2`)
	press := func(keys string) {
		t.Helper()
		if err := chromedp.Do(p.ctx, chromedp.KeyEvent(keys)); err != nil {
			t.Fatal(err)
		}
	}
	press(kb.Tab)
	p.wait("the first stop skips the menu", `document.activeElement.className === 'skip' && document.activeElement.getBoundingClientRect().left >= 0`)
	press(kb.Enter)
	press(kb.Tab)
	p.wait("what comes next is the view's own", `document.activeElement.matches('main input[type="search"]')`)
	press("gw")
	p.wait("typing filters, in the URL too", `location.search === '?q=gw' && document.querySelectorAll('[data-testid^="node-row-"]').length === 1`)
	press(kb.Tab)
	press(kb.Enter)
	p.wait("a header sorts", `document.activeElement.closest('th')?.getAttribute('aria-sort') === 'ascending'`)
	for range 20 {
		if eval[bool](p, `document.activeElement.matches('td a')`) {
			break
		}
		press(kb.Tab)
	}
	if outline := eval[string](p, `getComputedStyle(document.activeElement).outlineStyle`); outline == "none" {
		t.Error("nothing shows where the focus is")
	}
	press(kb.Enter)
	p.wait("a row opens, and the focus is in the new view", `location.pathname === '/nodes/n-2' && document.activeElement.id === 'main'`)
	p.calm()
}

// TestLeavingLetsGo holds the page to closing its stream when it is left. The
// browser keeps a left page for the way back, and a few kept streams would use
// up all connections that it opens to one host.
func TestLeavingLetsGo(t *testing.T) {
	browser := openBrowser(t)
	f := startAPI(t, fleet)
	p := open(t, browser, f.URL, 1280, 900)
	const live = `document.querySelector('[data-testid="link"]').textContent === 'live'`
	p.wait("the page is live", live)
	if err := chromedp.Do(p.ctx, chromedp.Navigate(f.URL+"/login")); err != nil {
		t.Fatal(err)
	}
	deadline := time.Now().Add(10 * time.Second)
	for {
		f.mu.Lock()
		n := f.streams
		f.mu.Unlock()
		if n == 0 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d streams are open 10 s after the page was left; want none", n)
		}
		time.Sleep(20 * time.Millisecond)
	}
	eval[chromedp.Void](p, `history.back()`) // may bring the kept page back, which loads nothing
	p.wait("the page is live again on the way back", live)
}

// TestManagerAway holds the page to its words while the manager restarts: last
// data greyed with their age, then live again by itself.
func TestManagerAway(t *testing.T) {
	browser := openBrowser(t)
	f := startAPI(t, fleet)
	p := open(t, browser, f.URL, 1280, 900)
	p.wait("the page is drawn", drawn)
	f.setAway(true)
	p.wait("the page says that its data are old", `document.querySelector('[data-testid="stale"]') !== null`)
	if got := eval[string](p, `document.querySelector('[data-testid="stale"]').textContent`); !strings.Contains(got, "manager is stopping") {
		t.Errorf("the note says %q; want what the manager answered", got)
	}
	if !eval[bool](p, drawn+` && document.querySelector('[data-testid="node-row-n-1"]') !== null`) {
		t.Error("the last data are gone; want them greyed")
	}
	f.setAway(false)
	p.wait("the page is live again", `document.querySelector('[data-testid="stale"]') === null && document.querySelector('[data-testid="link"]').textContent === 'live'`)
}

func TestEmptyInBrowser(t *testing.T) {
	browser := openBrowser(t)
	f := startAPI(t, func() api.Overview {
		return api.Overview{Cluster: api.Cluster{Managers: []api.Manager{{NodeAddress: "0.0.0.0:19899", Leader: true}}}}
	})
	p := open(t, browser, f.URL, 1280, 900)
	p.wait("the block to paste is there", `document.querySelector('[data-testid="join-block"]') !== null`)
	var block struct {
		ExtraConfig map[string]map[string]string `json:"extra_config"`
	}
	text := "{" + eval[string](p, `document.querySelector('[data-testid="join-block"]').textContent`) + "}"
	if err := json.Unmarshal([]byte(text), &block); err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	if got := block.ExtraConfig[binnacle.ConfigBlock]["manager"]; got != "127.0.0.1:19899" {
		t.Errorf("manager %q; want the host that the browser reached and the port of the node API", got)
	}
	p.calm()
}

// TestWidths opens every view at three widths: nothing may stand out sideways.
func TestWidths(t *testing.T) {
	browser := openBrowser(t)
	f := startAPI(t, fleet)
	for _, width := range []int64{390, 1280, 1920} {
		p := open(t, browser, "about:blank", width, 900)
		for _, path := range []string{"/", "/nodes", "/nodes/n-1", "/backends", "/backends/billing.internal%3A8080", "/events", "/login?error=token"} {
			if err := chromedp.Do(p.ctx, chromedp.Navigate(f.URL+path)); err != nil {
				t.Fatal(err)
			}
			p.wait(path+" is drawn", `document.querySelector('main h1') !== null`)
			if over := eval[int](p, `document.documentElement.scrollWidth - innerWidth`); over > 0 {
				wide := eval[string](p, `[...document.querySelectorAll('body *')].filter(e => e.getBoundingClientRect().right > innerWidth + 1).map(e => e.tagName + '.' + e.className).slice(0, 12).join(' ')`)
				t.Errorf("%s at %d px is %d px too wide: %s", path, width, over, wide)
			}
		}
		p.calm()
	}
}

// TestManyNodes draws only the rows in view, and scrolling finds the last.
func TestManyNodes(t *testing.T) {
	browser := openBrowser(t)
	o := fleet()
	for i := range 1000 {
		id := fmt.Sprintf("many-%04d", i)
		o.Nodes = append(o.Nodes, api.Node{ID: binnacle.NodeID(id), Name: id, Group: "default", Managed: true, State: api.Alive, Activity: activityOf(600, 0, uint64(i))})
	}
	f := startAPI(t, func() api.Overview { return o })
	for _, width := range []int64{1280, 390, 2560} { // rows, cards, high rows
		p := open(t, browser, f.URL+"/nodes", width, 900)
		p.wait("rows are drawn", `document.querySelectorAll('[data-testid^="node-row-"]').length > 10`)
		p.wait("only those in view are", `document.querySelectorAll('[data-testid^="node-row-"]').length < 80`)
		for _, to := range []string{"s.scrollHeight / 2", "s.scrollHeight"} {
			eval[chromedp.Void](p, `(() => { const s = document.querySelector('.scroll.many'); s.scrollTop = `+to+`; })()`)
			p.wait("the view is full of rows", `(() => {
				const s = document.querySelector('.scroll.many').getBoundingClientRect();
				return [0.3, 0.6, 0.9].every(part => document.elementFromPoint(s.left + 40, s.top + part * s.height)?.closest('tr[data-testid]'));
			})()`)
		}
		p.wait("the last row is drawn", `document.querySelector('[data-testid="node-row-many-0999"]') !== null`)
		p.calm()
	}
}
