package otlp

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlpmetric/otlpmetrichttp"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	sdkresource "go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"

	"go.opentelemetry.io/collector/pdata/ptrace"

	"github.com/binnacle-project/binnacle"
	"github.com/binnacle-project/binnacle/otlp/wire"
)

// TestGoSDK has the exporters of the Go SDK as real clients.
func TestGoSDK(t *testing.T) {
	r := newRig(t, Options{}, nodeOne)
	res := sdkresource.NewSchemaless(attribute.String("service.name", "binnacle-gateway"), attribute.String("service.instance.id", "proc-1"))

	mexp, err := otlpmetrichttp.New(t.Context(), otlpmetrichttp.WithEndpointURL(r.http+"/v1/metrics"), otlpmetrichttp.WithCompression(otlpmetrichttp.GzipCompression))
	if err != nil {
		t.Fatal(err)
	}
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

	texp, err := otlptracehttp.New(t.Context(), otlptracehttp.WithEndpointURL(r.http+"/v1/traces"))
	if err != nil {
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

func (s *failing) WriteTraces(ctx context.Context, o binnacle.Origin, td ptrace.Traces) (Result, error) {
	if s.calls.Add(1) <= s.n.Load() {
		return Result{}, s.err
	}
	return s.memSink.WriteTraces(ctx, o, td)
}

func (s *failing) WriteMetrics(context.Context, binnacle.Origin, *wire.Metrics) (Result, error) {
	return Result{}, s.err
}

// TestGoSDKRetries: the client sends again what is retryable and nothing else.
func TestGoSDKRetries(t *testing.T) {
	tests := []struct {
		name  string
		err   error
		calls int64
		fails bool
	}{
		{"retryable", Retry(errors.New("disk is full"), time.Second), 2, false},
		{"permanent", Permanent(errors.New("bad")), 1, true},
		{"internal", errors.New("broken"), 1, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			sink := &failing{err: tt.err}
			sink.n.Store(1)
			r := newRig(t, Options{Sink: sink}, anyone)
			exp, err := otlptracehttp.New(t.Context(), otlptracehttp.WithEndpointURL(r.http+"/v1/traces"))
			if err != nil {
				t.Fatal(err)
			}
			tp := sdktrace.NewTracerProvider(sdktrace.WithSyncer(exp))
			defer tp.Shutdown(context.WithoutCancel(t.Context()))
			var span sdktrace.ReadOnlySpan
			_, sp := tp.Tracer("test").Start(t.Context(), "one")
			span = sp.(sdktrace.ReadOnlySpan)
			err = exp.ExportSpans(t.Context(), []sdktrace.ReadOnlySpan{span})
			if (err != nil) != tt.fails {
				t.Errorf("export: got %v; want failure %v", err, tt.fails)
			}
			if err != nil && !strings.Contains(err.Error(), "400") && !strings.Contains(err.Error(), "500") {
				t.Errorf("export: got %v; want its status in it", err)
			}
			if got := sink.calls.Load(); got != tt.calls {
				t.Errorf("sent %d times; want %d", got, tt.calls)
			}
		})
	}
}
