package telemetry

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/VictoriaMetrics/metrics"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/sdk/resource"
	"go.opentelemetry.io/otel/trace"
	coltracepb "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"
)

var testSpan = trace.NewSpanContext(trace.SpanContextConfig{
	TraceID: trace.TraceID{1, 2, 3}, SpanID: trace.SpanID{4, 5}, TraceFlags: trace.FlagsSampled,
})

// TestSpanIsOTLP reads what spanWriter wrote with OpenTelemetry's own messages.
func TestSpanIsOTLP(t *testing.T) {
	start, end := time.Unix(1700000000, 5), time.Unix(1700000001, 7)
	w := openSpan(identity{testSpan, parentSpan{trace.SpanID{9}, true}}, kindServer, "GET", "/users/{id}", start, end)
	w.raw(encodeAttributes([]attribute.KeyValue{
		attribute.String("team", "old"), attribute.String("team", "a"), attribute.Int("n", -3), attribute.Bool("on", true), attribute.Float64("f", 0.5),
		keyRoute.String("not the configuration's to say"),
	}))
	w.text(keyPath, "/users/7")
	w.number(keyStatus, 502)
	w.failed("it broke")
	var got tracepb.Span
	if err := proto.Unmarshal(w.b, &got); err != nil {
		t.Fatal(err)
	}
	str := func(k, v string) *commonpb.KeyValue {
		return &commonpb.KeyValue{Key: k, Value: &commonpb.AnyValue{Value: &commonpb.AnyValue_StringValue{StringValue: v}}}
	}
	num := func(k string, v int64) *commonpb.KeyValue {
		return &commonpb.KeyValue{Key: k, Value: &commonpb.AnyValue{Value: &commonpb.AnyValue_IntValue{IntValue: v}}}
	}
	id, own := testSpan.TraceID(), testSpan.SpanID()
	want := &tracepb.Span{
		TraceId: id[:], SpanId: own[:], ParentSpanId: []byte{9, 0, 0, 0, 0, 0, 0, 0}, Flags: 0x301,
		Name: "GET /users/{id}", Kind: tracepb.Span_SPAN_KIND_SERVER,
		StartTimeUnixNano: uint64(start.UnixNano()), EndTimeUnixNano: uint64(end.UnixNano()),
		Attributes: []*commonpb.KeyValue{
			str("team", "a"), num("n", -3),
			{Key: "on", Value: &commonpb.AnyValue{Value: &commonpb.AnyValue_BoolValue{BoolValue: true}}},
			{Key: "f", Value: &commonpb.AnyValue{Value: &commonpb.AnyValue_DoubleValue{DoubleValue: 0.5}}},
			str("url.path", "/users/7"), num("http.response.status_code", 502),
		},
		Status: &tracepb.Status{Message: "it broke", Code: tracepb.Status_STATUS_CODE_ERROR},
	}
	if !proto.Equal(&got, want) {
		t.Errorf("got  %v\nwant %v", &got, want)
	}
}

// FuzzSpan: whatever strings come in, the span can be read, and they are in it.
func FuzzSpan(f *testing.F) {
	f.Add("GET", "/a", "key", "value", 7, "gone")
	f.Add("", "", "", "\xff\xfe", -1, "")
	f.Fuzz(func(t *testing.T, verb, rest, key, value string, n int, description string) {
		w := openSpan(identity{sc: testSpan}, kindClient, verb, rest, time.Unix(1, 0), time.Unix(2, 0))
		defer spanWriters.Put(w)
		w.text("k", value)
		w.number("n", n)
		w.failed(description)
		var s tracepb.Span
		if err := proto.Unmarshal(w.b, &s); err != nil {
			t.Fatal(err)
		}
		if len(s.Attributes) != 2 || s.Attributes[0].Value.GetStringValue() != strings.ToValidUTF8(value, "\uFFFD") || s.Attributes[1].Value.GetIntValue() != int64(n) {
			t.Fatalf("attributes %v of %q and %d", s.Attributes, value, n)
		}
		if s.Status.Message != strings.ToValidUTF8(description, "\uFFFD") || s.Status.Code != tracepb.Status_STATUS_CODE_ERROR {
			t.Fatalf("status %v of %q", s.Status, description)
		}
	})
}

// fakeClient takes exports, and fails or hangs as told.
type fakeClient struct {
	mu      sync.Mutex
	spans   []string // names, in order
	err     error
	hang    bool
	exports int
}

func (c *fakeClient) Start(context.Context) error { return nil }
func (c *fakeClient) Stop(context.Context) error  { return nil }

func (c *fakeClient) UploadTraces(ctx context.Context, rs []*tracepb.ResourceSpans) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.exports++
	if c.hang {
		<-ctx.Done()
		return ctx.Err()
	}
	if c.err != nil {
		return c.err
	}
	// As the real clients send it, and a receiver reads it.
	raw, err := proto.Marshal(&coltracepb.ExportTraceServiceRequest{ResourceSpans: rs})
	if err != nil {
		return err
	}
	var got coltracepb.ExportTraceServiceRequest
	if err := proto.Unmarshal(raw, &got); err != nil {
		return err
	}
	for _, r := range got.ResourceSpans {
		if name := r.Resource.Attributes[0].Value.GetStringValue(); name != "gw" {
			return errors.New("service.name " + name)
		}
		for _, s := range r.ScopeSpans {
			if s.Scope.Name != scopeName {
				return errors.New("scope " + s.Scope.Name)
			}
			for _, span := range s.Spans {
				c.spans = append(c.spans, span.Name)
			}
		}
	}
	return nil
}

// got returns what came so far.
func (c *fakeClient) got() (spans []string, exports int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.spans), c.exports
}

func newTestQueue(c *fakeClient) *spanQueue {
	return newSpanQueue(c, encodeResource(resource.NewSchemaless(attribute.String("service.name", "gw"))), encodeScope(), metrics.NewSet(), discard)
}

func encodedSpan(name string) []byte {
	w := openSpan(identity{sc: testSpan}, kindServer, name, "", time.Unix(1, 0), time.Unix(2, 0))
	defer spanWriters.Put(w)
	return slices.Clone(w.b)
}

// TestSpanQueue: spans leave in order, after a second or with a full batch.
func TestSpanQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &fakeClient{}
		q := newTestQueue(c)
		ctx, cancel := context.WithCancel(t.Context())
		go q.run(ctx)
		q.add(encodedSpan("a"))
		q.add(encodedSpan("b"))
		synctest.Wait()
		if spans, _ := c.got(); len(spans) != 0 {
			t.Errorf("exported at once: %v", spans)
		}
		time.Sleep(batchTimeout)
		synctest.Wait()
		if spans, exports := c.got(); !slices.Equal(spans, []string{"a", "b"}) || exports != 1 {
			t.Errorf("after a second: %v in %d exports; want a, b in one", spans, exports)
		}
		for range spanBatch {
			q.add(encodedSpan("c"))
		}
		synctest.Wait()
		if spans, _ := c.got(); len(spans) != 2+spanBatch {
			t.Errorf("a full batch waits: %d exported; want %d", len(spans), 2+spanBatch)
		}
		cancel()
		synctest.Wait()
		q.add(encodedSpan("d"))
		if err := q.shutdown(t.Context()); err != nil {
			t.Error(err)
		}
		if spans, _ := c.got(); spans[len(spans)-1] != "d" {
			t.Errorf("shutdown left the last one: %v", spans[len(spans)-1])
		}
		q.add(encodedSpan("e"))
		if n := q.lost.Get(); n != 1 {
			t.Errorf("%d lost after the end; want 1", n)
		}
	})
}

// TestSpanQueueIsBounded: a receiver that hangs costs memory up to a bound, one
// that fails loses a batch at a time; both are counted.
func TestSpanQueueIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &fakeClient{hang: true}
		q := newTestQueue(c)
		go q.run(t.Context())
		span := encodedSpan("a")
		for range maxSpanQueue {
			q.add(span)
		}
		synctest.Wait() // one batch is on its way, and hangs
		for range 2 * spanBatch {
			q.add(span)
		}
		q.mu.Lock()
		waiting := q.waiting
		q.mu.Unlock()
		if lost := q.lost.Get(); lost != spanBatch || waiting != maxSpanQueue {
			t.Errorf("%d lost, %d waiting; want %d and %d", lost, waiting, spanBatch, maxSpanQueue)
		}
		time.Sleep(exportTimeout)
		synctest.Wait()
		if lost := q.lost.Get(); lost != 2*spanBatch {
			t.Errorf("%d lost after an export that failed; want %d", lost, 2*spanBatch)
		}
	})
}
