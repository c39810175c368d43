package telemetry

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"maps"
	"net"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/trace"
)

// maxTargets bounds the hosts that one backend is counted under: its own are
// few, but redirects lead anywhere. The rest counts as _OTHER.
const maxTargets = 256

// error.type of exchanges that brought no complete answer. An answer with a
// failing status has the status as its type.
const (
	errTimeout    = "timeout"
	errResolution = "name_resolution_error"
	errRefused    = "connection_error" // refused, reset, unreachable
	errTLS        = "tls_error"
	errBody       = "incomplete_body"
	errCanceled   = "canceled" // spans only
	errOther      = "_OTHER"
)

// Backend is the instrumented way to one backend of one endpoint.
type Backend struct {
	scope    *Scope
	route    *Route
	template string
	base     http.RoundTripper
	o        BackendOptions
	headers  *headerFilter
	span     []byte // attributes of all its spans

	targets atomic.Pointer[map[string]*target]
	mu      sync.Mutex // serializes additions
}

// target is one host:port of a backend.
type target struct {
	address string
	port    int
	table   table
}

// BackendOptions say how one backend is measured.
type BackendOptions struct {
	Static StaticAttributes
	// Headers of requests and answers stand on spans.
	Headers HeaderOptions
	// Connection adds spans for the parts of a call: name resolution, connecting,
	// TLS, waiting for the answer.
	Connection bool
	// Body adds one for the reading of the answer's body.
	Body bool
}

// NewBackend returns a RoundTripper that measures base: one measurement and, if
// no more is asked for, at most one span per exchange, from the request to the
// end of the answer's body. template is the backend's path template, shown on spans.
func (s *Scope) NewBackend(route *Route, template string, o BackendOptions, base http.RoundTripper) *Backend {
	b := &Backend{
		scope: s, route: route, template: template, base: base, o: o, headers: newHeaderFilter(o.Headers),
		span: append(encodeAttributes(o.Static.Traces), s.revision...),
	}
	b.targets.Store(&map[string]*target{})
	return b
}

// RoundTrip sends req with the trace's context. It sets headers of req itself:
// its callers make a new request for each exchange.
func (b *Backend) RoundTrip(req *http.Request) (*http.Response, error) {
	ctx := req.Context()
	f := flightOf(ctx)
	x := f.exchange()
	x.b, x.target, x.method, x.ctx, x.start = b, b.target(req.URL), knownMethod(req.Method), ctx, time.Now()
	if f != nil {
		x.trace(f, req)
	}
	if x.span != nil && b.o.Connection {
		x.span.phases = new(phases)
		req = req.WithContext(x.span.phases.traced(x.ctx))
	}
	resp, err := b.base.RoundTrip(req)
	if err != nil {
		x.finish(err)
		return resp, err
	}
	x.status = resp.StatusCode
	if x.span != nil {
		x.span.answered = time.Now()
		if b.headers != nil {
			x.span.response = resp.Header.Clone() // others may change it
		}
	}
	x.protocol = [2]int{resp.ProtoMajor, resp.ProtoMinor}
	if resp.Body == nil || resp.Body == http.NoBody || resp.StatusCode == http.StatusSwitchingProtocols {
		x.finish(nil)
		return resp, nil
	}
	x.body = resp.Body
	resp.Body = x
	return resp, nil
}

// target returns the instruments of the host that u names.
func (b *Backend) target(u *url.URL) *target {
	if t, ok := (*b.targets.Load())[u.Host]; ok {
		return t
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	old := *b.targets.Load()
	if t, ok := old[u.Host]; ok {
		return t
	}
	host := u.Host
	t := b.newTarget(u.Hostname(), portOf(u))
	if len(old) >= maxTargets {
		host = "_OTHER"
		if t, ok := old[host]; ok {
			return t
		}
		t = b.newTarget(host, 0)
	}
	next := maps.Clone(old)
	next[host] = t
	b.targets.Store(&next)
	return t
}

func (b *Backend) newTarget(address string, port int) *target {
	fixed := append(slices.Clone(b.o.Static.Metrics), keyServerAddress.String(address))
	if port != 0 {
		fixed = append(fixed, keyServerPort.Int(port))
	}
	if b.route != nil && b.route.Template != "" {
		// Not in the conventions for clients, and bounded, because a backend
		// belongs to one endpoint: it says which endpoints call a backend.
		fixed = append(fixed, keyRoute.String(b.route.Template))
	}
	return &target{address: address, port: port, table: table{fixed: fixed, in: b.scope.t.client}}
}

func portOf(u *url.URL) int {
	if _, port := splitHostPort(u.Host); port != 0 {
		return port
	}
	if u.Scheme == "https" {
		return 443
	}
	return 80
}

// exchange is one request to a backend. After the header has come it stands
// for the answer's body, and ends with it. The transport allows Close while
// Read runs, hence the atomic.
type exchange struct {
	b        *Backend
	target   *target
	method   string
	start    time.Time
	ctx      context.Context
	status   int // 0 until the header has come
	protocol [2]int
	body     io.ReadCloser
	ended    atomic.Bool

	// span is the exchange's own when the trace is kept. What it says of the
	// request is noted before that is sent: the transport may still read it
	// when the exchange ends.
	span *clientSpan
}

// clientSpan is what a kept exchange needs beyond the others.
type clientSpan struct {
	carried
	url               string      // without the query, which carries secrets
	request, response http.Header // nil unless asked for
	answered          time.Time   // when the answer's header came
	phases            *phases     // nil unless asked for
}

// Read passes on and notices the end of the body.
func (x *exchange) Read(p []byte) (int, error) {
	n, err := x.body.Read(p)
	if err == io.EOF {
		x.finish(nil)
	} else if err != nil {
		x.finish(err)
	}
	return n, err
}

// Close ends the exchange. A body that the reader did not want to the end, as
// a JSON decoder does not, is no failure; one that ran out of time is.
func (x *exchange) Close() error {
	err := x.body.Close()
	if x.ctx.Err() == context.DeadlineExceeded {
		x.finish(x.ctx.Err())
	} else {
		x.finish(nil)
	}
	return err
}

// finish records the exchange, once.
func (x *exchange) finish(err error) {
	if !x.ended.CompareAndSwap(false, true) {
		return
	}
	now := time.Now()
	o := outcome{method: x.method, status: x.status}
	gaveUp := false
	switch {
	case err == nil:
		o.errorType = statusType(x.status, 400)
	case x.canceled(err):
		// With an answer in hand the status stands; without, nothing is known.
		gaveUp = x.status == 0
		o.errorType = statusType(x.status, 400)
	default:
		o.errorType = errorType(x.ctx, err)
		if x.status != 0 && o.errorType == errOther {
			o.errorType = errBody
		}
	}
	r := x.target.table.row(o)
	if gaveUp {
		x.b.scope.t.canceled.Add(context.Background(), 1, r.add...)
	} else {
		var sc trace.SpanContext
		if x.span != nil {
			sc = x.span.sc
		}
		r.series.record(now.Sub(x.start).Seconds(), sc)
	}
	if x.span != nil {
		x.endSpan(o, gaveUp, err, now)
	}
}

// canceled reports whether the gateway itself ended the exchange.
func (x *exchange) canceled(err error) bool {
	return errors.Is(err, context.Canceled) || x.ctx.Err() == context.Canceled
}

// trace puts the trace of f into req's headers: that of the exchange's own span
// if it is kept, else that of the request.
func (x *exchange) trace(f *flight, req *http.Request) {
	span := &f.carried
	if f.sc.IsSampled() {
		full := url.URL{Scheme: req.URL.Scheme, Host: req.URL.Host, Path: req.URL.Path}
		x.span = &clientSpan{url: full.String()}
		if x.b.headers != nil {
			x.span.request = req.Header.Clone()
		}
		x.span.carry(newIdentity(f.sc, true))
		span = &x.span.carried
	}
	req.Header["Traceparent"] = span.headerValue()
	if ts := span.sc.TraceState().String(); ts != "" {
		req.Header["Tracestate"] = []string{ts}
	} else {
		delete(req.Header, "Tracestate")
	}
}

func (x *exchange) endSpan(o outcome, gaveUp bool, err error, now time.Time) {
	b := x.b
	w := openSpan(x.span.identity, kindClient, x.method, b.template, x.start, now)
	w.raw(b.span)
	w.text(keyMethod, x.method)
	w.text(keyFull, x.span.url)
	w.text(keyTemplate, b.template)
	w.text(keyServerAddress, x.target.address)
	if x.target.port != 0 {
		w.number(keyServerPort, x.target.port)
	}
	if b.route != nil && b.route.Template != "" {
		w.text(keyRoute, b.route.Template)
	}
	if x.protocol[0] != 0 {
		w.text(keyProtocolVersion, protocolVersion(x.protocol[0], x.protocol[1]))
	}
	if o.status != 0 {
		w.number(keyStatus, o.status)
	}
	b.headers.write(w, requestHeader, x.span.request)
	b.headers.write(w, responseHeader, x.span.response)
	failed := o.errorType
	switch {
	case gaveUp:
		failed = errCanceled
		w.text(keyErrorType, errCanceled) // no one's error: the status stays unset
	case o.errorType != "":
		w.text(keyErrorType, o.errorType)
		if err != nil {
			w.failed(err.Error())
		} else {
			w.failed("")
		}
	}
	t, sc := b.scope.t, x.span.sc
	t.endSpan(w)
	if x.span.phases != nil {
		x.span.phases.write(t, sc, now, failed)
	}
	if b.o.Body && x.body != nil {
		w := openSpan(newIdentity(sc, true), kindInternal, spanBody, "", x.span.answered, now)
		if err != nil {
			w.text(keyErrorType, failed)
		}
		t.endSpan(w)
	}
}

// errorType classes a transport failure in few words.
func errorType(ctx context.Context, err error) string {
	var (
		netErr  net.Error
		dnsErr  *net.DNSError
		opErr   *net.OpError
		certErr *tls.CertificateVerificationError
		recErr  tls.RecordHeaderError
		alert   tls.AlertError
	)
	switch {
	case errors.Is(err, context.DeadlineExceeded), ctx.Err() == context.DeadlineExceeded,
		errors.As(err, &netErr) && netErr.Timeout():
		return errTimeout
	case errors.As(err, &dnsErr):
		return errResolution
	case errors.As(err, &certErr), errors.As(err, &recErr), errors.As(err, &alert):
		return errTLS
	case errors.As(err, &opErr):
		return errRefused
	case errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, io.EOF):
		return errRefused
	}
	return errOther
}
