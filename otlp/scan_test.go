package otlp

import (
	"errors"
	"runtime"
	"testing"

	"go.opentelemetry.io/collector/pdata/pmetric/pmetricotlp"
	"go.opentelemetry.io/collector/pdata/ptrace/ptraceotlp"
	"google.golang.org/protobuf/encoding/protowire"
)

var testLimits = limits{elements: 100_000, attributes: 128, events: 1000, depth: 12, cost: 256 << 20}

// nest wraps b as field n of each of nums, from the inside out.
func nest(b []byte, nums ...protowire.Number) []byte {
	for _, n := range nums {
		b = protowire.AppendBytes(protowire.AppendTag(nil, n, protowire.BytesType), b)
	}
	return b
}

// repeat is count empty messages of field num, two or three bytes each.
func repeat(num protowire.Number, count int) []byte {
	one := protowire.AppendBytes(protowire.AppendTag(nil, num, protowire.BytesType), nil)
	b := make([]byte, 0, count*len(one))
	for range count {
		b = append(b, one...)
	}
	return b
}

// bombs are requests of many empty messages, by the path of field numbers from
// the repeated message outwards.
var bombs = []struct {
	name string
	root kind
	num  protowire.Number
	path []protowire.Number
}{
	{"resource metrics", metricsRequest, 1, nil},
	{"scope metrics", metricsRequest, 2, []protowire.Number{1}},
	{"scope metrics of old", metricsRequest, 1000, []protowire.Number{1}},
	{"metric", metricsRequest, 2, []protowire.Number{2, 1}},
	{"gauge again and again", metricsRequest, 5, []protowire.Number{2, 2, 1}},
	{"number point", metricsRequest, 1, []protowire.Number{5, 2, 2, 1}},
	{"histogram point", metricsRequest, 1, []protowire.Number{9, 2, 2, 1}},
	{"exponential point", metricsRequest, 1, []protowire.Number{10, 2, 2, 1}},
	{"summary point", metricsRequest, 1, []protowire.Number{11, 2, 2, 1}},
	{"quantile", metricsRequest, 6, []protowire.Number{1, 11, 2, 2, 1}},
	{"exemplar", metricsRequest, 5, []protowire.Number{1, 5, 2, 2, 1}},
	{"entity", metricsRequest, 3, []protowire.Number{1, 1}},
	{"entity keys", metricsRequest, 3, []protowire.Number{3, 1, 1}},
	{"resource spans", tracesRequest, 1, nil},
	{"span", tracesRequest, 2, []protowire.Number{2, 1}},
	{"event", tracesRequest, 11, []protowire.Number{2, 2, 1}},
	{"link", tracesRequest, 13, []protowire.Number{2, 2, 1}},
	{"attribute", tracesRequest, 9, []protowire.Number{2, 2, 1}},
	{"resource attribute", tracesRequest, 1, []protowire.Number{1, 1}},
	{"array value", tracesRequest, 1, []protowire.Number{5, 2, 9, 2, 2, 1}},
	{"map value", tracesRequest, 1, []protowire.Number{6, 2, 9, 2, 2, 1}},
	{"value again and again", tracesRequest, 1, []protowire.Number{2, 9, 2, 2, 1}},
}

func TestScanRefusesBombs(t *testing.T) {
	for _, b := range bombs {
		t.Run(b.name, func(t *testing.T) {
			body := nest(repeat(b.num, 4<<20/3), b.path...)
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			_, err := scan(body, b.root, limits{elements: 50_000, attributes: 128, events: 1000, depth: 12, cost: 32 << 20})
			runtime.ReadMemStats(&after)
			ref, ok := errors.AsType[*refusal](err)
			if !ok || ref.reason != tooLarge {
				t.Fatalf("scan: got %v; want a refusal as too large", err)
			}
			if got := after.TotalAlloc - before.TotalAlloc; got > 64<<10 {
				t.Errorf("scan allocated %d bytes", got)
			}
		})
	}
}

// TestScanPrice holds the estimate against what decoding really allocates: it
// may not promise much less.
func TestScanPrice(t *testing.T) {
	unlimited := limits{elements: 1 << 30, attributes: 1 << 30, events: 1 << 30, depth: 12, cost: 1 << 40}
	check := func(t *testing.T, body []byte, root kind) {
		t.Helper()
		tl, err := scan(body, root, unlimited)
		if err != nil {
			t.Fatal(err)
		}
		var before, after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		var keep any
		if root == metricsRequest {
			r := pmetricotlp.NewExportRequest()
			err = r.UnmarshalProto(body)
			keep = r
		} else {
			r := ptraceotlp.NewExportRequest()
			err = r.UnmarshalProto(body)
			keep = r
		}
		if err != nil {
			t.Fatal(err)
		}
		runtime.GC() // what stays is what a slice grown too large keeps, too
		runtime.ReadMemStats(&after)
		live := int64(after.HeapAlloc) - int64(before.HeapAlloc)
		t.Logf("body %d, cost %d, allocated %d, live %d", len(body), tl.cost, after.TotalAlloc-before.TotalAlloc, live)
		if live > tl.cost*5/4+(64<<10) {
			t.Errorf("%d bytes in use; estimated %d", live, tl.cost)
		}
		runtime.KeepAlive(keep)
	}
	for _, b := range bombs {
		t.Run(b.name, func(t *testing.T) { check(t, nest(repeat(b.num, 50_000), b.path...), b.root) })
	}
	t.Run("buckets", func(t *testing.T) {
		check(t, nest(make([]byte, 1<<20), 2, 8, 1, 10, 2, 2, 1), metricsRequest)
	})
	t.Run("honest traces", func(t *testing.T) {
		body, _ := ptraceotlp.NewExportRequestFromTraces(sampleTraces(10_000)).MarshalProto()
		check(t, body, tracesRequest)
	})
	t.Run("honest metrics", func(t *testing.T) {
		body, _ := pmetricotlp.NewExportRequestFromMetrics(sampleMetrics()).MarshalProto()
		check(t, body, metricsRequest)
	})
}

func TestScanCounts(t *testing.T) {
	body, _ := ptraceotlp.NewExportRequestFromTraces(sampleTraces(10, "service.name", "a")).MarshalProto()
	got, err := scan(body, tracesRequest, testLimits)
	if err != nil || got.items != 10 || got.elements != 1+1+10+10 {
		t.Errorf("scan of ten spans: got %+v, %v; want 10 items, 22 elements", got, err)
	}
	body, _ = pmetricotlp.NewExportRequestFromMetrics(sampleMetrics()).MarshalProto()
	got, err = scan(body, metricsRequest, testLimits)
	if err != nil || got.items != 10 {
		t.Errorf("scan of ten points: got %+v, %v; want 10 items", got, err)
	}
}

func TestScanLimits(t *testing.T) {
	deep := []byte{}
	for range 13 {
		deep = nest(deep, 1, 5) // values of an array of a value
	}
	tests := []struct {
		name string
		body []byte
		want reason
	}{
		{"empty", nil, accepted},
		{"128 attributes", nest(repeat(9, 128), 2, 2, 1), accepted},
		{"129 attributes", nest(repeat(9, 129), 2, 2, 1), tooLarge},
		{"1001 links", nest(repeat(13, 1001), 2, 2, 1), tooLarge},
		{"13 levels", nest(deep, 2, 9, 2, 2, 1), tooLarge},
		{"cut short", []byte{0x0a, 0x05, 0x01}, badRequest},
		{"not protobuf", []byte("hello, world"), badRequest},
		{"unknown fields", nest(nest([]byte("x"), 1717), 2, 2, 1), accepted},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := scan(tt.body, tracesRequest, testLimits)
			got := accepted
			if ref, ok := errors.AsType[*refusal](err); ok {
				got = ref.reason
			}
			if got != tt.want {
				t.Errorf("scan: got %v (%v); want %v", reasons[got].label, err, reasons[tt.want].label)
			}
		})
	}
}

func FuzzScan(f *testing.F) {
	body, _ := ptraceotlp.NewExportRequestFromTraces(sampleTraces(2, "a", "b")).MarshalProto()
	f.Add(body)
	body, _ = pmetricotlp.NewExportRequestFromMetrics(sampleMetrics("a", "b")).MarshalProto()
	f.Add(body)
	for _, b := range bombs {
		f.Add(nest(repeat(b.num, 3), b.path...))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if tl, err := scan(b, metricsRequest, testLimits); err == nil {
			req := pmetricotlp.NewExportRequest()
			if req.UnmarshalProto(b) == nil && req.Metrics().DataPointCount() > tl.items {
				t.Fatalf("decoded %d points; scanned %d", req.Metrics().DataPointCount(), tl.items)
			}
		}
		if tl, err := scan(b, tracesRequest, testLimits); err == nil {
			req := ptraceotlp.NewExportRequest()
			if req.UnmarshalProto(b) == nil && req.Traces().SpanCount() > tl.items {
				t.Fatalf("decoded %d spans; scanned %d", req.Traces().SpanCount(), tl.items)
			}
		}
		scanJSON(b, testLimits)
	})
}

func BenchmarkScan(b *testing.B) {
	body, _ := ptraceotlp.NewExportRequestFromTraces(sampleTraces(512)).MarshalProto()
	b.Run("scan", func(b *testing.B) {
		b.SetBytes(int64(len(body)))
		b.ReportAllocs()
		for b.Loop() {
			if _, err := scan(body, tracesRequest, testLimits); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("decode", func(b *testing.B) {
		b.SetBytes(int64(len(body)))
		b.ReportAllocs()
		for b.Loop() {
			if err := ptraceotlp.NewExportRequest().UnmarshalProto(body); err != nil {
				b.Fatal(err)
			}
		}
	})
}
