package telemetry

import (
	"context"
	"net/http"
	"unsafe"

	"go.opentelemetry.io/otel/trace"
)

// flight is the context of a request. It carries the trace to backends, kept
// or not, in one allocation together with the text for all headers, where
// OpenTelemetry's own context and span need several.
type flight struct {
	context.Context
	carried
}

// carried is one span, kept or not, as others are told of it.
type carried struct {
	sc     trace.SpanContext
	parent parentSpan
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

// newFlight returns the context of a request that continues parent, if that is
// valid, or begins a trace.
func newFlight(ctx context.Context, parent trace.SpanContext, sampled bool) *flight {
	f := &flight{Context: ctx}
	f.begin(parent, sampled)
	return f
}

// begin makes a span of parent's trace, if that is valid, or of a new one.
func (c *carried) begin(parent trace.SpanContext, sampled bool) {
	c.sc, c.parent = newSpanContext(parent, sampled), parentSpan{parent.SpanID(), parent.IsRemote()}
	writeTraceparent(&c.text, c.sc)
	// The text does not change from here on, and lives as long as what it is in.
	c.header[0] = unsafe.String(&c.text[0], len(c.text))
}

// values is the header's value, safe to put into a Header.
func (c *carried) values() []string { return c.header[:1:1] }

// ContextOf returns ctx with the trace of the request that is answered through
// w, which may be wrapped any number of times, if the wrappers have Unwrap. The
// trace is added here, where backends are called, and not to the request: one
// with another context is a copy, and handlers before have no use for the ids.
func ContextOf(ctx context.Context, w http.ResponseWriter) context.Context {
	rec := recorderOf(w)
	switch {
	case rec == nil || rec.flight == nil:
		return ctx
	case rec.flight.Context == ctx:
		return rec.flight
	}
	f := *rec.flight // whose header's text goes on to be that of the first
	f.Context = ctx
	return &f
}

// Value finds the flight itself, too.
func (f *flight) Value(key any) any {
	if key == (flightKey{}) {
		return f
	}
	return f.Context.Value(key)
}

// flightOf returns the flight of ctx, nil if it is of no measured request.
func flightOf(ctx context.Context) *flight {
	f, _ := ctx.Value(flightKey{}).(*flight)
	return f
}
