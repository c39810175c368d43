// Package telemetry measures the gateway: server and client histograms in the
// OpenTelemetry HTTP semantic conventions, one server span per request and one
// client span per exchange with a backend, W3C trace context in and out, and
// their export over OTLP/HTTP. It knows net/http and nothing of Lura:
// gateway/engine, which imports it, says where routes and backends are.
//
// Everything a request needs is prepared when a configuration is built (Scope,
// Route, Backend): counting a request then allocates nothing. Histograms and
// spans are recorded by code of this package, because the SDK's cost ten times
// as much; the SDK collects and exports them.
package telemetry

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net/http"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/VictoriaMetrics/metrics"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/resource"

	"github.com/binnacle-project/binnacle"
)

// DefaultSampleRatio is the share of traces kept when nothing says otherwise:
// at 0.1 tracing costs little beside metrics, and a fleet still shows many
// traces a second. (krakend-otel keeps all by default.)
const DefaultSampleRatio = 0.1

// DefaultInterval is the time between two exports of metrics.
const DefaultInterval = 10 * time.Second

// maxAttributeSets bounds the attribute sets of an instrument, at ten times what
// the SDK takes for a limit: a configuration of 1,000 endpoints with three backends and four
// statuses each needs 12,000. Beyond it measurements go to one series with
// otel.metric.overflow, still counted.
const maxAttributeSets = 20_000

// scopeName names the instrumentation, with the version of the build.
const scopeName = "github.com/binnacle-project/binnacle/gateway"

// Options say where telemetry goes and what it is called.
type Options struct {
	// Endpoint is the base URL of the first receiver, over HTTP, such as the
	// agent's relay. Empty is none; then Exporters must not be.
	Endpoint string
	// Headers go with every export there.
	Headers map[string]string
	// Exporters are further receivers, which get the same at intervals of their
	// own. None of them delays the first one, nor a swap.
	Exporters []Exporter
	// ServiceName is service.name; empty is binnacle.ServiceGateway.
	ServiceName string
	// ServiceVersion is service.version; empty is binnacle.Version.
	ServiceVersion string
	// InstanceID is service.instance.id and must differ between processes,
	// also between a worker and its successor; empty makes a random one.
	InstanceID string
	// Host is host.name; empty asks the system.
	Host string
	// Environment is deployment.environment.name; empty is none.
	Environment string
	// Managed puts binnacle.revision on spans and Binnacle-Revision on
	// exports. Leave it off for a standalone gateway: receivers refuse the
	// namespace from senders that did not enroll.
	Managed bool
	// Interval is the time between exports of metrics to Endpoint; 0 is
	// DefaultInterval.
	Interval time.Duration
	// SampleRatio is the share of new traces that are kept, 0 to 1; negative
	// is DefaultSampleRatio. A configuration's trace_sample_rate wins over it,
	// and a caller's traceparent over both.
	SampleRatio float64
	// Log takes export failures; nil discards them.
	Log *slog.Logger
	// Metrics takes counters of exports; nil makes a private set.
	Metrics *metrics.Set
}

// Telemetry holds the instruments and exporters of one process. It outlives
// generations, so that series go on over a swap. It is safe for concurrent
// use.
type Telemetry struct {
	log     *slog.Logger
	managed bool
	ratio   float64 // of Options

	sample   atomic.Uint64 // math.Float64bits of the ratio in force
	revision atomic.Uint64

	server, client *instrument
	canceled       metric.Int64Counter
	own            *ownCounters

	// The first receiver is the one of Options.Endpoint, if there is one.
	first   bool
	metrics []*metricPipeline
	spans   []*spanQueue

	stop     context.CancelFunc
	done     sync.WaitGroup
	shutdown sync.Once
	err      error // of the shutdown
}

// New checks o and starts the exports. Nothing needs to listen at the endpoint
// yet: metrics are cumulative, so that a lost export loses nothing but time.
func New(o Options) (*Telemetry, error) {
	var receivers []Exporter
	if o.Endpoint != "" {
		receivers = append(receivers, Exporter{Endpoint: o.Endpoint, Metrics: true, Traces: true})
	}
	receivers = append(receivers, o.Exporters...)
	if len(receivers) == 0 {
		return nil, errors.New("telemetry has no receiver")
	}
	for _, x := range receivers {
		if err := x.check(); err != nil {
			return nil, err
		}
	}
	if o.SampleRatio > 1 || math.IsNaN(o.SampleRatio) {
		return nil, fmt.Errorf("telemetry sample ratio %v is not between 0 and 1", o.SampleRatio)
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Metrics == nil {
		o.Metrics = metrics.NewSet()
	}
	if o.SampleRatio < 0 {
		o.SampleRatio = DefaultSampleRatio
	}
	t := &Telemetry{log: o.Log.With("component", "telemetry"), managed: o.Managed, ratio: o.SampleRatio, first: o.Endpoint != ""}
	t.SetSampleRatio(-1)
	t.server = newInstrument(binnacle.MetricServerDuration, "Duration of HTTP server requests.", "server", t.log)
	t.client = newInstrument(binnacle.MetricClientDuration, "Duration of HTTP client requests, to the end of the answer's body.", "client", t.log)
	t.own = &ownCounters{set: o.Metrics, start: time.Now()}
	if t.first {
		receivers[0].Interval = o.Interval
	}
	res := newResource(o)
	provider, reader := newMeterProvider(res, t)
	if err := observeProcess(provider); err != nil {
		return nil, err
	}
	ctx, stop := context.WithCancel(context.Background())
	t.stop = stop
	for i, x := range receivers {
		if err := t.receive(ctx, x, i == 0 && t.first, reader, res, o); err != nil {
			stop()
			return nil, fmt.Errorf("start the export to %s: %w", x.Endpoint, err)
		}
	}
	if err := t.newInstruments(provider.Meter(scopeName, metric.WithInstrumentationVersion(binnacle.Version))); err != nil {
		stop()
		return nil, fmt.Errorf("create instruments: %w", err)
	}
	for _, p := range t.metrics {
		t.done.Go(func() { p.run(ctx) })
	}
	for _, q := range t.spans {
		t.done.Go(func() { q.run(ctx) })
	}
	return t, nil
}

// receive adds a receiver. Only the first one, the agent's relay, is told the
// revision, and given the headers.
func (t *Telemetry) receive(ctx context.Context, x Exporter, first bool, reader *sdkmetric.ManualReader, res *resource.Resource, o Options) error {
	log := t.log
	if x.Name != "" {
		log = log.With("exporter", x.Name)
	}
	if x.Interval <= 0 {
		x.Interval = DefaultInterval
	}
	var rt http.RoundTripper = transport()
	var headers map[string]string
	if first {
		rt, headers = &revisionMarker{t: t, base: transport()}, o.Headers
	}
	if x.Metrics {
		e, err := x.metrics(ctx, rt, headers)
		if err != nil {
			return err
		}
		t.metrics = append(t.metrics, newMetricPipeline(e, reader, x.Interval, o.Metrics, log))
	}
	if x.Traces {
		c, err := x.spans(ctx, rt, headers)
		if err != nil {
			return err
		}
		t.spans = append(t.spans, newSpanQueue(c, encodeResource(res), encodeScope(), o.Metrics, log))
	}
	return nil
}

// newResource describes the process. Attributes that the receiver knows better
// (the node's identity) are its to set.
func newResource(o Options) *resource.Resource {
	host := o.Host
	if host == "" {
		host, _ = os.Hostname() // an unnamed host has no host.name
	}
	attrs := []attribute.KeyValue{
		attribute.String("service.name", cmp.Or(o.ServiceName, binnacle.ServiceGateway)),
		attribute.String("service.version", cmp.Or(o.ServiceVersion, binnacle.Version)),
		attribute.String("service.instance.id", cmp.Or(o.InstanceID, rand.Text())),
		attribute.String("telemetry.sdk.name", "opentelemetry"),
		attribute.String("telemetry.sdk.language", "go"),
	}
	if o.Environment != "" {
		attrs = append(attrs, attribute.String("deployment.environment.name", o.Environment))
	}
	if host != "" {
		attrs = append(attrs, attribute.String("host.name", host))
	}
	return resource.NewSchemaless(attrs...)
}

func (t *Telemetry) newInstruments(m metric.Meter) error {
	var errs [2]error
	t.canceled, errs[0] = m.Int64Counter(metricClientCanceled,
		metric.WithUnit("{request}"), metric.WithDescription("Backend requests that the gateway itself gave up, because its client left or another answer came first."))
	_, errs[1] = m.Int64ObservableGauge(metricAttributeSets, metric.WithUnit("{set}"),
		metric.WithDescription(fmt.Sprintf("Attribute sets in use by side; beyond %d further ones are counted together.", maxAttributeSets)),
		metric.WithInt64Callback(func(_ context.Context, o metric.Int64Observer) error {
			for _, in := range []*instrument{t.server, t.client} {
				o.Observe(in.count(), metric.WithAttributes(attribute.String("side", in.side)))
			}
			return nil
		}))
	return errors.Join(errs[:]...)
}

// endSpan hands a written span to all receivers of traces, and takes w back.
func (t *Telemetry) endSpan(w *spanWriter) {
	for _, q := range t.spans {
		q.add(w.b)
	}
	if cap(w.b) <= maxSpanKept {
		spanWriters.Put(w)
	}
}

// Flush exports metrics and spans now to the first receiver, and returns when it
// has answered or ctx has ended. Without a first one it exports to all.
func (t *Telemetry) Flush(ctx context.Context) error {
	if t.first {
		return errors.Join(t.metrics[0].export(ctx), t.spans[0].flush(ctx))
	}
	return t.all(func(p *metricPipeline) error { return p.export(ctx) },
		func(q *spanQueue) error { return q.flush(ctx) })
}

// all does the same to all receivers at once, so that none waits for another.
func (t *Telemetry) all(pipeline func(*metricPipeline) error, queue func(*spanQueue) error) error {
	errs := make([]error, len(t.metrics)+len(t.spans))
	var wg sync.WaitGroup
	for i, p := range t.metrics {
		wg.Go(func() { errs[i] = pipeline(p) })
	}
	for i, q := range t.spans {
		wg.Go(func() { errs[len(t.metrics)+i] = queue(q) })
	}
	wg.Wait()
	return errors.Join(errs...)
}

// SetInterval changes the time between exports of metrics to the first
// receiver, from now on. Zero and less are ignored.
func (t *Telemetry) SetInterval(d time.Duration) {
	if d > 0 && t.first {
		t.metrics[0].setInterval(d)
	}
}

// SetRevision changes the revision that exports are marked with. The engine
// calls it at each swap.
func (t *Telemetry) SetRevision(r binnacle.Revision) { t.revision.Store(uint64(r)) }

// SetSampleRatio changes the share of new traces that are kept; negative goes
// back to Options.SampleRatio. The engine calls it at each swap.
func (t *Telemetry) SetSampleRatio(ratio float64) {
	if ratio < 0 {
		ratio = t.ratio
	}
	t.sample.Store(math.Float64bits(min(ratio, 1)))
}

func (t *Telemetry) sampleRatio() float64 { return math.Float64frombits(t.sample.Load()) }

// Shutdown exports what is left, within ctx, and stops. It is safe to call
// twice.
func (t *Telemetry) Shutdown(ctx context.Context) error {
	t.shutdown.Do(func() {
		t.stop()
		t.done.Wait()
		t.err = t.all(func(p *metricPipeline) error { return errors.Join(p.export(ctx), p.shutdown(ctx)) },
			func(q *spanQueue) error { return q.shutdown(ctx) })
	})
	return t.err
}
