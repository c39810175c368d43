package manager

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"
	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/pmetric"
	"go.opentelemetry.io/collector/pdata/pmetric/pmetricotlp"
	"go.opentelemetry.io/collector/pdata/ptrace"
	"go.opentelemetry.io/collector/pdata/ptrace/ptraceotlp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	_ "google.golang.org/grpc/encoding/gzip"
)

// way is how a request is sent: "grpc", "protobuf" or "json", and compressed.
type way struct{ encoding, compression string }

func ways() (all []way) {
	for _, e := range []string{"grpc", "protobuf", "json"} {
		for _, c := range []string{"", "gzip", "zstd"} {
			all = append(all, way{e, c})
		}
	}
	return all
}

// String names the sender that goes this way.
func (w way) String() string { return strings.TrimSuffix(w.encoding+"-"+w.compression, "-") }

// sendMetrics sends md to a running manager and returns the rejected points.
func sendMetrics(t *testing.T, m *Manager, w way, md pmetric.Metrics) int64 {
	t.Helper()
	req := pmetricotlp.NewExportRequestFromMetrics(md)
	if w.encoding == "grpc" {
		resp, err := pmetricotlp.NewGRPCClient(dialOTLP(t, m)).Export(t.Context(), req, callOptions(w)...)
		if err != nil {
			t.Fatalf("%s: %v", w, err)
		}
		return resp.PartialSuccess().RejectedDataPoints()
	}
	resp := pmetricotlp.NewExportResponse()
	if w.encoding == "json" {
		body, err := req.MarshalJSON()
		if err = postOTLP(t, m, w, "metrics", body, err, resp.UnmarshalJSON); err != nil {
			t.Fatalf("%s: %v", w, err)
		}
	} else {
		body, err := req.MarshalProto()
		if err = postOTLP(t, m, w, "metrics", body, err, resp.UnmarshalProto); err != nil {
			t.Fatalf("%s: %v", w, err)
		}
	}
	return resp.PartialSuccess().RejectedDataPoints()
}

// sendTraces sends td, all of which must be taken.
func sendTraces(t *testing.T, m *Manager, w way, td ptrace.Traces) {
	t.Helper()
	req := ptraceotlp.NewExportRequestFromTraces(td)
	var err error
	if w.encoding == "grpc" {
		_, err = ptraceotlp.NewGRPCClient(dialOTLP(t, m)).Export(t.Context(), req, callOptions(w)...)
	} else {
		body, merr := req.MarshalProto()
		if w.encoding == "json" {
			body, merr = req.MarshalJSON()
		}
		err = postOTLP(t, m, w, "traces", body, merr, func([]byte) error { return nil })
	}
	if err != nil {
		t.Fatalf("%s: %v", w, err)
	}
}

func dialOTLP(t *testing.T, m *Manager) *grpc.ClientConn {
	t.Helper()
	cc, err := grpc.NewClient(m.OTLPGRPCAddr(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cc.Close() })
	return cc
}

func callOptions(w way) []grpc.CallOption {
	if w.compression == "" {
		return nil
	}
	return []grpc.CallOption{grpc.UseCompressor(w.compression)}
}

func postOTLP(t *testing.T, m *Manager, w way, signal string, body []byte, err error, answer func([]byte) error) error {
	t.Helper()
	if err != nil {
		return err
	}
	switch w.compression {
	case "gzip":
		var b bytes.Buffer
		zw := gzip.NewWriter(&b)
		_, _ = zw.Write(body)
		_ = zw.Close()
		body = b.Bytes()
	case "zstd":
		zw, err := zstd.NewWriter(nil)
		if err != nil {
			return err
		}
		body = zw.EncodeAll(body, nil)
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+m.OTLPHTTPAddr()+"/v1/"+signal, bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", map[string]string{"json": "application/json", "protobuf": "application/x-protobuf"}[w.encoding])
	req.Header.Set("Content-Encoding", w.compression)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	got, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %q", resp.Status, got)
	}
	return answer(got)
}

// getJSON asks the operator API, as a caller on this machine.
func getJSON(t *testing.T, m *Manager, path string, into any) {
	t.Helper()
	resp, err := http.Get("http://" + m.HTTPAddr() + path)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode == http.StatusOK {
		err = json.Unmarshal(b, into)
	}
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("GET %s: %s, %v: %.300s", path, resp.Status, err, b)
	}
}

// series asks PromQL and returns "labels value", sorted, without the labels that
// tell senders apart.
func series(t *testing.T, m *Manager, expr string, at time.Time) (out []string) {
	t.Helper()
	var answer struct {
		Data struct {
			Result []struct {
				Metric    map[string]string
				Value     []any
				Histogram []any
			}
		}
	}
	getJSON(t, m, "/prometheus/api/v1/query?"+url.Values{"query": {expr}, "time": {fmt.Sprint(at.Unix())}}.Encode(), &answer)
	for _, r := range answer.Data.Result {
		delete(r.Metric, "instance")
		v := r.Value
		if v == nil {
			v = r.Histogram
		}
		b, _ := json.Marshal([]any{r.Metric, v[1]})
		out = append(out, string(b))
	}
	slices.Sort(out)
	return out
}

// everyKind makes the second of two exports of one sender: each kind of metric
// that OTLP knows, cumulative and delta, with exemplars and a flag.
func everyKind(instance string, start, at time.Time, n int64) pmetric.Metrics {
	md := pmetric.NewMetrics()
	rm := md.ResourceMetrics().AppendEmpty()
	rm.Resource().Attributes().PutStr("service.name", "kinds")
	rm.Resource().Attributes().PutStr("service.instance.id", instance)
	rm.Resource().Attributes().PutStr("host.name", "h")
	ms := rm.ScopeMetrics().AppendEmpty().Metrics()
	ts := func(t time.Time) pcommon.Timestamp { return pcommon.NewTimestampFromTime(t) }
	number := func(m pmetric.Metric, dps pmetric.NumberDataPointSlice, v int64) pmetric.NumberDataPoint {
		dp := dps.AppendEmpty()
		dp.SetStartTimestamp(ts(start))
		dp.SetTimestamp(ts(at))
		dp.SetIntValue(v)
		dp.Attributes().PutStr("k", "v")
		dp.Attributes().PutBool("yes", true)
		return dp
	}
	named := func(name, unit string) pmetric.Metric {
		m := ms.AppendEmpty()
		m.SetName(name)
		m.SetUnit(unit)
		m.SetDescription("What " + name + " is.")
		return m
	}
	g := named("a.gauge", "By")
	number(g, g.SetEmptyGauge().DataPoints(), -3*n).SetDoubleValue(-0.5 * float64(n))
	for _, temporality := range []pmetric.AggregationTemporality{pmetric.AggregationTemporalityCumulative, pmetric.AggregationTemporalityDelta} {
		suffix, v := "", n
		if temporality == pmetric.AggregationTemporalityDelta {
			suffix, v = ".delta", 1
		}
		for _, monotonic := range []bool{true, false} {
			name := "a.counter"
			if !monotonic {
				name = "an.updown"
			}
			m := named(name+suffix, "")
			s := m.SetEmptySum()
			s.SetAggregationTemporality(temporality)
			s.SetIsMonotonic(monotonic)
			dp := number(m, s.DataPoints(), 10*v)
			ex := dp.Exemplars().AppendEmpty()
			ex.SetTimestamp(ts(at.Add(-time.Second)))
			ex.SetIntValue(1)
			ex.SetTraceID(pcommon.TraceID{1, 2, 3})
			ex.SetSpanID(pcommon.SpanID{4})
		}
		e := named("an.explicit"+suffix, "s").SetEmptyHistogram()
		e.SetAggregationTemporality(temporality)
		hd := e.DataPoints().AppendEmpty()
		hd.SetStartTimestamp(ts(start))
		hd.SetTimestamp(ts(at))
		hd.ExplicitBounds().FromRaw([]float64{0.1, 1})
		hd.BucketCounts().FromRaw([]uint64{uint64(v), 2 * uint64(v), uint64(v)})
		hd.SetCount(4 * uint64(v))
		hd.SetSum(2.5 * float64(v))
		x := named("an.exponential"+suffix, "s").SetEmptyExponentialHistogram()
		x.SetAggregationTemporality(temporality)
		xd := x.DataPoints().AppendEmpty()
		xd.SetStartTimestamp(ts(start))
		xd.SetTimestamp(ts(at))
		xd.SetScale(2)
		xd.SetZeroCount(uint64(v))
		xd.Positive().SetOffset(-3)
		xd.Positive().BucketCounts().FromRaw([]uint64{uint64(v), 0, 3 * uint64(v)})
		xd.Negative().BucketCounts().FromRaw([]uint64{uint64(v)})
		xd.SetCount(6 * uint64(v))
		xd.SetSum(1.5 * float64(v))
	}
	q := named("a.summary", "s").SetEmptySummary().DataPoints().AppendEmpty()
	q.SetStartTimestamp(ts(start))
	q.SetTimestamp(ts(at))
	q.SetCount(uint64(n))
	q.SetSum(float64(n))
	qv := q.QuantileValues().AppendEmpty()
	qv.SetQuantile(0.5)
	qv.SetValue(0.25)
	m := named("gone", "")
	number(m, m.SetEmptyGauge().DataPoints(), n).SetFlags(pmetric.DefaultDataPointFlags.WithNoRecordedValue(n > 1))
	return md
}

// TestEveryKindEveryWay sends the same metrics and spans by each encoding and
// compression to a whole manager and wants the same answers of the Prometheus and
// the Jaeger API for all of them, and the right ones.
func TestEveryKindEveryWay(t *testing.T) {
	m := startTest(t, func(o *Options) { o.AnonymousRole = "operator" })
	start := time.Now().Add(-time.Minute).Truncate(time.Second)
	end := start.Add(40 * time.Second)
	for i, w := range ways() {
		for n, at := range []time.Time{start.Add(30 * time.Second), end} {
			if rejected := sendMetrics(t, m, w, everyKind(w.String(), start, at, int64(n+1))); rejected != 0 {
				t.Errorf("%s: %d points rejected", w, rejected)
			}
		}
		// The same again is no news: taken, and nothing counts twice.
		again := sendMetrics(t, m, w, everyKind(w.String(), start, end, 2))
		if again != 4 { // deltas that were there already
			t.Errorf("%s: the same export again: %d points rejected; want the 4 deltas", w, again)
		}
		td := ptrace.NewTraces()
		rs := td.ResourceSpans().AppendEmpty()
		rs.Resource().Attributes().PutStr("service.name", "kinds")
		rs.Resource().Attributes().PutStr("service.instance.id", w.String())
		for s := range 2 {
			sp := rs.ScopeSpans().AppendEmpty().Spans().AppendEmpty()
			sp.SetTraceID(pcommon.TraceID{9, byte(i)})
			sp.SetSpanID(pcommon.SpanID{1, byte(s)})
			sp.SetName("work")
			sp.SetStartTimestamp(pcommon.NewTimestampFromTime(start))
			sp.SetEndTimestamp(pcommon.NewTimestampFromTime(end))
			sp.Attributes().PutStr("way", w.String())
			sp.Events().AppendEmpty().SetName("event")
			sp.Links().AppendEmpty().SetTraceID(pcommon.TraceID{7})
			sp.Status().SetCode(ptrace.StatusCodeError)
		}
		sendTraces(t, m, w, td)
	}

	var first []string
	for i, w := range ways() {
		got := series(t, m, fmt.Sprintf(`{instance=%q}`, w), end)
		if i == 0 {
			first = got
		} else if !slices.Equal(got, first) {
			t.Errorf("%s differs from %s:\n%s\n%s", w, ways()[0], strings.Join(got, "\n"), strings.Join(first, "\n"))
		}
		var trace struct {
			Data []struct {
				Spans []struct{ OperationName string }
			}
		}
		getJSON(t, m, fmt.Sprintf("/jaeger/api/traces/09%02x%028x", i, 0), &trace)
		if len(trace.Data) != 1 || len(trace.Data[0].Spans) != 2 {
			t.Errorf("%s: trace %+v; want one of two spans", w, trace.Data)
		}
	}
	one := func(name string) string { return fmt.Sprintf(`%s{instance="json-zstd"}`, name) }
	for expr, want := range map[string]string{
		one("a_gauge_bytes"):                               `"-1"`,
		one("a_counter_total"):                             `"20"`,
		one("a_counter_delta_total"):                       `"20"`,
		one("an_updown"):                                   `"20"`,
		one("an_updown_delta"):                             `"20"`,
		"histogram_count(" + one("an_explicit_seconds)"):   ``,
		one("an_explicit_seconds_count"):                   `"8"`,
		one("an_explicit_delta_seconds_count"):             `"8"`,
		one("an_explicit_delta_seconds_sum"):               `"5"`,
		one("an_exponential_seconds_count"):                `"12"`,
		one("an_exponential_delta_seconds_count"):          `"12"`,
		one("an_exponential_delta_seconds_sum"):            `"3"`,
		one("a_summary_seconds"):                           `"0.25"`,
		one("a_summary_seconds_count"):                     `"2"`,
		`count(gone)`:                                      `none`, // no recorded value: stale
		`count(gone offset 9s)`:                            `"9"`,
		`sum(increase(a_counter_total[41s]))`:              `>`,
		`count(target_info{host_name="h"})`:                `"9"`,
		`sum by (le) (an_explicit_seconds_bucket{le="1"})`: `"54"`,
	} {
		if want == "" {
			continue
		}
		got := series(t, m, expr, end)
		switch {
		case want == "none" && len(got) != 0, want == ">" && len(got) != 1, want[0] == '"' && (len(got) != 1 || !strings.Contains(got[0], want)):
			t.Errorf("%s: got %v; want %s", expr, got, want)
		}
	}
	var exemplars struct {
		Data []struct{ Exemplars []json.RawMessage }
	}
	getJSON(t, m, "/prometheus/api/v1/query_exemplars?"+url.Values{"query": {"a_counter_total"}, "start": {fmt.Sprint(start.Unix())}, "end": {fmt.Sprint(end.Unix())}}.Encode(), &exemplars)
	if len(exemplars.Data) != len(ways()) {
		t.Errorf("exemplars of %d series; want %d", len(exemplars.Data), len(ways()))
	}
	var meta struct {
		Data map[string][]struct{ Type, Unit, Help string }
	}
	getJSON(t, m, "/prometheus/api/v1/metadata", &meta)
	for name, kind := range map[string]string{"an_explicit_seconds": "histogram", "an_exponential_seconds": "histogram", "a_counter_total": "counter", "an_updown": "gauge", "a_summary_seconds": "summary", "a_gauge_bytes": "gauge"} {
		if d := meta.Data[name]; len(d) != 1 || d[0].Type != kind || !strings.HasPrefix(d[0].Help, "What ") {
			t.Errorf("metadata of %s: %+v; want %s with help", name, d, kind)
		}
	}
}

// TestActivityAtTheBorder sends one stock gateway's requests to a whole manager
// as networks do: twice, late, out of order, after a restart, after an outage,
// and wants each request counted once, and windows without what does not belong.
func TestActivityAtTheBorder(t *testing.T) {
	m := startTest(t, nil)
	now := time.Now().Truncate(time.Second)
	export := func(start, at time.Time, n uint64) pmetric.Metrics {
		md := pmetric.NewMetrics()
		rm := md.ResourceMetrics().AppendEmpty()
		rm.Resource().Attributes().PutStr("service.name", "stock")
		rm.Resource().Attributes().PutStr("service.instance.id", "stock-1")
		mt := rm.ScopeMetrics().AppendEmpty().Metrics().AppendEmpty()
		mt.SetName("http.server.duration")
		h := mt.SetEmptyHistogram()
		h.SetAggregationTemporality(pmetric.AggregationTemporalityCumulative)
		dp := h.DataPoints().AppendEmpty()
		dp.SetStartTimestamp(pcommon.NewTimestampFromTime(start))
		dp.SetTimestamp(pcommon.NewTimestampFromTime(at))
		dp.ExplicitBounds().FromRaw([]float64{0.1})
		dp.BucketCounts().FromRaw([]uint64{n, 0})
		dp.SetCount(n)
		dp.SetSum(float64(n) / 16)
		dp.Attributes().PutStr("http.route", "/a")
		dp.Attributes().PutInt("http.response.status_code", 200)
		return md
	}
	ago := func(seconds int) time.Time { return now.Add(-time.Duration(seconds) * time.Second) }
	start := ago(220)
	for _, step := range []struct {
		what   string
		start  time.Time
		at     time.Time
		count  uint64
		total  int64 // afterwards
		within int64 // of the last five minutes
	}{
		{"the first", start, ago(200), 10, 10, 10},
		{"the next", start, ago(190), 25, 25, 25},
		{"the same again", start, ago(190), 25, 25, 25},
		{"an older one", start, ago(200), 10, 25, 25},
		{"one between the two", start, ago(195), 20, 25, 25},
		{"another one", start, ago(180), 30, 30, 30},
		{"after a restart", ago(175), ago(170), 4, 34, 34},
		{"the restarted, the next", ago(175), ago(160), 9, 39, 39},
		{"after an outage of thirteen intervals", ago(175), ago(30), 1009, 1039, 39},
		{"back to normal", ago(175), ago(20), 1019, 1049, 49},
	} {
		sendMetrics(t, m, way{"protobuf", "gzip"}, export(step.start, step.at, step.count))
		var total, within int64
		for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
			var list struct {
				Items []struct {
					ID       string
					Activity *struct {
						Requests      int64 `json:"requests"`
						RequestsTotal int64 `json:"requests_total"`
					}
				}
			}
			getJSON(t, m, "/v1/nodes?window=300", &list)
			for _, n := range list.Items {
				if n.ID == "stock-1" && n.Activity != nil {
					total, within = n.Activity.RequestsTotal, n.Activity.Requests
				}
			}
			if total == step.total && within == step.within {
				break
			}
		}
		if total != step.total || within != step.within {
			t.Errorf("%s: %d requests in all, %d in five minutes; want %d, %d", step.what, total, within, step.total, step.within)
		}
	}
}
