package otlp

import (
	"context"

	"go.opentelemetry.io/collector/pdata/pmetric/pmetricotlp"
	"go.opentelemetry.io/collector/pdata/ptrace/ptraceotlp"

	"github.com/binnacle-project/binnacle"
)

// batch is one export request of either signal, so that everything between
// the socket and the sink is written once.
type batch interface {
	root() kind
	unmarshalProto([]byte) error
	unmarshalJSON([]byte) error
	marshalProto() ([]byte, error)
	attribute(*attribution) Result
	items() int
	write(context.Context, Sink, binnacle.Origin) (Result, error)
	// response encodes the answer of a success.
	response(r Result, json bool) ([]byte, error)
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
		return &metricsBatch{pmetricotlp.NewExportRequest()}
	}
	return &tracesBatch{ptraceotlp.NewExportRequest()}
}

type metricsBatch struct{ req pmetricotlp.ExportRequest }

func (b *metricsBatch) root() kind                      { return metricsRequest }
func (b *metricsBatch) unmarshalProto(p []byte) error   { return b.req.UnmarshalProto(p) }
func (b *metricsBatch) unmarshalJSON(p []byte) error    { return b.req.UnmarshalJSON(p) }
func (b *metricsBatch) marshalProto() ([]byte, error)   { return b.req.MarshalProto() }
func (b *metricsBatch) attribute(a *attribution) Result { return a.metrics(b.req.Metrics()) }
func (b *metricsBatch) items() int                      { return b.req.Metrics().DataPointCount() }

func (b *metricsBatch) write(ctx context.Context, s Sink, o binnacle.Origin) (Result, error) {
	md := b.req.Metrics()
	md.MarkReadOnly()
	return s.WriteMetrics(ctx, o, md)
}

func (b *metricsBatch) response(r Result, json bool) ([]byte, error) {
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

func (b *tracesBatch) root() kind                      { return tracesRequest }
func (b *tracesBatch) unmarshalProto(p []byte) error   { return b.req.UnmarshalProto(p) }
func (b *tracesBatch) unmarshalJSON(p []byte) error    { return b.req.UnmarshalJSON(p) }
func (b *tracesBatch) marshalProto() ([]byte, error)   { return b.req.MarshalProto() }
func (b *tracesBatch) attribute(a *attribution) Result { return a.traces(b.req.Traces()) }
func (b *tracesBatch) items() int                      { return b.req.Traces().SpanCount() }

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
