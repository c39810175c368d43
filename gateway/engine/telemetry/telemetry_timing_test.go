package telemetry

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"go.opentelemetry.io/otel/trace"
)

// benchWriter is a ResponseWriter that costs nothing.
type benchWriter struct{ h http.Header }

func (w *benchWriter) Header() http.Header         { return w.h }
func (w *benchWriter) WriteHeader(int)             {}
func (w *benchWriter) Write(b []byte) (int, error) { return len(b), nil }

// benchTransport answers at once, with always the same response.
type benchTransport struct{ resp http.Response }

func (t *benchTransport) RoundTrip(*http.Request) (*http.Response, error) {
	t.resp.Body = io.NopCloser(strings.NewReader(""))
	return &t.resp, nil
}

func benchTelemetry(tb testing.TB, ratio float64) *Telemetry {
	tb.Helper()
	sink := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body) // the exporter's affair
		w.Header().Set("Content-Type", "application/x-protobuf")
	}))
	t, err := New(Options{Endpoint: sink.URL, Managed: true, SampleRatio: ratio, Interval: time.Hour})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		_ = t.Shutdown(ctx) // an export that fails is no matter here
		sink.Close()
	})
	return t
}

// benchPath is a request's way through all instruments: the server's, and one
// backend's. s is nil for the same way without any.
func benchPath(s *Scope) http.Handler {
	base := &benchTransport{resp: http.Response{StatusCode: 200, ProtoMajor: 1, ProtoMinor: 1, Header: http.Header{}}}
	var transport http.RoundTripper = base
	route := &Route{}
	if s != nil {
		route = s.NewRoute("GET", "/users/{id}", StaticAttributes{})
		transport = s.NewBackend(route, "/u/{id}", BackendOptions{}, base)
	}
	backendReq := httptest.NewRequest("GET", "http://users.example:8080/u/7", nil)
	h := http.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		route.Enter(w)
		clear(backendReq.Header)
		resp, err := transport.RoundTrip(backendReq.WithContext(Detach(r.Context(), r.Context(), w)))
		if err != nil {
			panic(err)
		}
		_, _ = io.Copy(io.Discard, resp.Body) // it is empty
		resp.Body.Close()
		w.WriteHeader(resp.StatusCode)
	}))
	if s != nil {
		h = s.Handler(h)
	}
	return h
}

// BenchmarkPath is one request with one backend call through all instruments,
// without the gateway around them.
func BenchmarkPath(b *testing.B) {
	for _, c := range []struct {
		name  string
		ratio float64
	}{{"off", -1}, {"metrics", 0}, {"traces10", 0.1}, {"traces100", 1}} {
		b.Run(c.name, func(b *testing.B) {
			var s *Scope
			if c.ratio >= 0 {
				s = benchTelemetry(b, c.ratio).NewScope(ScopeOptions{Revision: 1})
			}
			h := benchPath(s)
			r := httptest.NewRequest("GET", "/users/7", nil)
			w := &benchWriter{h: http.Header{}}
			b.ReportAllocs()
			for b.Loop() {
				clear(w.h)
				h.ServeHTTP(w, r)
			}
		})
	}
}

// BenchmarkRecord is what metrics alone cost: finding the attribute set and
// recording, once for the server and once for the client.
func BenchmarkRecord(b *testing.B) {
	t := benchTelemetry(b, 0)
	s := t.NewScope(ScopeOptions{Revision: 1})
	route := s.NewRoute("GET", "/users/{id}", StaticAttributes{})
	target := s.NewBackend(route, "/u/{id}", BackendOptions{}, nil).newTarget("users.example", 8080)
	o := outcome{method: "GET", scheme: "http", status: 200}
	b.ReportAllocs()
	for b.Loop() {
		route.table.row(o).series.record(0.012, trace.SpanContext{})
		target.table.row(o).series.record(0.011, trace.SpanContext{})
	}
}

// The whole way of a request whose trace is not kept, ids for the backend and for
// the client included, costs no allocation more than without instruments.
func TestPathAllocations(t *testing.T) {
	count := func(s *Scope) float64 {
		h, w := benchPath(s), &benchWriter{h: http.Header{}}
		r := httptest.NewRequest("GET", "/users/7", nil)
		return testing.AllocsPerRun(1000, func() {
			clear(w.h)
			h.ServeHTTP(w, r)
		})
	}
	off, on := count(nil), count(benchTelemetry(t, 0).NewScope(ScopeOptions{Revision: 1}))
	if on > off {
		t.Errorf("with instruments %v allocations, without %v; want no more", on, off)
	}
}

// Metrics cost no allocation once an attribute set is known.
func TestRecordAllocatesNothing(t *testing.T) {
	tel := benchTelemetry(t, 0)
	route := tel.NewScope(ScopeOptions{Revision: 1}).NewRoute("GET", "/users/{id}", StaticAttributes{})
	o := outcome{method: "GET", scheme: "http", status: 200}
	record := func() { route.table.row(o).series.record(0.012, trace.SpanContext{}) }
	record()
	if n := testing.AllocsPerRun(1000, record); n != 0 {
		t.Errorf("recording allocates %v times; want 0", n)
	}
}
