package engine

import (
	"context"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/binnacle-project/binnacle/gateway/engine/telemetry"
)

// benchBody is an answer of the size of a small document.
var benchBody = `{"id": 7, "name": "Ada", "text": "` + strings.Repeat("x", 400) + `"}`

// BenchmarkRequest is one request through a whole engine, and the same request
// through the standard library's reverse proxy, in one process with its
// backend on loopback: what both pay for the backend is in all figures, so
// their ratios are a lower bound of the difference.
func BenchmarkRequest(b *testing.B) {
	backend := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, benchBody)
	}))
	defer backend.Close()
	sink := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		w.Header().Set("Content-Type", "application/x-protobuf")
	}))
	defer sink.Close()

	host := `"host": ["` + backend.URL + `"]`
	noop := conf(`{"endpoint": "/users/{id}", "output_encoding": "no-op", "backend": [{` + host + `, "encoding": "no-op", "url_pattern": "/u/{id}"}]}`)
	engineOf := func(b *testing.B, raw []byte, ratio float64) http.Handler {
		o := Options{}
		if ratio >= 0 {
			tel, err := telemetry.New(telemetry.Options{Endpoint: sink.URL, Managed: true, SampleRatio: ratio, Interval: time.Hour})
			if err != nil {
				b.Fatal(err)
			}
			b.Cleanup(func() {
				ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
				defer cancel()
				_ = tel.Shutdown(ctx)
			})
			o.Telemetry = tel
		}
		e := New(o)
		if err := e.Apply(context.Background(), raw, ref(1)); err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { _ = e.Close(context.Background()) })
		return e.Handler()
	}
	for _, c := range []struct {
		name    string
		handler func(*testing.B) http.Handler
	}{
		{"reverseproxy", func(*testing.B) http.Handler {
			u, err := url.Parse(backend.URL)
			if err != nil {
				b.Fatal(err)
			}
			p := httputil.NewSingleHostReverseProxy(u)
			p.ErrorLog = log.New(io.Discard, "", 0)
			p.Transport = &http.Transport{MaxIdleConnsPerHost: 250}
			return p
		}},
		{"noop", func(b *testing.B) http.Handler { return engineOf(b, noop, -1) }},
		{"noop-metrics", func(b *testing.B) http.Handler { return engineOf(b, noop, 0) }},
		{"noop-traces10", func(b *testing.B) http.Handler { return engineOf(b, noop, 0.1) }},
		{"noop-traces100", func(b *testing.B) http.Handler { return engineOf(b, noop, 1) }},
		{"noop-limited", func(b *testing.B) http.Handler {
			e := New(Options{})
			if err := e.Apply(context.Background(), noop, ref(1)); err != nil {
				b.Fatal(err)
			}
			rate := 1e8 // never reached
			e.SetLimit(&rate)
			b.Cleanup(func() { _ = e.Close(context.Background()) })
			return e.Handler()
		}},
		{"json", func(b *testing.B) http.Handler {
			return engineOf(b, conf(`{"endpoint": "/users/{id}", "backend": [{`+host+`, "url_pattern": "/u/{id}"}]}`), -1)
		}},
		{"json-modules", func(b *testing.B) http.Handler {
			return engineOf(b, conf(`{"endpoint": "/users/{id}", "extra_config": {"qos/ratelimit/router": {"max_rate": 1e8, "client_max_rate": 1e8, "strategy": "ip"}},
				"backend": [{`+host+`, "url_pattern": "/u/{id}", "extra_config": {"qos/circuit-breaker": {"interval": 60, "timeout": 10, "max_errors": 1}, "qos/ratelimit/proxy": {"max_rate": 1e8, "capacity": 1000000}}}]}`), -1)
		}},
	} {
		b.Run(c.name, func(b *testing.B) {
			h := c.handler(b)
			b.ReportAllocs()
			start := cpuTime(b)
			for b.Loop() {
				w := httptest.NewRecorder()
				h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/users/7", nil))
				if w.Code != http.StatusOK {
					b.Fatalf("status %d", w.Code)
				}
			}
			b.ReportMetric(float64((cpuTime(b)-start).Microseconds())/float64(b.N), "cpu-us/op")
		})
	}
}

// cpuTime is what the process has used; on a busy machine it is the figure to
// compare.
func cpuTime(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
