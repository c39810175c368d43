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
	return &tracesBatch{ptraceotlp.NewExportRequest()}
}

// metricsBatch is read in place, see package wire.
type metricsBatch struct{ m wire.Metrics }

var metricsBatches = sync.Pool{New: func() any { return new(metricsBatch) }}

// keepPoints is the largest memory for points that goes back to the pool.
const keepPoints = 1 << 20

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
	err := b.read(ctx, body, lim, sh)
	if !errors.Is(err, wire.ErrOdd) {
		return err
	}
	t, err := scan(body, metricsRequest, lim)
	if err != nil {
		return err
	}
	if err := sh.grow(ctx, t.cost); err != nil {
		return err
	}
	normal, err := wire.Normal(body)
	if err != nil {
		return refuse(badRequest, "the request is not OTLP protobuf: %w", err)
	}
	if err := b.read(ctx, normal, lim, sh); err != nil {
		if errors.Is(err, wire.ErrOdd) {
			return refuse(badRequest, "the request is not OTLP protobuf: %w", err)
		}
		return err
	}
	return nil
}

func (b *metricsBatch) read(ctx context.Context, body []byte, lim limits, sh *share) error {
	err := b.m.Read(body, wire.Limits{
		Elements: lim.elements, Attributes: lim.attributes, Depth: lim.depth,
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

type tracesBatch struct{ req ptraceotlp.ExportRequest }

func (b *tracesBatch) attribute(a *attribution) Result { return a.traces(b.req.Traces()) }
func (b *tracesBatch) items() int                      { return b.req.Traces().SpanCount() }
func (b *tracesBatch) release()                        {}

func (b *tracesBatch) decode(ctx context.Context, body []byte, json bool, lim limits, sh *share) error {
	if json {
		again, err := throughJSON(ctx, body, lim, sh, b.req.UnmarshalJSON, b.req.MarshalProto)
		if err != nil {
			return err
		}
		_, err = scan(again, tracesRequest, lim)
		return err
	}
	t, err := scan(body, tracesRequest, lim)
	if err != nil {
		return err
	}
	if err := sh.grow(ctx, t.cost); err != nil {
		return err
	}
	if err := b.req.UnmarshalProto(body); err != nil {
		return refuse(badRequest, "the request is not OTLP protobuf: %w", err)
	}
	return nil
}

func (b *tracesBatch) write(ctx context.Context, s Sink, o binnacle.Origin) (Result, error) {
	td := b.req.Traces()
	td.MarkReadOnly()
	return s.WriteTraces(ctx, o, td)
}

func (b *tracesBatch) response(r Result, json bool) ([]byte, error) {
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
