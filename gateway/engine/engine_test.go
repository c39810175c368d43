package engine

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/binnacle-project/binnacle"
	"github.com/binnacle-project/binnacle/api"
	"github.com/binnacle-project/binnacle/gateway/engine/telemetry"
)

func testLog(t *testing.T) *slog.Logger {
	return slog.New(slog.NewTextHandler(t.Output(), nil))
}

// newBackend serves JSON documents by path, and notes the last request's
// headers.
func newBackend(t *testing.T, docs map[string]string) *httptest.Server {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		doc, ok := docs[r.URL.Path]
		if !ok {
			http.Error(w, "no such document", http.StatusNotFound)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		io.WriteString(w, doc)
	}))
	t.Cleanup(s.Close)
	return s
}

// conf builds a configuration around endpoints, given as JSON text.
func conf(endpoints ...string) []byte {
	return []byte(`{"version": 3, "endpoints": [` + strings.Join(endpoints, ",") + `]}`)
}

func ref(n int) api.RevisionRef {
	return api.RevisionRef{Number: binnacle.Revision(n), SHA256: fmt.Sprintf("%064d", n)}
}

func newEngine(t *testing.T, raw []byte) *Engine {
	t.Helper()
	return newEngineWith(t, raw, nil)
}

func newEngineWith(t *testing.T, raw []byte, tel *telemetry.Telemetry) *Engine {
	t.Helper()
	e := New(Options{Log: testLog(t), Telemetry: tel})
	if err := e.Apply(t.Context(), raw, ref(1)); err != nil {
		t.Fatalf("Apply: %v", err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		if err := e.Close(ctx); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	return e
}

// serve starts a server for e and returns it with its base URL.
func serve(t *testing.T, e *Engine, s ServerSettings) (*Server, string) {
	t.Helper()
	srv, err := e.NewServer(s)
	if err != nil {
		t.Fatalf("NewServer: %v", err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- srv.Serve(ln) }()
	t.Cleanup(func() {
		srv.Close()
		if err := <-done; err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
	return srv, "http://" + ln.Addr().String()
}

func get(t *testing.T, url string) (int, http.Header, string) {
	t.Helper()
	resp, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, resp.Header, string(b)
}

func sameJSON(t *testing.T, got, want string) {
	t.Helper()
	var g, w any
	if err := json.Unmarshal([]byte(got), &g); err != nil {
		t.Fatalf("answer %q is no JSON: %v", got, err)
	}
	if err := json.Unmarshal([]byte(want), &w); err != nil {
		t.Fatal(err)
	}
	if a, b := fmt.Sprint(g), fmt.Sprint(w); a != b {
		t.Errorf("got %s; want %s", a, b)
	}
}

func TestCoreFeatures(t *testing.T) {
	one := newBackend(t, map[string]string{
		"/users/7": `{"id": 7, "name": "Ada", "secret": "x", "address": {"city": "London", "zip": "1"}}`,
		"/list":    `[{"a": 1}, {"a": 2}]`,
	})
	two := newBackend(t, map[string]string{"/orders/7": `{"orders": [1, 2], "total": 3}`})
	slow := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		<-r.Context().Done()
	}))
	t.Cleanup(slow.Close)

	cases := []struct {
		name, endpoint, path string
		status               int
		body                 string
		completed            string
	}{
		{"plain", `{"endpoint": "/u/{id}", "backend": [{"host": ["` + one.URL + `"], "url_pattern": "/users/{id}"}]}`,
			"/u/7", 200, `{"id": 7, "name": "Ada", "secret": "x", "address": {"city": "London", "zip": "1"}}`, "true"},
		{"merge and group", `{"endpoint": "/u/{id}", "backend": [
			{"host": ["` + one.URL + `"], "url_pattern": "/users/{id}", "allow": ["name", "address.city"]},
			{"host": ["` + two.URL + `"], "url_pattern": "/orders/{id}", "group": "shop", "deny": ["total"]}]}`,
			"/u/7", 200, `{"name": "Ada", "address": {"city": "London"}, "shop": {"orders": [1, 2]}}`, "true"},
		{"mapping and target", `{"endpoint": "/u/{id}", "backend": [
			{"host": ["` + one.URL + `"], "url_pattern": "/users/{id}", "target": "address", "mapping": {"city": "town"}, "deny": ["zip"]}]}`,
			"/u/7", 200, `{"town": "London"}`, "true"},
		{"collection", `{"endpoint": "/l", "output_encoding": "json-collection", "backend": [
			{"host": ["` + one.URL + `"], "url_pattern": "/list", "is_collection": true}]}`,
			"/l", 200, `[{"a": 1}, {"a": 2}]`, "true"},
		{"one backend fails", `{"endpoint": "/u/{id}", "backend": [
			{"host": ["` + one.URL + `"], "url_pattern": "/missing/{id}"},
			{"host": ["` + two.URL + `"], "url_pattern": "/orders/{id}"}]}`,
			"/u/7", 200, `{"orders": [1, 2], "total": 3}`, "false"},
		{"time-out of one", `{"endpoint": "/u/{id}", "timeout": "200ms", "backend": [
			{"host": ["` + slow.URL + `"], "url_pattern": "/x"},
			{"host": ["` + two.URL + `"], "url_pattern": "/orders/{id}"}]}`,
			"/u/7", 200, `{"orders": [1, 2], "total": 3}`, "false"},
		{"time-out", `{"endpoint": "/u", "timeout": "100ms", "backend": [{"host": ["` + slow.URL + `"], "url_pattern": "/x"}]}`,
			"/u", 500, ``, "false"},
		{"error code passed on", `{"endpoint": "/u", "backend": [{"host": ["` + one.URL + `"], "url_pattern": "/x",
			"extra_config": {"backend/http": {"return_error_code": true}}}]}`,
			"/u", 404, ``, "false"},
		{"error details", `{"endpoint": "/u", "backend": [{"host": ["` + one.URL + `"], "url_pattern": "/x",
			"extra_config": {"backend/http": {"return_error_details": "one"}}}]}`,
			"/u", 200, `{"error_one": {"http_status_code": 404, "http_body": "no such document\n", "http_body_encoding": "text/plain; charset=utf-8"}}`, "false"},
		{"static answer", `{"endpoint": "/u", "backend": [{"host": ["` + one.URL + `"], "url_pattern": "/x"}],
			"extra_config": {"proxy": {"static": {"strategy": "errored", "data": {"sorry": true}}}}}`,
			"/u", 200, `{"sorry": true}`, "false"},
		{"sequential", `{"endpoint": "/s", "backend": [
			{"host": ["` + one.URL + `"], "url_pattern": "/users/7", "allow": ["id"]},
			{"host": ["` + two.URL + `"], "url_pattern": "/orders/{resp0_id}"}],
			"extra_config": {"proxy": {"sequential": true}}}`,
			"/s", 200, `{"id": 7, "orders": [1, 2], "total": 3}`, "true"},
		{"no route", `{"endpoint": "/u", "backend": [{"host": ["` + one.URL + `"], "url_pattern": "/x"}]}`,
			"/nowhere", 404, ``, "false"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			_, base := serve(t, newEngine(t, conf(c.endpoint)), ServerSettings{})
			status, header, body := get(t, base+c.path)
			if status != c.status {
				t.Fatalf("GET %s: status %d, body %q; want %d", c.path, status, body, c.status)
			}
			if c.body != "" {
				sameJSON(t, body, c.body)
			}
			if got := header.Get("X-Krakend-Completed"); got != c.completed {
				t.Errorf("GET %s: X-Krakend-Completed %q; want %q", c.path, got, c.completed)
			}
		})
	}
}

func TestNoOpPassesEverything(t *testing.T) {
	b := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		w.Header().Set("X-Backend", "yes")
		w.Header().Set("X-Saw", r.Method+" "+r.URL.RawQuery+" "+r.Header.Get("X-In")+" "+string(body))
		w.WriteHeader(http.StatusTeapot)
		io.WriteString(w, "tea")
	}))
	t.Cleanup(b.Close)
	_, base := serve(t, newEngine(t, conf(`{"endpoint": "/t", "method": "POST", "output_encoding": "no-op", "input_headers": ["X-In"], "input_query_strings": ["q"],
		"backend": [{"host": ["`+b.URL+`"], "url_pattern": "/t"}]}`)), ServerSettings{})
	req, _ := http.NewRequest("POST", base+"/t?q=1&other=2", strings.NewReader("milk"))
	req.Header.Set("X-In", "in")
	req.Header.Set("X-Not", "out")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, _ := io.ReadAll(resp.Body)
	if resp.StatusCode != http.StatusTeapot || string(body) != "tea" || resp.Header.Get("X-Backend") != "yes" {
		t.Errorf("got %d %q %v; want 418 tea with the backend's headers", resp.StatusCode, body, resp.Header)
	}
	if got, want := resp.Header.Get("X-Saw"), "POST q=1 in milk"; got != want {
		t.Errorf("backend saw %q; want %q", got, want)
	}
}

func TestSeveralHostsShareTheLoad(t *testing.T) {
	var hits [3]atomic.Int64
	var hosts []string
	for i := range hits {
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			hits[i].Add(1)
			io.WriteString(w, `{}`)
		}))
		t.Cleanup(s.Close)
		hosts = append(hosts, `"`+s.URL+`"`)
	}
	_, base := serve(t, newEngine(t, conf(`{"endpoint": "/u", "backend": [{"host": [`+strings.Join(hosts, ",")+`], "url_pattern": "/x"}]}`)), ServerSettings{})
	for range 90 {
		get(t, base+"/u")
	}
	for i := range hits {
		if n := hits[i].Load(); n < 10 {
			t.Errorf("host %d: %d of 90 requests; want a fair share", i, n)
		}
	}
}

func TestRouterBlock(t *testing.T) {
	b := newBackend(t, nil)
	raw := func(router string) []byte {
		return []byte(`{"version": 3, "extra_config": {"router": ` + router + `}, "endpoints": [
			{"endpoint": "/u/{id}", "backend": [{"host": ["` + b.URL + `"], "url_pattern": "/x"}]}]}`)
	}
	t.Run("return_error_msg is per generation", func(t *testing.T) {
		e := newEngine(t, raw(`{"return_error_msg": true}`))
		_, base := serve(t, e, ServerSettings{})
		if _, _, body := get(t, base+"/u/1"); !strings.Contains(body, "invalid status code 404") {
			t.Errorf("with return_error_msg: body %q; want the error", body)
		}
		if err := e.Apply(t.Context(), raw(`{}`), ref(2)); err != nil {
			t.Fatal(err)
		}
		if _, _, body := get(t, base+"/u/1"); body != "" {
			t.Errorf("after the swap: body %q; want none", body)
		}
	})
	t.Run("version header", func(t *testing.T) {
		e := newEngine(t, raw(`{}`))
		_, base := serve(t, e, ServerSettings{})
		if _, h, _ := get(t, base+"/u/1"); h.Get("X-Krakend") != "Version "+binnacle.Version {
			t.Errorf("X-KRAKEND: %q; want the version", h.Get("X-Krakend"))
		}
		if err := e.Apply(t.Context(), raw(`{"hide_version_header": true}`), ref(2)); err != nil {
			t.Fatal(err)
		}
		if _, h, _ := get(t, base+"/u/1"); h.Get("X-Krakend") != "Version undefined" {
			t.Errorf("X-KRAKEND, hidden: %q; want Version undefined", h.Get("X-Krakend"))
		}
	})
	t.Run("health", func(t *testing.T) {
		e := newEngine(t, raw(`{"health_path": "/healthy"}`))
		_, base := serve(t, e, ServerSettings{})
		if code, _, body := get(t, base+"/healthy"); code != 200 || !strings.Contains(body, `"status":"ok"`) {
			t.Errorf("health: %d %s; want 200 ok", code, body)
		}
		e.SetDraining(true)
		if code, _, _ := get(t, base+"/healthy"); code != 503 {
			t.Errorf("health while draining: %d; want 503", code)
		}
	})
	t.Run("encoded parameters", func(t *testing.T) {
		_, base := serve(t, newEngine(t, raw(`{}`)), ServerSettings{})
		if code, _, _ := get(t, base+"/u/..%252Fbar"); code != 400 {
			t.Errorf("encoded parameter: %d; want 400", code)
		}
	})
	t.Run("auto_options", func(t *testing.T) {
		_, base := serve(t, newEngine(t, raw(`{"auto_options": true}`)), ServerSettings{})
		req, _ := http.NewRequest("OPTIONS", base+"/u/1", nil)
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if got := resp.Header.Get("Allow"); got != "GET" {
			t.Errorf("Allow: %q; want GET", got)
		}
	})
}

func TestWithoutConfiguration(t *testing.T) {
	e := New(Options{})
	rec := httptest.NewRecorder()
	e.Handler().ServeHTTP(rec, httptest.NewRequest("GET", "/", nil))
	if rec.Code != http.StatusServiceUnavailable {
		t.Errorf("before the first Apply: %d; want 503", rec.Code)
	}
	if _, ok := e.Current(); ok {
		t.Error("Current: ok before the first Apply")
	}
	if err := e.Close(t.Context()); err != nil {
		t.Error(err)
	}
	if err := e.Apply(t.Context(), conf(), ref(1)); err != ErrClosed {
		t.Errorf("Apply after Close: %v; want ErrClosed", err)
	}
}

func TestARefusedConfigurationChangesNothing(t *testing.T) {
	b := newBackend(t, map[string]string{"/x": `{"ok": true}`})
	good := conf(`{"endpoint": "/u", "backend": [{"host": ["` + b.URL + `"], "url_pattern": "/x"}]}`)
	e := newEngine(t, good)
	_, base := serve(t, e, ServerSettings{})
	for name, raw := range badConfigs {
		if err := e.Apply(t.Context(), []byte(raw), ref(2)); err == nil {
			t.Errorf("%s: applied; want an error", name)
		}
		if code, _, _ := get(t, base+"/u"); code != 200 {
			t.Fatalf("%s: after the refusal: %d; want 200", name, code)
		}
		if cur, _ := e.Current(); cur.Revision != ref(1) {
			t.Fatalf("%s: current is %v; want revision 1", name, cur.Revision)
		}
	}
}

// TestSwapUnderLoad swaps while keep-alive and new connections send GETs and
// POSTs, some of which last: none may fail, and each answer must be of one
// generation.
func TestSwapUnderLoad(t *testing.T) {
	backend := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		if r.URL.Path == "/slow" {
			time.Sleep(100 * time.Millisecond)
		}
		io.WriteString(w, `{}`)
	}))
	t.Cleanup(backend.Close)
	raw := func(n int) []byte {
		one := `"backend": [{"host": ["` + backend.URL + `"], "url_pattern": "/%s", "group": "g` + fmt.Sprint(n) + `"}]}`
		return conf(`{"endpoint": "/fast", `+fmt.Sprintf(one, "fast"),
			`{"endpoint": "/slow", `+fmt.Sprintf(one, "slow"),
			`{"endpoint": "/post", "method": "POST", `+fmt.Sprintf(one, "fast"))
	}
	for _, with := range []bool{false, true} {
		t.Run(fmt.Sprintf("telemetry %v", with), func(t *testing.T) {
			var tel *telemetry.Telemetry
			if with {
				tel = newTelemetry(t, newSink(t), 0.5)
			}
			e := newEngineWith(t, raw(1), tel)
			srv, base := serve(t, e, ServerSettings{})

			ctx, stop := context.WithCancel(t.Context())
			var requests atomic.Int64
			var wg sync.WaitGroup
			keepAlive := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 200}}
			newConns := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
			for i := range 100 {
				client, method, path := keepAlive, "GET", "/fast"
				switch {
				case i%10 == 0:
					client = newConns
				case i%10 < 3:
					path = "/slow"
				case i%10 < 5:
					method, path = "POST", "/post"
				}
				wg.Go(func() {
					for ctx.Err() == nil {
						var body io.Reader
						if method == "POST" {
							body = strings.NewReader(`{"a": 1}`)
						}
						req, _ := http.NewRequest(method, base+path, body)
						resp, err := client.Do(req)
						if err != nil {
							t.Errorf("%s %s: %v", method, path, err)
							return
						}
						b, err := io.ReadAll(resp.Body)
						resp.Body.Close()
						if err != nil || resp.StatusCode != 200 || !strings.HasPrefix(string(b), `{"g`) {
							t.Errorf("%s %s: %d %q %v", method, path, resp.StatusCode, b, err)
							return
						}
						requests.Add(1)
						time.Sleep(5 * time.Millisecond) // a client's pace, not a wait
					}
				})
			}
			for n := 2; n <= 20; n++ {
				if err := e.Apply(t.Context(), raw(n), ref(n)); err != nil {
					t.Errorf("Apply %d: %v", n, err)
				}
				time.Sleep(20 * time.Millisecond) // lets requests start on each generation
			}
			stop()
			wg.Wait()
			keepAlive.CloseIdleConnections()
			t.Logf("%d requests over 19 swaps", requests.Load())
			waitFor(t, "retired generations to go", func() bool { return e.retired.Load() == 0 })
			dctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			defer cancel()
			if err := srv.Drain(dctx); err != nil {
				t.Errorf("Drain: %v", err)
			}
		})
	}
}

// waitFor polls until ok, and fails the test after ten seconds.
func waitFor(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("waiting for %s: not in ten seconds", what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func TestSwapsLeakNothing(t *testing.T) {
	b := newBackend(t, map[string]string{"/x": `{"ok": true}`})
	raw := conf(
		`{"endpoint": "/u/{id}", "concurrent_calls": 2, "backend": [{"host": ["`+b.URL+`"], "url_pattern": "/x"}]}`,
		`{"endpoint": "/m", "backend": [{"host": ["`+b.URL+`"], "url_pattern": "/x"}, {"host": ["`+b.URL+`"], "url_pattern": "/x", "group": "g"}]}`,
		`{"endpoint": "/sd", "backend": [{"sd": "dns", "host": ["_http._tcp.invalid."], "url_pattern": "/x"}]}`)
	e := newEngineWith(t, raw, newTelemetry(t, newSink(t), 1))
	_, base := serve(t, e, ServerSettings{})
	swap := func(n int) {
		for i := range n {
			if err := e.Apply(t.Context(), raw, ref(i+2)); err != nil {
				t.Fatal(err)
			}
			get(t, base+"/u/1")
			get(t, base+"/m")
		}
		waitFor(t, "retired generations to go", func() bool { return e.retired.Load() == 0 })
	}
	swap(5)
	before := runtime.NumGoroutine()
	swap(100)
	var after int
	waitFor(t, "goroutines to end", func() bool { after = runtime.NumGoroutine(); return after <= before+3 })
	t.Logf("goroutines: %d before, %d after 100 swaps", before, after)
}

func TestDrain(t *testing.T) {
	started, finish := make(chan struct{}), make(chan struct{})
	b := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/slow" {
			close(started)
			<-finish
		}
		io.WriteString(w, `{}`)
	}))
	t.Cleanup(b.Close)
	e := newEngine(t, conf(
		`{"endpoint": "/slow", "timeout": "10s", "backend": [{"host": ["`+b.URL+`"], "url_pattern": "/slow"}]}`,
		`{"endpoint": "/fast", "backend": [{"host": ["`+b.URL+`"], "url_pattern": "/fast"}]}`))
	srv, base := serve(t, e, ServerSettings{})

	idle := &http.Client{Transport: &http.Transport{}}
	resp, err := idle.Get(base + "/fast")
	if err != nil {
		t.Fatal(err)
	}
	io.Copy(io.Discard, resp.Body)
	resp.Body.Close()

	slow := make(chan int, 1)
	go func() {
		resp, err := http.Get(base + "/slow")
		if err != nil {
			slow <- 0
			return
		}
		resp.Body.Close()
		slow <- resp.StatusCode
	}()
	<-started
	drained := make(chan error, 1)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	go func() { drained <- srv.Drain(ctx) }()
	waitFor(t, "the drain to begin", e.Draining)

	// The idle connection is still served, and told to close.
	resp, err = idle.Get(base + "/fast")
	if err != nil {
		t.Fatalf("a request on an idle connection while draining: %v", err)
	}
	io.Copy(io.Discard, resp.Body)
	resp.Body.Close()
	if !resp.Close {
		t.Error("the answer while draining does not say Connection: close")
	}
	select {
	case err := <-drained:
		t.Fatalf("drained (%v) with a request in flight", err)
	default:
	}
	close(finish)
	if got := <-slow; got != 200 {
		t.Errorf("the request in flight: %d; want 200", got)
	}
	if err := <-drained; err != nil {
		t.Errorf("Drain: %v", err)
	}
	if n := srv.Connections(); n != 0 {
		t.Errorf("connections after Drain: %d; want 0", n)
	}
}

func TestH2C(t *testing.T) {
	b := newBackend(t, map[string]string{"/x": `{"ok": true}`})
	raw := []byte(`{"version": 3, "use_h2c": true, "endpoints": [{"endpoint": "/u", "backend": [{"host": ["` + b.URL + `"], "url_pattern": "/x"}]}]}`)
	s, err := SettingsOf(raw)
	if err != nil {
		t.Fatal(err)
	}
	_, base := serve(t, newEngine(t, raw), s)
	var p http.Protocols
	p.SetUnencryptedHTTP2(true)
	tr := &http.Transport{Protocols: &p}
	defer tr.CloseIdleConnections()
	resp, err := (&http.Client{Transport: tr}).Get(base + "/u")
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.ProtoMajor != 2 || resp.StatusCode != 200 {
		t.Errorf("got HTTP/%d %d; want HTTP/2 200", resp.ProtoMajor, resp.StatusCode)
	}
}

// TestCallsThatOutliveTheirRequest: concurrent and shadow calls run on after
// the answer; the race detector watches what they read.
func TestCallsThatOutliveTheirRequest(t *testing.T) {
	var shadows atomic.Int64
	b := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/shadow" {
			shadows.Add(1)
		}
		io.WriteString(w, `{"path": "`+r.URL.Path+`"}`)
	}))
	t.Cleanup(b.Close)
	e := newEngineWith(t, conf(`{"endpoint": "/u", "concurrent_calls": 3, "backend": [
		{"host": ["`+b.URL+`"], "url_pattern": "/real"},
		{"host": ["`+b.URL+`"], "url_pattern": "/shadow", "extra_config": {"proxy": {"shadow": true}}}]}`), newTelemetry(t, newSink(t), 1))
	_, base := serve(t, e, ServerSettings{})
	for range 50 {
		_, _, body := get(t, base+"/u")
		sameJSON(t, body, `{"path": "/real"}`)
	}
	waitFor(t, "shadow calls", func() bool { return shadows.Load() >= 50 })
}

func TestTLS(t *testing.T) {
	b := newBackend(t, map[string]string{"/x": `{"ok": true}`})
	certFile, keyFile, pool := selfSigned(t)
	raw := []byte(`{"version": 3, "tls": {"public_key": "` + certFile + `", "private_key": "` + keyFile + `"}, "endpoints": [
		{"endpoint": "/u", "backend": [{"host": ["` + b.URL + `"], "url_pattern": "/x"}]}]}`)
	s, err := SettingsOf(raw)
	if err != nil {
		t.Fatal(err)
	}
	srv, base := serve(t, newEngine(t, raw), s)
	tr := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}, ForceAttemptHTTP2: true}
	resp, err := (&http.Client{Transport: tr}).Get("https" + strings.TrimPrefix(base, "http") + "/u")
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != 200 || resp.ProtoMajor != 2 {
		t.Errorf("got HTTP/%d %d; want HTTP/2 200", resp.ProtoMajor, resp.StatusCode)
	}
	tr.CloseIdleConnections()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := srv.Drain(ctx); err != nil {
		t.Errorf("Drain: %v", err)
	}
	s.TLS.PublicKey = filepath.Join(t.TempDir(), "none")
	if _, err := New(Options{}).NewServer(s); err == nil {
		t.Error("NewServer with a missing certificate: no error")
	}
}

// selfSigned writes a certificate for 127.0.0.1 and its key.
func selfSigned(t *testing.T) (certFile, keyFile string, pool *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	certPEM := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	certFile, keyFile = filepath.Join(t.TempDir(), "cert.pem"), filepath.Join(t.TempDir(), "key.pem")
	for file, b := range map[string][]byte{certFile: certPEM, keyFile: pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER})} {
		if err := os.WriteFile(file, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	pool = x509.NewCertPool()
	pool.AppendCertsFromPEM(certPEM)
	return certFile, keyFile, pool
}

// TestRefusedAnswersKeepTheirConnection: Lura leaves the answers it refuses
// open, and loses a connection with each.
func TestRefusedAnswersKeepTheirConnection(t *testing.T) {
	var conns atomic.Int64
	b := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.Error(w, "no", http.StatusServiceUnavailable)
	}))
	b.Config.ConnState = func(_ net.Conn, s http.ConnState) {
		if s == http.StateNew {
			conns.Add(1)
		}
	}
	b.Start()
	t.Cleanup(b.Close)
	_, base := serve(t, newEngine(t, conf(`{"endpoint": "/u", "backend": [{"host": ["`+b.URL+`"], "url_pattern": "/x"}]}`)), ServerSettings{})
	for range 20 {
		get(t, base+"/u")
	}
	if n := conns.Load(); n > 3 {
		t.Errorf("20 failing calls took %d connections; want one or two", n)
	}
}
