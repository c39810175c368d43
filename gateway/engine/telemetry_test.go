package engine

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/pmetric"
	"go.opentelemetry.io/collector/pdata/pmetric/pmetricotlp"
	"go.opentelemetry.io/collector/pdata/ptrace"
	"go.opentelemetry.io/collector/pdata/ptrace/ptraceotlp"

	"github.com/binnacle-project/binnacle"
	"github.com/binnacle-project/binnacle/gateway/engine/telemetry"
)

// sink is an OTLP/HTTP receiver that keeps what it gets.
type sink struct {
	url string

	mu        sync.Mutex
	metrics   []pmetric.Metrics
	revisions []string // of each export of metrics
	traces    []ptrace.Traces
}

func newSink(t *testing.T) *sink {
	t.Helper()
	s := &sink{}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Errorf("sink: %v", err)
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		if enc := r.Header.Get("Content-Encoding"); enc != "" {
			t.Errorf("sink: Content-Encoding %q; want none", enc)
		}
		switch r.URL.Path {
		case "/v1/metrics":
			req := pmetricotlp.NewExportRequest()
			if err := req.UnmarshalProto(body); err != nil {
				t.Errorf("sink: %v", err)
			}
			s.metrics = append(s.metrics, req.Metrics())
			s.revisions = append(s.revisions, r.Header.Get(binnacle.HeaderRevision))
		case "/v1/traces":
			req := ptraceotlp.NewExportRequest()
			if err := req.UnmarshalProto(body); err != nil {
				t.Errorf("sink: %v", err)
			}
			s.traces = append(s.traces, req.Traces())
		default:
			t.Errorf("sink: %s", r.URL.Path)
		}
		w.Header().Set("Content-Type", "application/x-protobuf")
	}))
	t.Cleanup(srv.Close)
	s.url = srv.URL
	return s
}

func newTelemetry(t *testing.T, s *sink, ratio float64) *telemetry.Telemetry {
	t.Helper()
	tel, err := telemetry.New(telemetry.Options{
		Endpoint: s.url, Managed: true, SampleRatio: ratio, Host: "testhost", InstanceID: "process-1", Interval: time.Hour, Log: testLog(t),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		if err := tel.Shutdown(ctx); err != nil {
			t.Errorf("telemetry: %v", err)
		}
	})
	return tel
}

// points returns the data points of a histogram in the newest export.
func (s *sink) points(t *testing.T, name string) []pmetric.ExponentialHistogramDataPoint {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.metrics) == 0 {
		t.Fatal("sink: no metrics")
	}
	var out []pmetric.ExponentialHistogramDataPoint
	for _, rm := range s.metrics[len(s.metrics)-1].ResourceMetrics().All() {
		for _, sm := range rm.ScopeMetrics().All() {
			for _, m := range sm.Metrics().All() {
				if m.Name() != name {
					continue
				}
				if m.Type() != pmetric.MetricTypeExponentialHistogram || m.Unit() != "s" {
					t.Fatalf("%s: type %v, unit %q; want an exponential histogram in s", name, m.Type(), m.Unit())
				}
				if m.ExponentialHistogram().AggregationTemporality() != pmetric.AggregationTemporalityCumulative {
					t.Errorf("%s is not cumulative", name)
				}
				for _, p := range m.ExponentialHistogram().DataPoints().All() {
					out = append(out, p)
				}
			}
		}
	}
	return out
}

// spans returns all spans so far.
func (s *sink) spans() []ptrace.Span {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []ptrace.Span
	for _, td := range s.traces {
		for _, rs := range td.ResourceSpans().All() {
			for _, ss := range rs.ScopeSpans().All() {
				for _, sp := range ss.Spans().All() {
					out = append(out, sp)
				}
			}
		}
	}
	return out
}

// attrs renders attributes by key.
func attrs(m pcommon.Map) map[string]string {
	out := map[string]string{}
	for k, v := range m.All() {
		out[k] = v.AsString()
	}
	return out
}

func flush(t *testing.T, tel *telemetry.Telemetry) {
	t.Helper()
	if err := tel.Flush(t.Context()); err != nil {
		t.Fatalf("Flush: %v", err)
	}
}

func want(t *testing.T, what string, got, want map[string]string) {
	t.Helper()
	for k, v := range want {
		if v == "*" {
			if got[k] == "" {
				t.Errorf("%s: no %s in %v", what, k, got)
			}
		} else if got[k] != v {
			t.Errorf("%s: %s = %q; want %q", what, k, got[k], v)
		}
	}
}

func TestTelemetryContent(t *testing.T) {
	var backendHeader http.Header
	var mu sync.Mutex
	backend := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		backendHeader = r.Header.Clone()
		mu.Unlock()
		if r.URL.Path == "/fail" {
			http.Error(w, "no", http.StatusServiceUnavailable)
			return
		}
		io.WriteString(w, `{"id": 1}`)
	}))
	t.Cleanup(backend.Close)
	host, port, _ := strings.Cut(strings.TrimPrefix(backend.URL, "http://"), ":")

	s := newSink(t)
	tel := newTelemetry(t, s, 1)
	e := newEngineWith(t, conf(
		`{"endpoint": "/users/{id}", "backend": [{"host": ["`+backend.URL+`"], "url_pattern": "/u/{id}"}]}`,
		`{"endpoint": "/fail", "backend": [{"host": ["`+backend.URL+`"], "url_pattern": "/fail"}]}`), tel)
	_, base := serve(t, e, ServerSettings{})

	_, header, _ := get(t, base+"/users/7?secret=1")
	traceresponse := header.Get("traceresponse")
	if parts := strings.Split(traceresponse, "-"); len(parts) != 4 || len(parts[1]) != 32 || parts[3] != "01" {
		t.Fatalf("traceresponse %q; want 00-<trace>-<span>-01", traceresponse)
	}
	traceID := strings.Split(traceresponse, "-")[1]
	get(t, base+"/users/8")
	get(t, base+"/fail")
	get(t, base+"/nowhere")
	get(t, base+"/__health")
	flush(t, tel)

	// Metrics.
	byRoute := map[string]pmetric.ExponentialHistogramDataPoint{}
	for _, p := range s.points(t, "http.server.request.duration") {
		a := attrs(p.Attributes())
		byRoute[a["http.route"]] = p
	}
	if len(byRoute) != 3 {
		t.Errorf("server series: %d; want /users/{id}, /fail and unmatched", len(byRoute))
	}
	if p := byRoute["/users/{id}"]; p.Count() != 2 || p.Sum() <= 0 {
		t.Errorf("/users/{id}: count %d sum %v; want 2", p.Count(), p.Sum())
	} else {
		want(t, "server point", attrs(p.Attributes()), map[string]string{"http.request.method": "GET", "http.response.status_code": "200", "url.scheme": "http", "error.type": ""})
		if p.Exemplars().Len() == 0 {
			t.Error("server point: no exemplar of a kept trace")
		}
	}
	want(t, "failed", attrs(byRoute["/fail"].Attributes()), map[string]string{"http.response.status_code": "500", "error.type": "500"})
	want(t, "unmatched", attrs(byRoute[""].Attributes()), map[string]string{"http.response.status_code": "404", "error.type": ""})
	client := map[string]pmetric.ExponentialHistogramDataPoint{}
	for _, p := range s.points(t, "http.client.request.duration") {
		client[attrs(p.Attributes())["http.route"]] = p
	}
	if p := client["/users/{id}"]; p.Count() != 2 {
		t.Errorf("client series of /users/{id}: count %d; want 2", p.Count())
	} else {
		want(t, "client point", attrs(p.Attributes()), map[string]string{
			"server.address": host, "server.port": port, "http.request.method": "GET", "http.response.status_code": "200", "error.type": ""})
	}
	want(t, "failed client point", attrs(client["/fail"].Attributes()), map[string]string{"http.response.status_code": "503", "error.type": "503"})

	res := attrs(s.metrics[0].ResourceMetrics().At(0).Resource().Attributes())
	want(t, "resource", res, map[string]string{"service.name": "binnacle-gateway", "service.version": binnacle.Version, "service.instance.id": "process-1", "host.name": "testhost"})

	// Spans.
	var server, call ptrace.Span
	kinds := map[ptrace.SpanKind]int{}
	for _, sp := range s.spans() {
		if sp.TraceID().String() == traceID {
			kinds[sp.Kind()]++
			if sp.Kind() == ptrace.SpanKindServer {
				server = sp
			} else {
				call = sp
			}
		}
		if attrs(sp.Attributes())["url.path"] == "/fail" && sp.Kind() == ptrace.SpanKindServer && sp.Status().Code() != ptrace.StatusCodeError {
			t.Errorf("span of a 500: status %v; want Error", sp.Status().Code())
		}
		if attrs(sp.Attributes())["url.path"] == "/nowhere" && sp.Status().Code() != ptrace.StatusCodeUnset {
			t.Errorf("server span of a 404: status %v; want Unset", sp.Status().Code())
		}
	}
	if kinds[ptrace.SpanKindServer] != 1 || kinds[ptrace.SpanKindClient] != 1 || len(kinds) != 2 {
		t.Fatalf("spans of the trace by kind: %v; want one server and one client", kinds)
	}
	if server.Name() != "GET /users/{id}" || server.Status().Code() != ptrace.StatusCodeUnset || !server.ParentSpanID().IsEmpty() {
		t.Errorf("server span: name %q status %v parent %v", server.Name(), server.Status().Code(), server.ParentSpanID())
	}
	if got := strings.Split(traceresponse, "-")[2]; got != server.SpanID().String() {
		t.Errorf("traceresponse names span %s; want the server span %s", got, server.SpanID())
	}
	want(t, "server span", attrs(server.Attributes()), map[string]string{
		"http.route": "/users/{id}", "url.path": "/users/7", "http.response.status_code": "200", "binnacle.revision": "1",
		"client.address": "127.0.0.1", "server.address": "127.0.0.1", "server.port": "*", "network.protocol.version": "1.1", "user_agent.original": "*"})
	if call.ParentSpanID() != server.SpanID() || call.Name() != "GET /u/{Id}" {
		t.Errorf("client span: name %q, parent %v; want under %v", call.Name(), call.ParentSpanID(), server.SpanID())
	}
	want(t, "client span", attrs(call.Attributes()), map[string]string{
		"server.address": host, "server.port": port, "url.full": backend.URL + "/u/7", "http.response.status_code": "200", "binnacle.revision": "1"})
	mu.Lock()
	defer mu.Unlock()
	if got := backendHeader.Get("traceparent"); len(got) != 55 {
		t.Errorf("the backend got traceparent %q", got)
	}
}

func TestTraceContextIsContinued(t *testing.T) {
	got := make(chan http.Header, 1)
	backend := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		got <- r.Header.Clone()
		w.Header().Set("Traceresponse", "the backend's own")
		io.WriteString(w, `{}`)
	}))
	t.Cleanup(backend.Close)
	s := newSink(t)
	tel := newTelemetry(t, s, 0)
	e := newEngineWith(t, conf(`{"endpoint": "/u", "output_encoding": "no-op", "input_headers": ["*"], "backend": [{"host": ["`+backend.URL+`"], "url_pattern": "/u"}]}`), tel)
	_, base := serve(t, e, ServerSettings{})
	const trace = "4bf92f3577b34da6a3ce929d0e0e4736"
	for _, c := range []struct {
		traceparent, wantTrace, wantFlags string
		spans                             int
	}{
		{"00-" + trace + "-00f067aa0ba902b7-01", trace, "01", 2},
		{"00-" + trace + "-00f067aa0ba902b7-00", trace, "00", 0},
		{"", "", "00", 0},
		{"00-" + strings.ToUpper(trace) + "-00f067aa0ba902b7-01", "", "00", 0},
		{"garbage", "", "00", 0},
	} {
		before := len(s.spans())
		req, _ := http.NewRequest("GET", base+"/u", nil)
		if c.traceparent != "" {
			req.Header.Set("traceparent", c.traceparent)
			req.Header.Set("tracestate", "vendor=1")
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		h := <-got
		out, back := strings.Split(h.Get("traceparent"), "-"), strings.Split(resp.Header.Get("traceresponse"), "-")
		if len(out) != 4 || len(back) != 4 {
			t.Fatalf("%q: traceparent %q traceresponse %q", c.traceparent, h.Get("traceparent"), resp.Header.Get("traceresponse"))
		}
		if out[1] != back[1] || out[3] != c.wantFlags || (c.wantTrace != "") != (out[1] == trace) {
			t.Errorf("%q: to the backend %v, to the client %v; want trace %q flags %s", c.traceparent, out, back, c.wantTrace, c.wantFlags)
		}
		if c.wantTrace != "" && h.Get("tracestate") != "vendor=1" {
			t.Errorf("%q: tracestate %q; want vendor=1", c.traceparent, h.Get("tracestate"))
		}
		if c.wantTrace == "" && h.Get("tracestate") != "" {
			t.Errorf("%q: tracestate %q of another trace", c.traceparent, h.Get("tracestate"))
		}
		if len(resp.Header.Values("traceresponse")) != 1 {
			t.Errorf("traceresponse: %q; want one", resp.Header.Values("traceresponse"))
		}
		flush(t, tel)
		if n := len(s.spans()) - before; n != c.spans {
			t.Errorf("%q: %d spans; want %d", c.traceparent, n, c.spans)
		}
	}
}

func TestFailuresAreClassed(t *testing.T) {
	slow := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { <-r.Context().Done() }))
	t.Cleanup(slow.Close)
	trickle := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, `{"a": `)
		w.(http.Flusher).Flush()
		<-r.Context().Done()
	}))
	t.Cleanup(trickle.Close)
	cut := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", "100")
		io.WriteString(w, `{"a": `)
		w.(http.Flusher).Flush()
		panic(http.ErrAbortHandler)
	}))
	t.Cleanup(cut.Close)
	gone := httptest.NewServer(nil)
	gone.Close()

	s := newSink(t)
	tel := newTelemetry(t, s, 0)
	endpoint := func(path, url string) string {
		return `{"endpoint": "` + path + `", "timeout": "150ms", "backend": [{"host": ["` + url + `"], "url_pattern": "/x"}]}`
	}
	e := newEngineWith(t, conf(endpoint("/slow", slow.URL), endpoint("/trickle", trickle.URL), endpoint("/cut", cut.URL),
		endpoint("/gone", gone.URL), endpoint("/dns", "http://no-such-host.invalid")), tel)
	_, base := serve(t, e, ServerSettings{})
	for _, p := range []string{"/slow", "/trickle", "/cut", "/gone", "/dns"} {
		if code, _, _ := get(t, base+p); code != 500 {
			t.Errorf("GET %s: %d; want 500", p, code)
		}
	}
	flush(t, tel)
	got := map[string]string{}
	for _, p := range s.points(t, "http.client.request.duration") {
		a := attrs(p.Attributes())
		got[a["http.route"]] = a["http.response.status_code"] + " " + a["error.type"]
	}
	for path, want := range map[string]string{
		"/slow": " timeout", "/trickle": "200 timeout", "/cut": "200 connection_error", "/gone": " connection_error",
	} {
		if got[path] != want {
			t.Errorf("%s: status and error.type %q; want %q", path, got[path], want)
		}
	}
	if got["/dns"] != " name_resolution_error" && got["/dns"] != " timeout" {
		t.Errorf("/dns: %q; want name_resolution_error or timeout", got["/dns"])
	}
}

// TestGivenUpCallsAreNoErrors: of concurrent calls the slower is canceled, and
// a client that leaves is no fault of gateway or backend.
func TestGivenUpCallsAreNoErrors(t *testing.T) {
	var calls sync.WaitGroup
	calls.Add(1)
	backend := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		calls.Done()
		<-r.Context().Done()
	}))
	t.Cleanup(backend.Close)
	s := newSink(t)
	tel := newTelemetry(t, s, 1)
	e := newEngineWith(t, conf(`{"endpoint": "/u", "timeout": "20s", "backend": [{"host": ["`+backend.URL+`"], "url_pattern": "/x"}]}`), tel)
	_, base := serve(t, e, ServerSettings{})

	ctx, cancel := context.WithCancel(t.Context())
	go func() { calls.Wait(); cancel() }()
	req, _ := http.NewRequestWithContext(ctx, "GET", base+"/u", nil)
	if resp, err := http.DefaultClient.Do(req); err == nil {
		resp.Body.Close()
		t.Fatal("an answer; want the request canceled")
	}
	waitFor(t, "the request to be counted", func() bool {
		flush(t, tel)
		for _, sp := range s.spans() {
			if sp.Kind() == ptrace.SpanKindServer {
				return true
			}
		}
		return false
	})
	flush(t, tel) // its span may have come between the two exports
	for _, p := range s.points(t, "http.server.request.duration") {
		want(t, "server point", attrs(p.Attributes()), map[string]string{"http.response.status_code": "499", "error.type": ""})
	}
	if ps := s.points(t, "http.client.request.duration"); len(ps) != 0 {
		t.Errorf("client points: %v; want none", attrs(ps[0].Attributes()))
	}
	for _, sp := range s.spans() {
		if sp.Status().Code() == ptrace.StatusCodeError {
			t.Errorf("%v span %q has status Error", sp.Kind(), sp.Name())
		}
	}
}

func TestSwapExportsOnBothSides(t *testing.T) {
	b := newBackend(t, map[string]string{"/x": `{}`})
	raw := conf(`{"endpoint": "/u", "backend": [{"host": ["` + b.URL + `"], "url_pattern": "/x"}]}`)
	s := newSink(t)
	tel := newTelemetry(t, s, 1)
	e := newEngineWith(t, raw, tel)
	_, base := serve(t, e, ServerSettings{})
	get(t, base+"/u")
	if err := e.Apply(t.Context(), raw, ref(2)); err != nil {
		t.Fatal(err)
	}
	get(t, base+"/u")
	flush(t, tel)
	s.mu.Lock()
	revisions := strings.Join(s.revisions, " ")
	s.mu.Unlock()
	if revisions != "1 2 2" {
		t.Errorf("revisions of the exports: %q; want 1 (before), 2 (after), 2 (flush)", revisions)
	}
	if ps := s.points(t, "http.server.request.duration"); len(ps) != 1 || ps[0].Count() != 2 {
		t.Errorf("after a swap: %d series; want one that goes on to 2", len(ps))
	}
	seen := map[string]int{}
	for _, sp := range s.spans() {
		if sp.Kind() == ptrace.SpanKindServer {
			seen[attrs(sp.Attributes())["binnacle.revision"]]++
		}
	}
	if seen["1"] != 1 || seen["2"] != 1 {
		t.Errorf("server spans by revision: %v; want one each", seen)
	}
}

func TestSampleRateOfTheConfiguration(t *testing.T) {
	b := newBackend(t, map[string]string{"/x": `{}`})
	raw := func(rate string) []byte {
		return []byte(`{"version": 3, "extra_config": {"telemetry/opentelemetry": {` + rate + `}}, "endpoints": [
			{"endpoint": "/u", "backend": [{"host": ["` + b.URL + `"], "url_pattern": "/x"}]}]}`)
	}
	tel := newTelemetry(t, newSink(t), 0)
	e := newEngineWith(t, raw(`"trace_sample_rate": 1`), tel)
	_, base := serve(t, e, ServerSettings{})
	flags := func() string {
		_, h, _ := get(t, base+"/u")
		return h.Get("traceresponse")[53:]
	}
	if f := flags(); f != "01" {
		t.Errorf("rate 1: flags %s; want 01", f)
	}
	if err := e.Apply(t.Context(), raw(``), ref(2)); err != nil {
		t.Fatal(err)
	}
	if f := flags(); f != "00" {
		t.Errorf("without a rate: flags %s; want 00, as in the options", f)
	}
}

// What the fallback rate refuses is neither an error nor evidence: its
// error.type says so, and its span has no error.
func TestTelemetryOfLimited(t *testing.T) {
	s := newSink(t)
	tel := newTelemetry(t, s, 1)
	e := newEngineWith(t, conf(`{"endpoint": "/a", "backend": [{"host": ["http://127.0.0.1:9999"], "url_pattern": "/a"}]}`), tel)
	rate := 0.001
	e.SetLimit(&rate)
	_, base := serve(t, e, ServerSettings{})
	get(t, base+"/nowhere") // takes the one token
	status, header, _ := get(t, base+"/a")
	if status != http.StatusTooManyRequests || header.Get("traceresponse") == "" {
		t.Fatalf("over the rate: status %d, traceresponse %q; want 429 and one", status, header.Get("traceresponse"))
	}
	flush(t, tel)
	found := false
	for _, p := range s.points(t, "http.server.request.duration") {
		a := attrs(p.Attributes())
		if a["http.response.status_code"] != "429" {
			continue
		}
		found = true
		if a["error.type"] != binnacle.ErrorTypeLimit || p.Count() != 1 {
			t.Errorf("limited point: %v, count %d; want error.type %s, 1", a, p.Count(), binnacle.ErrorTypeLimit)
		}
		if got := binnacle.OutcomeOf(429, a["error.type"]); got != binnacle.Limited {
			t.Errorf("outcome %v; want limited", got)
		}
	}
	if !found {
		t.Error("the limited request is not counted")
	}
	for _, sp := range s.spans() {
		a := attrs(sp.Attributes())
		if a["http.response.status_code"] == "429" && (a["error.type"] != binnacle.ErrorTypeLimit || sp.Status().Code() != ptrace.StatusCodeUnset) {
			t.Errorf("span: %v, status %v; want error.type %s and no error", a, sp.Status().Code(), binnacle.ErrorTypeLimit)
		}
	}
}
