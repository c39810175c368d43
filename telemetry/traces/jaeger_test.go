package traces

import (
	"encoding/json"
	"fmt"
	"math"
	"net/http"
	"net/http/httptest"
	"net/url"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/ptrace"
)

// get calls the API and decodes the data into v; it returns status and body.
func get(t *testing.T, base, path string, v any) (int, string) {
	t.Helper()
	status, body := fetch(t, base+path)
	wrapped := struct {
		Data   any           `json:"data"`
		Errors []jaegerError `json:"errors"`
	}{Data: v}
	if err := json.Unmarshal(body, &wrapped); err != nil {
		t.Fatalf("%s: %v: %s", path, err, body)
	}
	if (status != http.StatusOK) != (len(wrapped.Errors) > 0) {
		t.Errorf("%s: status %d with errors %v", path, status, wrapped.Errors)
	}
	return status, string(body)
}

// jaegerAPI serves a store with a gateway's trace 1, of which a backend's span
// came in another batch, and trace 2. It is mounted as the manager mounts it.
func jaegerAPI(t *testing.T) (*Store, string) {
	s, _ := newStore(t)
	sec := time.Second
	root := spec{service: "gateway", name: "GET /users/{id}", trace: 1, id: 1, kind: ptrace.SpanKindServer, took: 2 * sec, err: true, attrs: []string{"http.route", "/users/{id}"}}
	call := spec{service: "gateway", name: "GET", trace: 1, id: 2, parent: 1, kind: ptrace.SpanKindClient, at: sec / 2, took: sec, attrs: []string{"server.address", "b1"}}
	back := spec{service: "users", name: "list", trace: 1, id: 3, parent: 2, kind: ptrace.SpanKindServer, at: sec, took: sec / 10}
	td := make1(root, call)
	sp := td.ResourceSpans().At(0).ScopeSpans().At(0).Spans().At(0)
	sp.Attributes().PutInt("http.response.status_code", 502)
	sp.Attributes().PutDouble("ratio", math.NaN())
	sp.Status().SetMessage("bad gateway")
	e := sp.Events().AppendEmpty()
	e.SetName("retry")
	e.SetTimestamp(pcommon.NewTimestampFromTime(base.Add(sec)))
	e.Attributes().PutInt("attempt", 2)
	l := sp.Links().AppendEmpty()
	l.SetTraceID(traceID(9))
	l.SetSpanID(pcommon.SpanID{7: 9})
	write(t, s, td)
	flush(t, s)
	write(t, s, make1(back, spec{service: "gateway", name: "GET /", trace: 2, id: 1, kind: ptrace.SpanKindServer, at: 5 * sec}))
	srv := httptest.NewServer(http.StripPrefix("/jaeger", s.Handler()))
	t.Cleanup(srv.Close)
	return s, srv.URL + "/jaeger"
}

func TestJaegerTrace(t *testing.T) {
	_, api := jaegerAPI(t)
	var got []jaegerTrace
	id := "00000000000000000000000000000001"
	if status, body := get(t, api, "/api/traces/"+id, &got); status != 200 || len(got) != 1 {
		t.Fatalf("got %d %s", status, body)
	}
	tr := got[0]
	if tr.TraceID != id || len(tr.Spans) != 3 || len(tr.Processes) != 2 {
		t.Fatalf("got trace %s, %d spans, %d processes; want %s, 3, 2", tr.TraceID, len(tr.Spans), len(tr.Processes), id)
	}
	root, call, back := tr.Spans[0], tr.Spans[1], tr.Spans[2]
	if len(root.References) != 1 || root.References[0] != (jaegerReference{"FOLLOWS_FROM", strings.Repeat("0", 31) + "9", "0000000000000009"}) {
		t.Errorf("root's references: %v", root.References)
	}
	for _, c := range []struct {
		child  jaegerSpan
		parent string
	}{{call, root.SpanID}, {back, call.SpanID}} {
		if want := []jaegerReference{{"CHILD_OF", id, c.parent}}; !slices.Equal(c.child.References, want) {
			t.Errorf("references of %s: got %v; want %v", c.child.OperationName, c.child.References, want)
		}
	}
	if root.StartTime != uint64(base.UnixMicro()) || root.Duration != 2_000_000 {
		t.Errorf("root starts at %d for %d; want microseconds %d, 2000000", root.StartTime, root.Duration, base.UnixMicro())
	}
	tags := map[string]string{}
	for _, tag := range root.Tags {
		tags[tag.Key] = fmt.Sprint(tag.Type, " ", tag.Value)
	}
	for k, want := range map[string]string{
		"http.route": "string /users/{id}", "http.response.status_code": "int64 502", "span.kind": "string server", "error": "bool true",
		"otel.status_code": "string ERROR", "otel.status_description": "string bad gateway", "ratio": "string NaN",
	} {
		if tags[k] != want {
			t.Errorf("tag %s: got %q; want %q", k, tags[k], want)
		}
	}
	if len(root.Logs) != 1 || root.Logs[0].Timestamp != uint64(base.Add(time.Second).UnixMicro()) || root.Logs[0].Fields[0].Value != "retry" {
		t.Errorf("logs: %+v", root.Logs)
	}
	if tr.Processes[root.ProcessID].ServiceName != "gateway" || tr.Processes[back.ProcessID].ServiceName != "users" {
		t.Errorf("processes: %+v", tr.Processes)
	}
	// A short id means leading zeros.
	if status, _ := get(t, api, "/api/traces/1", &got); status != 200 {
		t.Errorf("short id: got %d", status)
	}
}

func TestJaegerLists(t *testing.T) {
	_, api := jaegerAPI(t)
	var names []string
	get(t, api, "/api/services", &names)
	if want := []string{"gateway", "users"}; !slices.Equal(names, want) {
		t.Errorf("services: got %v; want %v", names, want)
	}
	get(t, api, "/api/services/gateway/operations", &names)
	if want := []string{"GET", "GET /", "GET /users/{id}"}; !slices.Equal(names, want) {
		t.Errorf("operations: got %v; want %v", names, want)
	}
	var ops []Operation
	get(t, api, "/api/operations?service=gateway&spanKind=client", &ops)
	if want := []Operation{{"GET", "client"}}; !slices.Equal(ops, want) {
		t.Errorf("client operations: got %v; want %v", ops, want)
	}
	var deps []Dependency
	q := fmt.Sprintf("/api/dependencies?endTs=%d&lookback=3600000", base.Add(time.Minute).UnixMilli())
	get(t, api, q, &deps)
	if want := []Dependency{{"gateway", "users", 1}}; !slices.Equal(deps, want) {
		t.Errorf("dependencies: got %v; want %v", deps, want)
	}
}

func TestJaegerSearch(t *testing.T) {
	_, api := jaegerAPI(t)
	tests := []struct {
		query string
		want  []string // last digits of trace ids
	}{
		{"service=gateway", []string{"2", "1"}},
		{"service=gateway&limit=1", []string{"2"}},
		{"service=users", []string{"1"}},
		{"service=gateway&operation=GET+%2F", []string{"2"}},
		{"service=gateway&minDuration=1.5s", []string{"1"}},
		{"service=gateway&maxDuration=100ms", []string{"2"}},
		{fmt.Sprintf("service=gateway&start=%d&end=%d", base.Add(4*time.Second).UnixMicro(), base.Add(time.Hour).UnixMicro()), []string{"2"}},
		{"service=gateway&lookback=1h", []string{"2", "1"}},
		{"service=gateway&lookback=custom", []string{"2", "1"}},
		{"service=gateway&tags=" + url.QueryEscape(`{"http.response.status_code":"502"}`), []string{"1"}},
		{"service=gateway&tags=" + url.QueryEscape(`{"http.response.status_code":502,"error":true}`), []string{"1"}},
		{"service=gateway&tag=server.address:b1", []string{"1"}},
		{"traceID=1&traceID=2&traceID=77", []string{"1", "2"}},
		{"service=nobody", nil},
	}
	for _, tt := range tests {
		var got []jaegerTrace
		status, body := get(t, api, "/api/traces?"+tt.query, &got)
		var ids []string
		for _, tr := range got {
			ids = append(ids, tr.TraceID[31:])
		}
		if status != 200 || !slices.Equal(ids, tt.want) {
			t.Errorf("%s: got %d %v; want %v\n%s", tt.query, status, ids, tt.want, body)
		}
	}
}

func TestJaegerErrors(t *testing.T) {
	_, api := jaegerAPI(t)
	tests := []struct {
		path   string
		status int
		words  string
	}{
		{"/api/traces/77", 404, "not found"},
		{"/api/traces/xyz", 400, "hexadecimal"},
		{"/api/traces/" + strings.Repeat("1", 33), 400, "hexadecimal"},
		{"/api/traces?service=a&start=yesterday", 400, "microseconds"},
		{"/api/traces?service=a&minDuration=5", 400, "duration"},
		{"/api/traces?service=a&minDuration=5s&maxDuration=1s", 400, "more than"},
		{"/api/traces?service=a&lookback=long", 400, "lookback"},
		{"/api/traces?service=a&limit=-1", 400, "limit"},
		{"/api/traces?service=a&tags=%7B", 400, "JSON"},
		{"/api/traces?service=a&tag=x", 400, "key:value"},
		{"/api/operations", 400, "service"},
		{"/api/dependencies?endTs=x", 400, "milliseconds"},
		{"/api/archive/1", 404, "not part"},
	}
	for _, tt := range tests {
		status, body := get(t, api, tt.path, nil)
		if status != tt.status || !strings.Contains(body, tt.words) {
			t.Errorf("%s: got %d %s; want %d with %q", tt.path, status, body, tt.status, tt.words)
		}
	}
}

// TestJaegerSearchMarksOrphans: a parent that is not there is said, since its
// process may not be instrumented or its batch be on its way.
func TestJaegerSearchMarksOrphans(t *testing.T) {
	jt := toJaeger(make1(spec{service: "a", name: "b", trace: 1, id: 2, parent: 1}))
	if len(jt.Spans[0].Warnings) != 1 {
		t.Errorf("warnings: got %v; want one of the parent", jt.Spans[0].Warnings)
	}
}

func FuzzParseQuery(f *testing.F) {
	f.Add("service=a&tags=%7B%22a%22%3A1%7D&lookback=2d&minDuration=1s&limit=20&start=1&end=2&tag=a:b")
	f.Fuzz(func(t *testing.T, raw string) {
		v, err := url.ParseQuery(raw)
		if err != nil {
			return
		}
		if q, err := parseQuery(v, base); err == nil {
			newMatcher(q)
		}
	})
}

// TestQueryPlaces: calls beyond those worked on and waiting are refused as
// retryable, and counted; what waited is answered.
func TestQueryPlaces(t *testing.T) {
	now := base
	s := openStore(t, vfs.NewMem(), &now)
	p := newPlaces(1)
	hold, held := make(chan struct{}), make(chan struct{}, 2)
	h := s.adapt(p, jaegerFailure, func(*http.Request) (any, error) {
		held <- struct{}{}
		<-hold
		return []string{}, nil
	})
	answers := make(chan int, 2)
	ask := func() *httptest.ResponseRecorder {
		w := httptest.NewRecorder()
		h(w, httptest.NewRequest(http.MethodGet, "/api/services", nil))
		return w
	}
	for range 2 {
		go func() { answers <- ask().Code }()
	}
	<-held
	for deadline := time.Now().Add(5 * time.Second); len(p.all) < 2; {
		if time.Now().After(deadline) {
			t.Fatal("the second call does not wait")
		}
		runtime.Gosched()
	}
	if w := ask(); w.Code != http.StatusServiceUnavailable || w.Header().Get("Retry-After") == "" {
		t.Errorf("a third call: %d; want 503 with Retry-After", w.Code)
	}
	if n := s.meters.queriesFull.Get(); n != 1 {
		t.Errorf("refused: counted %d; want 1", n)
	}
	close(hold)
	for range 2 {
		if code := <-answers; code != http.StatusOK {
			t.Errorf("a call that had or got a place: %d; want 200", code)
		}
	}
	if len(p.all) != 0 || len(p.running) != 0 {
		t.Errorf("%d places are still taken", len(p.all))
	}
}
