package engine

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"go.opentelemetry.io/collector/pdata/ptrace"
)

// telemetryConf is a configuration with a telemetry block.
func telemetryConf(block string, endpoints ...string) []byte {
	return fmt.Appendf(nil, `{"version": 3, "extra_config": {"telemetry/opentelemetry": %s}, "endpoints": [%s]}`, block, strings.Join(endpoints, ","))
}

// tree renders spans as "name < parent" for each, sorted.
func tree(spans []ptrace.Span) []string {
	names := map[string]string{}
	for _, s := range spans {
		names[s.SpanID().String()] = s.Name()
	}
	var out []string
	for _, s := range spans {
		out = append(out, s.Name()+" < "+names[s.ParentSpanID().String()])
	}
	slices.Sort(out)
	return out
}

// TestDetail asks for all that a file can ask for beyond one span of a request
// and one of each call: the stages, the parts of a call, headers, and static
// attributes of the service, of one endpoint and of one backend.
func TestDetail(t *testing.T) {
	backend := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Backend", "b")
		w.Header().Set("Set-Cookie", "s=secret")
		io.WriteString(w, `{"`+strings.Trim(r.URL.Path, "/")+`": 1}`)
	}))
	t.Cleanup(backend.Close)
	local := strings.Replace(backend.URL, "127.0.0.1", "localhost", 1) // so that there is a name to resolve
	host := strings.TrimPrefix(backend.URL, "http://")

	s := newSink(t)
	tel := newTelemetry(t, s, 1)
	e := newEngineWith(t, telemetryConf(`{"layers": {
		"global": {"report_headers": true, "skip_headers": ["x-skipped"], "metrics_static_attributes": [{"key": "zone", "value": "a"}], "traces_static_attributes": [{"key": "zone", "value": "a"}]},
		"proxy": {"disable_traces": false, "traces_static_attributes": [{"key": "of", "value": "proxy"}]},
		"backend": {"metrics": {"static_attributes": [{"key": "tier", "value": "all"}]},
			"traces": {"disable_stage": false, "read_payload": true, "detailed_connection": true, "report_headers": true, "static_attributes": [{"key": "tier", "value": "all"}]}}}}`,
		`{"endpoint": "/both", "input_headers": ["*"],
			"extra_config": {"telemetry/opentelemetry": {"global": {"metrics_static_attributes": [{"key": "team", "value": "blue"}], "traces_static_attributes": [{"key": "team", "value": "blue"}, {"key": "zone", "value": "b"}]}}},
			"backend": [
			{"host": ["`+local+`"], "url_pattern": "/first"},
			{"host": ["`+backend.URL+`"], "url_pattern": "/second", "extra_config": {"telemetry/opentelemetry": {"backend": {"metrics": {"static_attributes": [{"key": "tier", "value": "one"}]}}}}}]}`,
		`{"endpoint": "/plain", "extra_config": {"telemetry/opentelemetry": {"proxy": {"disable_traces": true}}},
			"backend": [{"host": ["`+backend.URL+`"], "url_pattern": "/third", "extra_config": {"telemetry/opentelemetry": {"backend": {}}}}]}`), tel)
	_, base := serve(t, e, ServerSettings{})

	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, base+"/both", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header = http.Header{"X-Client": {"c", "d"}, "X-Skipped": {"s"}, "Authorization": {"Bearer secret"}, "X-Api-Key": {"secret"}, "X-Long": {strings.Repeat("ü", 4000)}}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	if body, err := io.ReadAll(resp.Body); err != nil || string(body) != `{"first":1,"second":1}` {
		t.Fatalf("GET /both: %q, %v", body, err)
	}
	resp.Body.Close()
	get(t, base+"/plain")
	flush(t, tel)

	traces := map[string][]ptrace.Span{} // by the route of the server span
	routes := map[string]string{}
	for _, sp := range s.spans() {
		if sp.Kind() == ptrace.SpanKindServer {
			routes[sp.TraceID().String()] = attrs(sp.Attributes())["http.route"]
		}
	}
	spans := map[string]ptrace.Span{}
	for _, sp := range s.spans() {
		route := routes[sp.TraceID().String()]
		traces[route] = append(traces[route], sp)
		if sp.EndTimestamp() < sp.StartTimestamp() {
			t.Errorf("%s ends before it starts", sp.Name())
		}
		spans[route+" "+sp.Name()] = sp
	}
	got := tree(traces["/both"])
	for i, name := range got { // whichever family and address localhost has
		before, after, _ := strings.Cut(name, " < ")
		if strings.HasPrefix(before, "socket connect") {
			got[i] = "socket connect < " + after
		}
	}
	wantTree := []string{
		"DNS lookup localhost < GET /first",
		"GET /both < ",
		"GET /first < backend /first",
		"GET /second < proxy /both",
		"HTTP read_body < GET /first",
		"HTTP wait_for_response < GET /first",
		"backend /first < proxy /both",
		"proxy /both < GET /both",
		"socket connect < GET /first",
	}
	if got = slices.Compact(got); !slices.Equal(got, wantTree) {
		t.Errorf("spans of /both:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(wantTree, "\n"))
	}
	if got, want := tree(traces["/plain"]), []string{"GET /plain < ", "GET /third < GET /plain"}; !slices.Equal(got, want) {
		t.Errorf("spans of /plain, whose file asks for no detail: %q; want %q", got, want)
	}

	server := attrs(spans["/both GET /both"].Attributes())
	want(t, "server span", server, map[string]string{
		"zone": "b", "team": "blue", "http.request.header.x-client": `["c","d"]`, "http.request.header.x-skipped": "", "http.response.header.content-type": "*",
		"http.request.header.authorization": "", "http.request.header.x-api-key": "",
		"http.response.header.traceresponse": "",
	})
	if long := server["http.request.header.x-long"]; len(long) < 900 || len(long) > 1100 {
		t.Errorf("a header of 8,000 bytes stands with %d on its span; want about 1,024", len(long))
	}
	want(t, "proxy span", attrs(spans["/both proxy /both"].Attributes()), map[string]string{
		"krakend.stage": "proxy", "of": "proxy", "complete": "true", "http.route": "/both", "http.request.header.x-client": "", "binnacle.revision": "1"})
	want(t, "backend span", attrs(spans["/both backend /first"].Attributes()), map[string]string{"krakend.stage": "backend", "tier": "all", "http.request.header.x-client": `["c","d"]`})
	want(t, "call", attrs(spans["/both GET /first"].Attributes()), map[string]string{
		"tier": "all", "http.request.header.x-client": `["c","d"]`, "http.response.header.x-backend": `["b"]`, "http.response.header.set-cookie": ""})
	want(t, "other call", attrs(spans["/both GET /second"].Attributes()), map[string]string{"tier": "", "http.response.header.x-backend": ""})
	want(t, "name resolution", attrs(spans["/both DNS lookup localhost"].Attributes()), map[string]string{"dns.question.name": "localhost"})
	for name, sp := range spans {
		if strings.Contains(name, "socket connect "+host) {
			want(t, "connect", attrs(sp.Attributes()), map[string]string{"network.peer.address": "127.0.0.1", "network.peer.port": "*"})
		}
	}

	for _, p := range s.points(t, "http.server.request.duration") {
		a := attrs(p.Attributes())
		want(t, "server point", a, map[string]string{"zone": "a", "team": map[string]string{"/both": "blue"}[a["http.route"]]})
	}
	tiers := map[string]int{}
	for _, p := range s.points(t, "http.client.request.duration") {
		a := attrs(p.Attributes())
		tiers[a["http.route"]+" "+a["tier"]]++
	}
	if len(tiers) != 3 || tiers["/both all"] != 1 || tiers["/both one"] != 1 || tiers["/plain "] != 1 {
		t.Errorf("client series by route and tier: %v", tiers)
	}
}

// TestDetailOfFailures: what a call that fails was waiting for says so.
func TestDetailOfFailures(t *testing.T) {
	gone := httptest.NewServer(http.NotFoundHandler())
	gone.Close()
	s := newSink(t)
	tel := newTelemetry(t, s, 1)
	e := newEngineWith(t, telemetryConf(`{"layers": {"backend": {"traces": {"detailed_connection": true, "read_payload": true, "disable_stage": false}}}}`,
		`{"endpoint": "/gone", "backend": [{"host": ["`+gone.URL+`"], "url_pattern": "/"}]}`), tel)
	_, base := serve(t, e, ServerSettings{})
	get(t, base+"/gone")
	flush(t, tel)
	failed := map[string]string{}
	for _, sp := range s.spans() {
		before, _, _ := strings.Cut(sp.Name(), " 127.0.0.1")
		failed[before] = attrs(sp.Attributes())["error.type"] + " " + sp.Status().Code().String()
	}
	want := map[string]string{
		"GET /gone": "500 Error", "backend /": "connection_error Error", "GET /": "connection_error Error", "socket connect": "connection_error Error",
	}
	if len(failed) != len(want) {
		t.Errorf("spans: %v; want %v", failed, want)
	}
	for name, how := range want {
		if failed[name] != how {
			t.Errorf("%s: %q; want %q", name, failed[name], how)
		}
	}
}

// TestDetailIsChecked: what a file says in the wrong place or way is told.
func TestDetailIsChecked(t *testing.T) {
	endpoint := func(own, remote string) string {
		return `{"endpoint": "/x", "extra_config": {"telemetry/opentelemetry": ` + own + `}, "backend": [{"host": ["http://b"], "url_pattern": "/", "extra_config": {"telemetry/opentelemetry": ` + remote + `}}]}`
	}
	var told []string
	for _, f := range Warnings(telemetryConf(`{"layers": {"global": {"disable_metrics": true}, "backend": {"traces": {"round_trip": true}}}}`,
		endpoint(`{"backend": {}, "proxy": {"disable_metrics": true, "disable_traces": false}}`, `{"global": {}, "backend": {"traces": {"read_payload": true}}}`))) {
		told = append(told, f.Path)
	}
	want := []string{
		"/extra_config/telemetry~1opentelemetry/layers/backend/traces/round_trip",
		"/extra_config/telemetry~1opentelemetry/layers/global/disable_metrics",
		"/endpoints/0/extra_config/telemetry~1opentelemetry/backend",
		"/endpoints/0/extra_config/telemetry~1opentelemetry/proxy/disable_metrics",
		"/endpoints/0/backend/0/extra_config/telemetry~1opentelemetry/global",
	}
	if !slices.Equal(told, want) {
		t.Errorf("warnings at\n%s\nwant\n%s", strings.Join(told, "\n"), strings.Join(want, "\n"))
	}
	for block, at := range map[string]string{
		endpoint(`{"global": {"metrics_static_attributes": [{"key": "", "value": "x"}]}}`, `{}`):                   "/endpoints/0/extra_config/telemetry~1opentelemetry",
		endpoint(`{}`, `{"backend": {"traces": {"static_attributes": [{"key": "binnacle.node", "value": "x"}]}}}`): "/endpoints/0/backend/0/extra_config/telemetry~1opentelemetry",
		endpoint(`{"proxy": {"traces_static_attributes": "zone"}}`, `{}`):                                          "/endpoints/0/extra_config/telemetry~1opentelemetry",
		endpoint(`[]`, `{}`): "/endpoints/0/extra_config/telemetry~1opentelemetry",
	} {
		faults := Check(t.Context(), telemetryConf(`{}`, block))
		if len(faults) != 1 || faults[0].Path != at {
			t.Errorf("%s: faults %v; want one at %s", block, faults, at)
		}
	}
	faults := Check(t.Context(), telemetryConf(`{}`, endpoint(`{"proxy": {"report_headers": "yes"}}`, `{}`)))
	if len(faults) != 1 || !strings.Contains(faults[0].Message, " proxy.report_headers: found a JSON string, want true or false") {
		t.Errorf("faults %v; want the key as the file names it", faults)
	}
}
