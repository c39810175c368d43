package telemetry

import (
	"context"

	"go.opentelemetry.io/otel/trace"
)

// flight is the context of a request whose trace is not kept: its ids still go
// to backends and to the client. It does in one allocation, and with one text
// for all headers, what OpenTelemetry's own context and span need several for.
type flight struct {
	context.Context
	sc trace.SpanContext
	// header is the value of traceparent and traceresponse. Nobody writes to it.
	header [1]string
}

type flightKey struct{}

func newFlight(ctx context.Context, sc trace.SpanContext) *flight {
	return &flight{Context: ctx, sc: sc, header: [1]string{traceparent(sc)}}
}

// Value finds the flight itself, too.
func (f *flight) Value(key any) any {
	if key == (flightKey{}) {
		return f
	}
	return f.Context.Value(key)
}

// values is the header's value, safe to put into a Header.
func (f *flight) values() []string { return f.header[:1:1] }

// traceOf returns the trace of ctx and, if it is valid, its traceparent.
func traceOf(ctx context.Context) (sc trace.SpanContext, header []string) {
	if f, ok := ctx.Value(flightKey{}).(*flight); ok {
		return f.sc, f.values()
	}
	if sc = trace.SpanContextFromContext(ctx); sc.IsValid() {
		header = []string{traceparent(sc)}
	}
	return sc, header
}
