package engine

import (
	"cmp"
	"fmt"
	"strings"

	"github.com/luraproject/lura/v2/config"
	"go.opentelemetry.io/otel/attribute"

	"github.com/binnacle-project/binnacle/gateway/engine/telemetry"
)

// layersBlock is krakend-otel's description of how much is recorded where: of
// requests (global), of the endpoint's part of them (proxy), and of the calls to
// backends. It is the value of "layers" in the service's block, and the whole
// block of an endpoint or a backend.
//
// What krakend-otel records by default beyond one span of a request and one of
// each call is recorded here if the file asks for it by name.
type layersBlock struct {
	Global  globalLayer   `json:"global"`
	Proxy   proxyLayer    `json:"proxy"`
	Backend *backendLayer `json:"backend"`
}

type globalLayer struct {
	Report  bool       `json:"report_headers"`
	Skip    []string   `json:"skip_headers"`
	Metrics []keyValue `json:"metrics_static_attributes"`
	Traces  []keyValue `json:"traces_static_attributes"`
}

type proxyLayer struct {
	Report bool     `json:"report_headers"`
	Skip   []string `json:"skip_headers"`
	// DisableTraces must be said to be false: then there is a span.
	DisableTraces *bool      `json:"disable_traces"`
	Traces        []keyValue `json:"traces_static_attributes"`
}

type backendLayer struct {
	Metrics staticBlock   `json:"metrics"`
	Traces  backendTraces `json:"traces"`
}

type backendTraces struct {
	Report bool       `json:"report_headers"`
	Skip   []string   `json:"skip_headers"`
	Static []keyValue `json:"static_attributes"`
	// DisableStage must be said to be false: then there is a span.
	DisableStage       *bool `json:"disable_stage"`
	ReadPayload        bool  `json:"read_payload"`
	DetailedConnection bool  `json:"detailed_connection"`
}

type staticBlock struct {
	Static []keyValue `json:"static_attributes"`
}

type keyValue struct {
	Key   string `json:"key"`
	Value string `json:"value"`
}

// The paths in layers that have an effect. An endpoint has its own global
// attributes and proxy, a backend its own backend.
var (
	globalKeys       = []string{"global/metrics_static_attributes", "global/traces_static_attributes"}
	globalHeaderKeys = []string{"global/report_headers", "global/skip_headers"}
	proxyKeys        = []string{"proxy/disable_traces", "proxy/traces_static_attributes", "proxy/report_headers", "proxy/skip_headers"}
	backendLayerKeys = []string{
		"backend/metrics/static_attributes", "backend/traces/static_attributes", "backend/traces/report_headers",
		"backend/traces/skip_headers", "backend/traces/disable_stage", "backend/traces/read_payload", "backend/traces/detailed_connection",
	}
)

// backendTelemetry is how one backend is measured; Stage is nil for no span
// around what is made of its answers.
type backendTelemetry struct {
	telemetry.BackendOptions
	Stage *telemetry.StageOptions
}

// endpointTelemetry is what an endpoint says of itself; Proxy is nil when it says
// nothing, and then the service's holds.
type endpointTelemetry struct {
	Static   telemetry.StaticAttributes
	Proxy    *telemetry.StageOptions
	OwnProxy bool
}

// endpointTelemetryOf reads an endpoint's block; ignored is as of telemetrySettings.
func endpointTelemetryOf(e config.ExtraConfig) (t endpointTelemetry, ignored []string, err error) {
	l, present, err := layersOf(e)
	if err != nil || present == nil {
		return t, nil, err
	}
	t.Static = l.Global.static()
	_, t.OwnProxy = present["proxy"]
	if t.OwnProxy {
		t.Proxy = l.Proxy.stage()
	}
	return t, without(present, "", append(globalKeys[:len(globalKeys):len(globalKeys)], proxyKeys...)), nil
}

// backendTelemetryOf reads a backend's block, which replaces the service's as in
// krakend-otel; nil when it has none.
func backendTelemetryOf(e config.ExtraConfig) (t *backendTelemetry, ignored []string, err error) {
	l, present, err := layersOf(e)
	if err != nil || present == nil {
		return nil, nil, err
	}
	if l.Backend != nil {
		o := l.Backend.options()
		t = &o
	}
	return t, without(present, "", backendLayerKeys), nil
}

func layersOf(e config.ExtraConfig) (l layersBlock, block map[string]any, err error) {
	v, ok := e[nsTelemetry]
	if !ok {
		return l, nil, nil
	}
	block, ok = v.(map[string]any)
	if !ok {
		return l, nil, fmt.Errorf("extra_config %q: want an object with global, proxy or backend", nsTelemetry)
	}
	if err = remarshal(block, &l); err == nil {
		err = l.check("")
	}
	if err != nil {
		return l, block, fmt.Errorf("extra_config %q: %w", nsTelemetry, err)
	}
	return l, block, nil
}

// check refuses attributes that cannot be; at stands before their places.
func (l layersBlock) check(at string) error {
	b := cmp.Or(l.Backend, &backendLayer{})
	for _, list := range []struct {
		place string
		kvs   []keyValue
	}{
		{"global.metrics_static_attributes", l.Global.Metrics},
		{"global.traces_static_attributes", l.Global.Traces},
		{"proxy.traces_static_attributes", l.Proxy.Traces},
		{"backend.metrics.static_attributes", b.Metrics.Static},
		{"backend.traces.static_attributes", b.Traces.Static},
	} {
		for _, kv := range list.kvs {
			if kv.Key == "" || strings.HasPrefix(kv.Key, "binnacle.") {
				return fmt.Errorf("%s%s: %q cannot be the key of an attribute; choose another name", at, list.place, kv.Key)
			}
		}
	}
	return nil
}

func (l globalLayer) static() telemetry.StaticAttributes {
	return telemetry.StaticAttributes{Metrics: attributesOf(l.Metrics), Traces: attributesOf(l.Traces)}
}

func (l proxyLayer) stage() *telemetry.StageOptions {
	if l.DisableTraces == nil || *l.DisableTraces {
		return nil
	}
	return &telemetry.StageOptions{Static: attributesOf(l.Traces), Headers: telemetry.HeaderOptions{Report: l.Report, Skip: l.Skip}}
}

func (l *backendLayer) options() (t backendTelemetry) {
	if l == nil {
		return t
	}
	t.BackendOptions = telemetry.BackendOptions{
		Static:  telemetry.StaticAttributes{Metrics: attributesOf(l.Metrics.Static), Traces: attributesOf(l.Traces.Static)},
		Headers: telemetry.HeaderOptions{Report: l.Traces.Report, Skip: l.Traces.Skip}, Connection: l.Traces.DetailedConnection, Body: l.Traces.ReadPayload,
	}
	if d := l.Traces.DisableStage; d != nil && !*d {
		t.Stage = &telemetry.StageOptions{Static: t.Static.Traces, Headers: t.Headers}
	}
	return t
}

func attributesOf(list []keyValue) (kvs []attribute.KeyValue) {
	for _, kv := range list {
		kvs = append(kvs, attribute.String(kv.Key, kv.Value))
	}
	return kvs
}
