package wire

import (
	"errors"
	"fmt"
	"math"
	"testing"

	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/ptrace"
	"go.opentelemetry.io/collector/pdata/ptrace/ptraceotlp"
)

// sampleSpans has all that spans can hold.
func sampleSpans() ptrace.Traces {
	td := ptrace.NewTraces()
	attrs := func(m pcommon.Map) {
		m.PutStr("s", "a")
		m.PutInt("n", -5)
		m.PutDouble("d", 0.25)
		m.PutBool("b", true)
		m.PutEmpty("empty")
		m.PutEmptyBytes("bytes").FromRaw([]byte{1, 2})
		list := m.PutEmptySlice("list")
		list.AppendEmpty().SetStr("x")
		list.AppendEmpty().SetEmptyMap().PutEmptySlice("deep").AppendEmpty().SetBool(false)
		m.PutEmptyMap("map").PutDouble("y", math.Inf(1))
	}
	for i := range 2 {
		rs := td.ResourceSpans().AppendEmpty()
		rs.SetSchemaUrl("url")
		attrs(rs.Resource().Attributes())
		rs.Resource().SetDroppedAttributesCount(3)
		for j := range 2 {
			ss := rs.ScopeSpans().AppendEmpty()
			ss.SetSchemaUrl("scope url")
			ss.Scope().SetName(fmt.Sprint("scope", i, j))
			ss.Scope().SetVersion("1")
			ss.Scope().SetDroppedAttributesCount(300)
			attrs(ss.Scope().Attributes())
			for k := range 4 {
				sp := ss.Spans().AppendEmpty()
				sp.SetTraceID(pcommon.TraceID{1, byte(i), 15: byte(j)})
				sp.SetSpanID(pcommon.SpanID{2, byte(k)})
				if k == 0 {
					continue // all else is missing
				}
				sp.SetParentSpanID(pcommon.SpanID{3})
				sp.TraceState().FromRaw("a=b")
				sp.SetFlags(0x301)
				sp.SetName(fmt.Sprint("GET ", k))
				sp.SetKind(ptrace.SpanKindClient)
				sp.SetStartTimestamp(5)
				sp.SetEndTimestamp(math.MaxUint64)
				sp.Status().SetCode(ptrace.StatusCodeError)
				sp.Status().SetMessage("bad")
				attrs(sp.Attributes())
				if k == 2 {
					sp.Attributes().PutStr("binnacle.x", "y")
				}
				sp.SetDroppedAttributesCount(1)
				sp.SetDroppedEventsCount(200)
				sp.SetDroppedLinksCount(3)
				for e := range k {
					ev := sp.Events().AppendEmpty()
					ev.SetName(fmt.Sprint("event", e))
					ev.SetTimestamp(7)
					ev.SetDroppedAttributesCount(2)
					attrs(ev.Attributes())
					l := sp.Links().AppendEmpty()
					l.SetTraceID(pcommon.TraceID{9})
					l.SetSpanID(pcommon.SpanID{8})
					l.TraceState().FromRaw("c=d")
					l.SetFlags(1)
					l.SetDroppedAttributesCount(4)
					attrs(l.Attributes())
				}
			}
		}
	}
	return td
}

func encodeSpans(td ptrace.Traces) []byte {
	b, err := ptraceotlp.NewExportRequestFromTraces(td).MarshalProto()
	if err != nil {
		panic(err)
	}
	return b
}

func TestReadsSpansAsPdata(t *testing.T) {
	body := encodeSpans(sampleSpans())
	var tr Traces
	for range 2 { // the second time in used memory
		if err := tr.Read(body, testLimits); err != nil {
			t.Fatal(err)
		}
		if diff := compareSpans(&tr, sampleSpans()); diff != "" {
			t.Fatal(diff)
		}
	}
	if n := sampleSpans().SpanCount(); tr.Spans() != n {
		t.Errorf("%d spans; want %d", tr.Spans(), n)
	}
	if n := testing.AllocsPerRun(100, func() {
		if err := tr.Read(body, testLimits); err != nil {
			t.Fatal(err)
		}
	}); n > 0 {
		t.Errorf("%g allocations for a request of known size; want none", n)
	}
}

func TestWritesTheSpansItRead(t *testing.T) {
	var tr Traces
	if err := tr.Read(encodeSpans(sampleSpans()), testLimits); err != nil {
		t.Fatal(err)
	}
	want := sampleSpans()
	check := func() {
		t.Helper()
		b, err := tr.AppendRequest(nil)
		if err != nil {
			t.Fatal(err)
		}
		var again Traces
		if err := again.Read(b, testLimits); err != nil {
			t.Fatal(err)
		}
		if diff := compareSpans(&again, want); diff != "" {
			t.Error(diff)
		}
	}
	check()
	for i := range tr.Resources {
		tr.Resources[i].Attrs.Put("s", "other")
		tr.Resources[i].Attrs.Put("new", "value")
		attrs := want.ResourceSpans().At(i).Resource().Attributes()
		attrs.PutStr("s", "other")
		attrs.PutStr("new", "value")
	}
	check()
	for i := range tr.Resources {
		if key := tr.Resources[i].ReservedKey(); key != "binnacle.x" {
			t.Errorf("reserved key %q", key)
		}
		if n := tr.Resources[i].RemoveReserved(); n != 2 {
			t.Errorf("removed %d spans; want 2", n)
		}
		for _, ss := range want.ResourceSpans().At(i).ScopeSpans().All() {
			ss.Spans().RemoveIf(func(s ptrace.Span) bool { _, ok := s.Attributes().Get("binnacle.x"); return ok })
		}
	}
	if diff := compareSpans(&tr, want); diff != "" {
		t.Error(diff)
	}
	check()
	tr.RemoveResources(func(r *ResourceSpans) bool { return r.Scopes[0].Name == "scope00" })
	want.ResourceSpans().RemoveIf(func(rs ptrace.ResourceSpans) bool { return rs.ScopeSpans().At(0).Scope().Name() == "scope00" })
	check()
}

// TestSpanLimits: each limit is named, and memory is asked for before it is taken.
func TestSpanLimits(t *testing.T) {
	body := encodeSpans(sampleSpans())
	var limit *LimitError
	for _, lim := range []Limits{
		{Elements: 10, Attributes: 128, Events: 100, Depth: 12},
		{Elements: 1000, Attributes: 7, Events: 100, Depth: 12},
		{Elements: 1000, Attributes: 128, Events: 5, Depth: 12},
		{Elements: 1000, Attributes: 128, Events: 100, Depth: 2},
	} {
		var tr Traces
		if err := tr.Read(body, lim); !errors.As(err, &limit) || tr.Spans() != 0 {
			t.Errorf("%+v: got %v, %d spans; want a LimitError, nothing", lim, err, tr.Spans())
		}
	}
	lim, full := testLimits, errors.New("no memory")
	asked := int64(0)
	lim.Memory = func(total int64) error {
		if asked = total; total > 10<<10 {
			return full
		}
		return nil
	}
	var tr Traces
	if err := tr.Read(body, lim); !errors.Is(err, full) || tr.Bytes() > 10<<10 {
		t.Errorf("got %v with %d bytes taken of %d asked for; want no more than 10 KiB", err, tr.Bytes(), asked)
	}
}

// FuzzReadSpans does for spans what FuzzRead does for metrics.
func FuzzReadSpans(f *testing.F) {
	f.Add(encodeSpans(sampleSpans()))
	one := ptrace.NewTraces()
	one.ResourceSpans().AppendEmpty().ScopeSpans().AppendEmpty().Spans().AppendEmpty().SetName("x")
	f.Add(encodeSpans(one))
	f.Add([]byte{0x0a, 0x00})
	f.Fuzz(func(t *testing.T, b []byte) {
		req := ptraceotlp.NewExportRequest()
		pdataErr := req.UnmarshalProto(b)
		var tr Traces
		err := tr.Read(b, testLimits)
		if limit, ok := errors.AsType[*LimitError](err); ok {
			if limit.Limit == testLimits.Elements && len(b) < testLimits.Elements {
				t.Fatalf("%v in %d bytes", err, len(b))
			}
			return
		}
		if err != nil {
			if pdataErr != nil {
				return
			}
			normal, normalErr := NormalTraces(b)
			if normalErr != nil {
				t.Fatalf("Normal: %v", normalErr)
			}
			err = tr.Read(normal, testLimits)
			if _, ok := errors.AsType[*LimitError](err); ok {
				return
			}
			if err != nil {
				t.Fatalf("the normal form of %x, %x: %v", b, normal, err)
			}
		}
		if pdataErr != nil {
			t.Fatalf("read what pdata refuses: %v", pdataErr)
		}
		if diff := compareSpans(&tr, req.Traces()); diff != "" {
			t.Fatal(diff)
		}
		again, err := tr.AppendRequest(nil)
		if err != nil {
			t.Fatal(err)
		}
		back := ptraceotlp.NewExportRequest()
		if err := back.UnmarshalProto(again); err != nil {
			t.Fatalf("written: %v", err)
		}
		if diff := compareSpans(&tr, back.Traces()); diff != "" {
			t.Fatalf("written: %s", diff)
		}
	})
}

// compareSpans says where tr differs from td.
func compareSpans(tr *Traces, td ptrace.Traces) string {
	c := comparer{}
	c.same("resources", len(tr.Resources), td.ResourceSpans().Len())
	for i := range min(len(tr.Resources), td.ResourceSpans().Len()) {
		res, rs := &tr.Resources[i], td.ResourceSpans().At(i)
		n := 0
		for k, v := range rs.Resource().Attributes().All() {
			if n < len(res.Attrs) {
				c.attr(res.Attrs[n], k, v)
			}
			n++
		}
		c.same("resource attributes", len(res.Attrs), n)
		c.same("resource's dropped", res.Dropped, rs.Resource().DroppedAttributesCount())
		c.same("resource's schema", res.Schema, rs.SchemaUrl())
		c.same("scopes", len(res.Scopes), rs.ScopeSpans().Len())
		for j := range min(len(res.Scopes), rs.ScopeSpans().Len()) {
			c.scope(&res.Scopes[j], rs.ScopeSpans().At(j))
		}
	}
	return c.diff
}

func (c *comparer) scope(sc *ScopeSpans, ss ptrace.ScopeSpans) {
	c.same("scope", sc.Name, ss.Scope().Name())
	c.same("version", sc.Version, ss.Scope().Version())
	c.same("scope's schema", sc.Schema, ss.SchemaUrl())
	c.same("scope's dropped", sc.Dropped, ss.Scope().DroppedAttributesCount())
	c.attrs(sc.Attrs, ss.Scope().Attributes())
	c.same("spans", len(sc.Spans), ss.Spans().Len())
	for i := range min(len(sc.Spans), ss.Spans().Len()) {
		c.span(&sc.Spans[i], ss.Spans().At(i))
	}
}

func (c *comparer) span(s *Span, sp ptrace.Span) {
	c.same("trace id", s.TraceID, [16]byte(sp.TraceID()))
	c.same("span id", s.ID, [8]byte(sp.SpanID()))
	c.same("parent", s.Parent, [8]byte(sp.ParentSpanID()))
	c.same("state", s.State, sp.TraceState().AsRaw())
	c.same("flags", s.Flags, sp.Flags())
	c.same("name", s.Name, sp.Name())
	c.same("kind", s.Kind, int32(sp.Kind()))
	c.same("start", s.Start, uint64(sp.StartTimestamp()))
	c.same("end", s.End, uint64(sp.EndTimestamp()))
	c.same("status", s.Status, int32(sp.Status().Code()))
	c.same("message", s.Message, sp.Status().Message())
	c.same("dropped", s.Dropped, [3]uint32{sp.DroppedAttributesCount(), sp.DroppedEventsCount(), sp.DroppedLinksCount()})
	c.attrs(s.Attrs, sp.Attributes())
	anyReserved := false
	for k := range sp.Attributes().All() {
		anyReserved = anyReserved || reserved(k)
	}
	c.same("reserved", s.Reserved, anyReserved)
	c.same("events", len(s.Events), sp.Events().Len())
	for i := range min(len(s.Events), sp.Events().Len()) {
		e, want := &s.Events[i], sp.Events().At(i)
		c.same("event", e.Name, want.Name())
		c.same("event's time", e.Time, uint64(want.Timestamp()))
		c.same("event's dropped", e.Dropped, want.DroppedAttributesCount())
		c.attrs(e.Attrs, want.Attributes())
	}
	c.same("links", len(s.Links), sp.Links().Len())
	for i := range min(len(s.Links), sp.Links().Len()) {
		l, want := &s.Links[i], sp.Links().At(i)
		c.same("link", l.TraceID, [16]byte(want.TraceID()))
		c.same("link's span", l.ID, [8]byte(want.SpanID()))
		c.same("link's state", l.State, want.TraceState().AsRaw())
		c.same("link's flags", l.Flags, want.Flags())
		c.same("link's dropped", l.Dropped, want.DroppedAttributesCount())
		c.attrs(l.Attrs, want.Attributes())
	}
}

// BenchmarkReadSpans reads a request of 510 spans of ten attributes.
func BenchmarkReadSpans(b *testing.B) {
	td := ptrace.NewTraces()
	ss := td.ResourceSpans().AppendEmpty().ScopeSpans().AppendEmpty()
	for i := range 510 {
		sp := ss.Spans().AppendEmpty()
		sp.SetTraceID(pcommon.TraceID{1, byte(i), 15: 1})
		sp.SetSpanID(pcommon.SpanID{2, byte(i)})
		sp.SetName("GET /api/v1/resource/{id}")
		sp.SetStartTimestamp(1 << 60)
		sp.SetEndTimestamp(1<<60 + 5)
		for j := range 9 {
			sp.Attributes().PutStr(fmt.Sprint("http.request.key", j), "some value of it")
		}
		sp.Attributes().PutInt("http.response.status_code", 200)
	}
	body := encodeSpans(td)
	var tr Traces
	b.SetBytes(int64(len(body)))
	b.ReportAllocs()
	for b.Loop() {
		if err := tr.Read(body, testLimits); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/510, "ns/span")
}
