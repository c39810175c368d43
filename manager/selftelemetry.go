package manager

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"time"

	"github.com/VictoriaMetrics/metrics"
	"github.com/prometheus/prometheus/model/labels"
	"go.opentelemetry.io/contrib/instrumentation/net/http/otelhttp"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlpmetric/otlpmetrichttp"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"

	"github.com/binnacle-project/binnacle"
	"github.com/binnacle-project/binnacle/otlp"
)

// ownInterval is how often the manager's own metrics go into its own store.
const ownInterval = 15 * time.Second

// selfTelemetry is the OpenTelemetry SDK of the manager itself: traces and HTTP
// metrics of the operator API. It exports into the manager's own receiver
// without a socket, so that the way in is the one of all other telemetry.
type selfTelemetry struct {
	traces  *sdktrace.TracerProvider
	metrics *sdkmetric.MeterProvider
}

func startSelfTelemetry(ctx context.Context, rec *otlp.Receiver, name string, set *metrics.Set) (*selfTelemetry, error) {
	client := &http.Client{Transport: inProcess{rec.HTTPHandler(func(context.Context, otlp.Sender) (binnacle.Origin, error) {
		return binnacle.Origin{}, nil
	})}}
	res := resource.NewSchemaless(
		attribute.String("service.name", binnacle.ServiceManager),
		attribute.String("service.version", binnacle.Version),
		attribute.String("service.instance.id", name),
		attribute.String("host.name", name),
	)
	te, err := otlptracehttp.New(ctx, otlptracehttp.WithEndpoint("self.invalid"), otlptracehttp.WithInsecure(), otlptracehttp.WithHTTPClient(client))
	if err != nil {
		return nil, fmt.Errorf("make the manager's trace exporter: %w", err)
	}
	me, err := otlpmetrichttp.New(ctx, otlpmetrichttp.WithEndpoint("self.invalid"), otlpmetrichttp.WithInsecure(), otlpmetrichttp.WithHTTPClient(client))
	if err != nil {
		return nil, fmt.Errorf("make the manager's metric exporter: %w", err)
	}
	return &selfTelemetry{
		traces: sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(newOwnSpans(te, set)), sdktrace.WithResource(res)),
		metrics: sdkmetric.NewMeterProvider(sdkmetric.WithResource(res),
			// As nodes do: PromQL cannot add other bucket layouts to theirs.
			sdkmetric.WithView(sdkmetric.NewView(
				sdkmetric.Instrument{Kind: sdkmetric.InstrumentKindHistogram},
				sdkmetric.Stream{Aggregation: sdkmetric.AggregationBase2ExponentialHistogram{MaxSize: 160, MaxScale: 8}})),
			sdkmetric.WithReader(sdkmetric.NewPeriodicReader(me, sdkmetric.WithInterval(ownInterval)))),
	}, nil
}

// instrument traces and measures the operator API, but not what a page asks
// for every few seconds or holds open.
func (s *selfTelemetry) instrument(h http.Handler) http.Handler {
	return otelhttp.NewHandler(h, "operator API",
		otelhttp.WithTracerProvider(s.traces), otelhttp.WithMeterProvider(s.metrics),
		otelhttp.WithSpanNameFormatter(func(_ string, r *http.Request) string { return r.Method + " " + r.Pattern }),
		otelhttp.WithFilter(func(r *http.Request) bool {
			p := r.URL.Path
			return strings.HasPrefix(p, "/v1/") && !strings.HasSuffix(p, "/stream") && !strings.HasPrefix(p, "/v1/discovery/")
		}))
}

func (s *selfTelemetry) stop(ctx context.Context) error {
	return errors.Join(s.traces.Shutdown(ctx), s.metrics.Shutdown(ctx))
}

// inProcess is a transport that calls a handler instead of a socket.
type inProcess struct{ handler http.Handler }

func (t inProcess) RoundTrip(r *http.Request) (*http.Response, error) {
	w := httptest.NewRecorder()
	t.handler.ServeHTTP(w, r)
	if r.Body != nil {
		_, _ = io.Copy(io.Discard, r.Body)
		_ = r.Body.Close()
	}
	return w.Result(), nil
}

// handleMetrics serves the manager's own counters in Prometheus text form.
func (m *Manager) handleMetrics(w http.ResponseWriter, _ *http.Request) error {
	w.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
	m.writeMetrics(w)
	return nil
}

// writeMetrics writes the manager's counters and those of its process.
func (m *Manager) writeMetrics(w io.Writer) {
	m.set.WritePrometheus(w)
	metrics.WriteProcessMetrics(w)
}

// copyOwnMetrics copies the same counters into the own store, so that the past
// of the manager can be queried like that of a node.
func (m *Manager) copyOwnMetrics(ctx context.Context) error {
	lbls := labels.FromStrings(binnacle.LabelJob, binnacle.ServiceManager, binnacle.LabelInstance, m.name)
	tick := time.NewTicker(ownInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case at := <-tick.C:
			if err := m.metrics.ScrapeFrom(ctx, m.writeMetrics, lbls, at); err != nil {
				m.log.Warn("copy the own metrics into the store", "error", err)
			}
		}
	}
}
