package relay

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/VictoriaMetrics/metrics"

	"github.com/binnacle-project/binnacle"
)

func testRelay(t *testing.T, max int64, manager func() (http.RoundTripper, string)) *Relay {
	return New(Options{
		Dir: t.TempDir(), QueueBytes: max, SpoolBytes: MaxSpoolBytes, Manager: manager,
		Node:   func() binnacle.NodeID { return "n-1" },
		Failed: func() {}, Pause: func(int) time.Duration { return 100 * time.Millisecond },
		Metrics: metrics.NewSet(), Log: testLog(t),
	})
}

func testLog(t testing.TB) *slog.Logger {
	return slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug}))
}

// sink is a manager's OTLP receiver that keeps what it gets.
type sink struct {
	mu     sync.Mutex
	got    []string
	status int // what to answer, 200 if 0
	came   chan struct{}
}

func newSink() *sink { return &sink{came: make(chan struct{}, 1000)} }

func (s *sink) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	b, _ := io.ReadAll(r.Body)
	s.mu.Lock()
	status := s.status
	if status == 0 {
		s.got = append(s.got, fmt.Sprintf("%s %s %s rev=%s %s", r.URL.Path, r.Header.Get("Content-Type"), r.Header.Get("Content-Encoding"), r.Header.Get(binnacle.HeaderRevision), b))
	}
	s.mu.Unlock()
	if status != 0 {
		w.WriteHeader(status)
	}
	s.came <- struct{}{}
}

func (s *sink) answer(status int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.status = status
}

func (s *sink) all() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]string(nil), s.got...)
}

func post(t *testing.T, url, body, revision string) int {
	t.Helper()
	req, err := http.NewRequest(http.MethodPost, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/x-protobuf")
	req.Header.Set(binnacle.HeaderRevision, revision)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	return resp.StatusCode
}

// TestRelayKeepsOrderOverAnOutage posts while there is no manager, while it
// fails and while it works; every export arrives once, in order, untouched.
func TestRelayKeepsOrderOverAnOutage(t *testing.T) {
	s := newSink()
	srv := httptest.NewServer(s)
	defer srv.Close()
	var mu sync.Mutex
	member := false
	r := testRelay(t, MaxQueueBytes, func() (http.RoundTripper, string) {
		mu.Lock()
		defer mu.Unlock()
		if !member {
			return nil, ""
		}
		return http.DefaultTransport, srv.URL
	})
	p, err := r.Open(AnyPort, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { r.Run(ctx); close(done) }()
	defer func() { cancel(); <-done }()

	var want []string
	send := func(path, body, rev string) {
		t.Helper()
		if got := post(t, p.URL+path, body, rev); got != http.StatusOK {
			t.Fatalf("post %s: got %d; want 200 at once, whatever the manager does", body, got)
		}
		want = append(want, path+" application/x-protobuf  rev="+rev+" "+body)
	}
	send("/v1/metrics", "before enrollment", "0")
	s.answer(http.StatusServiceUnavailable)
	mu.Lock()
	member = true
	mu.Unlock()
	send("/v1/traces", "while it fails", "1")
	<-s.came // it was tried
	s.answer(0)
	send("/v1/metrics", "while it works", "2")
	for len(s.all()) < len(want) {
		select {
		case <-s.came:
		case <-time.After(20 * time.Second):
			t.Fatalf("got %q; want %q", s.all(), want)
		}
	}
	if got := s.all(); fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("got %q; want %q", got, want)
	}
	if n := r.queue.dropped.Get(); n != 0 {
		t.Errorf("%d dropped; want none", n)
	}
}

func TestRelayDropsWhatIsRefusedForGood(t *testing.T) {
	s := newSink()
	srv := httptest.NewServer(s)
	defer srv.Close()
	r := testRelay(t, MaxQueueBytes, func() (http.RoundTripper, string) { return http.DefaultTransport, srv.URL })
	s.answer(http.StatusBadRequest)
	r.queue.put(export{path: "/v1/metrics", body: []byte("bad")})
	if err := r.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.answer(0)
	r.queue.put(export{path: "/v1/metrics", body: []byte("good")})
	if err := r.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := s.all(); len(got) != 1 || !strings.HasSuffix(got[0], "good") {
		t.Errorf("got %q; want the good one alone", got)
	}
}

func TestRelayBounds(t *testing.T) {
	r := testRelay(t, MaxQueueBytes, nil)
	p, err := r.Open(AnyPort, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	f := func(method, path string, body io.Reader, want int) {
		t.Helper()
		req, err := http.NewRequest(method, p.URL+path, body)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != want {
			t.Errorf("%s %s: got %d; want %d", method, path, resp.StatusCode, want)
		}
	}
	f("POST", "/v1/metrics", bytes.NewReader(make([]byte, maxExport+1)), http.StatusRequestEntityTooLarge)
	f("POST", "/v1/metrics", nil, http.StatusOK)
	f("GET", "/v1/metrics", nil, http.StatusMethodNotAllowed)
	f("POST", "/v1/nodes", nil, http.StatusNotFound)
}

func TestQueueDropsTheOldest(t *testing.T) {
	dropped := metrics.NewSet().NewCounter("dropped")
	q := newMemoryQueue(10*(1000+256), dropped)
	for i := range 25 {
		q.put(export{path: fmt.Sprint(i), body: make([]byte, 1000)})
	}
	if n := dropped.Get(); n != 15 {
		t.Errorf("%d dropped; want 15", n)
	}
	e, id, ok, _ := q.oldest()
	if !ok || e.path != "15" {
		t.Fatalf("oldest: got %s, %v; want 15", e.path, ok)
	}
	q.put(export{path: "25", body: make([]byte, 1000)}) // drops 15 meanwhile
	q.done(id)
	if e, _, _, _ := q.oldest(); e.path != "16" {
		t.Errorf("after done of a dropped one: got %s; want 16", e.path)
	}
	_, _, ok, filled := newMemoryQueue(1, dropped).oldest()
	select {
	case <-filled:
		ok = true
	default:
	}
	if ok {
		t.Error("oldest of an empty queue: got one")
	}
}
