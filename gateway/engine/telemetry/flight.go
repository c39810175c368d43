package telemetry

import (
	"context"
	"net/http"
	"sync/atomic"
	"unsafe"

	"go.opentelemetry.io/otel/trace"
)

// flight is the context of a request on its way to backends. It carries the
// trace to them, kept or not.
//
// It is one allocation, and stands for the context that an unmeasured request
// has in its place: the text for all headers is in it, and the first call of a
// backend, which is the only one for most endpoints. None of that can come from
// a pool. Headers are strings, which the transport goes on to write after an
// answer; and what reads an answer may close it a second time, long after the
// request, so that the next user of a pooled one would lose its own.
type flight struct {
	detached
	carried

	taken atomic.Bool // first is in use
	first exchange
}

// identity is one span, kept or not.
type identity struct {
	sc     trace.SpanContext
	parent parentSpan
}

// carried is one span as others are told of it.
type carried struct {
	identity
	// text is the value of traceparent and traceresponse, and header the same as
	// a header's values. Nobody writes to them.
	text   [traceparentLen]byte
	header [1]string
}

// parentSpan is what a span's parent is known by; the zero value is none.
type parentSpan struct {
	id     trace.SpanID
	remote bool // of another process
}

type flightKey struct{}

// newIdentity makes a span of parent's trace, if that is valid, or of a new one.
func newIdentity(parent trace.SpanContext, sampled bool) identity {
	return identity{newSpanContext(parent, sampled), parentSpan{parent.SpanID(), parent.IsRemote()}}
}

// newFlight returns the context of a span that is i.
func newFlight(d detached, i identity) *flight {
	f := &flight{detached: d}
	f.carry(i)
	return f
}

// carry writes the text of i.
func (c *carried) carry(i identity) {
	c.identity = i
	writeTraceparent(&c.text, i.sc)
	// The text does not change from here on, and lives as long as what it is in.
	c.header[0] = unsafe.String(&c.text[0], len(c.text))
}

// headerValue is the header's value, safe to put into a Header.
func (c *carried) headerValue() []string { return c.header[:1:1] }

// exchange returns a new exchange, which lives as long as it is used.
func (f *flight) exchange() *exchange {
	if f != nil && f.taken.CompareAndSwap(false, true) {
		return &f.first
	}
	return new(exchange)
}

// Value finds the flight itself, too.
func (f *flight) Value(key any) any {
	if key == (flightKey{}) {
		return f
	}
	return f.detached.Value(key)
}

// flightOf returns the flight of ctx, nil if it is of no measured request.
func flightOf(ctx context.Context) *flight {
	f, _ := ctx.Value(flightKey{}).(*flight)
	return f
}

// Detach returns a context that ends as ctx does, with the values of another one
// and with the trace of the request that is answered through w. w may be wrapped
// any number of times, if the wrappers have Unwrap; nil, or one of no measured
// request, has no trace.
//
// The trace is added here, where backends are called, and not to the request:
// one with another context is a copy, and handlers before have no use for it.
func Detach(ctx, values context.Context, w http.ResponseWriter) context.Context {
	rec := recorderOf(w)
	if rec == nil {
		return &detached{ctx, values}
	}
	f := newFlight(detached{ctx, values}, rec.identity)
	rec.told = &f.carried
	return f
}

// detached ends as its Context does, and takes its values elsewhere.
type detached struct {
	context.Context
	values context.Context
}

// Value looks only where Detach was told to.
func (d *detached) Value(key any) any { return d.values.Value(key) }

// AfterFunc spares package context a goroutine for each child.
func (d *detached) AfterFunc(f func()) (stop func() bool) {
	return context.AfterFunc(d.Context, f)
}
