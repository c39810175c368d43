package otlp

import (
	"bytes"
	"compress/gzip"
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"github.com/VictoriaMetrics/metrics"
	"github.com/klauspost/compress/zstd"
	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/pmetric"
	"go.opentelemetry.io/collector/pdata/pmetric/pmetricotlp"
	"go.opentelemetry.io/collector/pdata/ptrace"
	"go.opentelemetry.io/collector/pdata/ptrace/ptraceotlp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/binnacle-project/binnacle"
	"github.com/binnacle-project/binnacle/otlp/wire"
)

// memSink keeps copies of what it is given.
type memSink struct {
	mu      sync.Mutex
	metrics []pmetric.Metrics
	traces  []ptrace.Traces
	origins []binnacle.Origin
	res     Result
	err     error
}

func (s *memSink) WriteMetrics(_ context.Context, o binnacle.Origin, m *wire.Metrics) (Result, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return Result{}, s.err
	}
	s.metrics = append(s.metrics, toPdata(m))
	s.origins = append(s.origins, o)
	return s.res, nil
}

// toPdata is a copy of m.
func toPdata(m *wire.Metrics) pmetric.Metrics {
	b, err := m.AppendRequest(nil)
	if err != nil {
		panic(err)
	}
	req := pmetricotlp.NewExportRequest()
	if err := req.UnmarshalProto(b); err != nil {
		panic(err)
	}
	return req.Metrics()
}

// toWire is the other way.
func toWire(md pmetric.Metrics) *wire.Metrics {
	m, err := wire.FromPdata(md)
	if err != nil {
		panic(err)
	}
	return m
}

func (s *memSink) WriteTraces(_ context.Context, o binnacle.Origin, t *wire.Traces) (Result, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return Result{}, s.err
	}
	b, err := t.AppendRequest(nil)
	if err != nil {
		panic(err)
	}
	req := ptraceotlp.NewExportRequest()
	if err := req.UnmarshalProto(b); err != nil {
		panic(err)
	}
	s.traces = append(s.traces, req.Traces())
	s.origins = append(s.origins, o)
	return s.res, nil
}

func (s *memSink) counts() (points, spans int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, md := range s.metrics {
		points += md.DataPointCount()
	}
	for _, td := range s.traces {
		spans += td.SpanCount()
	}
	return points, spans
}

// rig is a receiver with real sockets for both protocols.
type rig struct {
	*Receiver
	sink *memSink
	set  *metrics.Set
	http string // base URL
	grpc string // host:port
}

func newRig(t *testing.T, o Options, identify Identify) *rig {
	t.Helper()
	sink := &memSink{}
	if o.Sink == nil {
		o.Sink = sink
	}
	set := metrics.NewSet()
	o.Metrics = set
	o.Log = slog.New(slog.NewTextHandler(t.Output(), nil))
	r := New(o)
	hs := httptest.NewServer(r.HTTPHandler(identify))
	t.Cleanup(hs.Close)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	gs := r.GRPCServer(identify)
	done := make(chan error, 1)
	go func() { done <- gs.Serve(ln) }()
	t.Cleanup(func() { gs.Stop(); <-done })
	return &rig{Receiver: r, sink: sink, set: set, http: hs.URL, grpc: ln.Addr().String()}
}

func (r *rig) counter(name string) uint64 { return r.set.GetOrCreateCounter(name).Get() }

func (r *rig) dial(t *testing.T) *grpc.ClientConn {
	t.Helper()
	cc, err := grpc.NewClient(r.grpc, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cc.Close() })
	return cc
}

// anyone is an unmanaged sender.
func anyone(context.Context, Sender) (binnacle.Origin, error) { return binnacle.Origin{}, nil }

// nodeOne is a managed sender.
func nodeOne(context.Context, Sender) (binnacle.Origin, error) {
	return binnacle.Origin{Managed: true, Cluster: "c1", Node: "node-1", Group: "edge", Revision: 7}, nil
}

func setAttrs(m pcommon.Map, kv ...string) {
	for i := 0; i < len(kv); i += 2 {
		m.PutStr(kv[i], kv[i+1])
	}
}

var base = time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)

// sampleMetrics has one resource and a metric of each type, with two points each.
func sampleMetrics(resource ...string) pmetric.Metrics {
	md := pmetric.NewMetrics()
	rm := md.ResourceMetrics().AppendEmpty()
	setAttrs(rm.Resource().Attributes(), resource...)
	sm := rm.ScopeMetrics().AppendEmpty()
	sm.Scope().SetName("test")
	ts := pcommon.NewTimestampFromTime(base)
	for i, name := range []string{"gauge", "sum", "histogram", "exponential", "summary"} {
		m := sm.Metrics().AppendEmpty()
		m.SetName(name)
		for j := range 2 {
			var attrs pcommon.Map
			switch i {
			case 0:
				if j == 0 {
					m.SetEmptyGauge()
				}
				p := m.Gauge().DataPoints().AppendEmpty()
				p.SetTimestamp(ts)
				p.SetDoubleValue(1.5)
				attrs = p.Attributes()
			case 1:
				if j == 0 {
					m.SetEmptySum().SetAggregationTemporality(pmetric.AggregationTemporalityCumulative)
				}
				p := m.Sum().DataPoints().AppendEmpty()
				p.SetTimestamp(ts)
				p.SetIntValue(3)
				attrs = p.Attributes()
			case 2:
				if j == 0 {
					m.SetEmptyHistogram().SetAggregationTemporality(pmetric.AggregationTemporalityCumulative)
				}
				p := m.Histogram().DataPoints().AppendEmpty()
				p.SetTimestamp(ts)
				p.ExplicitBounds().FromRaw([]float64{1, 2})
				p.BucketCounts().FromRaw([]uint64{1, 2, 3})
				p.SetCount(6)
				p.SetSum(9)
				attrs = p.Attributes()
			case 3:
				if j == 0 {
					m.SetEmptyExponentialHistogram().SetAggregationTemporality(pmetric.AggregationTemporalityCumulative)
				}
				p := m.ExponentialHistogram().DataPoints().AppendEmpty()
				p.SetTimestamp(ts)
				p.SetScale(3)
				p.Positive().BucketCounts().FromRaw([]uint64{1, 0, 2})
				p.SetCount(3)
				p.SetSum(4)
				attrs = p.Attributes()
			case 4:
				if j == 0 {
					m.SetEmptySummary()
				}
				p := m.Summary().DataPoints().AppendEmpty()
				p.SetTimestamp(ts)
				p.SetCount(2)
				q := p.QuantileValues().AppendEmpty()
				q.SetQuantile(0.5)
				q.SetValue(1)
				attrs = p.Attributes()
			}
			attrs.PutStr("http.route", fmt.Sprintf("/users/%d", j))
		}
	}
	return md
}

// sampleTraces has one resource and n gateway-shaped spans.
func sampleTraces(n int, resource ...string) ptrace.Traces {
	td := ptrace.NewTraces()
	rs := td.ResourceSpans().AppendEmpty()
	setAttrs(rs.Resource().Attributes(), resource...)
	ss := rs.ScopeSpans().AppendEmpty()
	ss.Scope().SetName("test")
	for i := range n {
		sp := ss.Spans().AppendEmpty()
		sp.SetTraceID(pcommon.TraceID{1, byte(i >> 8), byte(i)})
		sp.SetSpanID(pcommon.SpanID{2, byte(i >> 8), byte(i)})
		sp.SetName("GET /users/{id}")
		sp.SetKind(ptrace.SpanKindServer)
		sp.SetStartTimestamp(pcommon.NewTimestampFromTime(base))
		sp.SetEndTimestamp(pcommon.NewTimestampFromTime(base.Add(time.Millisecond)))
		setAttrs(sp.Attributes(), "http.request.method", "GET", "http.route", "/users/{id}", "url.path", fmt.Sprintf("/users/%d", i))
		sp.Attributes().PutInt("http.response.status_code", 200)
		ev := sp.Events().AppendEmpty()
		ev.SetName("cache.miss")
		ev.SetTimestamp(sp.StartTimestamp())
	}
	return td
}

func gzipped(b []byte) []byte {
	var buf bytes.Buffer
	zw := gzip.NewWriter(&buf)
	zw.Write(b)
	zw.Close()
	return buf.Bytes()
}

func zstded(b []byte) []byte {
	zw, err := zstd.NewWriter(nil)
	if err != nil {
		panic(err)
	}
	return zw.EncodeAll(b, nil)
}
