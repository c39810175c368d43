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

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
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

	targets atomic.Pointer[map[string]*target]
	mu      sync.Mutex // serializes additions
}

// target is one host:port of a backend.
type target struct {
	address string
	port    int
	table   table
}

// NewBackend returns a RoundTripper that measures base: one measurement and at
// most one span per exchange, from the request to the end of the answer's body.
// template is the backend's path template, shown on spans.
func (s *Scope) NewBackend(route *Route, template string, base http.RoundTripper) *Backend {
	b := &Backend{scope: s, route: route, template: template, base: base}
	b.targets.Store(&map[string]*target{})
	return b
}

// RoundTrip sends req with the trace's context. It sets headers of req itself:
// its callers make a new request for each exchange.
func (b *Backend) RoundTrip(req *http.Request) (*http.Response, error) {
	ctx := req.Context()
	x := &exchange{b: b, target: b.target(req.URL), method: knownMethod(req.Method), start: time.Now()}
	sc, header := traceOf(ctx)
	if sc.IsSampled() {
		ctx, x.span = b.scope.t.tracer.Start(ctx, x.method+" "+b.template,
			trace.WithSpanKind(trace.SpanKindClient), trace.WithTimestamp(x.start))
		sc = x.span.SpanContext()
		header = []string{traceparent(sc)}
		req = req.WithContext(ctx)
		x.describe(req)
	}
	if sc.IsValid() {
		req.Header["Traceparent"] = header
		if ts := sc.TraceState().String(); ts != "" {
			req.Header["Tracestate"] = []string{ts}
		} else {
			delete(req.Header, "Tracestate")
		}
	}
	// The exchange may outlive the request, whose context then may belong to
	// another: only its end is asked later, no value of it.
	x.ctx, x.recordCtx = ctx, context.Background()
	if sc.IsSampled() {
		x.recordCtx = trace.ContextWithSpanContext(x.recordCtx, sc)
	}

	resp, err := b.base.RoundTrip(req)
	if err != nil {
		x.finish(err)
		return resp, err
	}
	x.status = resp.StatusCode
	if x.span != nil {
		x.attrs = append(x.attrs, keyProtocolVersion.String(protocolVersion(resp.ProtoMajor, resp.ProtoMinor)))
	}
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
	fixed := append(slices.Clone(b.scope.o.Client.Metrics), keyServerAddress.String(address))
	if port != 0 {
		fixed = append(fixed, keyServerPort.Int(port))
	}
	if b.route != nil && b.route.Template != "" {
		// Not in the conventions for clients, and bounded, because a backend
		// belongs to one endpoint: it says which endpoints call a backend.
		fixed = append(fixed, keyRoute.String(b.route.Template))
	}
	return &target{address: address, port: port, table: table{fixed: fixed, sets: b.scope.t.clientSets}}
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
	b      *Backend
	target *target
	method string
	start  time.Time
	ctx    context.Context
	// recordCtx carries the trace to the exemplars.
	recordCtx context.Context
	span      trace.Span           // nil when not sampled
	attrs     []attribute.KeyValue // of the span
	status    int                  // 0 until the header has come
	body      io.ReadCloser
	ended     atomic.Bool
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
	t := x.b.scope.t
	if gaveUp {
		t.canceled.Add(x.recordCtx, 1, x.target.table.row(o).add...)
	} else {
		t.client.Record(x.recordCtx, now.Sub(x.start).Seconds(), x.target.table.row(o).record...)
	}
	if x.span != nil {
		x.endSpan(o, gaveUp, err, now)
	}
}

// canceled reports whether the gateway itself ended the exchange.
func (x *exchange) canceled(err error) bool {
	return errors.Is(err, context.Canceled) || x.ctx.Err() == context.Canceled
}

// describe notes what the request says. The attributes are set at the end, all
// at once: each call would grow the span's list.
func (x *exchange) describe(req *http.Request) {
	full := url.URL{Scheme: req.URL.Scheme, Host: req.URL.Host, Path: req.URL.Path} // queries carry secrets
	static := x.b.scope.o.Client.Traces
	x.attrs = append(append(make([]attribute.KeyValue, 0, len(static)+10), static...),
		keyMethod.String(x.method),
		keyFull.String(full.String()),
		keyTemplate.String(x.b.template),
		keyServerAddress.String(x.target.address),
	)
	if x.target.port != 0 {
		x.attrs = append(x.attrs, keyServerPort.Int(x.target.port))
	}
	if x.b.route != nil && x.b.route.Template != "" {
		x.attrs = append(x.attrs, keyRoute.String(x.b.route.Template))
	}
	if r := x.b.scope.revision; r.Valid() {
		x.attrs = append(x.attrs, r)
	}
}

func (x *exchange) endSpan(o outcome, gaveUp bool, err error, now time.Time) {
	if o.status != 0 {
		x.attrs = append(x.attrs, keyStatus.Int(o.status))
	}
	switch {
	case gaveUp:
		x.attrs = append(x.attrs, keyErrorType.String(errCanceled)) // no one's error: the status stays unset
	case o.errorType != "":
		x.attrs = append(x.attrs, keyErrorType.String(o.errorType))
		desc := ""
		if err != nil {
			desc = err.Error()
		}
		x.span.SetStatus(codes.Error, desc)
	}
	x.span.SetAttributes(x.attrs...)
	x.span.End(trace.WithTimestamp(now))
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
