package telemetry

import (
	"slices"
	"strconv"
	"sync"
	"sync/atomic"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"github.com/binnacle-project/binnacle"
)

// Attribute names of the HTTP semantic conventions, stable ones only.
//
// Source: OpenTelemetry semantic conventions 1.43, HTTP metrics and spans.
const (
	keyMethod          = attribute.Key("http.request.method")
	keyRoute           = attribute.Key("http.route")
	keyStatus          = attribute.Key("http.response.status_code")
	keyErrorType       = attribute.Key("error.type")
	keyScheme          = attribute.Key("url.scheme")
	keyPath            = attribute.Key("url.path")
	keyFull            = attribute.Key("url.full")
	keyTemplate        = attribute.Key("url.template")
	keyServerAddress   = attribute.Key("server.address")
	keyServerPort      = attribute.Key("server.port")
	keyClientAddress   = attribute.Key("client.address")
	keyUserAgent       = attribute.Key("user_agent.original")
	keyProtocolVersion = attribute.Key("network.protocol.version")
)

// conventionKeys are the attributes of spans that a configuration cannot set.
var conventionKeys = []attribute.Key{
	keyMethod, keyRoute, keyStatus, keyErrorType, keyScheme, keyPath, keyFull, keyTemplate, keyServerAddress, keyServerPort,
	keyClientAddress, keyUserAgent, keyProtocolVersion, binnacle.AttrRevision,
}

// metricClientCanceled counts backend requests that the gateway gave up. They
// are no evidence against a backend, so they stay out of its histogram.
const metricClientCanceled = "binnacle.gateway.client.canceled"

// metricAttributeSets watches the limit of attribute sets. None is forgotten while
// the process lives, so that they add up over swaps.
const metricAttributeSets = "binnacle.gateway.attribute_sets"

// maxAttributeRows bounds the rows of one table. A route answers with a
// handful of statuses; only a broken or hostile backend comes near.
const maxAttributeRows = 128

// outcome is what one measurement varies in, beside what its table fixes.
type outcome struct {
	method    string
	scheme    string // server side only
	status    int    // 0 is no answer
	errorType string
}

// table holds the series of one route or backend, each made once.
// Lookup is a short scan without a lock or an allocation.
type table struct {
	fixed []attribute.KeyValue
	in    *instrument // nil keeps the series to itself, for tests

	rows atomic.Pointer[[]row]
	mu   sync.Mutex // serializes additions
}

type row struct {
	outcome
	series *series
	add    []metric.AddOption
}

// row returns the series of o.
func (t *table) row(o outcome) *row {
	if rows := t.rows.Load(); rows != nil {
		for i := range *rows {
			if (*rows)[i].outcome == o {
				return &(*rows)[i]
			}
		}
	}
	return t.add(o)
}

func (t *table) add(o outcome) *row {
	t.mu.Lock()
	defer t.mu.Unlock()
	var rows []row
	if p := t.rows.Load(); p != nil {
		rows = *p
	}
	if len(rows) >= maxAttributeRows {
		o.status -= o.status % 100 // the class still counts
	}
	if i := slices.IndexFunc(rows, func(r row) bool { return r.outcome == o }); i >= 0 {
		return &rows[i]
	}
	set := t.set(o)
	next := append(slices.Clone(rows), row{o, t.in.of(set), []metric.AddOption{metric.WithAttributeSet(set)}})
	t.rows.Store(&next)
	return &next[len(next)-1]
}

func (t *table) set(o outcome) attribute.Set {
	kvs := append(slices.Clone(t.fixed), keyMethod.String(o.method))
	if o.scheme != "" {
		kvs = append(kvs, keyScheme.String(o.scheme))
	}
	if o.status != 0 {
		kvs = append(kvs, keyStatus.Int(o.status))
	}
	if o.errorType != "" {
		kvs = append(kvs, keyErrorType.String(o.errorType))
	}
	return attribute.NewSet(kvs...)
}

// knownMethod maps methods of the standards to themselves and all others to
// _OTHER, so that clients cannot make series.
func knownMethod(m string) string {
	switch m {
	case "GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS", "CONNECT", "TRACE", "QUERY":
		return m
	}
	return "_OTHER"
}

// statusType is the error.type of an answer by its status: the number itself
// from min on, else nothing.
func statusType(status, min int) string {
	if status < min {
		return ""
	}
	if status >= 400 && status < 600 {
		return statusTexts[status-400]
	}
	return strconv.Itoa(status)
}

// statusTexts spares an allocation for each failed request.
var statusTexts = func() (t [200]string) {
	for i := range t {
		t[i] = strconv.Itoa(400 + i)
	}
	return t
}()
