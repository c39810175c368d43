package otlp

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlpmetric/otlpmetricgrpc"
	"go.opentelemetry.io/otel/exporters/otlp/otlpmetric/otlpmetrichttp"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracegrpc"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	sdkresource "go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"

	"github.com/binnacle-project/binnacle"
	"github.com/binnacle-project/binnacle/otlp/wire"
)

// TestGoSDK has the exporters of the Go SDK as real clients, over both
// protocols.
func TestGoSDK(t *testing.T) {
	for _, via := range []wireForm{viaProto, viaGRPC} {
		t.Run(string(via), func(t *testing.T) { testGoSDK(t, via) })
	}
}

// sdkExporters makes the SDK's exporters for a receiver.
func sdkExporters(t *testing.T, r *rig, via wireForm) (sdkmetric.Exporter, sdktrace.SpanExporter) {
	t.Helper()
	var (
		me         sdkmetric.Exporter
		te         sdktrace.SpanExporter
		errM, errT error
	)
	if via == viaGRPC {
		me, errM = otlpmetricgrpc.New(t.Context(), otlpmetricgrpc.WithEndpoint(r.grpc), otlpmetricgrpc.WithInsecure(), otlpmetricgrpc.WithCompressor("gzip"))
		te, errT = otlptracegrpc.New(t.Context(), otlptracegrpc.WithEndpoint(r.grpc), otlptracegrpc.WithInsecure())
	} else {
		me, errM = otlpmetrichttp.New(t.Context(), otlpmetrichttp.WithEndpointURL(r.http+"/v1/metrics"), otlpmetrichttp.WithCompression(otlpmetrichttp.GzipCompression))
		te, errT = otlptracehttp.New(t.Context(), otlptracehttp.WithEndpointURL(r.http+"/v1/traces"))
	}
	if err := errors.Join(errM, errT); err != nil {
		t.Fatal(err)
	}
	return me, te
}

func testGoSDK(t *testing.T, via wireForm) {
	r := newRig(t, Options{}, nodeOne)
	res := sdkresource.NewSchemaless(attribute.String("service.name", "binnacle-gateway"), attribute.String("service.instance.id", "proc-1"))
	mexp, texp := sdkExporters(t, r, via)
	mp := sdkmetric.NewMeterProvider(sdkmetric.WithResource(res), sdkmetric.WithReader(sdkmetric.NewPeriodicReader(mexp)),
		sdkmetric.WithView(sdkmetric.NewView(sdkmetric.Instrument{Name: "*"}, sdkmetric.Stream{Aggregation: sdkmetric.AggregationBase2ExponentialHistogram{MaxSize: 160, MaxScale: 8}})))
	h, err := mp.Meter("test").Float64Histogram("http.server.request.duration")
	if err != nil {
		t.Fatal(err)
	}
	for i := range 100 {
		h.Record(t.Context(), float64(i)/1000)
	}
	if err := mp.Shutdown(t.Context()); err != nil {
		t.Fatal(err)
	}

	tp := sdktrace.NewTracerProvider(sdktrace.WithResource(res), sdktrace.WithBatcher(texp))
	for range 10 {
		ctx, parent := tp.Tracer("test").Start(t.Context(), "GET /")
		_, child := tp.Tracer("test").Start(ctx, "GET")
		child.End()
		parent.End()
	}
	if err := tp.Shutdown(t.Context()); err != nil {
		t.Fatal(err)
	}

	if points, spans := r.sink.counts(); points != 1 || spans != 20 {
		t.Fatalf("the sink got %d points, %d spans; want 1, 20", points, spans)
	}
	p := r.sink.metrics[0].ResourceMetrics().At(0).ScopeMetrics().At(0).Metrics().At(0).ExponentialHistogram().DataPoints().At(0)
	if p.Count() != 100 {
		t.Errorf("histogram count is %d; want 100", p.Count())
	}
	attrs := r.sink.traces[0].ResourceSpans().At(0).Resource().Attributes().AsRaw()
	if attrs["service.instance.id"] != "node-1" || attrs["binnacle.process"] != "proc-1" {
		t.Errorf("resource is %v", attrs)
	}
}

// failing answers the first n batches with err.
type failing struct {
	memSink
	n     atomic.Int64
	err   error
	calls atomic.Int64
}

func (s *failing) WriteTraces(ctx context.Context, o binnacle.Origin, t *wire.Traces) (Result, error) {
	if s.calls.Add(1) <= s.n.Load() {
		return Result{}, s.err
	}
	return s.memSink.WriteTraces(ctx, o, t)
}

func (s *failing) WriteMetrics(context.Context, binnacle.Origin, *wire.Metrics) (Result, error) {
	return Result{}, s.err
}

// TestGoSDKRetries: the clients send again what is retryable and nothing else.
func TestGoSDKRetries(t *testing.T) {
	for _, via := range []wireForm{viaProto, viaGRPC} {
		for _, tt := range []struct {
			name  string
			err   error
			calls int64
			fails string // part of the error, "" for success
		}{
			{"retryable", Retry(errors.New("disk is full"), time.Second), 2, ""},
			{"permanent", Permanent(errors.New("bad")), 1, "bad"},
			{"internal", errors.New("broken"), 1, "its log says why"},
		} {
			t.Run(string(via)+"/"+tt.name, func(t *testing.T) {
				t.Parallel()
				sink := &failing{err: tt.err}
				sink.n.Store(1)
				r := newRig(t, Options{Sink: sink}, anyone)
				_, exp := sdkExporters(t, r, via)
				tp := sdktrace.NewTracerProvider(sdktrace.WithSyncer(exp))
				defer tp.Shutdown(context.WithoutCancel(t.Context()))
				_, sp := tp.Tracer("test").Start(t.Context(), "one")
				start := time.Now()
				err := exp.ExportSpans(t.Context(), []sdktrace.ReadOnlySpan{sp.(sdktrace.ReadOnlySpan)})
				if (err != nil) != (tt.fails != "") || err != nil && !strings.Contains(err.Error(), tt.fails) {
					t.Errorf("export: got %v; want failure %q", err, tt.fails)
				}
				if got := sink.calls.Load(); got != tt.calls {
					t.Errorf("sent %d times; want %d", got, tt.calls)
				}
				if took := time.Since(start); tt.calls > 1 && took < time.Second {
					t.Errorf("sent again after %v; want the second that it was asked to wait", took)
				}
			})
		}
	}
}

// TestGoSDKPartialSuccess: the clients tell of what was refused of a batch, and
// do not send it again.
func TestGoSDKPartialSuccess(t *testing.T) {
	for _, via := range []wireForm{viaProto, viaGRPC} {
		t.Run(string(via), func(t *testing.T) {
			sink := &memSink{res: Result{Rejected: 1, Message: "too old"}}
			r := newRig(t, Options{Sink: sink}, anyone)
			_, exp := sdkExporters(t, r, via)
			tp := sdktrace.NewTracerProvider(sdktrace.WithSyncer(exp))
			defer tp.Shutdown(context.WithoutCancel(t.Context()))
			_, sp := tp.Tracer("test").Start(t.Context(), "one")
			err := exp.ExportSpans(t.Context(), []sdktrace.ReadOnlySpan{sp.(sdktrace.ReadOnlySpan)})
			if err == nil || !strings.Contains(err.Error(), "too old") || !strings.Contains(err.Error(), "1 spans rejected") {
				t.Errorf("export: got %v; want the partial success with its message", err)
			}
			if _, spans := sink.counts(); spans != 1 {
				t.Errorf("sent %d times; want once", spans)
			}
		})
	}
}
