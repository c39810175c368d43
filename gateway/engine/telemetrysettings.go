package engine

import (
	"cmp"
	"fmt"
	"net"
	"net/url"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/luraproject/lura/v2/config"

	"github.com/binnacle-project/binnacle/gateway/engine/telemetry"
)

// TelemetrySettings are the keys of the telemetry/opentelemetry block that map
// to the gateway's own telemetry.
type TelemetrySettings struct {
	TelemetryProcess
	// SampleRatio is negative when the configuration does not say it.
	SampleRatio float64
	// SkipPaths are neither counted nor traced.
	SkipPaths []string
	// Server attributes stand on all that is measured of requests, ServerHeaders
	// on their spans.
	Server        telemetry.StaticAttributes
	ServerHeaders telemetry.HeaderOptions
	// Proxy is how each endpoint's stage is recorded, nil for not at all.
	Proxy *telemetry.StageOptions
	// Backend is how backends are measured that say nothing themselves.
	Backend backendTelemetry
}

// TelemetryProcess are those that describe the process: a swap does not change
// them, another worker does.
type TelemetryProcess struct {
	// ServiceName, ServiceVersion and Environment are empty when the
	// configuration does not say them.
	ServiceName    string
	ServiceVersion string
	Environment    string
	// Exporters are receivers beside the node's manager, or all there are of a
	// standalone gateway.
	Exporters []telemetry.Exporter
}

// Same reports whether a process that runs p can run o.
func (p TelemetryProcess) Same(o TelemetryProcess) bool { return reflect.DeepEqual(p, o) }

// TelemetrySettingsOf reads the telemetry settings of a configuration without
// building it.
func TelemetrySettingsOf(raw []byte) (TelemetrySettings, error) {
	cfg, faults := parse(raw)
	if len(faults) > 0 {
		return TelemetrySettings{}, fmt.Errorf("read the telemetry settings: %w", &BuildError{faults})
	}
	s, _, err := telemetrySettings(cfg.ExtraConfig)
	return s, err
}

// defaultSkipPaths are those of krakend-otel.
var defaultSkipPaths = []string{"/__health", "/__debug/", "/__echo/", "/__stats/"}

// Defaults of krakend-otel for exporters.
const (
	defaultReportingPeriod = 30 * time.Second
	defaultExporterPort    = 4317
)

// telemetryBlock is the block as krakend-otel reads it, as far as it has an
// effect here.
type telemetryBlock struct {
	ServiceName     string      `json:"service_name"`
	ServiceVersion  string      `json:"service_version"`
	DeployEnv       string      `json:"deploy_env"`
	SampleRate      *float64    `json:"trace_sample_rate"`
	SkipPaths       []string    `json:"skip_paths"`
	ReportingPeriod float64     `json:"metric_reporting_period"` // seconds
	Exporters       otlpBlock   `json:"exporters"`
	Layers          layersBlock `json:"layers"`
}

type otlpBlock struct {
	OTLP []struct {
		Name            string  `json:"name"`
		Host            string  `json:"host"` // may begin with http:// or https://
		Port            int     `json:"port"`
		UseHTTP         bool    `json:"use_http"`
		DisableMetrics  bool    `json:"disable_metrics"`
		DisableTraces   bool    `json:"disable_traces"`
		ReportingPeriod float64 `json:"custom_metric_reporting_period"` // seconds
	} `json:"otlp"`
}

// effective are the paths of the service's block that have an effect, beside
// those of its layers.
var effective = []string{
	"service_name", "service_version", "deploy_env", "trace_sample_rate", "skip_paths", "metric_reporting_period", "exporters/otlp",
}

// telemetrySettings reads the block; ignored names what in it has no effect
// here, as paths below it.
func telemetrySettings(e config.ExtraConfig) (s TelemetrySettings, ignored []string, err error) {
	s = TelemetrySettings{SampleRatio: -1, SkipPaths: defaultSkipPaths}
	block, ok := e[nsTelemetry]
	if !ok {
		return s, nil, nil
	}
	fail := func(format string, args ...any) (TelemetrySettings, []string, error) {
		return s, nil, fmt.Errorf("extra_config %q: %w", nsTelemetry, fmt.Errorf(format, args...))
	}
	var v telemetryBlock
	if err := remarshal(block, &v); err != nil {
		return fail("%w", err)
	}
	if r := v.SampleRate; r != nil {
		if *r < 0 || *r > 1 {
			return fail("trace_sample_rate is %v, want 0 to 1", *r)
		}
		s.SampleRatio = *r
	}
	s.ServiceName, s.ServiceVersion, s.Environment = v.ServiceName, v.ServiceVersion, v.DeployEnv
	if len(v.SkipPaths) > 0 {
		s.SkipPaths = v.SkipPaths
	}
	if s.Exporters, err = v.exporters(); err != nil {
		return fail("%w", err)
	}
	if err := v.Layers.check("layers."); err != nil {
		return fail("%w", err)
	}
	global := v.Layers.Global
	s.Server, s.ServerHeaders = global.static(), telemetry.HeaderOptions{Report: global.Report, Skip: global.Skip}
	s.Proxy, s.Backend = v.Layers.Proxy.stage(), v.Layers.Backend.options()
	known := slices.Clone(effective)
	for _, p := range slices.Concat(globalKeys, globalHeaderKeys, proxyKeys, backendLayerKeys) {
		known = append(known, "layers/"+p)
	}
	return s, without(block, "", known), nil
}

// exporters are the receivers that the block names.
func (v telemetryBlock) exporters() ([]telemetry.Exporter, error) {
	period := defaultReportingPeriod
	if v.ReportingPeriod > 0 {
		period = time.Duration(v.ReportingPeriod * float64(time.Second))
	}
	var out []telemetry.Exporter
	for i, x := range v.Exporters.OTLP {
		at := fmt.Sprintf("exporters.otlp[%d]", i)
		host, scheme := x.Host, "http"
		if before, after, ok := strings.Cut(host, "://"); ok {
			scheme, host = before, after
		}
		u := url.URL{Scheme: scheme, Host: net.JoinHostPort(strings.Trim(host, "[]"), strconv.Itoa(cmp.Or(x.Port, defaultExporterPort)))}
		if host == "" || strings.ContainsAny(host, "/ ") || scheme != "http" && scheme != "https" || x.Port < 0 || x.Port > 65535 {
			return nil, fmt.Errorf("%s: host %q and port %d are no address; write a host's name or IP address, with https:// before it for TLS, and its port", at, x.Host, x.Port)
		}
		if x.ReportingPeriod < 0 || v.ReportingPeriod < 0 {
			return nil, fmt.Errorf("%s: a reporting period below zero", at)
		}
		e := telemetry.Exporter{
			Name: cmp.Or(x.Name, u.Host), Endpoint: u.String(), GRPC: !x.UseHTTP, Interval: period,
			Metrics: !x.DisableMetrics, Traces: !x.DisableTraces,
		}
		if x.ReportingPeriod >= 1 {
			e.Interval = time.Duration(x.ReportingPeriod * float64(time.Second))
		}
		if e.Metrics || e.Traces {
			out = append(out, e)
		}
	}
	return out, nil
}

// without lists the paths in block that are neither in known nor above or below
// one of them, sorted.
func without(block any, at string, known []string) []string {
	m, ok := block.(map[string]any)
	if !ok {
		return nil
	}
	var out []string
	for k, v := range m {
		path := strings.TrimPrefix(at+"/"+k, "/")
		switch {
		case slices.Contains(known, path):
		case slices.ContainsFunc(known, func(p string) bool { return strings.HasPrefix(p, path+"/") }):
			out = append(out, without(v, path, known)...)
		default:
			out = append(out, path)
		}
	}
	slices.Sort(out)
	return out
}
