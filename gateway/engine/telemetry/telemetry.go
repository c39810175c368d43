// Package telemetry measures the gateway: server and client histograms in the
// OpenTelemetry HTTP semantic conventions, one server span per request and one
// client span per exchange with a backend, W3C trace context in and out, and
// their export over OTLP/HTTP. It knows net/http and nothing of Lura:
// gateway/engine, which imports it, says where routes and backends are.
package telemetry

import (
	"context"
	"log/slog"
	"time"

	"github.com/VictoriaMetrics/metrics"

	"github.com/binnacle-project/binnacle"
)

// DefaultSampleRatio is the share of traces kept when nothing says otherwise.
const DefaultSampleRatio = 0.1

// DefaultInterval is the time between two exports of metrics.
const DefaultInterval = 10 * time.Second

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
type Telemetry struct{}

// New checks o and starts the exports. Nothing needs to listen at the endpoint
// yet.
func New(o Options) (*Telemetry, error) { return nil, nil }

// Flush exports metrics and spans now, and returns when the receiver has
// answered or ctx has ended.
func (t *Telemetry) Flush(ctx context.Context) error { return nil }

// SetInterval changes the time between exports of metrics, from now on.
func (t *Telemetry) SetInterval(d time.Duration) {}

// SetRevision changes the revision that exports are marked with. The engine
// calls it at each swap.
func (t *Telemetry) SetRevision(r binnacle.Revision) {}

// SetSampleRatio changes the share of new traces that are kept; negative goes
// back to Options.SampleRatio. The engine calls it at each swap.
func (t *Telemetry) SetSampleRatio(ratio float64) {}

// Shutdown exports what is left, within ctx, and stops. It is safe to call
// twice.
func (t *Telemetry) Shutdown(ctx context.Context) error { return nil }
