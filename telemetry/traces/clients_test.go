package traces

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"
)

// The calls of the two clients that people have, as those make them and with
// what those read of the answers.
//
// Source: grafana: pkg/tsdb/jaeger/client.go and types/types.go;
// jaeger-ui: packages/jaeger-ui/src/api/jaeger.ts.

// grafanaTraces is what Grafana's Jaeger data source decodes; a type that does
// not fit is an error there.
type grafanaTraces struct {
	Data []struct {
		TraceID   string   `json:"traceID"`
		Warnings  []string `json:"warnings"`
		Processes map[string]struct {
			ServiceName string       `json:"serviceName"`
			Tags        []grafanaTag `json:"tags"`
		} `json:"processes"`
		Spans []struct {
			TraceID       string `json:"traceID"`
			SpanID        string `json:"spanID"`
			ProcessID     string `json:"processID"`
			OperationName string `json:"operationName"`
			StartTime     int64  `json:"startTime"`
			Duration      int64  `json:"duration"`
			Logs          []struct {
				Timestamp int64        `json:"timestamp"`
				Fields    []grafanaTag `json:"fields"`
			} `json:"logs"`
			References []struct {
				RefType string `json:"refType"`
				SpanID  string `json:"spanID"`
				TraceID string `json:"traceID"`
			} `json:"references"`
			Tags     []grafanaTag `json:"tags"`
			Warnings []string     `json:"warnings"`
			Flags    int          `json:"flags"`
		} `json:"spans"`
	} `json:"data"`
	Errors any `json:"errors"`
	Limit  int `json:"limit"`
	Offset int `json:"offset"`
	Total  int `json:"total"`
}

type grafanaTag struct {
	Key   string `json:"key"`
	Type  string `json:"type"`
	Value any    `json:"value"`
}

// fetch makes a request, whose answer must be JSON.
func fetch(t *testing.T, address string) (status int, body []byte) {
	t.Helper()
	resp, err := http.Get(address)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err = io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	if ct := resp.Header.Get("Content-Type"); ct != "application/json" {
		t.Errorf("%s: Content-Type is %q", address, ct)
	}
	return resp.StatusCode, body
}

// ask makes a request and decodes the answer strictly enough for a client in
// Go; it returns the status.
func ask(t *testing.T, address string, into any) int {
	t.Helper()
	status, body := fetch(t, address)
	if into != nil {
		if err := json.Unmarshal(body, into); err != nil {
			t.Fatalf("%s: %v: %s", address, err, body)
		}
	}
	return status
}

// join builds an address as Grafana does.
func join(t *testing.T, base string, parts ...string) string {
	t.Helper()
	u, err := url.JoinPath(base, parts...)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

func TestGrafanaCalls(t *testing.T) {
	_, api := jaegerAPI(t)
	var lists struct {
		Data   []string `json:"data"`
		Errors any      `json:"errors"`
		Total  int      `json:"total"`
	}
	if status := ask(t, join(t, api, "/api/services"), &lists); status != 200 || !slices.Equal(lists.Data, []string{"gateway", "users"}) || lists.Total != 2 || lists.Errors != nil {
		t.Errorf("services: got %d %+v", status, lists)
	}
	if status := ask(t, join(t, api, "/api/services/", "gateway", "/operations"), &lists); status != 200 || len(lists.Data) != 3 {
		t.Errorf("operations: got %d %+v", status, lists)
	}
	if status := ask(t, join(t, api, "/api/services/", "no such", "/operations"), &lists); status != 200 || lists.Data == nil || len(lists.Data) != 0 {
		t.Errorf("operations of nobody: got %d %+v; want an empty list", status, lists)
	}

	// A search: tags are a JSON object of strings, times microseconds.
	q := url.Values{}
	q.Set("limit", "20")
	q.Set("start", fmt.Sprint(base.Add(-time.Minute).UnixMicro()))
	q.Set("end", fmt.Sprint(base.Add(time.Minute).UnixMicro()))
	q.Set("service", "gateway")
	q.Set("operation", "GET /users/{id}")
	q.Set("tags", `{"http.response.status_code":"502"}`)
	q.Set("minDuration", "100ms")
	q.Set("maxDuration", "5s")
	var found grafanaTraces
	if status := ask(t, join(t, api, "api/traces")+"?"+q.Encode(), &found); status != 200 || len(found.Data) != 1 || found.Total != 1 {
		t.Fatalf("search: got %d %+v", status, found)
	}
	for _, sp := range found.Data[0].Spans {
		if _, ok := found.Data[0].Processes[sp.ProcessID]; !ok || sp.StartTime == 0 {
			t.Errorf("span %s: process %q is not among %v, or it has no start", sp.SpanID, sp.ProcessID, found.Data[0].Processes)
		}
	}

	// One trace; newer versions add the time range, in milliseconds or not.
	id := found.Data[0].TraceID
	var one grafanaTraces
	address := join(t, api, "/api/traces", url.QueryEscape(id)) + fmt.Sprintf("?start=%d&end=%d", base.UnixMilli(), base.Add(time.Hour).UnixMilli())
	if status := ask(t, address, &one); status != 200 || len(one.Data) != 1 || len(one.Data[0].Spans) != 3 {
		t.Errorf("trace: got %d %+v", status, one)
	}
	address = join(t, api, "/api/traces", url.QueryEscape(id)) + fmt.Sprintf("?start=%d&end=%d", base.Add(24*time.Hour).UnixMilli(), base.Add(25*time.Hour).UnixMilli())
	if status := ask(t, address, nil); status != 404 {
		t.Errorf("trace of the day before: got %d; want 404", status)
	}
	// It takes data[0] of every answer below 300: none may be empty.
	if status := ask(t, join(t, api, "/api/traces", "4711"), nil); status != 404 {
		t.Errorf("unknown trace: got %d; want 404", status)
	}

	var deps struct {
		Data []struct {
			Parent    string `json:"parent"`
			Child     string `json:"child"`
			CallCount int    `json:"callCount"`
		} `json:"data"`
		Errors []struct {
			Code int    `json:"code"`
			Msg  string `json:"msg"`
		} `json:"errors"`
	}
	address = join(t, api, "/api/dependencies") + fmt.Sprintf("?endTs=%d&lookback=%d", base.Add(time.Hour).UnixMilli(), 2*time.Hour.Milliseconds())
	if status := ask(t, address, &deps); status != 200 || len(deps.Data) != 1 || deps.Data[0].CallCount != 1 {
		t.Errorf("dependencies: got %d %+v", status, deps)
	}
}

func TestJaegerPageCalls(t *testing.T) {
	_, api := jaegerAPI(t)
	apiRoot := api + "/api/"
	week := (7 * 24 * time.Hour).Milliseconds()
	for _, c := range []struct {
		path  string
		count int
	}{
		{"services", 2},
		{"services/gateway/operations", 3},
		{"operations?service=gateway&spanKind=server", 2},
		{"traces?" + url.Values{
			"service": {"gateway"}, "operation": {"GET /users/{id}"}, "limit": {"20"}, "lookback": {"1h"}, "maxDuration": {""}, "minDuration": {""},
			"start": {fmt.Sprint(base.Add(-time.Hour).UnixMicro())}, "end": {fmt.Sprint(base.Add(time.Hour).UnixMicro())}, "tags": {`{"error":"true"}`},
		}.Encode(), 1},
		{"traces?traceID=1&traceID=2", 2}, // comparing two
		{"traces/00000000000000000000000000000001", 1},
		{fmt.Sprintf("dependencies?endTs=%d&lookback=%d", base.Add(time.Hour).UnixMilli(), week), 1},
	} {
		var got struct {
			Data   []json.RawMessage `json:"data"`
			Total  int               `json:"total"`
			Errors []jaegerError     `json:"errors"`
		}
		if status := ask(t, apiRoot+c.path, &got); status != 200 || len(got.Data) != c.count || got.Total != c.count || len(got.Errors) != 0 {
			t.Errorf("%s: got %d with %d of %d, errors %v; want %d", c.path, status, len(got.Data), got.Total, got.Errors, c.count)
		}
	}
	// It shows code and msg of each error, and only for a status from 400 on.
	for path, want := range map[string]int{"traces/4711": 404, "traces?service=a&limit=many": 400, "metrics/latencies?service=a": 404} {
		var got struct {
			Errors []struct {
				Code *int    `json:"code"`
				Msg  *string `json:"msg"`
			} `json:"errors"`
		}
		status := ask(t, apiRoot+path, &got)
		if status != want || len(got.Errors) != 1 || got.Errors[0].Code == nil || *got.Errors[0].Code != want || got.Errors[0].Msg == nil || *got.Errors[0].Msg == "" {
			t.Errorf("%s: got %d %+v; want %d with code and msg", path, status, got, want)
		}
	}
}

// TestAnswersAreBounded: whoever asks for all traces at once is told what to ask
// for instead, and gets what fits.
func TestAnswersAreBounded(t *testing.T) {
	s, api := jaegerAPI(t)
	many := make1()
	for i := range 200 {
		td := make1(spec{service: "large", name: strings.Repeat("x", 1000), trace: 3, id: 1, at: time.Duration(i) * time.Second, attrs: []string{"k", strings.Repeat("y", 5000)}})
		sp := td.ResourceSpans().At(0).ScopeSpans().At(0).Spans().At(0)
		sp.SetTraceID(numbered(uint64(1000 + i)))
		td.ResourceSpans().MoveAndAppendTo(many.ResourceSpans())
	}
	write(t, s, many)
	s.o.maxAnswerSpans = 50
	var got grafanaTraces
	if status := ask(t, api+"/api/traces?service=large&limit=1500", &got); status != 200 || len(got.Data) != 50 {
		t.Fatalf("got %d with %d traces; want 50", status, len(got.Data))
	}
	if w := got.Data[0].Warnings; len(w) != 1 || !strings.Contains(w[0], "50 spans") {
		t.Errorf("warnings of the first trace: %q; want one that names the bound", w)
	}
	if newest := got.Data[0].Spans[0].StartTime; newest != base.Add(199*time.Second).UnixMicro() {
		t.Errorf("the first is not the newest")
	}
	ids := url.Values{}
	for i := range 60 {
		ids.Add("traceID", numbered(uint64(1000+i)).String())
	}
	if status := ask(t, api+"/api/traces?"+ids.Encode(), &got); status != 200 || len(got.Data) != 50 {
		t.Errorf("by id: got %d with %d traces; want 50", status, len(got.Data))
	}
}
