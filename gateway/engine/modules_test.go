package engine

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/VictoriaMetrics/metrics"
	"github.com/golang-jwt/jwt/v5"
)

// withModules is a configuration that has every module which keeps something.
func withModules(t *testing.T, backend string, revokerPort int) []byte {
	return []byte(strings.NewReplacer("http://backend", backend, "${DIR}", absolute(t, "testdata"), "${PORT}", fmt.Sprint(revokerPort), "${GELF}", gelfReceiver(t)).Replace(`{
  "version": 3,
  "extra_config": {
    "security/cors": {"allow_origins": ["*"], "debug": true},
    "security/bot-detector": {"deny": ["bad"], "cache_size": 1000},
    "security/http": {"frame_deny": true},
    "auth/revoker": {"N": 1000, "P": 0.001, "hash_name": "optimal", "ttl": 60, "port": ${PORT}, "token_keys": ["jti"]},
    "telemetry/logging": {"level": "ERROR"}, "telemetry/gelf": {"address": "${GELF}"}
  },
  "endpoints": [{
    "endpoint": "/a",
    "extra_config": {
      "auth/validator": {"alg": "HS256", "jwk_local_path": "${DIR}/keys.json", "disable_jwk_security": true},
      "qos/ratelimit/router": {"max_rate": 1000000, "client_max_rate": 1000000, "strategy": "ip"},
      "modifier/lua-endpoint": {"pre": "local c = ctx.load(); c:headers('X-One', 'lua')"},
      "modifier/lua-proxy": {"post": "response.load():data():set('lua', true)"}
    },
    "backend": [{"host": ["http://backend"], "url_pattern": "/private", "extra_config": {
      "auth/client-credentials": {"client_id": "gateway", "client_secret": "s3cret", "token_url": "http://backend/token", "scopes": "read,write", "endpoint_params": {"audience": ["corpus"]}},
      "qos/http-cache": {"max_size": 100000, "max_items": 100},
      "qos/ratelimit/proxy": {"max_rate": 1000000, "capacity": 1000000},
      "qos/circuit-breaker": {"interval": 60, "timeout": 10, "max_errors": 1},
      "modifier/lua-backend": {"pre": "request.load():headers('X-Two', 'lua')"}
    }}]
  }]
}`))
}

// ask sends one request with a token.
func ask(t *testing.T, url string, claims map[string]any) (int, string) {
	t.Helper()
	req, err := http.NewRequest(http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	setToken(t, req, claims)
	resp, err := http.DefaultClient.Do(req)
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

func heapBytes() int64 {
	runtime.GC()
	runtime.GC() // what finalizers held
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

func TestSwapsWithModulesLeakNothing(t *testing.T) {
	b := newCorpusBackend(t)
	raw := withModules(t, b.URL, freePort(t))
	e := newEngine(t, raw) // the sink of a telemetry would keep what it gets
	_, base := serve(t, e, ServerSettings{})
	swap := func(n int) {
		for i := range n {
			if err := e.Apply(t.Context(), raw, ref(i+2)); err != nil {
				t.Fatal(err)
			}
			if status, body := ask(t, base+"/a", map[string]any{"sub": "ada"}); status != http.StatusOK {
				t.Fatalf("after swap %d: status %d with %s", i, status, body)
			}
		}
		waitFor(t, "retired generations to go", func() bool { return e.retired.Load() == 0 })
	}
	swap(10)
	before, heap := runtime.NumGoroutine(), heapBytes()
	swap(100)
	var after int
	waitFor(t, "goroutines to end", func() bool { after = runtime.NumGoroutine(); return after <= before+3 })
	grown := heapBytes() - heap
	t.Logf("100 swaps: goroutines %d to %d, heap %+d KiB", before, after, grown>>10)
	if grown > 2<<20 {
		t.Errorf("the heap grew by %d KiB over 100 swaps", grown>>10)
	}
}

// What is revoked stays revoked over swaps, also to another configuration, and
// the port goes with the last generation that has it.
func TestRevocationsSurviveSwaps(t *testing.T) {
	b := newCorpusBackend(t)
	port := freePort(t)
	raw := withModules(t, b.URL, port)
	e := newEngine(t, raw)
	_, base := serve(t, e, ServerSettings{})
	revoke(t, port, "jti-one")
	more := bytes.Replace(raw, []byte(`"frame_deny": true`), []byte(`"frame_deny": false`), 1)
	for i, next := range [][]byte{raw, more} {
		if status, _ := ask(t, base+"/a", map[string]any{"jti": "one"}); status != http.StatusUnauthorized {
			t.Errorf("swap %d: the revoked token gets %d; want 401", i, status)
		}
		if status, _ := ask(t, base+"/a", map[string]any{"jti": "two"}); status != http.StatusOK {
			t.Errorf("swap %d: another token gets %d; want 200", i, status)
		}
		if err := e.Apply(t.Context(), next, ref(i+2)); err != nil {
			t.Fatal(err)
		}
	}
	if status, _ := ask(t, base+"/a", map[string]any{"jti": "one"}); status != http.StatusUnauthorized {
		t.Errorf("after all: the revoked token gets %d; want 401", status)
	}
	if err := e.Apply(t.Context(), conf(), ref(9)); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "the port to be closed", func() bool {
		c, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err == nil {
			c.Close()
		}
		return err != nil
	})
}

// The port of a revoker may still be another's; it is taken when it is free.
func TestRevokerWaitsForItsPort(t *testing.T) {
	ln, err := net.Listen("tcp", ":0")
	if err != nil {
		t.Fatal(err)
	}
	port := ln.Addr().(*net.TCPAddr).Port
	newEngine(t, withModules(t, newCorpusBackend(t).URL, port))
	ln.Close()
	revoke(t, port, "jti-x")
}

// A configuration that is refused must not move the log of the one that runs.
func TestLogOfTheConfiguration(t *testing.T) {
	sock, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer sock.Close()
	logged := func(block string) []byte {
		return []byte(`{"version": 3, "extra_config": {"telemetry/logging": ` + block + `, "telemetry/gelf": {"address": "` + sock.LocalAddr().String() + `"}},
			"endpoints": [{"endpoint": "/a", "backend": [{"host": ["http://127.0.0.1:9999"], "url_pattern": "/"}]}]}`)
	}
	e := newEngine(t, logged(`{"level": "ERROR", "prefix": "[ONE]"}`))
	if err := e.Apply(t.Context(), logged(`{"level": "LOUD"}`), ref(2)); err == nil {
		t.Fatal("a level that does not exist was applied")
	}
	// Reads messages until one has each of the texts.
	expect := func(texts ...string) {
		t.Helper()
		sock.SetReadDeadline(time.Now().Add(5 * time.Second))
		buf := make([]byte, 64<<10)
		for len(texts) > 0 {
			n, _, err := sock.ReadFrom(buf)
			if err != nil {
				t.Fatalf("no message with %q came: %v", texts, err)
			}
			msg := gelfText(t, buf[:n])
			left := texts[:0]
			for _, text := range texts {
				if !strings.Contains(msg, text) {
					left = append(left, text)
				}
			}
			texts = left
		}
	}
	one := func() {
		w := httptest.NewRecorder()
		e.Handler().ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/a", nil))
		if w.Code != http.StatusInternalServerError {
			t.Fatalf("status %d; want 500 from a backend that is away", w.Code)
		}
	}
	one()
	expect("connection refused", `GET      "/a"`) // what Lura says, and the access log
	if err := e.Apply(t.Context(), logged(`{"level": "ERROR", "format": "custom", "custom_format": "TWO %{message}"}`), ref(3)); err != nil {
		t.Fatal(err)
	}
	one()
	expect("connection refused")
}

// gelfText returns the texts of a GELF message.
func gelfText(t *testing.T, packet []byte) string {
	t.Helper()
	z, err := gzip.NewReader(bytes.NewReader(packet))
	if err != nil {
		t.Fatalf("GELF: %v", err)
	}
	raw, err := io.ReadAll(z)
	if err != nil {
		t.Fatalf("GELF: %v", err)
	}
	var m map[string]any
	if err := json.Unmarshal(raw, &m); err != nil {
		t.Fatalf("GELF %q: %v", raw, err)
	}
	return fmt.Sprint(m["short_message"], m["full_message"])
}

// A log that nobody reads loses lines, counted, and slows no request.
func TestLogQueueIsBounded(t *testing.T) {
	set := metrics.NewSet()
	s := &logSink{log: discard, queue: make(chan logLine, 2), dropped: set.NewCounter("dropped")}
	l := &luraLog{log: discard}
	l.sink.Store(s)
	for range 5 {
		l.Warning("x")
	}
	if got := s.dropped.Get(); got != 3 {
		t.Errorf("dropped %d of 5 lines with room for 2; want 3", got)
	}
}

// An endpoint whose signing key cannot be fetched says so, the others serve,
// and it signs once the key is there.
func TestSignerWaitsForItsKey(t *testing.T) {
	var up atomic.Bool
	keys, err := os.ReadFile("testdata/keys.json")
	if err != nil {
		t.Fatal(err)
	}
	provider := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !up.Load() {
			http.Error(w, "not yet", http.StatusServiceUnavailable)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		w.Write(keys)
	}))
	t.Cleanup(provider.Close)
	b := newCorpusBackend(t)
	e := newEngine(t, conf(`{"endpoint": "/login", "extra_config": {"auth/signer": {"alg": "HS256", "kid": "corpus", "keys_to_sign": ["access"], "jwk_url": "`+provider.URL+`", "disable_jwk_security": true}},
		"backend": [{"host": ["`+b.URL+`"], "url_pattern": "/tokens"}]}`,
		`{"endpoint": "/a", "backend": [{"host": ["`+b.URL+`"], "url_pattern": "/users/7"}]}`))
	_, base := serve(t, e, ServerSettings{})
	if status, header, _ := get(t, base+"/login"); status != http.StatusServiceUnavailable || header.Get("Retry-After") == "" {
		t.Errorf("without the key: status %d; want 503 with Retry-After", status)
	}
	if status, _, _ := get(t, base+"/a"); status != http.StatusOK {
		t.Errorf("the other endpoint: status %d; want 200", status)
	}
	up.Store(true)
	var body string
	waitFor(t, "the key", func() bool {
		var status int
		status, _, body = get(t, base+"/login")
		return status == http.StatusOK
	})
	var answer struct{ Access string }
	if err := json.Unmarshal([]byte(body), &answer); err != nil {
		t.Fatal(err)
	}
	if _, err := jwt.Parse(answer.Access, func(*jwt.Token) (any, error) { return corpusKey, nil }); err != nil {
		t.Errorf("the signed field %q: %v", answer.Access, err)
	}
}

// The client of a backend is made once, not for each request as in KrakenD.
func TestOneClientPerBackend(t *testing.T) {
	var conns atomic.Int64
	b := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, `{}`) }))
	b.Config.ConnState = func(_ net.Conn, s http.ConnState) {
		if s == http.StateNew {
			conns.Add(1)
		}
	}
	b.Start()
	t.Cleanup(b.Close)
	e := newEngine(t, conf(`{"endpoint": "/a", "backend": [{"host": ["`+b.URL+`"], "url_pattern": "/", "extra_config": {"qos/http-cache": {"max_size": 1, "max_items": 1}}}]}`))
	_, base := serve(t, e, ServerSettings{})
	for range 20 {
		if status, _, _ := get(t, base+"/a"); status != http.StatusOK {
			t.Fatalf("status %d", status)
		}
	}
	if conns.Load() != 1 {
		t.Errorf("20 requests in turn took %d connections; want 1", conns.Load())
	}
}
