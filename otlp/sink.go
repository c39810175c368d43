package otlp

import (
	"context"

	"github.com/binnacle-project/binnacle"
	"github.com/binnacle-project/binnacle/otlp/wire"
)

// Sink is what the receivers ask of a store.
//
// The data are already attributed: service.instance.id is set, and binnacle.*
// attributes can be believed. A sink reads them during the call and neither
// changes nor keeps them: they lie in the bytes of the request, strings too, and
// these bytes are used again when it is over. It may be called from many goroutines at once.
//
// A nil error acknowledges the batch, less Result.Rejected items, to the
// sender. Errors are classed by Retry and Permanent; any other error is
// internal: the sender is told so, and will not send the batch again.
type Sink interface {
	WriteMetrics(ctx context.Context, o binnacle.Origin, m *wire.Metrics) (Result, error)
	WriteTraces(ctx context.Context, o binnacle.Origin, t *wire.Traces) (Result, error)
}

// Result is how a sink accepted a batch. The zero Result means all of it.
type Result struct {
	// Rejected counts data points or spans that were refused for good; the
	// sender must not send them again.
	Rejected int
	// Message says why, or warns, in a sentence for the sender's operator.
	Message string
}

// add merges the results of two stores for one batch. The larger count stands,
// since the same item may be refused by both; messages are joined.
func (r Result) add(o Result) Result {
	r.Rejected = max(r.Rejected, o.Rejected)
	r.Message = joinMessages(r.Message, o.Message)
	return r
}

func joinMessages(a, b string) string {
	switch {
	case a == "" || a == b:
		return b
	case b == "":
		return a
	}
	return a + "; " + b
}

// SinkFuncs makes a Sink of functions. A nil function accepts and ignores its
// signal, so that a store of one signal is a Sink too.
type SinkFuncs struct {
	Metrics func(ctx context.Context, o binnacle.Origin, m *wire.Metrics) (Result, error)
	Traces  func(ctx context.Context, o binnacle.Origin, t *wire.Traces) (Result, error)
}

// WriteMetrics implements Sink.
func (f SinkFuncs) WriteMetrics(ctx context.Context, o binnacle.Origin, m *wire.Metrics) (Result, error) {
	if f.Metrics == nil {
		return Result{}, nil
	}
	return f.Metrics(ctx, o, m)
}

// WriteTraces implements Sink.
func (f SinkFuncs) WriteTraces(ctx context.Context, o binnacle.Origin, t *wire.Traces) (Result, error) {
	if f.Traces == nil {
		return Result{}, nil
	}
	return f.Traces(ctx, o, t)
}

// Fan gives every batch to each of sinks in turn and merges their results.
//
// All are called even when one fails, so that a full disk under one store does
// not blind the others; the first error is the answer. A sender that retries
// then sends the others the same batch again: sinks must take a duplicate as
// no news.
func Fan(sinks ...Sink) Sink { return fan(sinks) }

type fan []Sink

func (f fan) WriteMetrics(ctx context.Context, o binnacle.Origin, m *wire.Metrics) (Result, error) {
	return f.each(func(s Sink) (Result, error) { return s.WriteMetrics(ctx, o, m) })
}

func (f fan) WriteTraces(ctx context.Context, o binnacle.Origin, t *wire.Traces) (Result, error) {
	return f.each(func(s Sink) (Result, error) { return s.WriteTraces(ctx, o, t) })
}

func (f fan) each(write func(Sink) (Result, error)) (Result, error) {
	var (
		all   Result
		first error
	)
	for _, s := range f {
		r, err := write(s)
		if err != nil {
			// A permanent error must not hide a retryable one: the sender
			// would drop a batch that a store still wants.
			if first == nil || (retryAfter(first) == 0 && retryAfter(err) != 0) {
				first = err
			}
			continue
		}
		all = all.add(r)
	}
	if first != nil {
		return Result{}, first
	}
	return all, nil
}
