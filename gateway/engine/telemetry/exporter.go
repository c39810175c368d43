package telemetry

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"time"

	"go.opentelemetry.io/otel/exporters/otlp/otlpmetric/otlpmetricgrpc"
	"go.opentelemetry.io/otel/exporters/otlp/otlpmetric/otlpmetrichttp"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracegrpc"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
)

// Exporter is a receiver of OTLP.
type Exporter struct {
	// Name is for messages.
	Name string
	// Endpoint is its base URL, http://… or https://…; over HTTP /v1/metrics and
	// /v1/traces are added.
	Endpoint string
	// GRPC speaks OTLP over gRPC instead.
	GRPC bool
	// Interval is the time between exports of metrics.
	Interval        time.Duration
	Metrics, Traces bool
}

func (x Exporter) check() error {
	u, err := url.Parse(x.Endpoint)
	if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" {
		return fmt.Errorf("telemetry endpoint %q is not a base URL such as http://127.0.0.1:4318", x.Endpoint)
	}
	return nil
}

// spanRetry is for traces; metrics have none, as the next export carries the
// same totals and retrying only delays it.
var spanRetry = otlptracehttp.RetryConfig{
	Enabled: true, InitialInterval: 200 * time.Millisecond, MaxInterval: 5 * time.Second, MaxElapsedTime: 30 * time.Second,
}

// transport returns what exports over HTTP go through. Compression stays off:
// to the agent over loopback it costs more than it saves, and the agent decides
// for the way to the manager.
func transport() *http.Transport {
	return &http.Transport{Proxy: http.ProxyFromEnvironment, MaxIdleConnsPerHost: 4, IdleConnTimeout: 90 * time.Second}
}

// metrics returns an exporter of metrics. Nothing needs to listen yet.
func (x Exporter) metrics(ctx context.Context, rt http.RoundTripper, headers map[string]string) (sdkmetric.Exporter, error) {
	if x.GRPC {
		return otlpmetricgrpc.New(ctx,
			otlpmetricgrpc.WithEndpointURL(x.Endpoint),
			otlpmetricgrpc.WithTimeout(exportTimeout),
			otlpmetricgrpc.WithRetry(otlpmetricgrpc.RetryConfig{Enabled: false}),
		)
	}
	return otlpmetrichttp.New(ctx,
		otlpmetrichttp.WithEndpointURL(x.Endpoint+"/v1/metrics"),
		otlpmetrichttp.WithHeaders(headers),
		otlpmetrichttp.WithHTTPClient(&http.Client{Transport: rt}),
		otlpmetrichttp.WithTimeout(exportTimeout),
		otlpmetrichttp.WithRetry(otlpmetrichttp.RetryConfig{Enabled: false}),
	)
}

// spans returns a client for traces, started.
func (x Exporter) spans(ctx context.Context, rt http.RoundTripper, headers map[string]string) (otlptrace.Client, error) {
	var c otlptrace.Client
	if x.GRPC {
		c = otlptracegrpc.NewClient(
			otlptracegrpc.WithEndpointURL(x.Endpoint),
			otlptracegrpc.WithTimeout(exportTimeout),
			otlptracegrpc.WithRetry(otlptracegrpc.RetryConfig(spanRetry)),
		)
	} else {
		c = otlptracehttp.NewClient(
			otlptracehttp.WithEndpointURL(x.Endpoint+"/v1/traces"),
			otlptracehttp.WithHeaders(headers),
			otlptracehttp.WithHTTPClient(&http.Client{Transport: rt}),
			otlptracehttp.WithTimeout(exportTimeout),
			otlptracehttp.WithRetry(spanRetry),
		)
	}
	return c, c.Start(ctx)
}
