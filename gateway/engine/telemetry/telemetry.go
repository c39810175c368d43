// Package telemetry measures the gateway: server and client histograms in the
// OpenTelemetry HTTP semantic conventions, one server span per request and one
// client span per exchange with a backend, W3C trace context in and out, and
// their export over OTLP/HTTP. It knows net/http and nothing of Lura:
// gateway/engine, which imports it, says where routes and backends are.
//
// Everything a request needs is prepared when a configuration is built (Scope,
// Route, Backend): counting a request then allocates nothing, and costs a trace
// only where one is kept.
package telemetry

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net/url"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/VictoriaMetrics/metrics"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"

	"github.com/binnacle-project/binnacle"
)

// DefaultSampleRatio is the share of traces kept when nothing says otherwise:
// at 0.1 tracing costs little beside metrics, and a fleet still shows many
// traces a second. (krakend-otel keeps all by default.)
const DefaultSampleRatio = 0.1

// DefaultInterval is the time between two exports of metrics.
const DefaultInterval = 10 * time.Second

// maxAttributeSets is the SDK's limit of attribute sets per instrument, raised
// from 2,000: a configuration of 1,000 endpoints with three backends and four
// statuses each needs 12,000. Beyond it measurements go to one series with
// otel.metric.overflow, still counted.
const maxAttributeSets = 20_000

// maxSpanQueue bounds the spans waiting for export; more are dropped, counted
// by the SDK. At 1 KiB each it is 16 MiB.
const maxSpanQueue = 16 << 10

// scopeName names the instrumentation, with the version of the build.
const scopeName = "github.com/binnacle-project/binnacle/gateway"

// Options say where telemetry goes and what it is called.
type Options struct {
	// Endpoint is the base URL of an OTLP/HTTP receiver, such as the agent's
	// relay: /v1/metrics and /v1/traces are added.
	Endpoint string
	// Headers go with every export.
	Headers map[string]string
	// ServiceName is service.name; empty is binnacle.ServiceGateway.
	ServiceName string
	// ServiceVersion is service.version; empty is binnacle.Version.
	ServiceVersion string
	// InstanceID is service.instance.id and must differ between processes,
	// also between a worker and its successor; empty makes a random one.
	InstanceID string
	// Host is host.name; empty asks the system.
	Host string
	// Managed puts binnacle.revision on spans and Binnacle-Revision on
	// exports. Leave it off for a standalone gateway: receivers refuse the
	// namespace from senders that did not enroll.
	Managed bool
	// Interval is the time between exports of metrics; 0 is DefaultInterval.
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

	server   metric.Float64Histogram
	client   metric.Float64Histogram
	canceled metric.Int64Counter
	tracer   trace.Tracer

	metrics *metricPipeline
	traces  *sdktrace.TracerProvider

	stop     context.CancelFunc
	done     sync.WaitGroup
	shutdown sync.Once
	err      error // of the shutdown
}

// New checks o and starts the exports. Nothing needs to listen at the endpoint
// yet: metrics are cumulative, so that a lost export loses nothing but time.
func New(o Options) (*Telemetry, error) {
	u, err := url.Parse(o.Endpoint)
	if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" {
		return nil, fmt.Errorf("telemetry endpoint %q is not a base URL such as http://127.0.0.1:4318", o.Endpoint)
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
	if o.Interval <= 0 {
		o.Interval = DefaultInterval
	}
	t := &Telemetry{log: o.Log.With("component", "telemetry"), managed: o.Managed, ratio: o.SampleRatio}
	t.SetSampleRatio(-1)

	res := newResource(o)
	ctx, stop := context.WithCancel(context.Background())
	t.stop = stop
	client := t.exportClient()
	if t.metrics, err = newMetricPipeline(ctx, o, t.log, client, res); err != nil {
		stop()
		return nil, fmt.Errorf("start the export of metrics to %s: %w", o.Endpoint, err)
	}
	if t.traces, err = newTraceProvider(ctx, o, t.log, client, res); err != nil {
		stop()
		return nil, fmt.Errorf("start the export of traces to %s: %w", o.Endpoint, err)
	}
	if err := t.newInstruments(); err != nil {
		stop()
		return nil, fmt.Errorf("create instruments: %w", err)
	}
	t.done.Go(func() { t.metrics.run(ctx) })
	return t, nil
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
	if host != "" {
		attrs = append(attrs, attribute.String("host.name", host))
	}
	return resource.NewSchemaless(attrs...)
}

func (t *Telemetry) newInstruments() error {
	m := t.metrics.provider.Meter(scopeName, metric.WithInstrumentationVersion(binnacle.Version))
	t.tracer = t.traces.Tracer(scopeName, trace.WithInstrumentationVersion(binnacle.Version))
	var errs [3]error
	t.server, errs[0] = m.Float64Histogram(binnacle.MetricServerDuration,
		metric.WithUnit("s"), metric.WithDescription("Duration of HTTP server requests."))
	t.client, errs[1] = m.Float64Histogram(binnacle.MetricClientDuration,
		metric.WithUnit("s"), metric.WithDescription("Duration of HTTP client requests, to the end of the answer's body."))
	t.canceled, errs[2] = m.Int64Counter(metricClientCanceled,
		metric.WithUnit("{request}"), metric.WithDescription("Backend requests that the gateway itself gave up, because its client left or another answer came first."))
	return errors.Join(errs[:]...)
}

// Flush exports metrics and spans now, and returns when the receiver has
// answered or ctx has ended.
func (t *Telemetry) Flush(ctx context.Context) error {
	return errors.Join(t.metrics.export(ctx), t.traces.ForceFlush(ctx))
}

// SetInterval changes the time between exports of metrics, from now on. Zero
// and less are ignored.
func (t *Telemetry) SetInterval(d time.Duration) {
	if d > 0 {
		t.metrics.setInterval(d)
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
		t.err = errors.Join(t.metrics.export(ctx), t.metrics.shutdown(ctx), t.traces.Shutdown(ctx))
	})
	return t.err
}
