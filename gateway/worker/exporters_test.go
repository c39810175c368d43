package worker

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/pmetric"
	"go.opentelemetry.io/collector/pdata/pmetric/pmetricotlp"
	"go.opentelemetry.io/collector/pdata/ptrace/ptraceotlp"
	"google.golang.org/grpc"

	"github.com/binnacle-project/binnacle/api"
)

// receiver collects what an exporter sends, over HTTP or gRPC: for each metric
// and span its name, with the attributes of its resource and its own.
type receiver struct {
	pmetricotlp.UnimplementedGRPCServer
	mu  sync.Mutex
	got map[string]map[string]any
}

// traceReceiver is its other half: the two services have methods of one name.
type traceReceiver struct {
	ptraceotlp.UnimplementedGRPCServer
	r *receiver
}

func (r *receiver) note(name string, attrs ...pcommon.Map) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.got == nil {
		r.got = map[string]map[string]any{}
	}
	m := map[string]any{}
	for _, a := range attrs {
		for k, v := range a.AsRaw() {
			m[k] = v
		}
	}
	r.got[name] = m
}

// Export takes metrics.
func (r *receiver) Export(_ context.Context, req pmetricotlp.ExportRequest) (pmetricotlp.ExportResponse, error) {
	for _, rm := range req.Metrics().ResourceMetrics().All() {
		for _, sm := range rm.ScopeMetrics().All() {
			for _, m := range sm.Metrics().All() {
				if m.Type() == pmetric.MetricTypeExponentialHistogram && m.ExponentialHistogram().DataPoints().Len() > 0 {
					r.note(m.Name(), rm.Resource().Attributes(), m.ExponentialHistogram().DataPoints().At(0).Attributes())
				}
			}
		}
	}
	return pmetricotlp.NewExportResponse(), nil
}

// Export takes spans.
func (t *traceReceiver) Export(_ context.Context, req ptraceotlp.ExportRequest) (ptraceotlp.ExportResponse, error) {
	for _, rs := range req.Traces().ResourceSpans().All() {
		for _, ss := range rs.ScopeSpans().All() {
			for _, s := range ss.Spans().All() {
				t.r.note(s.Kind().String(), rs.Resource().Attributes(), s.Attributes())
			}
		}
	}
	return ptraceotlp.NewExportResponse(), nil
}

// ServeHTTP takes both.
func (r *receiver) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	b, err := io.ReadAll(req.Body)
	if err == nil && req.URL.Path == "/v1/metrics" {
		m := pmetricotlp.NewExportRequest()
		if err = m.UnmarshalProto(b); err == nil {
			_, err = r.Export(req.Context(), m)
		}
	} else if err == nil {
		s := ptraceotlp.NewExportRequest()
		if err = s.UnmarshalProto(b); err == nil {
			_, err = (&traceReceiver{r: r}).Export(req.Context(), s)
		}
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	w.Header().Set("Content-Type", "application/x-protobuf")
}

// TestExportersOfAConfiguration is a standalone gateway whose file names
// receivers: one over HTTP, one over gRPC, one that is not there, one for traces
// alone.
func TestExportersOfAConfiguration(t *testing.T) {
	var overHTTP, overGRPC, onlyTraces receiver
	hs := httptest.NewServer(&overHTTP)
	t.Cleanup(hs.Close)
	ts := httptest.NewServer(&onlyTraces)
	t.Cleanup(ts.Close)
	gl, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	gs := grpc.NewServer()
	pmetricotlp.RegisterGRPCServer(gs, &overGRPC)
	ptraceotlp.RegisterGRPCServer(gs, &traceReceiver{r: &overGRPC})
	go gs.Serve(gl)
	t.Cleanup(gs.Stop)
	backend := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "{}") }))
	t.Cleanup(backend.Close)

	port := func(addr string) string { return addr[strings.LastIndexByte(addr, ':')+1:] }
	raw := fmt.Appendf(nil, `{ "version": 3, "port": 8080, "extra_config": { "telemetry/opentelemetry": {
    "service_name": "shop", "deploy_env": "stage", "trace_sample_rate": 1, "metric_reporting_period": 1,
    "exporters": { "otlp": [
      { "name": "h", "host": "127.0.0.1", "port": %s, "use_http": true, "custom_metric_reporting_period": 3600 },
      { "name": "t", "host": "http://127.0.0.1", "port": %s, "use_http": true, "disable_metrics": true },
      { "name": "g", "host": "127.0.0.1", "port": %s },
      { "name": "absent", "host": "127.0.0.1", "port": 1 } ] },
    "layers": {
      "global": { "metrics_static_attributes": [ {"key": "zone", "value": "a"}, {"key": "http.route", "value": "/mine"} ], "traces_static_attributes": [ {"key": "zone", "value": "b"} ] },
      "backend": { "metrics": { "static_attributes": [ {"key": "tier", "value": "c"} ] }, "traces": { "static_attributes": [ {"key": "tier", "value": "d"} ] } } } } },
  "endpoints": [ { "endpoint": "/u", "backend": [ { "host": [%q], "url_pattern": "/x" } ] } ] }`, port(hs.URL), port(ts.URL), port(gl.Addr().String()), backend.URL)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	tr := NewTraffic(TrafficOptions{}, []net.Listener{ln})
	began := time.Now()
	if err := tr.Apply(t.Context(), raw, api.RevisionRef{}); err != nil {
		t.Fatal(err)
	}
	resp, err := http.Get("http://" + ln.Addr().String() + "/u")
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("GET /u: %v, %v", resp, err)
	}
	io.Copy(io.Discard, resp.Body)
	resp.Body.Close()
	http.DefaultClient.CloseIdleConnections()
	// Swaps do not wait for the receiver that is absent.
	for range 3 {
		if err := tr.Apply(t.Context(), raw, api.RevisionRef{}); err != nil {
			t.Fatal(err)
		}
	}
	if took := time.Since(began); took > 3*time.Second {
		t.Errorf("three swaps took %v", took)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	tr.Stop(ctx) //nolint:errcheck // one receiver is absent

	for name, r := range map[string]*receiver{"over HTTP": &overHTTP, "over gRPC": &overGRPC, "traces alone": &onlyTraces} {
		check := func(what, key, want string) {
			t.Helper()
			if got := fmt.Sprint(r.got[what][key]); got != want {
				t.Errorf("%s: %s of %s: got %q; want %q", name, key, what, got, want)
			}
		}
		check("Server", "deployment.environment.name", "stage")
		check("Server", "zone", "b")
		check("Client", "tier", "d")
		if r == &onlyTraces {
			if m := r.got["http.server.request.duration"]; m != nil {
				t.Errorf("%s: got metrics", name)
			}
			continue
		}
		check("http.server.request.duration", "service.name", "shop")
		check("http.server.request.duration", "zone", "a")
		check("http.server.request.duration", "http.route", "/u") // ours outweighs
		check("http.client.request.duration", "tier", "c")
	}
}
