package telemetry

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"github.com/VictoriaMetrics/metrics"
	"go.opentelemetry.io/otel/exporters/otlp/otlpmetric/otlpmetrichttp"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/exemplar"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"

	"github.com/binnacle-project/binnacle"
)

// exportTimeout bounds one export; the receiver is usually on loopback.
const exportTimeout = 10 * time.Second

// batchTimeout is how long a span waits for company before it is exported.
const batchTimeout = time.Second

// exportClient returns the client of both exporters. Compression stays off:
// over loopback it costs more than it saves, and the agent decides for the way
// to the manager.
func (t *Telemetry) exportClient() *http.Client {
	return &http.Client{Transport: &revisionMarker{t: t, base: &http.Transport{
		Proxy:               http.ProxyFromEnvironment,
		MaxIdleConnsPerHost: 4,
		IdleConnTimeout:     90 * time.Second,
	}}}
}

// revisionMarker says with each export which revision was running.
type revisionMarker struct {
	t    *Telemetry
	base *http.Transport
}

// RoundTrip adds the header to a copy of the request.
func (m *revisionMarker) RoundTrip(r *http.Request) (*http.Response, error) {
	if m.t.managed {
		r = r.Clone(r.Context())
		r.Header.Set(binnacle.HeaderRevision, binnacle.Revision(m.t.revision.Load()).String())
	}
	return m.base.RoundTrip(r)
}

// metricPipeline collects and exports at an interval that can change at any
// time, which the SDK's periodic reader cannot.
type metricPipeline struct {
	log      *slog.Logger
	reader   *sdkmetric.ManualReader
	provider *sdkmetric.MeterProvider
	exporter sdkmetric.Exporter
	ok, fail *metrics.Counter

	interval chan time.Duration
	first    time.Duration

	mu   sync.Mutex // one export at a time, so that points leave in order
	data metricdata.ResourceMetrics
}

// exponential picks exponential histograms. Scale 8, the finest that
// Prometheus's native histograms keep, is where new series start; they get
// coarser as values spread over more than MaxSize buckets.
func exponential(k sdkmetric.InstrumentKind) sdkmetric.Aggregation {
	if k == sdkmetric.InstrumentKindHistogram {
		return sdkmetric.AggregationBase2ExponentialHistogram{MaxSize: 160, MaxScale: 8, NoMinMax: true}
	}
	return sdkmetric.DefaultAggregationSelector(k)
}

func newMetricPipeline(ctx context.Context, o Options, log *slog.Logger, client *http.Client, res *resource.Resource) (*metricPipeline, error) {
	exporter, err := otlpmetrichttp.New(ctx,
		otlpmetrichttp.WithEndpointURL(o.Endpoint+"/v1/metrics"),
		otlpmetrichttp.WithHeaders(o.Headers),
		otlpmetrichttp.WithHTTPClient(client),
		otlpmetrichttp.WithTimeout(exportTimeout),
		// The next export carries the same totals: retrying only delays it.
		otlpmetrichttp.WithRetry(otlpmetrichttp.RetryConfig{Enabled: false}),
	)
	if err != nil {
		return nil, err
	}
	reader := sdkmetric.NewManualReader(
		sdkmetric.WithAggregationSelector(exponential),
		sdkmetric.WithTemporalitySelector(sdkmetric.CumulativeTemporalitySelector),
	)
	provider := sdkmetric.NewMeterProvider(
		sdkmetric.WithResource(res),
		sdkmetric.WithReader(reader),
		sdkmetric.WithCardinalityLimit(maxAttributeSets),
		sdkmetric.WithExemplarFilter(exemplar.TraceBasedFilter),
	)
	if err := observeProcess(provider); err != nil {
		return nil, err
	}
	return &metricPipeline{
		log:      log,
		reader:   reader,
		provider: provider,
		exporter: exporter,
		ok:       o.Metrics.GetOrCreateCounter(`binnacle_gateway_exports_total{signal="metrics",result="ok"}`),
		fail:     o.Metrics.GetOrCreateCounter(`binnacle_gateway_exports_total{signal="metrics",result="failed"}`),
		interval: make(chan time.Duration, 1),
		first:    o.Interval,
	}, nil
}

// run exports at the interval until ctx ends.
func (p *metricPipeline) run(ctx context.Context) {
	ticker := time.NewTicker(p.first)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case d := <-p.interval:
			ticker.Reset(d)
		case <-ticker.C:
			ectx, cancel := context.WithTimeout(ctx, exportTimeout)
			if err := p.export(ectx); err != nil && ctx.Err() == nil {
				p.log.Warn("metrics were not exported", "err", err)
			}
			cancel()
		}
	}
}

// setInterval hands d to run; of several at once the last one counts.
func (p *metricPipeline) setInterval(d time.Duration) {
	for {
		select {
		case p.interval <- d:
			return
		default:
		}
		select {
		case <-p.interval:
		default:
		}
	}
}

func (p *metricPipeline) export(ctx context.Context) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := p.reader.Collect(ctx, &p.data); err != nil {
		p.fail.Inc()
		return fmt.Errorf("collect metrics: %w", err)
	}
	if len(p.data.ScopeMetrics) == 0 {
		return nil
	}
	if err := p.exporter.Export(ctx, &p.data); err != nil {
		p.fail.Inc()
		return fmt.Errorf("export metrics: %w", err)
	}
	p.ok.Inc()
	return nil
}

func (p *metricPipeline) shutdown(ctx context.Context) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := p.exporter.Shutdown(ctx); err != nil {
		return fmt.Errorf("stop the export of metrics: %w", err)
	}
	return nil
}

// newTraceProvider returns a provider that keeps every span it is asked to
// start: who is sampled is decided before, without the SDK.
func newTraceProvider(ctx context.Context, o Options, log *slog.Logger, client *http.Client, res *resource.Resource) (*sdktrace.TracerProvider, error) {
	exporter, err := otlptracehttp.New(ctx,
		otlptracehttp.WithEndpointURL(o.Endpoint+"/v1/traces"),
		otlptracehttp.WithHeaders(o.Headers),
		otlptracehttp.WithHTTPClient(client),
		otlptracehttp.WithTimeout(exportTimeout),
		otlptracehttp.WithRetry(otlptracehttp.RetryConfig{
			Enabled: true, InitialInterval: 200 * time.Millisecond, MaxInterval: 5 * time.Second, MaxElapsedTime: 30 * time.Second,
		}),
	)
	if err != nil {
		return nil, err
	}
	return sdktrace.NewTracerProvider(
		sdktrace.WithResource(res),
		sdktrace.WithSampler(sdktrace.AlwaysSample()),
		sdktrace.WithBatcher(&loggedSpans{
			SpanExporter: exporter,
			log:          log,
			ok:           o.Metrics.GetOrCreateCounter(`binnacle_gateway_exports_total{signal="traces",result="ok"}`),
			fail:         o.Metrics.GetOrCreateCounter(`binnacle_gateway_exports_total{signal="traces",result="failed"}`),
			lost:         o.Metrics.GetOrCreateCounter(`binnacle_gateway_spans_lost_total`),
		},
			sdktrace.WithMaxQueueSize(maxSpanQueue),
			sdktrace.WithMaxExportBatchSize(1024),
			sdktrace.WithBatchTimeout(batchTimeout),
			sdktrace.WithExportTimeout(exportTimeout),
		),
	), nil
}

// loggedSpans logs and counts failed exports here instead of through the SDK's
// process-wide error handler.
type loggedSpans struct {
	sdktrace.SpanExporter
	log            *slog.Logger
	ok, fail, lost *metrics.Counter
}

// ExportSpans passes spans on and never returns an error.
func (e *loggedSpans) ExportSpans(ctx context.Context, spans []sdktrace.ReadOnlySpan) error {
	if err := e.SpanExporter.ExportSpans(ctx, spans); err != nil {
		e.fail.Inc()
		e.lost.Add(len(spans))
		e.log.Warn("spans were not exported", "spans", len(spans), "err", err)
		return nil
	}
	e.ok.Inc()
	return nil
}
