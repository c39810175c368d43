package telemetry

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/VictoriaMetrics/metrics"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace"
	"go.opentelemetry.io/otel/sdk/resource"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/binnacle-project/binnacle"
)

const (
	// maxSpanQueue bounds the spans that wait for one receiver; further ones are
	// lost and counted. At half a KiB each it is 8 MiB.
	maxSpanQueue = 16 << 10
	// spanBatch is how many spans go into one export.
	spanBatch = 1024
	// batchTimeout is how long a span waits for company before it is exported.
	batchTimeout = time.Second
)

// Field numbers around the spans of an export.
//
// Source: opentelemetry-proto, trace/v1/trace.proto.
const (
	resourceSpansResource protowire.Number = 1
	resourceSpansScope    protowire.Number = 2
	scopeSpansScope       protowire.Number = 1
	scopeSpansSpan        protowire.Number = 2
)

// spanQueue holds encoded spans for one receiver and exports them, in the order
// in which they ended. It is safe for concurrent use.
type spanQueue struct {
	client         otlptrace.Client
	log            *slog.Logger
	ok, fail, lost *metrics.Counter
	// resource and scope stand in front of the spans of each export.
	resource, scope []byte

	full chan struct{} // a batch is ready

	mu      sync.Mutex // guards what follows
	batches []*spanBuffer
	waiting int
	free    []*spanBuffer
	ended   bool

	exporting chan struct{} // holds one token while an export runs
}

// spanBuffer is a batch: spans as fields of a ScopeSpans.
type spanBuffer struct {
	b []byte
	n int
}

func newSpanQueue(client otlptrace.Client, resource, scope []byte, set *metrics.Set, log *slog.Logger) *spanQueue {
	return &spanQueue{
		client: client, resource: resource, scope: scope, log: log,
		ok:   set.GetOrCreateCounter(`binnacle_gateway_exports_total{signal="traces",result="ok"}`),
		fail: set.GetOrCreateCounter(`binnacle_gateway_exports_total{signal="traces",result="failed"}`),
		lost: set.GetOrCreateCounter(`binnacle_gateway_spans_lost_total`),
		full: make(chan struct{}, 1), exporting: make(chan struct{}, 1),
	}
}

// add puts one encoded span into the queue.
func (q *spanQueue) add(span []byte) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.waiting >= maxSpanQueue || q.ended {
		q.lost.Inc()
		return
	}
	var last *spanBuffer
	if n := len(q.batches); n > 0 && q.batches[n-1].n < spanBatch {
		last = q.batches[n-1]
	} else {
		last = q.buffer()
		q.batches = append(q.batches, last)
	}
	last.b = protowire.AppendTag(last.b, scopeSpansSpan, protowire.BytesType)
	last.b = protowire.AppendBytes(last.b, span)
	last.n++
	q.waiting++
	if last.n == spanBatch {
		select {
		case q.full <- struct{}{}:
		default:
		}
	}
}

// buffer returns an empty one, used before if possible.
func (q *spanQueue) buffer() *spanBuffer {
	if n := len(q.free); n > 0 {
		b := q.free[n-1]
		q.free = q.free[:n-1]
		return b
	}
	return &spanBuffer{}
}

// next takes the oldest batch out of the queue, nil when there is none.
func (q *spanQueue) next() *spanBuffer {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.batches) == 0 {
		return nil
	}
	b := q.batches[0]
	q.batches = q.batches[1:]
	q.waiting -= b.n
	return b
}

// done gives a batch's memory back. Two are enough: one fills while the other
// is sent.
func (q *spanQueue) done(b *spanBuffer) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.free) < 2 {
		b.b, b.n = b.b[:0], 0
		q.free = append(q.free, b)
	}
}

// run exports until ctx ends: each second, and whenever a batch is full.
func (q *spanQueue) run(ctx context.Context) {
	tick := time.NewTicker(batchTimeout)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-q.full:
		case <-tick.C:
		}
		_ = q.flush(ctx) // logged and counted
	}
}

// flush exports all that waits and returns when the receiver has answered or
// ctx has ended.
func (q *spanQueue) flush(ctx context.Context) error {
	select {
	case q.exporting <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { <-q.exporting }()
	for ctx.Err() == nil {
		b := q.next()
		if b == nil {
			return nil
		}
		err := q.export(ctx, b)
		n := b.n
		q.done(b)
		if err != nil {
			q.fail.Inc()
			q.lost.Add(n)
			q.log.Warn("spans were not exported", "spans", n, "err", err)
			return err
		}
		q.ok.Inc()
	}
	return ctx.Err()
}

// export sends one batch by the SDK's client, which knows protocols, retries
// and partial success. To it the spans are unknown fields of an empty message,
// which protobuf passes on as they are.
func (q *spanQueue) export(ctx context.Context, b *spanBuffer) error {
	ctx, cancel := context.WithTimeout(ctx, exportTimeout)
	defer cancel()
	scope := protowire.SizeBytes(len(q.scope)) + protowire.SizeTag(scopeSpansScope) + len(b.b)
	raw := make([]byte, 0, len(q.resource)+scope+32)
	raw = protowire.AppendTag(raw, resourceSpansResource, protowire.BytesType)
	raw = protowire.AppendBytes(raw, q.resource)
	raw = protowire.AppendTag(raw, resourceSpansScope, protowire.BytesType)
	raw = protowire.AppendVarint(raw, uint64(scope))
	raw = protowire.AppendTag(raw, scopeSpansScope, protowire.BytesType)
	raw = protowire.AppendBytes(raw, q.scope)
	raw = append(raw, b.b...)
	spans := &tracepb.ResourceSpans{}
	spans.ProtoReflect().SetUnknown(raw)
	if err := q.client.UploadTraces(ctx, []*tracepb.ResourceSpans{spans}); err != nil {
		return fmt.Errorf("export spans: %w", err)
	}
	return nil
}

// shutdown exports what is left within ctx and stops the client. What comes
// later is lost.
func (q *spanQueue) shutdown(ctx context.Context) error {
	err := q.flush(ctx)
	q.mu.Lock()
	q.ended = true
	q.mu.Unlock()
	if e := q.client.Stop(ctx); err == nil && e != nil {
		err = fmt.Errorf("stop the export of spans: %w", e)
	}
	return err
}

// encodeResource returns the body of a Resource.
//
// Source: opentelemetry-proto, resource/v1/resource.proto.
func encodeResource(r *resource.Resource) []byte {
	const attributes protowire.Number = 1
	var out []byte
	for _, kv := range r.Attributes() {
		var w spanWriter
		w.text(kv.Key, kv.Value.String())
		_, _, n := protowire.ConsumeTag(w.b) // the same message under another number
		out = append(protowire.AppendTag(out, attributes, protowire.BytesType), w.b[n:]...)
	}
	return out
}

// encodeScope returns the body of the InstrumentationScope.
func encodeScope() []byte {
	const name, version protowire.Number = 1, 2
	return appendString(appendString(nil, name, scopeName), version, binnacle.Version)
}
