package activity

import (
	"math"
	"strconv"
	"strings"

	"github.com/binnacle-project/binnacle"
	"github.com/binnacle-project/binnacle/otlp/wire"
)

// metric says how a metric of one of the dialects is read.
type metric struct {
	client  bool
	krakend bool // krakend-otel's names: routes in gin's form, ports not to be trusted
	factor  float64
}

// metricOf recognizes the duration histograms of both dialects. krakend-otel
// sets no unit and means seconds; "ms" is what older OpenTelemetry SDKs sent
// under the same names.
//
// Source: OpenTelemetry HTTP semantic conventions 1.23 and later; krakend-otel
// v0.14.
func metricOf(name, unit string) (metric, bool) {
	m := metric{factor: 1}
	switch name {
	case binnacle.MetricServerDuration:
	case binnacle.MetricClientDuration:
		m.client = true
	case binnacle.MetricKrakendServerDuration:
		m.krakend = true
	case binnacle.MetricKrakendClientDuration:
		m.krakend, m.client = true, true
	default:
		return m, false
	}
	switch unit {
	case "s", "":
	case "ms":
		m.factor = 1e-3
		m.krakend = false
	default:
		return m, false
	}
	return m, true
}

// place is what the attributes of a stream say: where its requests belong.
type place struct {
	client  bool
	outcome binnacle.Outcome
	// of a server stream
	method, route string
	// of a client stream
	address string
	port    int
	// endpoint is the gateway's route whose request called the backend, if the
	// sender says so.
	endpoint string
}

// maxAttribute bounds what of an attribute is kept: it may be chosen by a
// client of the gateway.
const maxAttribute = 256

// placeOf reads a stream's attributes.
func placeOf(m metric, attrs wire.PointAttrs) place {
	p := place{client: m.client}
	status := intAttr(attrs, "http.response.status_code", "http.status_code")
	p.outcome = binnacle.OutcomeOf(status, strAttr(attrs, "error.type"))
	if !m.client {
		p.method = method(strAttr(attrs, "http.request.method", "http.method"))
		p.route = route(strAttr(attrs, "http.route"))
		return p
	}
	p.address = strAttr(attrs, "server.address", "net.peer.name")
	p.port = intAttr(attrs, "server.port", "net.peer.port")
	if m.krakend && (p.port == 80 || p.port < 0) {
		// krakend-otel v0.14 says 80 for whatever it cannot read, which is every
		// port: an inverted test in its transport metrics. 0 is unknown.
		p.port = 0
	}
	if p.port < 0 || p.port > math.MaxUint16 {
		p.port = 0
	}
	// Our gateway names its own route; krakend-otel's http.route of a call is
	// the backend's pattern.
	p.endpoint = route(strAttr(attrs, "krakend.endpoint.route"))
	if p.endpoint == "" && !m.krakend {
		p.endpoint = route(strAttr(attrs, "http.route"))
	}
	return p
}

// backend returns the id of the backend that p calls; empty when the sender
// does not say.
func (p place) backend() binnacle.BackendID {
	if p.address == "" {
		return ""
	}
	return binnacle.MakeBackendID(p.address, p.port)
}

// method bounds the methods: the conventions ask senders for _OTHER, but a
// client may send what it likes.
func method(s string) string {
	switch s {
	case "GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH", "QUERY", "":
		return s
	}
	return "_OTHER"
}

// route brings a route into KrakenD's form: gin's ":id" and "*rest" become
// "{id}" and "{rest}"; what is no path ("404 Not Found") matched no route.
func route(s string) string {
	if !strings.HasPrefix(s, "/") {
		return ""
	}
	if !strings.Contains(s, "/:") && !strings.Contains(s, "/*") {
		return s
	}
	parts := strings.Split(s, "/")
	for i, p := range parts {
		if len(p) > 1 && (p[0] == ':' || p[0] == '*') {
			parts[i] = "{" + p[1:] + "}"
		}
	}
	return strings.Join(parts, "/")
}

// lookup finds attributes: those of a resource or a point.
type lookup interface {
	Get(key string) (wire.Value, bool)
}

func strAttr[A lookup](attrs A, names ...string) string {
	for _, name := range names {
		if v, ok := attrs.Get(name); ok {
			return strings.ToValidUTF8(clip(v.View()), "\uFFFD")
		}
	}
	return ""
}

func clip(s string) string {
	if len(s) > maxAttribute {
		s = s[:maxAttribute]
	}
	return strings.Clone(s) // do not hold the request's buffer
}

func intAttr(attrs wire.PointAttrs, names ...string) int {
	for _, name := range names {
		v, ok := attrs.Get(name)
		if !ok {
			continue
		}
		switch v.Type {
		case wire.Int:
			return int(v.Int())
		case wire.Double:
			return int(v.Double())
		case wire.Str:
			n, _ := strconv.Atoi(v.View())
			return n
		}
	}
	return 0
}

// isGateway reports whether an unmanaged sender speaks a gateway's dialect.
// Others, such as an instrumented backend, must not count for the cluster:
// each of its requests has been counted at the gateway.
func isGateway(service, scope string, m metric) bool {
	return m.krakend || service == binnacle.ServiceGateway || strings.HasPrefix(scope, "io.krakend.")
}
