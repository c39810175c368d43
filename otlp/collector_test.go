package otlp

import (
	"errors"
	"testing"
	"time"

	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/config/configcompression"
	"go.opentelemetry.io/collector/config/configoptional"
	"go.opentelemetry.io/collector/exporter"
	"go.opentelemetry.io/collector/exporter/exporterhelper"
	"go.opentelemetry.io/collector/exporter/otlpexporter"
	"go.opentelemetry.io/collector/exporter/otlphttpexporter"
	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/otel/metric/noop"
	tracenoop "go.opentelemetry.io/otel/trace/noop"
	"go.uber.org/zap"
	"google.golang.org/grpc/encoding"
)

// bareHost is a collector without extensions.
type bareHost struct{}

func (bareHost) GetExtensions() map[component.ID]component.Component { return nil }

func collectorSettings(typ component.Type) exporter.Settings {
	return exporter.Settings{
		ID: component.NewID(typ),
		TelemetrySettings: component.TelemetrySettings{
			Logger:         zap.NewNop(),
			TracerProvider: tracenoop.NewTracerProvider(),
			MeterProvider:  noop.NewMeterProvider(),
			Resource:       pcommon.NewResource(),
		},
	}
}

// collectorExporter makes one of the collector's exporters, without its queue
// so that its errors are seen.
func collectorExporter(t *testing.T, r *rig, via wireForm, c configcompression.Type) exporter.Traces {
	t.Helper()
	f := otlphttpexporter.NewFactory()
	cfg := f.CreateDefaultConfig()
	switch via {
	case viaGRPC:
		f = otlpexporter.NewFactory()
		cfg = f.CreateDefaultConfig()
		c2 := cfg.(*otlpexporter.Config)
		c2.ClientConfig.Endpoint = r.grpc
		c2.ClientConfig.TLS.Insecure = true
		c2.ClientConfig.Compression = c
		c2.QueueConfig = configoptional.None[exporterhelper.QueueBatchConfig]()
		c2.RetryConfig.InitialInterval = 10 * time.Millisecond
	default:
		c2 := cfg.(*otlphttpexporter.Config)
		c2.ClientConfig.Endpoint = r.http
		c2.ClientConfig.Compression = c
		c2.QueueConfig = configoptional.None[exporterhelper.QueueBatchConfig]()
		c2.RetryConfig.InitialInterval = 10 * time.Millisecond
		if via == viaJSON {
			c2.Encoding = otlphttpexporter.EncodingJSON
		}
	}
	exp, err := f.CreateTraces(t.Context(), collectorSettings(f.Type()), cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := exp.Start(t.Context(), bareHost{}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { exp.Shutdown(t.Context()) })
	return exp
}

// TestCollectorExporters has the collector's exporters as real clients: they
// deliver, they retry what is retryable, and they drop the rest.
func TestCollectorExporters(t *testing.T) {
	for _, via := range []wireForm{viaGRPC, viaProto, viaJSON} {
		for _, c := range []configcompression.Type{"none", configcompression.TypeGzip, configcompression.TypeZstd} {
			t.Run(string(via)+"/"+string(c), func(t *testing.T) {
				r := newRig(t, Options{}, anyone)
				exp := collectorExporter(t, r, via, c)
				if err := exp.ConsumeTraces(t.Context(), sampleTraces(100, "service.name", "collector")); err != nil {
					t.Fatal(err)
				}
				if _, spans := r.sink.counts(); spans != 100 {
					t.Errorf("got %d spans; want 100", spans)
				}
			})
		}
		for _, tt := range []struct {
			name  string
			err   error
			calls int64
		}{
			{"retryable", Retry(errors.New("disk is full"), time.Second), 2},
			{"permanent", Permanent(errors.New("bad")), 1},
		} {
			t.Run(string(via)+"/"+tt.name, func(t *testing.T) {
				t.Parallel()
				sink := &failing{err: tt.err}
				sink.n.Store(1)
				r := newRig(t, Options{Sink: sink}, anyone)
				err := collectorExporter(t, r, via, "none").ConsumeTraces(t.Context(), sampleTraces(1))
				if (err == nil) != (tt.calls == 2) {
					t.Errorf("export: got %v", err)
				}
				if got := sink.calls.Load(); got != tt.calls {
					t.Errorf("sent %d times; want %d", got, tt.calls)
				}
			})
		}
	}
}

// TestOurZstdIsUsed: the collector's exporters, linked into the same binary
// for forwarding, register a zstd of their own whose window is not bounded.
func TestOurZstdIsUsed(t *testing.T) {
	if c := encoding.GetCompressor("zstd"); c != (encoding.Compressor)(ourZstd) {
		t.Errorf("gRPC's zstd is a %T; want ours", c)
	}
}
