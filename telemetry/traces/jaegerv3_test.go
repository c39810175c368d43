package traces

import (
	"encoding/json"
	"fmt"
	"math"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/ptrace"
)

// getV3 calls api_v3 and decodes the answer into v; it returns the status and the
// message of an error.
func getV3(t *testing.T, base, path string, v any) (int, string) {
	t.Helper()
	status, body := fetch(t, base+path)
	if status != http.StatusOK {
		var failed struct {
			Error struct {
				HTTPCode int
				Message  string
			}
		}
		if err := json.Unmarshal(body, &failed); err != nil || failed.Error.HTTPCode != status || failed.Error.Message == "" {
			t.Errorf("%s: %d %s: want Jaeger's error with that code", path, status, body)
		}
		return status, failed.Error.Message
	}
	if v != nil {
		if err := json.Unmarshal(body, v); err != nil {
			t.Fatalf("%s: %v: %s", path, err, body)
		}
	}
	return status, ""
}

// hourV3 is the time of a search in which jaegerAPI's traces are.
func hourV3(more ...string) string {
	v := url.Values{"query.startTimeMin": {base.Add(-time.Minute).Format(time.RFC3339Nano)}, "query.startTimeMax": {base.Add(time.Hour).Format(time.RFC3339Nano)}}
	for i := 0; i < len(more); i += 2 {
		v.Set(more[i], more[i+1])
	}
	return v.Encode()
}

func TestV3Lists(t *testing.T) {
	_, api := jaegerAPI(t)
	var services struct{ Services []string }
	if getV3(t, api, "/api/v3/services", &services); !slices.Equal(services.Services, []string{"gateway", "users"}) {
		t.Errorf("services: %v", services)
	}
	for _, tc := range []struct{ query, want string }{
		{"service=gateway", "GET client, GET / server, GET /users/{id} server"},
		{"service=gateway&spanKind=client", "GET client"},
		{"service=gateway&span_kind=client", "GET client"},
		{"service=nobody", ""},
	} {
		var got struct {
			Operations []struct{ Name, SpanKind string }
		}
		getV3(t, api, "/api/v3/operations?"+tc.query, &got)
		var all []string
		for _, op := range got.Operations {
			all = append(all, op.Name+" "+op.SpanKind)
		}
		if s := strings.Join(all, ", "); s != tc.want || got.Operations == nil {
			t.Errorf("operations of %s: got %q; want %q", tc.query, s, tc.want)
		}
	}
	var deps struct{ Dependencies []map[string]string }
	getV3(t, api, "/api/v3/dependencies?startTime=2026-11-01T00:00:00Z&end_time=2026-11-02T00:00:00Z", &deps)
	if got, want := fmt.Sprint(deps.Dependencies), "[map[callCount:1 child:users parent:gateway]]"; got != want {
		t.Errorf("dependencies: got %s; want %s", got, want)
	}
}

// TestV3Trace wants the spans back as OTLP's own decoder reads them.
func TestV3Trace(t *testing.T) {
	s, api := jaegerAPI(t)
	want, err := s.Trace(t.Context(), traceID(1))
	if err != nil {
		t.Fatal(err)
	}
	var got struct{ Result json.RawMessage }
	if status, message := getV3(t, api, "/api/v3/traces/1?rawTraces=true&start_time=2026-11-01T12:00:00Z", &got); status != 200 {
		t.Fatal(status, message)
	}
	td, err := (&ptrace.JSONUnmarshaler{}).UnmarshalTraces(got.Result)
	if err != nil {
		t.Fatalf("%v: %s", err, got.Result)
	}
	soften(want) // one attribute of it is no number
	if g, w := canonical(t, td), canonical(t, want); !slices.Equal(g, w) {
		t.Errorf("got %v\nwant %v", g, w)
	}
	var wire struct {
		ResourceSpans []struct {
			ScopeSpans []struct {
				Spans []struct {
					TraceID, SpanID, StartTimeUnixNano string
					Kind                               int
				}
			}
		}
	}
	if err := json.Unmarshal(got.Result, &wire); err != nil {
		t.Fatal(err)
	}
	if sp := wire.ResourceSpans[0].ScopeSpans[0].Spans[0]; sp.TraceID != strings.Repeat("0", 31)+"1" || len(sp.SpanID) != 16 || sp.Kind != 2 || sp.StartTimeUnixNano != fmt.Sprint(base.UnixNano()) {
		t.Errorf("first span: %+v; want ids in hexadecimal, the kind as a number, the time as a string", sp)
	}
}

// TestV3Soft: what Jaeger's page refuses a trace for is not in an answer.
func TestV3Soft(t *testing.T) {
	s, api := jaegerAPI(t)
	td := make1(spec{service: "odd", name: "x", trace: 5, id: 1})
	sp := td.ResourceSpans().At(0).ScopeSpans().At(0).Spans().At(0)
	for _, m := range []pcommon.Map{sp.Attributes(), sp.Events().AppendEmpty().Attributes(), td.ResourceSpans().At(0).Resource().Attributes(), td.ResourceSpans().At(0).ScopeSpans().At(0).Scope().Attributes()} {
		m.PutEmpty("none")
		m.PutDouble("nan", math.NaN())
		m.PutDouble("half", 0.5)
		in := m.PutEmptyMap("in")
		in.PutEmptySlice("list").AppendEmpty()
		in.PutDouble("inf", math.Inf(-1))
	}
	sp.Links().AppendEmpty() // without ids
	link := sp.Links().AppendEmpty()
	link.SetTraceID(traceID(9))
	link.SetSpanID(pcommon.SpanID{9})
	link.Attributes().PutEmpty("none")
	write(t, s, td)
	var got any
	if status, message := getV3(t, api, "/api/v3/traces/5", &got); status != 200 {
		t.Fatal(status, message)
	}
	values, ids := 0, 0
	var walk func(v any)
	walk = func(v any) {
		switch v := v.(type) {
		case []any:
			for _, e := range v {
				walk(e)
			}
		case map[string]any:
			if value, ok := v["value"].(map[string]any); ok {
				values++
				if _, number := value["doubleValue"].(float64); len(value) != 1 || value["doubleValue"] != nil && !number {
					t.Errorf("%v: want exactly one value, and numbers as numbers", v)
				}
			}
			if id, ok := v["traceId"].(string); ok {
				if ids++; len(id) != 32 || strings.Trim(id, "0") == "" {
					t.Errorf("trace id %q", id)
				}
			}
			for _, e := range v {
				walk(e)
			}
		}
	}
	walk(got)
	if values < 4*5+1 || ids != 2 {
		t.Errorf("%d values and %d trace ids; want all of them, and the link that has ids", values, ids)
	}
	text, _ := json.Marshal(got)
	if !strings.Contains(string(text), `{"values":[{"stringValue":""}]}`) || !strings.Contains(string(text), `{"stringValue":"-Infinity"}`) {
		t.Errorf("nested values: %s", text)
	}
}

func TestV3Search(t *testing.T) {
	_, api := jaegerAPI(t)
	for _, tc := range []struct {
		name string
		q    []string
		want string // last digits of the ids, the newest first
	}{
		{"all", nil, "2 1"},
		{"service", []string{"query.serviceName", "users"}, "1"},
		{"service, as the proto spells it", []string{"query.service_name", "users"}, "1"},
		{"the name of JSON goes first", []string{"query.service_name", "nobody", "query.serviceName", "users"}, "1"},
		{"operation", []string{"query.operation_name", "GET /"}, "2"},
		{"operation, as the page of 2026 calls it", []string{"query.span_name", "GET /"}, "2"},
		{"attributes", []string{"query.attributes", `{"http.response.status_code":"502","error":"true"}`}, "1"},
		{"attributes nobody has", []string{"query.attributes", `{"a":"b"}`}, ""},
		{"duration", []string{"query.durationMin", "1500ms", "query.duration_max", "3s"}, "1"},
		{"depth", []string{"query.searchDepth", "1"}, "2"},
		{"depth by its first name", []string{"query.num_traces", "1"}, "2"},
		{"from", []string{"query.startTimeMin", base.Add(time.Second).Format(time.RFC3339Nano), "query.serviceName", "gateway"}, "2"},
		{"from, with a zone", []string{"query.startTimeMin", base.Add(time.Second).In(time.FixedZone("", 7200)).Format(time.RFC3339Nano), "query.serviceName", "gateway"}, "2"},
		{"the end is exclusive", []string{"query.startTimeMax", base.Add(5 * time.Second).Format(time.RFC3339Nano)}, "1"},
		{"the start is inclusive", []string{"query.startTimeMin", base.Add(5 * time.Second).Format(time.RFC3339Nano)}, "2"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var got struct {
				Summaries []struct{ TraceID string }
			}
			if status, message := getV3(t, api, "/api/v3/trace-summaries?"+hourV3(tc.q...), &got); status != 200 {
				t.Fatal(status, message)
			}
			var ids []string
			for _, s := range got.Summaries {
				ids = append(ids, s.TraceID[31:])
			}
			if s := strings.Join(ids, " "); s != tc.want || got.Summaries == nil {
				t.Errorf("got %q; want %q", s, tc.want)
			}
			var spans struct {
				Result struct{ ResourceSpans []any }
			}
			status, message := getV3(t, api, "/api/v3/traces?"+hourV3(tc.q...), &spans)
			if tc.want == "" {
				if status != 404 {
					t.Errorf("traces: %d %s; want 404, as Jaeger", status, message)
				}
			} else if status != 200 || len(spans.Result.ResourceSpans) == 0 {
				t.Errorf("traces: %d %s, %d resources", status, message, len(spans.Result.ResourceSpans))
			}
		})
	}
}

func TestV3Summary(t *testing.T) {
	_, api := jaegerAPI(t)
	var got struct{ Summaries []json.RawMessage }
	getV3(t, api, "/api/v3/trace-summaries?"+hourV3("query.serviceName", "users"), &got)
	want := `{"traceId":"00000000000000000000000000000001","rootServiceName":"gateway","rootOperationName":"GET /users/{id}",` +
		`"minStartTimeUnixNano":"1793534400000000000","maxEndTimeUnixNano":"1793534402000000000","spanCount":3,"errorSpanCount":1,"orphanSpanCount":0,` +
		`"services":[{"name":"gateway","spanCount":2,"errorSpanCount":1},{"name":"users","spanCount":1,"errorSpanCount":0}]}`
	if len(got.Summaries) != 1 || string(got.Summaries[0]) != want {
		t.Errorf("got %s\nwant %s", got.Summaries, want)
	}
	// A fragment has orphans and no root; a clock may go backwards.
	frag := summarizeTrace(make1(
		spec{service: "a", name: "x", trace: 3, id: 2, parent: 9, at: time.Second, took: -time.Minute},
		spec{service: "a", name: "y", trace: 3, id: 3, parent: 2, at: 2 * time.Second},
	))
	if frag.Orphans != 1 || frag.RootServiceName != "" || frag.MinStart != fmt.Sprint(base.Add(time.Second).UnixNano()) || frag.MaxEnd != fmt.Sprint(base.Add(2*time.Second).UnixNano()) {
		t.Errorf("fragment: %+v", frag)
	}
	roots := summarizeTrace(make1(
		spec{service: "late", name: "x", trace: 3, id: 1, at: time.Second},
		spec{service: "early", name: "y", trace: 3, id: 2},
	))
	if roots.RootServiceName != "early" {
		t.Errorf("two roots: got %s; want the earliest", roots.RootServiceName)
	}
}

func TestV3Errors(t *testing.T) {
	_, api := jaegerAPI(t)
	for _, tc := range []struct {
		path   string
		status int
		says   string
	}{
		{"/api/v3/operations", 400, "service is required"},
		{"/api/v3/traces/xyz", 400, "hexadecimal"},
		{"/api/v3/traces/12345", 404, "not found"},
		{"/api/v3/traces/1?startTime=yesterday", 400, `startTime: "yesterday"`},
		{"/api/v3/traces/1?end_time=1", 400, `end_time: "1"`},
		{"/api/v3/traces/1?rawTraces=maybe", 400, `rawTraces: "maybe"`},
		{"/api/v3/traces/1?startTime=2026-11-01T12:00:01Z&endTime=2026-11-01T12:00:00Z", 400, "before start"},
		{"/api/v3/traces", 400, "query.startTimeMin and query.startTimeMax are required"},
		{"/api/v3/trace-summaries?query.start_time_min=2026-11-01T12:00:00Z", 400, "required"},
		{"/api/v3/traces?" + hourV3("query.startTimeMax", "2026-11-01T11:00:00Z"), 400, "must be before"},
		{"/api/v3/traces?" + hourV3("query.startTimeMin", "1793534400"), 400, "query.startTimeMin"},
		{"/api/v3/traces?" + hourV3("query.duration_min", "5"), 400, `query.duration_min: "5"`},
		{"/api/v3/traces?" + hourV3("query.durationMax", "-5s"), 400, `query.durationMax: "-5s"`},
		{"/api/v3/traces?" + hourV3("query.durationMin", "5s", "query.durationMax", "1s"), 400, "more than"},
		{"/api/v3/traces?" + hourV3("query.searchDepth", "many"), 400, `query.searchDepth: "many"`},
		{"/api/v3/traces?" + hourV3("query.num_traces", "-1"), 400, `query.num_traces: "-1"`},
		{"/api/v3/traces?" + hourV3("query.attributes", `["a"]`), 400, "query.attributes"},
		{"/api/v3/traces?" + hourV3("query.raw_traces", "2"), 400, "query.raw_traces"},
		{"/api/v3/traces?" + hourV3("query.filter", `{"op":"eq"}`), 400, "query.filter is not supported"},
		{"/api/v3/traces?" + hourV3("query.pagination.page_size", "5"), 400, "not supported"},
		{"/api/v3/dependencies?startTime=2026-11-01T12:00:00Z", 400, "required"},
		{"/api/v3/capabilities", 404, "not part"},
	} {
		status, message := getV3(t, api, tc.path, nil)
		if status != tc.status || !strings.Contains(message, tc.says) {
			t.Errorf("%s: got %d %s; want %d … %s", tc.path, status, message, tc.status, tc.says)
		}
	}
}

// TestTraceHints: start and end beside an id keep from looking at hours, and only at
// those.
func TestTraceHints(t *testing.T) {
	fs, now := vfs.NewMem(), base
	s := openStore(t, fs, &now)
	for i := range byte(3) { // a trace that goes on for a day
		at := time.Duration(i) * 12 * time.Hour
		now = base.Add(at)
		write(t, s, make1(spec{service: "a", name: "b", trace: 1, id: i + 1, at: at}))
		if i < 2 { // the last one is in memory
			flush(t, s)
		}
	}
	h := func(hours float64) time.Time { return base.Add(time.Duration(hours * float64(time.Hour))) }
	for _, tc := range []struct {
		start, end time.Time
		want       int
	}{
		{time.Time{}, time.Time{}, 3},
		{h(0), h(24), 3},
		{h(0.5), time.Time{}, 3}, // it may have begun a little earlier
		{h(6), time.Time{}, 2},
		{h(6), h(14), 1},
		{time.Time{}, h(14), 2},
		{h(20), h(23.5), 1},
		{h(3), h(9), 0},
		{h(-1e6), h(1e6), 3}, // beyond what a time in nanoseconds can be
	} {
		w, err := windowOf(tc.start, tc.end)
		if err != nil {
			t.Fatal(err)
		}
		td, err := s.traceWithin(t.Context(), traceID(1), w)
		got := 0
		if err == nil {
			got = td.SpanCount()
		}
		if got != tc.want {
			t.Errorf("from %s to %s: %d spans, %v; want %d", tc.start, tc.end, got, err, tc.want)
		}
	}
}

func TestParseWindow(t *testing.T) {
	hour := window{uint64(base.Add(-hintSlack).UnixNano()), uint64(base.Add(time.Hour + hintSlack).UnixNano())}
	for _, tc := range []struct {
		text string
		want window
		err  string
	}{
		{"", always, ""},
		{fmt.Sprintf("start=%d&end=%d", base.UnixMicro(), base.Add(time.Hour).UnixMicro()), hour, ""},
		{fmt.Sprintf("start=%d&end=%d", base.UnixMilli(), base.Add(time.Hour).UnixMilli()), hour, ""},
		{fmt.Sprintf("start=%d", base.UnixMicro()), window{hour.from, always.to}, ""},
		{fmt.Sprintf("end=%d", base.Add(time.Hour).UnixMilli()), window{0, hour.to}, ""},
		{"start=0", window{0, always.to}, ""},
		{"end=9223372036854775807", window{0, math.MaxInt64}, ""},
		{"start=now", window{}, "start"},
		{"end=-5", window{}, "end"},
		{fmt.Sprintf("start=%d&end=%d", base.Add(time.Hour).UnixMicro(), base.UnixMicro()), window{}, "before start"},
	} {
		v, err := url.ParseQuery(tc.text)
		if err != nil {
			t.Fatal(err)
		}
		got, err := parseWindow(v)
		if tc.err == "" && (err != nil || got != tc.want) || tc.err != "" && (err == nil || !strings.Contains(err.Error(), tc.err)) {
			t.Errorf("%q: got %+v, %v; want %+v, %q", tc.text, got, err, tc.want, tc.err)
		}
	}
}

func FuzzParseQueryV3(f *testing.F) {
	f.Add(hourV3("query.serviceName", "a", "query.attributes", `{"a":"b"}`, "query.duration_min", "1s", "query.num_traces", "5"))
	f.Add("startTime=2026-11-01T12:00:00Z&end_time=2026-11-01T12:00:00.5%2B02:00")
	f.Fuzz(func(t *testing.T, raw string) {
		v, err := url.ParseQuery(raw)
		if err != nil {
			return
		}
		p := paramsV3{v}
		if q, err := p.query(); err == nil {
			newMatcher(q)
			if q.Start.After(q.End) || q.MaxDuration > 0 && q.MinDuration > q.MaxDuration || len(q.Tags) > maxTags {
				t.Errorf("%q: %+v", raw, q)
			}
		}
		if w, err := p.window(); err == nil && w.from > w.to {
			t.Errorf("%q: %+v", raw, w)
		}
	})
}
