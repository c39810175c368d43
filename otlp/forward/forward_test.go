package forward

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/VictoriaMetrics/metrics"
	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/pmetric"
	"go.opentelemetry.io/collector/pdata/ptrace"

	"github.com/binnacle-project/binnacle"
	"github.com/binnacle-project/binnacle/otlp"
	"github.com/binnacle-project/binnacle/otlp/wire"
)

// engine is a remote engine: a real OTLP receiver, below /otlp, that can be
// made to fail, and that keeps the names it was sent.
type engine struct {
	receiver http.Handler

	mu       sync.Mutex
	gone     error          // of each connection
	status   map[string]int // by path; 0 lets the receiver answer
	retry    string         // Retry-After with such a status
	rejects  int            // items of each request
	auth     string
	names    []string
	requests []time.Time
}

func newEngine() *engine {
	e := &engine{status: map[string]int{}}
	r := otlp.New(otlp.Options{Sink: otlp.SinkFuncs{
		Metrics: func(_ context.Context, _ binnacle.Origin, m *wire.Metrics) (otlp.Result, error) {
			return e.keep(strings.Clone(m.Resources[0].Metrics[0].Name))
		},
		Traces: func(_ context.Context, _ binnacle.Origin, t *wire.Traces) (otlp.Result, error) {
			return e.keep(strings.Clone(t.Resources[0].Scopes[0].Spans[0].Name))
		},
	}})
	e.receiver = http.StripPrefix("/otlp", r.HTTPHandler(func(_ context.Context, s otlp.Sender) (binnacle.Origin, error) {
		e.mu.Lock()
		defer e.mu.Unlock()
		e.auth = s.Header("Authorization")
		return binnacle.Origin{}, nil
	}))
	return e
}

func (e *engine) keep(name string) (otlp.Result, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.names = append(e.names, name)
	if e.rejects > 0 {
		return otlp.Result{Rejected: e.rejects, Message: "too old"}, nil
	}
	return otlp.Result{}, nil
}

func (e *engine) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	e.mu.Lock()
	status, retry := e.status[req.URL.Path], e.retry
	e.requests = append(e.requests, time.Now())
	e.mu.Unlock()
	if status != 0 {
		if retry != "" {
			w.Header().Set("Retry-After", retry)
		}
		w.WriteHeader(status)
		return
	}
	e.receiver.ServeHTTP(w, req)
}

// RoundTrip makes the engine its own network, for time that is not real.
func (e *engine) RoundTrip(req *http.Request) (*http.Response, error) {
	e.mu.Lock()
	gone := e.gone
	e.mu.Unlock()
	if gone != nil {
		return nil, gone
	}
	w := httptest.NewRecorder()
	e.ServeHTTP(w, req)
	return w.Result(), nil
}

const metricsPath, tracesPath = "/otlp/v1/metrics", "/otlp/v1/traces"

func (e *engine) set(path string, status int, retry string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.status[path], e.retry = status, retry
}

func (e *engine) got() []string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.Clone(e.names)
}

// spans are n spans of one name, points n points of one metric.
func spans(name string, n int) *wire.Traces {
	td := ptrace.NewTraces()
	ss := td.ResourceSpans().AppendEmpty().ScopeSpans().AppendEmpty().Spans()
	for i := range n {
		sp := ss.AppendEmpty()
		sp.SetName(name)
		sp.SetTraceID(pcommon.TraceID{1, byte(i)})
		sp.SetSpanID(pcommon.SpanID{1, byte(i)})
	}
	t, err := wire.TracesFromPdata(td)
	if err != nil {
		panic(err)
	}
	return t
}

func points(name string, n int) *wire.Metrics {
	md := pmetric.NewMetrics()
	m := md.ResourceMetrics().AppendEmpty().ScopeMetrics().AppendEmpty().Metrics().AppendEmpty()
	m.SetName(name)
	g := m.SetEmptyGauge()
	for i := range n {
		g.DataPoints().AppendEmpty().SetIntValue(int64(i))
	}
	batch, err := wire.FromPdata(md)
	if err != nil {
		panic(err)
	}
	return batch
}

func forwardSpans(t *testing.T, f *Forwarder, names ...string) {
	t.Helper()
	for _, name := range names {
		if res, err := f.WriteTraces(t.Context(), binnacle.Origin{}, spans(name, 1)); err != nil || res != (otlp.Result{}) {
			t.Fatalf("WriteTraces: %v, %v; want it never to fail", res, err)
		}
	}
}

func forwardPoints(t *testing.T, f *Forwarder, names ...string) {
	t.Helper()
	for _, name := range names {
		if res, err := f.WriteMetrics(t.Context(), binnacle.Origin{}, points(name, 1)); err != nil || res != (otlp.Result{}) {
			t.Fatalf("WriteMetrics: %v, %v; want it never to fail", res, err)
		}
	}
}

func eventually(t *testing.T, what string, f func() error) {
	t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for err := f(); err != nil; err = f() {
		if time.Now().After(deadline) {
			t.Fatalf("%s: %v", what, err)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

func items(set *metrics.Set, s signal, result string) uint64 {
	return set.GetOrCreateCounter(fmt.Sprintf("binnacle_forward_items_total{signal=%q,result=%q}", s, result)).Get()
}

// start runs a forwarder; stop ends it in order.
func start(t *testing.T, o Options, change ...func(*Forwarder)) (f *Forwarder, stop func()) {
	t.Helper()
	f, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range change {
		c(f)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- f.Run(ctx) }()
	return f, func() {
		t.Helper()
		cancel()
		if err := errors.Join(<-done, f.Close()); err != nil {
			t.Error(err)
		}
	}
}

// TestForward: over real sockets, all arrives in order over an outage of the
// remote and a restart here; what the remote refuses for good is counted and in
// nobody's way.
func TestForward(t *testing.T) {
	e := newEngine()
	srv := httptest.NewServer(e)
	defer srv.Close()
	set := metrics.NewSet()
	token := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(token, []byte("secret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	o := Options{URL: srv.URL + "/otlp/", Signals: "traces", Dir: t.TempDir(), TokenFile: token, Metrics: set}
	want := func(names ...string) func() error {
		return func() error {
			if got := e.got(); !slices.Equal(got, names) {
				return fmt.Errorf("got %v; want %v", got, names)
			}
			return nil
		}
	}
	f, stop := start(t, o)
	forwardPoints(t, f, "not asked for")
	forwardSpans(t, f, "a", "b")
	eventually(t, "arrives", want("a", "b"))
	if e.auth != "Bearer secret" {
		t.Errorf("Authorization is %q", e.auth)
	}
	e.set(tracesPath, http.StatusServiceUnavailable, "")
	forwardSpans(t, f, "c")
	eventually(t, "is tried", func() error {
		if set.GetOrCreateCounter(`binnacle_forward_retries_total{signal="traces"}`).Get() == 0 {
			return errors.New("no retry")
		}
		return nil
	})
	forwardSpans(t, f, "d")
	stop() // at once: "d" may be in memory only
	e.set(tracesPath, 0, "")
	f, stop = start(t, o)
	forwardSpans(t, f, "e")
	eventually(t, "arrives after outage and restart", want("a", "b", "c", "d", "e"))
	e.set(tracesPath, http.StatusBadRequest, "")
	forwardSpans(t, f, "bad")
	eventually(t, "is refused", func() error {
		if n := items(set, tracesSignal, "refused"); n != 1 {
			return fmt.Errorf("refused %d", n)
		}
		return nil
	})
	e.set(tracesPath, 0, "")
	forwardSpans(t, f, "g")
	eventually(t, "goes on", want("a", "b", "c", "d", "e", "g"))
	stop()
	if n := items(set, tracesSignal, "sent"); n != 6 {
		t.Errorf("sent: counted %d; want 6", n)
	}
}

// TestSignalsDoNotWaitForEachOther: a remote that does not take metrics, for
// now, still gets the traces, and the metrics once it does.
func TestSignalsDoNotWaitForEachOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e, set := newEngine(), metrics.NewSet()
		f, stop := start(t, Options{URL: "http://engine/otlp", Dir: t.TempDir(), Metrics: set}, e.wire)
		defer stop()
		e.set(metricsPath, http.StatusNotFound, "")
		forwardPoints(t, f, "m1", "m2")
		forwardSpans(t, f, "t1", "t2")
		time.Sleep(time.Hour)
		forwardSpans(t, f, "t3")
		time.Sleep(time.Minute)
		if got := e.got(); !slices.Equal(got, []string{"t1", "t2", "t3"}) {
			t.Errorf("while metrics are not taken: got %v; want the traces", got)
		}
		if got := f.lanes[metricsSignal].queue.items(); got != 2 {
			t.Errorf("%d points wait; want 2", got)
		}
		if n := len(e.requests); n > 3+240 {
			t.Errorf("%d requests in an hour; want one each quarter of a minute at most", n)
		}
		e.set(metricsPath, 0, "")
		time.Sleep(time.Minute)
		if got := e.got(); !slices.Equal(got, []string{"t1", "t2", "t3", "m1", "m2"}) {
			t.Errorf("when metrics are taken: got %v", got)
		}
		for _, s := range []signal{metricsSignal, tracesSignal} {
			if n := items(set, s, "sent"); n != uint64(2+s) {
				t.Errorf("%s sent: counted %d", s, n)
			}
		}
	})
}

func (e *engine) wire(f *Forwarder) {
	for _, l := range f.lanes {
		if l != nil {
			l.remote.client = &http.Client{Transport: e, Timeout: requestTimeout}
		}
	}
}

// TestAnswersOfARemote: what each answer does to the request, the ones behind
// it and the counters.
func TestAnswersOfARemote(t *testing.T) {
	const minute = time.Minute
	for _, tt := range []struct {
		name    string
		status  int
		retry   string
		gone    error
		rejects int
		// after is when the remote is well again.
		after         time.Duration
		arrives       []string
		sent, refused uint64
		requests      [2]int // at least and at most, while it is ill
	}{
		{name: "partial success", rejects: 2, arrives: []string{"one", "two"}, sent: 6, refused: 4, requests: [2]int{2, 2}},
		{name: "more rejected than sent", rejects: 9, arrives: []string{"one", "two"}, refused: 10, requests: [2]int{2, 2}},
		{name: "503 for ten minutes", status: 503, after: 10 * minute, arrives: []string{"one", "two"}, sent: 10, requests: [2]int{20, 60}},
		{name: "503 with Retry-After", status: 503, retry: "120", after: 10 * minute, arrives: []string{"one", "two"}, sent: 10, requests: [2]int{5, 6}},
		{name: "429 with a date", status: 429, retry: "date", after: 10 * minute, arrives: []string{"one", "two"}, sent: 10, requests: [2]int{4, 20}},
		{name: "unreachable", gone: errors.New("connection refused"), after: 10 * minute, arrives: []string{"one", "two"}, sent: 10},
		{name: "wrong token", status: 401, after: 10 * minute, arrives: []string{"one", "two"}, sent: 10, requests: [2]int{20, 60}},
		{name: "500 for a while", status: 500, after: 2 * minute, arrives: []string{"one", "two"}, sent: 10, requests: [2]int{5, maxBroken - 1}},
		{name: "500 for good", status: 500, after: 30 * minute, refused: 10, requests: [2]int{2 * maxBroken, 2 * maxBroken}},
		{name: "bad request", status: 400, after: 10 * minute, refused: 10, requests: [2]int{2, 2}},
		{name: "too large", status: 413, after: 10 * minute, refused: 10, requests: [2]int{2, 2}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				e, set := newEngine(), metrics.NewSet()
				f, stop := start(t, Options{URL: "http://engine/otlp", Signals: "metrics", Dir: t.TempDir(), Metrics: set}, e.wire)
				if tt.retry == "date" {
					tt.retry = time.Now().Add(5 * minute).UTC().Format(http.TimeFormat)
				}
				e.set(metricsPath, tt.status, tt.retry)
				e.rejects, e.gone = tt.rejects, tt.gone
				for _, name := range []string{"one", "two"} {
					if _, err := f.WriteMetrics(t.Context(), binnacle.Origin{}, points(name, 5)); err != nil {
						t.Fatal(err)
					}
				}
				time.Sleep(tt.after + time.Second)
				synctest.Wait()
				if n := len(e.requests); n < tt.requests[0] || n > tt.requests[1] {
					t.Errorf("%d requests while the remote is ill; want %v", n, tt.requests)
				}
				e.mu.Lock()
				e.gone = nil
				e.mu.Unlock()
				e.set(metricsPath, 0, "")
				time.Sleep(6 * minute)
				synctest.Wait()
				if got := e.got(); !slices.Equal(got, tt.arrives) {
					t.Errorf("got %v; want %v", got, tt.arrives)
				}
				if sent, refused := items(set, metricsSignal, "sent"), items(set, metricsSignal, "refused"); sent != tt.sent || refused != tt.refused {
					t.Errorf("sent %d, refused %d; want %d, %d", sent, refused, tt.sent, tt.refused)
				}
				stop()
			})
		})
	}
}

// TestDamageIsCounted: the items of a part of the queue that cannot be read are
// told, and the rest goes out.
func TestDamageIsCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e, set, dir := newEngine(), metrics.NewSet(), t.TempDir()
		o := Options{URL: "http://engine/otlp", Signals: "traces", Dir: dir, Metrics: set}
		e.gone = errors.New("connection refused")
		f, stop := start(t, o, e.wire)
		forwardSpans(t, f, "a", "b", "c")
		stop()
		path := filepath.Join(dir, "traces", segmentName(1))
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		b[len(b)-1] ^= 1 // of the last record
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		e.gone = nil
		f, stop = start(t, o, e.wire)
		forwardSpans(t, f, "d")
		time.Sleep(time.Minute)
		stop()
		if got := e.got(); !slices.Equal(got, []string{"a", "b", "d"}) {
			t.Errorf("got %v; want all but the damaged one", got)
		}
		if n := items(set, tracesSignal, "damaged"); n != 1 {
			t.Errorf("%d items counted as damaged; want 1", n)
		}
	})
}

func TestOptions(t *testing.T) {
	for _, o := range []Options{{URL: ""}, {URL: "host:4318"}, {URL: "ftp://host/"}, {URL: "http://host:4318", Signals: "logs"}} {
		if _, err := Open(Options{URL: o.URL, Signals: o.Signals, Dir: t.TempDir()}); err == nil {
			t.Errorf("Open(%+v): want an error", o)
		}
	}
	blocked := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(blocked, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(Options{URL: "http://host:4318", Dir: blocked}); err == nil || !strings.Contains(err.Error(), blocked) {
		t.Errorf("a folder that cannot be made: error %v; want its name in it", err)
	}
}
