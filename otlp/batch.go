package otlp

import (
	"context"
	"errors"
	"sync"

	"go.opentelemetry.io/collector/pdata/pmetric/pmetricotlp"
	"go.opentelemetry.io/collector/pdata/ptrace/ptraceotlp"

	"github.com/binnacle-project/binnacle"
	"github.com/binnacle-project/binnacle/otlp/wire"
)

// batch is one export request of either signal, so that everything between
// the socket and the sink is written once.
type batch interface {
	// decode reads a body, within the limits and with the share for what it
	// takes. What it read may lie in body.
	decode(ctx context.Context, body []byte, json bool, lim limits, sh *share) error
	attribute(*attribution) Result
	items() int
	write(context.Context, Sink, binnacle.Origin) (Result, error)
	// response encodes the answer of a success.
	response(r Result, json bool) ([]byte, error)
	// release gives memory back; the batch and its items are over.
	release()
}

// signal names what an exporter sends, in paths and labels.
type signal string

const (
	metricsSignal signal = "metrics"
	tracesSignal  signal = "traces"
	logsSignal    signal = "logs"
)

func newBatch(s signal) batch {
	if s == metricsSignal {
		return metricsBatches.Get().(*metricsBatch)
	}
	return tracesBatches.Get().(*tracesBatch)
}

// metricsBatch is read in place, see package wire.
type metricsBatch struct{ m wire.Metrics }

var metricsBatches = sync.Pool{New: func() any { return new(metricsBatch) }}

// keepPoints and keepSpans are the largest memory for points and spans that goes
// back to a pool. Collectors send 8,192 spans at a time.
const (
	keepPoints = 1 << 20
	keepSpans  = 4 << 20
)

func (b *metricsBatch) release() {
	if b.m.Bytes() <= keepPoints {
		metricsBatches.Put(b)
	}
}

func (b *metricsBatch) decode(ctx context.Context, body []byte, json bool, lim limits, sh *share) error {
	if json {
		req := pmetricotlp.NewExportRequest()
		again, err := throughJSON(ctx, body, lim, sh, req.UnmarshalJSON, req.MarshalProto)
		if err != nil {
			return err
		}
		body = again
	}
	return readInPlace(ctx, body, metricsRequest, lim, sh, b.m.Read, wire.Normal)
}

func (b *metricsBatch) attribute(a *attribution) Result { return a.metrics(&b.m) }
func (b *metricsBatch) items() int                      { return b.m.Points() }

func (b *metricsBatch) write(ctx context.Context, s Sink, o binnacle.Origin) (Result, error) {
	return s.WriteMetrics(ctx, o, &b.m)
}

// allStored is the usual answer.
var allStored, _ = pmetricotlp.NewExportResponse().MarshalProto()

func (b *metricsBatch) response(r Result, json bool) ([]byte, error) {
	if r == (Result{}) && !json {
		return allStored, nil
	}
	resp := pmetricotlp.NewExportResponse()
	if r != (Result{}) {
		resp.PartialSuccess().SetRejectedDataPoints(int64(r.Rejected))
		resp.PartialSuccess().SetErrorMessage(r.Message)
	}
	if json {
		return resp.MarshalJSON()
	}
	return resp.MarshalProto()
}

// tracesBatch is read in place, too.
type tracesBatch struct{ t wire.Traces }

var tracesBatches = sync.Pool{New: func() any { return new(tracesBatch) }}

func (b *tracesBatch) release() {
	if b.t.Bytes() <= keepSpans {
		tracesBatches.Put(b)
	}
}

func (b *tracesBatch) decode(ctx context.Context, body []byte, json bool, lim limits, sh *share) error {
	if json {
		req := ptraceotlp.NewExportRequest()
		again, err := throughJSON(ctx, body, lim, sh, req.UnmarshalJSON, req.MarshalProto)
		if err != nil {
			return err
		}
		body = again
	}
	return readInPlace(ctx, body, tracesRequest, lim, sh, b.t.Read, wire.NormalTraces)
}

func (b *tracesBatch) attribute(a *attribution) Result { return a.traces(&b.t) }
func (b *tracesBatch) items() int                      { return b.t.Spans() }

func (b *tracesBatch) write(ctx context.Context, s Sink, o binnacle.Origin) (Result, error) {
	return s.WriteTraces(ctx, o, &b.t)
}

func (b *tracesBatch) response(r Result, json bool) ([]byte, error) {
	if r == (Result{}) && !json {
		return allStored, nil // the same bytes for both signals
	}
	resp := ptraceotlp.NewExportResponse()
	if r != (Result{}) {
		resp.PartialSuccess().SetRejectedSpans(int64(r.Rejected))
		resp.PartialSuccess().SetErrorMessage(r.Message)
	}
	if json {
		return resp.MarshalJSON()
	}
	return resp.MarshalProto()
}

// readInPlace reads a body within the limits and with the share for what it takes.
// What read finds odd, normal writes anew.
func readInPlace(ctx context.Context, body []byte, root kind, lim limits, sh *share, read func([]byte, wire.Limits) error, normal func([]byte) ([]byte, error)) error {
	within := func(body []byte) error {
		err := read(body, wire.Limits{
			Elements: lim.elements, Attributes: lim.attributes, Events: lim.events, Depth: lim.depth,
			Memory: func(total int64) error {
				if total += int64(len(body)); total > lim.cost {
					return tooCostly(lim.cost)
				}
				return sh.grow(ctx, total)
			},
		})
		if over, ok := errors.AsType[*wire.LimitError](err); ok {
			return tooMany(over.What, over.Limit)
		}
		return err
	}
	err := within(body)
	if !errors.Is(err, wire.ErrOdd) {
		return err
	}
	t, err := scan(body, root, lim)
	if err != nil {
		return err
	}
	if err := sh.grow(ctx, t.cost); err != nil {
		return err
	}
	again, err := normal(body)
	if err != nil {
		return refuse(badRequest, "the request is not OTLP protobuf: %w", err)
	}
	if err = within(again); errors.Is(err, wire.ErrOdd) {
		return refuse(badRequest, "the request is not OTLP protobuf: %w", err)
	}
	return err
}

// throughJSON decodes JSON and returns the same request as protobuf. JSON is what
// people and browsers send, seldom and little: to encode it once more is the
// cheapest way to hold it to the very same limits.
func throughJSON(ctx context.Context, body []byte, lim limits, sh *share, unmarshal func([]byte) error, marshal func() ([]byte, error)) ([]byte, error) {
	t, err := scanJSON(body, lim)
	if err != nil {
		return nil, err
	}
	if err := sh.grow(ctx, t.cost); err != nil {
		return nil, err
	}
	if err := unmarshal(body); err != nil {
		return nil, refuse(badRequest, "the request is not OTLP JSON: %w", err)
	}
	again, err := marshal()
	if err != nil {
		return nil, refuse(badRequest, "the request is not OTLP JSON: %w", err)
	}
	return again, nil
}
