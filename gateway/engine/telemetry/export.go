package telemetry

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"github.com/VictoriaMetrics/metrics"
	"go.opentelemetry.io/otel/sdk/instrumentation"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/exemplar"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	"go.opentelemetry.io/otel/sdk/resource"

	"github.com/binnacle-project/binnacle"
)

// exportTimeout bounds one export; the receiver is usually on loopback.
const exportTimeout = 10 * time.Second

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

// newMeterProvider returns a provider for what the process says of itself, and
// the reader that all pipelines share, which also reads producer.
func newMeterProvider(res *resource.Resource, producer sdkmetric.Producer) (*sdkmetric.MeterProvider, *sdkmetric.ManualReader) {
	reader := sdkmetric.NewManualReader(
		sdkmetric.WithTemporalitySelector(sdkmetric.CumulativeTemporalitySelector),
		sdkmetric.WithProducer(producer),
	)
	return sdkmetric.NewMeterProvider(
		sdkmetric.WithResource(res),
		sdkmetric.WithReader(reader),
		sdkmetric.WithCardinalityLimit(maxAttributeSets),
		sdkmetric.WithExemplarFilter(exemplar.AlwaysOffFilter), // the histograms have their own
	), reader
}

// Produce gives the histograms of requests to the SDK's reader, and the counters
// that the worker keeps of itself.
//
// Source: OpenTelemetry specification, metrics SDK, "MetricProducer".
func (t *Telemetry) Produce(context.Context) ([]metricdata.ScopeMetrics, error) {
	now := time.Now()
	return []metricdata.ScopeMetrics{{
		Scope:   instrumentation.Scope{Name: scopeName, Version: binnacle.Version},
		Metrics: append(t.own.metrics(now), t.server.metric(now), t.client.metric(now)),
	}}, nil
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
