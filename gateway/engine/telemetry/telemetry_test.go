package telemetry

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.opentelemetry.io/otel/trace"
)

// newTest returns a Telemetry that exports to a server which counts exports of
// metrics.
var discard = slog.New(slog.DiscardHandler)

func newTest(t testing.TB, o Options) (*Telemetry, *atomic.Int64) {
	t.Helper()
	var exports atomic.Int64
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		if r.URL.Path == "/v1/metrics" {
			exports.Add(1)
		}
		w.Header().Set("Content-Type", "application/x-protobuf")
	}))
	t.Cleanup(srv.Close)
	if o.Endpoint == "" {
		o.Endpoint = srv.URL
	}
	tel, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		if err := tel.Shutdown(ctx); err != nil {
			t.Errorf("Shutdown: %v", err)
		}
		if err := tel.Shutdown(ctx); err != nil {
			t.Errorf("second Shutdown: %v", err)
		}
	})
	return tel, &exports
}

func TestNewRefuses(t *testing.T) {
	for _, o := range []Options{
		{}, {Endpoint: "127.0.0.1:4318"}, {Endpoint: "ftp://x"}, {Endpoint: "http://"}, {Endpoint: "http://x", SampleRatio: 2},
	} {
		if tel, err := New(o); err == nil {
			tel.Shutdown(t.Context())
			t.Errorf("New(%+v): no error", o)
		}
	}
}

func TestTheIntervalChangesAtOnce(t *testing.T) {
	tel, exports := newTest(t, Options{Interval: time.Hour})
	h := tel.NewScope(ScopeOptions{Revision: 1}).Handler(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {}))
	h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", "/", nil))
	tel.SetInterval(0) // ignored
	tel.SetInterval(time.Hour)
	tel.SetInterval(10 * time.Millisecond)
	deadline := time.Now().Add(10 * time.Second)
	for exports.Load() < 3 {
		if time.Now().After(deadline) {
			t.Fatalf("%d exports in ten seconds; want one each 10 ms", exports.Load())
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func TestAnAbsentReceiverCostsNothing(t *testing.T) {
	gone := httptest.NewServer(nil)
	gone.Close()
	tel, err := New(Options{Endpoint: gone.URL, SampleRatio: 1})
	if err != nil {
		t.Fatal(err)
	}
	h := tel.NewScope(ScopeOptions{Revision: 1}).Handler(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(204) }))
	rec := httptest.NewRecorder()
	h.ServeHTTP(rec, httptest.NewRequest("GET", "/", nil))
	if rec.Code != 204 {
		t.Errorf("status %d; want 204", rec.Code)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if err := tel.Flush(ctx); err == nil {
		t.Error("Flush to nowhere: no error")
	}
	tel.Shutdown(ctx)
}

func TestSkip(t *testing.T) {
	s := (&Telemetry{}).NewScope(ScopeOptions{Revision: 1, SkipPaths: []string{"/__health", "/__debug/", ""}})
	f := func(path string, want bool) {
		t.Helper()
		if got := s.skipped(path); got != want {
			t.Errorf("skipped(%q): got %v; want %v", path, got, want)
		}
	}
	f("/__health", true)
	f("/__healthy", false)
	f("/__debug/x", true)
	f("/__debug", false)
	f("/", false)
}

func TestRatio(t *testing.T) {
	tel := &Telemetry{ratio: 0.25}
	tel.SetSampleRatio(-1)
	kept := 0
	for range 10_000 {
		if tel.sampled(trace.SpanContext{}) {
			kept++
		}
	}
	if kept < 2200 || kept > 2800 {
		t.Errorf("at 0.25: %d of 10,000 kept", kept)
	}
	tel.SetSampleRatio(0)
	if tel.sampled(trace.SpanContext{}) {
		t.Error("at 0: kept")
	}
	tel.SetSampleRatio(5)
	if !tel.sampled(trace.SpanContext{}) {
		t.Error("at 1: not kept")
	}
}

// TestSeriesAreBounded: hostile statuses, methods and hosts end in few series.
func TestSeriesAreBounded(t *testing.T) {
	tab := &table{}
	for status := 100; status < 1000; status++ {
		tab.row(outcome{method: "GET", status: status})
	}
	if n := len(*tab.rows.Load()); n > maxAttributeRows+10 {
		t.Errorf("%d rows; want at most %d and one per class", n, maxAttributeRows)
	}
	if got := tab.row(outcome{method: "GET", status: 999}); got.status != 900 {
		t.Errorf("a status beyond the bound counts as %d; want 900", got.status)
	}
	if m := knownMethod("BREW"); m != "_OTHER" {
		t.Errorf("knownMethod(BREW): %s", m)
	}
	b := (&Telemetry{}).NewScope(ScopeOptions{Revision: 1}).NewBackend(nil, "/", BackendOptions{}, nil)
	for i := range 2 * maxTargets {
		b.target(&url.URL{Scheme: "http", Host: fmt.Sprintf("h%d", i)})
	}
	if n := len(*b.targets.Load()); n != maxTargets+1 {
		t.Errorf("%d targets; want %d and _OTHER", n, maxTargets)
	}
}

func TestPorts(t *testing.T) {
	for raw, want := range map[string]int{"http://a": 80, "https://a": 443, "http://a:8080": 8080, "https://[::1]:1": 1} {
		u, err := url.Parse(raw)
		if err != nil {
			t.Fatal(err)
		}
		if got := portOf(u); got != want {
			t.Errorf("portOf(%s): got %d; want %d", raw, got, want)
		}
	}
}

func TestTraceparent(t *testing.T) {
	const good = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
	f := func(v string, valid, sampled bool) {
		t.Helper()
		sc := parseTraceparent(http.Header{"Traceparent": {v}})
		if sc.IsValid() != valid || sc.IsSampled() != sampled {
			t.Errorf("parseTraceparent(%q): valid %v sampled %v; want %v %v", v, sc.IsValid(), sc.IsSampled(), valid, sampled)
		}
	}
	f(good, true, true)
	f(strings.TrimSuffix(good, "1")+"0", true, false)
	f(good+"-more", false, false)
	f("01"+good[2:]+"-more", true, true)
	f("01"+good[2:]+"more", false, false)
	f("ff"+good[2:], false, false)
	f(strings.ToUpper(good), false, false)
	f("00-00000000000000000000000000000000-00f067aa0ba902b7-01", false, true)
	f("00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01", false, true)
	f("", false, false)
	if sc := parseTraceparent(http.Header{"Traceparent": {good, good}}); sc.IsValid() {
		t.Error("two headers: valid")
	}
	if got := rendered(parseTraceparent(http.Header{"Traceparent": {good}})); got != good {
		t.Errorf("traceparent: got %q; want %q", got, good)
	}
}

func rendered(sc trace.SpanContext) string {
	var b [traceparentLen]byte
	writeTraceparent(&b, sc)
	return string(b[:])
}

// TestAMalformedParentIsNone: nothing of it goes on.
func TestAMalformedParentIsNone(t *testing.T) {
	parent := parseTraceparent(http.Header{"Traceparent": {"00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01"}})
	f := newFlight(detached{context.Background(), context.Background()}, newIdentity(parent, true))
	if f.sc.TraceID() == parent.TraceID() || f.parent.id.IsValid() || !f.sc.IsValid() {
		t.Errorf("continued as %v under %v", f.sc, f.parent)
	}
}

func FuzzTraceparent(f *testing.F) {
	f.Add("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", "vendor=1")
	f.Add("cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-x", "")
	f.Fuzz(func(t *testing.T, v, state string) {
		sc := parseTraceparent(http.Header{"Traceparent": {v}, "Tracestate": {state}})
		if !sc.IsValid() {
			return // a new trace begins
		}
		again := parseTraceparent(http.Header{"Traceparent": {rendered(sc)}})
		if again.TraceID() != sc.TraceID() || again.SpanID() != sc.SpanID() || again.IsSampled() != sc.IsSampled() {
			t.Fatalf("round trip of %q: %v; want %v", v, again, sc)
		}
	})
}
