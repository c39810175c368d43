package manager

import (
	"context"
	"sync/atomic"

	"github.com/VictoriaMetrics/metrics"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
)

// ownSpansQueue is how many ended spans of the manager itself may wait.
const ownSpansQueue = 2048

// ownSpans is the SDK's batch processor, with its losses counted: it drops spans
// without a word when its queue is full, and tells of a failed export only in
// a log. Spans that would find no place are dropped before it, so that it never
// has to.
type ownSpans struct {
	sdktrace.SpanProcessor
	waiting         atomic.Int64 // ended and not exported yet
	dropped, failed *metrics.Counter
}

// newOwnSpans returns a processor that exports to next.
func newOwnSpans(next sdktrace.SpanExporter, set *metrics.Set) *ownSpans {
	p := &ownSpans{
		dropped: set.GetOrCreateCounter(`binnacle_own_spans_lost_total{reason="queue"}`),
		failed:  set.GetOrCreateCounter(`binnacle_own_spans_lost_total{reason="export"}`),
	}
	set.GetOrCreateGauge("binnacle_own_spans_waiting", func() float64 { return float64(p.waiting.Load()) })
	p.SpanProcessor = sdktrace.NewBatchSpanProcessor(countedExporter{next, p}, sdktrace.WithMaxQueueSize(ownSpansQueue))
	return p
}

// OnEnd implements sdktrace.SpanProcessor.
func (p *ownSpans) OnEnd(s sdktrace.ReadOnlySpan) {
	if !s.SpanContext().IsSampled() {
		return
	}
	if p.waiting.Add(1) > ownSpansQueue {
		p.waiting.Add(-1)
		p.dropped.Inc()
		return
	}
	p.SpanProcessor.OnEnd(s)
}

// countedExporter tells ownSpans what has left its queue.
type countedExporter struct {
	sdktrace.SpanExporter
	p *ownSpans
}

// ExportSpans implements sdktrace.SpanExporter.
func (e countedExporter) ExportSpans(ctx context.Context, spans []sdktrace.ReadOnlySpan) error {
	err := e.SpanExporter.ExportSpans(ctx, spans)
	e.p.waiting.Add(-int64(len(spans)))
	if err != nil {
		e.p.failed.Add(len(spans))
	}
	return err
}
