package telemetry

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"github.com/VictoriaMetrics/metrics"
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
// time, which the SDK's periodic reader cannot. Points are cumulative, so that
// several pipelines share one reader, and a request is recorded once.
type metricPipeline struct {
	log      *slog.Logger
	reader   *sdkmetric.ManualReader
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

// newMeterProvider returns a provider, and the reader that all pipelines share.
func newMeterProvider(res *resource.Resource) (*sdkmetric.MeterProvider, *sdkmetric.ManualReader) {
	reader := sdkmetric.NewManualReader(
		sdkmetric.WithAggregationSelector(exponential),
		sdkmetric.WithTemporalitySelector(sdkmetric.CumulativeTemporalitySelector),
	)
	return sdkmetric.NewMeterProvider(
		sdkmetric.WithResource(res),
		sdkmetric.WithReader(reader),
		sdkmetric.WithCardinalityLimit(maxAttributeSets),
		sdkmetric.WithExemplarFilter(exemplar.TraceBasedFilter),
	), reader
}

func newMetricPipeline(exporter sdkmetric.Exporter, reader *sdkmetric.ManualReader, interval time.Duration, set *metrics.Set, log *slog.Logger) *metricPipeline {
	return &metricPipeline{
		log: log, reader: reader, exporter: exporter,
		ok:       set.GetOrCreateCounter(`binnacle_gateway_exports_total{signal="metrics",result="ok"}`),
		fail:     set.GetOrCreateCounter(`binnacle_gateway_exports_total{signal="metrics",result="failed"}`),
		interval: make(chan time.Duration, 1),
		first:    interval,
	}
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
func newTraceProvider(res *resource.Resource, batches []sdktrace.SpanProcessor) *sdktrace.TracerProvider {
	o := []sdktrace.TracerProviderOption{sdktrace.WithResource(res), sdktrace.WithSampler(sdktrace.AlwaysSample())}
	for _, p := range batches {
		o = append(o, sdktrace.WithSpanProcessor(p))
	}
	return sdktrace.NewTracerProvider(o...)
}

func newBatches(exporter sdktrace.SpanExporter, set *metrics.Set, log *slog.Logger) sdktrace.SpanProcessor {
	return sdktrace.NewBatchSpanProcessor(&loggedSpans{
		SpanExporter: exporter,
		log:          log,
		ok:           set.GetOrCreateCounter(`binnacle_gateway_exports_total{signal="traces",result="ok"}`),
		fail:         set.GetOrCreateCounter(`binnacle_gateway_exports_total{signal="traces",result="failed"}`),
		lost:         set.GetOrCreateCounter(`binnacle_gateway_spans_lost_total`),
	},
		sdktrace.WithMaxQueueSize(maxSpanQueue),
		sdktrace.WithMaxExportBatchSize(1024),
		sdktrace.WithBatchTimeout(batchTimeout),
		sdktrace.WithExportTimeout(exportTimeout),
	)
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
