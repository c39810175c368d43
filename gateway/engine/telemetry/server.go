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
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"

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
	revision  attribute.KeyValue // zero when not managed
	unmatched *Route
}

// ScopeOptions say how one configuration is measured.
type ScopeOptions struct {
	Revision binnacle.Revision
	// SkipPaths are neither counted nor traced; a path that ends with / stands
	// for all below it.
	SkipPaths []string
	// Server and Client attributes stand on everything measured on that side.
	// None of them outweighs an attribute of the conventions.
	Server, Client StaticAttributes
}

// StaticAttributes are the same for all requests.
type StaticAttributes struct{ Metrics, Traces []attribute.KeyValue }

// NewScope returns the scope of a generation.
func (t *Telemetry) NewScope(o ScopeOptions) *Scope {
	s := &Scope{t: t, o: o}
	s.unmatched = &Route{table: table{fixed: o.Server.Metrics, sets: t.serverSets}}
	if t.managed {
		s.revision = attribute.String(binnacle.AttrRevision, o.Revision.String())
	}
	return s
}

// Route is an endpoint of the gateway.
type Route struct {
	// Template is the path in KrakenD's form, /users/{id}.
	Template string

	spanName string
	table    table
}

// NewRoute returns the instruments of one endpoint. template is http.route.
func (s *Scope) NewRoute(method, template string) *Route {
	return &Route{
		Template: template,
		spanName: method + " " + template,
		table:    table{fixed: append(slices.Clone(s.o.Server.Metrics), keyRoute.String(template)), sets: s.t.serverSets},
	}
}

// Enter says that the request answered through w is for this route. w may be
// wrapped any number of times, if the wrappers have Unwrap.
func (rt *Route) Enter(w http.ResponseWriter) {
	for {
		switch v := w.(type) {
		case *recorder:
			v.route = rt
			return
		case interface{ Unwrap() http.ResponseWriter }:
			w = v.Unwrap()
		default:
			return
		}
	}
}

// SetErrorType says why the request answered through w is refused by the
// gateway itself. It outweighs the error.type that the status gives, and makes
// no error of the span: the service is well.
func SetErrorType(w http.ResponseWriter, errorType string) {
	for {
		switch v := w.(type) {
		case *recorder:
			v.errorType = errorType
			return
		case interface{ Unwrap() http.ResponseWriter }:
			w = v.Unwrap()
		default:
			return
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
	*rec = recorder{ResponseWriter: w, route: s.unmatched}
	ctx, span := s.startServer(r, start, rec)

	// A panic, also the deliberate http.ErrAbortHandler, still counts.
	defer func() {
		s.finish(ctx, rec, r, span, start)
		rec.ResponseWriter = nil
		recorders.Put(rec)
	}()
	next.ServeHTTP(rec, r.WithContext(ctx))
	rec.finishHeader()
}

func (s *Scope) startServer(r *http.Request, start time.Time, rec *recorder) (context.Context, trace.Span) {
	parent := parseTraceparent(r.Header)
	if !s.t.sampled(parent) {
		f := newFlight(r.Context(), newSpanContext(parent))
		rec.traceresponse = f.values()
		return f, nil
	}
	ctx := r.Context()
	if parent.IsValid() {
		ctx = trace.ContextWithRemoteSpanContext(ctx, parent)
	}
	ctx, span := s.t.tracer.Start(ctx, knownMethod(r.Method), trace.WithSpanKind(trace.SpanKindServer), trace.WithTimestamp(start))
	rec.traceresponse = []string{traceparent(span.SpanContext())}
	return ctx, span
}

// finish records the measurement, with ctx so that a kept trace becomes its
// exemplar, and ends the span.
func (s *Scope) finish(ctx context.Context, rec *recorder, r *http.Request, span trace.Span, start time.Time) {
	now := time.Now()
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
	s.t.server.Record(ctx, now.Sub(start).Seconds(), rec.route.table.row(o).record...)
	if span != nil {
		s.describe(span, rec, r, o)
		span.End(trace.WithTimestamp(now))
	}
}

// describe sets all attributes at once: each call would grow the span's list.
func (s *Scope) describe(span trace.Span, rec *recorder, r *http.Request, o outcome) {
	kvs := make([]attribute.KeyValue, 0, len(s.o.Server.Traces)+12)
	kvs = append(kvs, s.o.Server.Traces...) // first: later ones outweigh them
	if rec.route.Template != "" {
		span.SetName(rec.route.spanName)
		kvs = append(kvs, keyRoute.String(rec.route.Template))
	}
	kvs = append(kvs,
		keyMethod.String(o.method),
		keyScheme.String(o.scheme),
		keyPath.String(r.URL.Path),
		keyStatus.Int(o.status),
		keyProtocolVersion.String(protocolVersion(r.ProtoMajor, r.ProtoMinor)),
	)
	host, port := splitHostPort(r.Host)
	if host != "" {
		kvs = append(kvs, keyServerAddress.String(host))
	}
	if port != 0 {
		kvs = append(kvs, keyServerPort.Int(port))
	}
	if peer, _ := splitHostPort(r.RemoteAddr); peer != "" {
		kvs = append(kvs, keyClientAddress.String(peer))
	}
	if ua := r.UserAgent(); ua != "" {
		kvs = append(kvs, keyUserAgent.String(ua))
	}
	if s.revision.Valid() {
		kvs = append(kvs, s.revision)
	}
	if o.errorType != "" {
		kvs = append(kvs, keyErrorType.String(o.errorType))
		if rec.errorType == "" {
			span.SetStatus(codes.Error, "")
		}
	}
	span.SetAttributes(kvs...)
}

// recorder notes the status of an answer and adds its traceresponse header.
type recorder struct {
	http.ResponseWriter
	route         *Route
	status        int
	errorType     string // what the gateway itself says, see SetErrorType
	traceresponse []string
}

// Unwrap serves http.ResponseController.
func (w *recorder) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// WriteHeader notes the first final status.
func (w *recorder) WriteHeader(code int) {
	if w.status == 0 && (code >= 200 || code == http.StatusSwitchingProtocols) {
		w.status = code
		// Set, not Add: a backend's own header would name another trace.
		w.Header()["Traceresponse"] = w.traceresponse
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
