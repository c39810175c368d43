package telemetry

import (
	"bufio"
	"context"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"go.opentelemetry.io/otel/attribute"

	"github.com/binnacle-project/binnacle"
)

// statusClientGone is what a request counts as whose client left before it had
// an answer: nobody saw the status that the gateway would have sent, and it is
// no error of the service. nginx logs the same number.
const statusClientGone = 499

// Scope is what one generation of the engine measures with. It is made at
// build time, and used by all its requests.
type Scope struct {
	t         *Telemetry
	o         ScopeOptions
	unmatched *Route
	headers   *headerFilter
	// revision is an attribute of all spans of a managed node.
	revision []byte
}

// ScopeOptions say how one configuration is measured.
type ScopeOptions struct {
	Revision binnacle.Revision
	// SkipPaths are neither counted nor traced; a path that ends with / stands
	// for all below it.
	SkipPaths []string
	// Server attributes stand on everything measured on that side.
	Server StaticAttributes
	// Headers of requests and answers stand on server spans.
	Headers HeaderOptions
}

// StaticAttributes are the same for all requests. None of them outweighs an
// attribute of the conventions.
type StaticAttributes struct{ Metrics, Traces []attribute.KeyValue }

// NewScope returns the scope of a generation.
func (t *Telemetry) NewScope(o ScopeOptions) *Scope {
	s := &Scope{t: t, o: o, headers: newHeaderFilter(o.Headers)}
	if t.managed {
		var w spanWriter
		w.text(binnacle.AttrRevision, o.Revision.String())
		s.revision = w.b
	}
	s.unmatched = s.newRoute(StaticAttributes{})
	return s
}

// Route is an endpoint of the gateway.
type Route struct {
	// Template is the path in KrakenD's form, /users/{id}.
	Template string

	method string
	table  table
	span   []byte // attributes of all its server spans
}

// NewRoute returns the instruments of one endpoint. template is http.route; the
// endpoint's own attributes outweigh those of the scope.
func (s *Scope) NewRoute(method, template string, own StaticAttributes) *Route {
	rt := s.newRoute(own)
	rt.Template, rt.method = template, method
	rt.table.fixed = append(rt.table.fixed, keyRoute.String(template))
	return rt
}

func (s *Scope) newRoute(own StaticAttributes) *Route {
	return &Route{
		table: table{fixed: slices.Concat(s.o.Server.Metrics, own.Metrics), in: s.t.server},
		span:  append(encodeAttributes(slices.Concat(s.o.Server.Traces, own.Traces)), s.revision...),
	}
}

// Enter says that the request answered through w is for this route. w may be
// wrapped any number of times, if the wrappers have Unwrap.
func (rt *Route) Enter(w http.ResponseWriter) {
	if rec := recorderOf(w); rec != nil {
		rec.route = rt
	}
}

// SetErrorType says why the request answered through w is refused by the
// gateway itself. It outweighs the error.type that the status gives, and makes
// no error of the span: the service is well.
func SetErrorType(w http.ResponseWriter, errorType string) {
	if rec := recorderOf(w); rec != nil {
		rec.errorType = errorType
	}
}

// recorderOf finds the recorder under w; nil when the request is not measured.
func recorderOf(w http.ResponseWriter) *recorder {
	for {
		switch v := w.(type) {
		case *recorder:
			return v
		case interface{ Unwrap() http.ResponseWriter }:
			w = v.Unwrap()
		default:
			return nil
		}
	}
}

// Handler measures next: one measurement and at most one span per request.
func (s *Scope) Handler(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if s.skipped(r.URL.Path) {
			next.ServeHTTP(w, r)
			return
		}
		s.serve(next, w, r)
	})
}

func (s *Scope) skipped(path string) bool {
	for _, p := range s.o.SkipPaths {
		if path == p || (strings.HasSuffix(p, "/") && strings.HasPrefix(path, p)) {
			return true
		}
	}
	return false
}

var recorders = sync.Pool{New: func() any { return new(recorder) }}

func (s *Scope) serve(next http.Handler, w http.ResponseWriter, r *http.Request) {
	start := time.Now()
	rec := recorders.Get().(*recorder)
	parent := parseTraceparent(r.Header)
	*rec = recorder{ResponseWriter: w, route: s.unmatched, identity: newIdentity(parent, s.t.sampled(parent))}

	// A panic, also the deliberate http.ErrAbortHandler, still counts.
	defer func() {
		s.finish(rec, r, start)
		*rec = recorder{} // keep nothing alive from the pool
		recorders.Put(rec)
	}()
	next.ServeHTTP(rec, r)
	rec.finishHeader()
}

// finish records the measurement, whose exemplar a kept trace becomes, and
// writes the span.
func (s *Scope) finish(rec *recorder, r *http.Request, start time.Time) {
	took := time.Since(start)
	status := rec.status
	if status == 0 { // a panic before the header
		status = http.StatusInternalServerError
	}
	if status >= 500 && r.Context().Err() == context.Canceled {
		status = statusClientGone
	}
	o := outcome{method: knownMethod(r.Method), scheme: "http", status: status, errorType: statusType(status, 500)}
	if rec.errorType != "" {
		o.errorType = rec.errorType
	}
	if r.TLS != nil {
		o.scheme = "https"
	}
	rec.route.table.row(o).series.record(took.Seconds(), rec.sc)
	if rec.sc.IsSampled() {
		s.writeSpan(rec, r, o, start, start.Add(took))
	}
}

func (s *Scope) writeSpan(rec *recorder, r *http.Request, o outcome, start, now time.Time) {
	verb, template := o.method, rec.route.Template
	if template != "" {
		verb = rec.route.method
	}
	w := openSpan(rec.identity, kindServer, verb, template, start, now)
	w.raw(rec.route.span)
	if template != "" {
		w.text(keyRoute, template)
	}
	w.text(keyMethod, o.method)
	w.text(keyScheme, o.scheme)
	w.text(keyPath, r.URL.Path)
	w.number(keyStatus, o.status)
	w.text(keyProtocolVersion, protocolVersion(r.ProtoMajor, r.ProtoMinor))
	host, port := splitHostPort(r.Host)
	if host != "" {
		w.text(keyServerAddress, host)
	}
	if port != 0 {
		w.number(keyServerPort, port)
	}
	if peer, _ := splitHostPort(r.RemoteAddr); peer != "" {
		w.text(keyClientAddress, peer)
	}
	if ua := r.UserAgent(); ua != "" {
		w.text(keyUserAgent, ua)
	}
	s.headers.write(w, requestHeader, r.Header)
	s.headers.write(w, responseHeader, rec.Header())
	if o.errorType != "" {
		w.text(keyErrorType, o.errorType)
		if rec.errorType == "" {
			w.failed("")
		}
	}
	s.t.endSpan(w)
}

// recorder notes the status of an answer and adds its traceresponse header.
type recorder struct {
	http.ResponseWriter
	route     *Route
	status    int
	errorType string // what the gateway itself says, see SetErrorType
	identity
	told *carried // once somebody is told of identity
}

// tell is the request's trace for headers. A request that calls no backend is
// told of in an allocation of its own: the header outlives the recorder.
func (w *recorder) tell() []string {
	if w.told == nil {
		w.told = new(carried)
		w.told.carry(w.identity)
	}
	return w.told.headerValue()
}

// Unwrap serves http.ResponseController.
func (w *recorder) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// WriteHeader notes the first final status.
func (w *recorder) WriteHeader(code int) {
	if w.status == 0 && (code >= 200 || code == http.StatusSwitchingProtocols) {
		w.status = code
		// Set, not Add: a backend's own header would name another trace.
		w.Header()["Traceresponse"] = w.tell()
	}
	w.ResponseWriter.WriteHeader(code)
}

// Write implies 200, as net/http does.
func (w *recorder) Write(b []byte) (int, error) {
	if w.status == 0 {
		w.WriteHeader(http.StatusOK)
	}
	return w.ResponseWriter.Write(b)
}

// finishHeader covers a handler that wrote nothing: net/http sends 200.
func (w *recorder) finishHeader() {
	if w.status == 0 {
		w.WriteHeader(http.StatusOK)
	}
}

// Flush passes on, where the server can.
func (w *recorder) Flush() {
	if w.status == 0 {
		w.WriteHeader(http.StatusOK)
	}
	if f, ok := w.ResponseWriter.(http.Flusher); ok {
		f.Flush()
	}
}

// Hijack passes on, where the server can; the request then counts as 101.
func (w *recorder) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	c, rw, err := http.NewResponseController(w.ResponseWriter).Hijack()
	if err == nil && w.status == 0 {
		w.status = http.StatusSwitchingProtocols
	}
	return c, rw, err
}

// CloseNotify exists because gin asserts it; the request's context is the way
// to learn that a client has left.
func (w *recorder) CloseNotify() <-chan bool {
	if n, ok := w.ResponseWriter.(http.CloseNotifier); ok { //nolint:staticcheck // see above
		return n.CloseNotify()
	}
	return make(chan bool)
}
