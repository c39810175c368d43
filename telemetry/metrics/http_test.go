package metrics

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"go.opentelemetry.io/collector/pdata/pcommon"
)

// serve starts the API on a socket and returns its address with the prefix.
func serve(t *testing.T, s *Store) string {
	t.Helper()
	mux := http.NewServeMux()
	mux.Handle("/prometheus/api/v1/", s.Handler("/prometheus/api/v1"))
	srv := httptest.NewServer(mux)
	t.Cleanup(srv.Close)
	return srv.URL + "/prometheus/api/v1/"
}

// call sends a request and returns status and body.
func call(t *testing.T, method, address string, form url.Values) (int, string) {
	t.Helper()
	var body io.Reader
	if method == http.MethodPost {
		body = strings.NewReader(form.Encode())
	} else if len(form) > 0 {
		address += "?" + form.Encode()
	}
	req, err := http.NewRequestWithContext(t.Context(), method, address, body)
	if err != nil {
		t.Fatal(err)
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, string(b)
}

func seconds(t time.Time) string { return strconv.FormatInt(t.Unix(), 10) }

func TestAPI(t *testing.T) {
	s := openStore(t)
	md, ms := gateway("n-1")
	counter(ms, "c", now.Add(-time.Minute), now, 3, "a", "b")
	dp := exponential(ms, "http.server.request.duration", now.Add(-time.Minute), now, 0, 0, []uint64{2}, 1)
	for i, v := range []float64{1.5, 1.2} { // newest first: the store wants them sorted
		ex := dp.Exemplars().AppendEmpty()
		ex.SetDoubleValue(v)
		ex.SetTimestamp(stamp(now.Add(-time.Duration(i+1) * time.Second)))
		ex.SetTraceID(pcommon.TraceID{byte(i + 1)})
		ex.SetSpanID(pcommon.SpanID{byte(i + 1)})
	}
	ms.At(1).SetDescription("Duration of requests.")
	write(t, s, node1, md)
	base := serve(t, s)

	for _, c := range []struct {
		call string
		form url.Values
		want string
	}{
		{"query", url.Values{"query": {"c_total"}, "time": {seconds(now)}}, `"a":"b","group":"default","instance":"n-1","job":"binnacle-gateway","process":"p-1"},"value":[`},
		{"query", url.Values{"query": {"histogram_count(sum(http_server_request_duration_seconds))"}, "time": {seconds(now)}}, `"2"]`},
		{"query_range", url.Values{"query": {"sum(c_total)"}, "start": {seconds(now)}, "end": {seconds(now.Add(time.Minute))}, "step": {"30"}}, `"matrix"`},
		{"query_exemplars", url.Values{"query": {"http_server_request_duration_seconds"}, "start": {seconds(now.Add(-time.Hour))}, "end": {seconds(now)}}, `{"labels":{"span_id":"0200000000000000","trace_id":"02000000000000000000000000000000"},"value":"1.2"`},
		{"query_exemplars", url.Values{"query": {"http_server_request_duration_seconds"}, "start": {seconds(now.Add(-time.Hour))}, "end": {seconds(now)}}, `"value":"1.5"`},
		{"labels", nil, `"process"`},
		{"label/instance/values", nil, `["n-1"]`},
		{"series", url.Values{"match[]": {"c_total"}}, `"__name__":"c_total"`},
		{"metadata", nil, `"http_server_request_duration_seconds":[{"type":"histogram","unit":"seconds","help":"Duration of requests."}]`},
		{"metadata", url.Values{"metric": {"c_total"}}, `{"data":{"c_total":[{"type":"counter","unit":"","help":""}]},"status":"success"}`},
		{"format_query", url.Values{"query": {"a+b"}}, `a + b`},
		{"parse_query", url.Values{"query": {"a+b"}}, `"binaryExpr"`},
		{"rules", nil, `"groups":[]`},
		{"alerts", nil, `"alerts":[]`},
		{"status/buildinfo", nil, `"version":"3.`},
		{"status/runtimeinfo", nil, `"storageRetention":"360h0m0s"`},
		{"status/flags", nil, `"success"`},
		{"status/config", nil, `"yaml"`},
		{"status/tsdb", nil, `"numSeries":2`},
		{"status/tsdb/blocks", nil, `"blocks":[]`},
		{"status/walreplay", nil, `"success"`},
	} {
		status, body := call(t, http.MethodGet, base+c.call, c.form)
		if status != http.StatusOK || !strings.Contains(body, c.want) {
			t.Errorf("GET %s %v: %d %s\nwant 200 with %s", c.call, c.form, status, body, c.want)
		}
		if served(http.MethodPost, c.call) {
			if status, body := call(t, http.MethodPost, base+c.call, c.form); status != http.StatusOK || !strings.Contains(body, c.want) {
				t.Errorf("POST %s %v: %d %s\nwant 200 with %s", c.call, c.form, status, body, c.want)
			}
		}
	}
	// No call writes, deletes or reads raw blocks, and none crashes.
	for _, c := range []string{
		"GET targets", "GET targets/metadata", "GET scrape_pools", "GET alertmanagers", "GET features", "GET notifications", "GET notifications/live",
		"GET status/self_metrics", "POST read", "POST write", "POST otlp/v1/metrics", "POST admin/tsdb/delete_series", "PUT admin/tsdb/snapshot",
		"POST metadata", "DELETE series", "GET query/", "GET label//values", "GET label/a/b/values", "GET ", "GET openapi.yaml",
	} {
		method, path, _ := strings.Cut(c, " ")
		status, body := call(t, method, base+path, nil)
		var answer struct{ Status, ErrorType string }
		if err := json.Unmarshal([]byte(body), &answer); status != http.StatusNotFound || err != nil || answer.Status != "error" {
			t.Errorf("%s: %d %s; want 404 and an error in JSON", c, status, body)
		}
	}
}

// TestNoOtherOrigin checks that no page of another origin may read.
func TestNoOtherOrigin(t *testing.T) {
	base := serve(t, openStore(t))
	if status, _ := call(t, http.MethodOptions, base+"query", nil); status != http.StatusNotFound {
		t.Errorf("OPTIONS: %d; want 404", status)
	}
}

func TestAPIBadQuery(t *testing.T) {
	base := serve(t, openStore(t))
	if status, body := call(t, http.MethodGet, base+"query", url.Values{"query": {"sum("}}); status != http.StatusBadRequest || !strings.Contains(body, "parse error") {
		t.Errorf("bad query: %d %s; want 400", status, body)
	}
	if status, _ := call(t, http.MethodPost, base+"query", url.Values{"query": {strings.Repeat("x", maxForm)}}); status != http.StatusBadRequest {
		t.Errorf("huge form: %d; want 400", status)
	}
}

func TestAPILimits(t *testing.T) {
	s := openStore(t, func(o *Options) {
		o.Query = QueryLimits{MaxSamples: 50, MaxSeries: 3, Concurrency: 1, Timeout: time.Second}
	})
	for step := range 20 {
		md, ms := gateway("n-1")
		for i := range 10 {
			gauge(ms, "g", now.Add(time.Duration(step-20)*time.Second), 1, "i", strconv.Itoa(i))
		}
		write(t, s, node1, md)
	}
	base := serve(t, s)

	for _, asked := range []string{"", "0", "100"} {
		status, body := call(t, http.MethodGet, base+"series", url.Values{"match[]": {"g"}, "limit": {asked}})
		if n := strings.Count(body, `"__name__"`); status != http.StatusOK || n != 3 || !strings.Contains(body, "results truncated due to limit") {
			t.Errorf("series with limit %q: %d, %d series, %s; want 3 and a warning", asked, status, n, body)
		}
	}
	if _, body := call(t, http.MethodGet, base+"label/i/values", url.Values{"limit": {"2"}}); strings.Count(body, `"0","1"]`) != 1 {
		t.Errorf("two values asked for: %s", body)
	}
	if status, body := call(t, http.MethodGet, base+"query", url.Values{"query": {"g[1m]"}, "time": {seconds(now)}}); status != http.StatusUnprocessableEntity || !strings.Contains(body, "too many samples") {
		t.Errorf("a query over the sample limit: %d %s; want 422", status, body)
	}

	h := s.Handler("/x").(*handler)
	leave, err := h.enter(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	rec := httptest.NewRecorder()
	h.ServeHTTP(rec, httptest.NewRequest(http.MethodGet, "/x/query?query=1", nil))
	if rec.Code != http.StatusServiceUnavailable || rec.Header().Get("Retry-After") == "" {
		t.Errorf("a query while all places are taken: %d; want 503 with Retry-After", rec.Code)
	}
	leave()
	rec = httptest.NewRecorder()
	h.ServeHTTP(rec, httptest.NewRequest(http.MethodGet, "/x/query?query=1", nil))
	if rec.Code != http.StatusOK {
		t.Errorf("a query when the place is free again: %d; want 200", rec.Code)
	}
	var text strings.Builder
	s.opts.Metrics.WritePrometheus(&text)
	for _, want := range []string{
		`binnacle_metrics_query_requests_refused_total 1`, `binnacle_metrics_query_failures_total{status="422"} 1`,
		`binnacle_metrics_query_failures_total{status="503"} 1`, `binnacle_metrics_query_requests_running 0`, `binnacle_metrics_query_requests_waiting 0`,
	} {
		if !strings.Contains(text.String(), want+"\n") {
			t.Errorf("the store's own metrics lack %s", want)
		}
	}
}

func TestDescribe(t *testing.T) {
	s := openStore(t)
	s.Describe("group:x", Metadata{Type: model.MetricTypeHistogram, Unit: "seconds", Help: "h"})
	if got := s.meta.list("group:x", -1, -1)["group:x"]; len(got) != 1 || got[0].Type != model.MetricTypeHistogram {
		t.Errorf("metadata of a described metric: %v", got)
	}
}

func TestQueryHelpers(t *testing.T) {
	s := openStore(t)
	b := s.Batch()
	h := s.Series(labels.FromStrings(nameLabel, "m"))
	for i := range 3 {
		if err := b.AppendFloat(h, now.Add(time.Duration(i)*time.Second).UnixMilli(), float64(i)); err != nil {
			t.Fatal(err)
		}
	}
	if err := b.Commit(); err != nil {
		t.Fatal(err)
	}
	m, err := s.QueryRange(t.Context(), "m", now, now.Add(2*time.Second), time.Second)
	if err != nil || len(m) != 1 || len(m[0].Floats) != 3 || m[0].Floats[2].F != 2 {
		t.Errorf("QueryRange: %v, %v; want one series of 0, 1, 2", m, err)
	}
	if v, err := s.Query(t.Context(), "1+1", now); err != nil || len(v) != 1 || v[0].F != 2 {
		t.Errorf("Query of a scalar: %v, %v; want 2", v, err)
	}
	if _, err := s.Query(t.Context(), "m[1m]", now); err == nil || !strings.Contains(err.Error(), "want a vector or a number") {
		t.Errorf("Query of a matrix: error %v", err)
	}
	if _, err := s.Query(t.Context(), "sum(", now); err == nil || !strings.Contains(err.Error(), `query "sum("`) {
		t.Errorf("bad query: error %v", err)
	}
}
