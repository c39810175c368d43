package traces

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/ptrace"
	"go.opentelemetry.io/collector/pdata/ptrace/ptraceotlp"

	"github.com/binnacle-project/binnacle"
	"github.com/binnacle-project/binnacle/otlp/wire"
)

var base = time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)

// openStore opens a store in memory. Its clock stands at *now.
func openStore(t testing.TB, fs vfs.FS, now *time.Time, change ...func(*Options)) *Store {
	t.Helper()
	o := Options{Dir: "traces", fs: fs, MinFreeBytes: -1, now: func() time.Time { return *now }}
	if t, ok := t.(*testing.T); ok {
		o.Log = slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelInfo}))
	}
	for _, f := range change {
		f(&o)
	}
	s, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func newStore(t testing.TB) (*Store, *time.Time) {
	now := base
	return openStore(t, vfs.NewMem(), &now), &now
}

func write(t testing.TB, s *Store, td ptrace.Traces) {
	t.Helper()
	rejected, message, err := writeTo(t.Context(), s, td)
	if err != nil || rejected != 0 || message != "" {
		t.Fatalf("WriteTraces: got %d, %q, %v; want all kept", rejected, message, err)
	}
}

// onWire gives f the spans of td as they come off the wire. Their bytes and what
// was read of them are overwritten afterwards, as those of a request are.
func onWire(td ptrace.Traces, f func(*wire.Traces)) {
	body, err := ptraceotlp.NewExportRequestFromTraces(td).MarshalProto()
	if err != nil {
		panic(err)
	}
	var t wire.Traces
	if err := t.Read(body, wire.Limits{Elements: 1 << 30, Attributes: 1 << 30, Events: 1 << 30, Depth: 100}); err != nil {
		panic(err)
	}
	f(&t)
	for i := range body {
		body[i] = '#'
	}
	if err := t.Read(nil, wire.Limits{}); err != nil {
		panic(err)
	}
}

func writeTo(ctx context.Context, s *Store, td ptrace.Traces) (rejected int, message string, err error) {
	onWire(td, func(t *wire.Traces) { rejected, message, err = s.WriteTraces(ctx, binnacle.Origin{}, t) })
	return rejected, message, err
}

// add adds the spans of td to b.
func add(b *block, td ptrace.Traces) (invalid int) {
	onWire(td, func(t *wire.Traces) { invalid = b.append(t) })
	return invalid
}

// flush brings all that was written into blocks on disk.
func flush(t testing.TB, s *Store) {
	t.Helper()
	if err := s.flush(); err != nil {
		t.Fatal(err)
	}
	merge(t, s)
}

// merge does now what is done once enough is gathered.
func merge(t testing.TB, s *Store) {
	t.Helper()
	s.mu.Lock()
	if len(s.gathering.spans) > 0 {
		s.turnGatheringLocked()
	}
	s.mu.Unlock()
	if err := s.flush(); err != nil {
		t.Error(err)
	}
}

// spec is a span in a line of a table.
type spec struct {
	service, name string
	trace, id     byte
	parent        byte
	kind          ptrace.SpanKind
	at            time.Duration // after base
	took          time.Duration
	err           bool
	attrs         []string
}

func traceID(b byte) pcommon.TraceID { return pcommon.TraceID{15: b} }

func make1(specs ...spec) ptrace.Traces {
	td := ptrace.NewTraces()
	for _, sp := range specs {
		rs := td.ResourceSpans().AppendEmpty()
		rs.Resource().Attributes().PutStr("service.name", sp.service)
		out := rs.ScopeSpans().AppendEmpty().Spans().AppendEmpty()
		out.SetTraceID(traceID(sp.trace))
		out.SetSpanID(pcommon.SpanID{7: sp.id})
		if sp.parent != 0 {
			out.SetParentSpanID(pcommon.SpanID{7: sp.parent})
		}
		out.SetName(sp.name)
		out.SetKind(sp.kind)
		out.SetStartTimestamp(pcommon.NewTimestampFromTime(base.Add(sp.at)))
		out.SetEndTimestamp(pcommon.NewTimestampFromTime(base.Add(sp.at + sp.took)))
		if sp.err {
			out.Status().SetCode(ptrace.StatusCodeError)
		}
		for i := 0; i < len(sp.attrs); i += 2 {
			out.Attributes().PutStr(sp.attrs[i], sp.attrs[i+1])
		}
	}
	return td
}

// gatewayTraces makes n traces as a gateway sends them: a server span and two
// client spans of ten attributes each.
func gatewayTraces(r *rand.Rand, n int, at time.Time) ptrace.Traces {
	td := ptrace.NewTraces()
	rs := td.ResourceSpans().AppendEmpty()
	res := rs.Resource().Attributes()
	res.PutStr("service.name", "binnacle-gateway")
	res.PutStr("service.instance.id", "node-1")
	res.PutStr("service.version", "0.1.0")
	res.PutStr("host.name", "gw1")
	ss := rs.ScopeSpans().AppendEmpty()
	ss.Scope().SetName("github.com/binnacle-project/binnacle/gateway")
	for range n {
		var id pcommon.TraceID
		binary.BigEndian.PutUint64(id[:], r.Uint64())
		binary.BigEndian.PutUint64(id[8:], r.Uint64())
		at = at.Add(time.Duration(r.ExpFloat64() * float64(time.Millisecond)))
		route := fmt.Sprintf("/api/v1/resource%d/{id}", r.IntN(20))
		status := int64(200)
		if r.IntN(50) == 0 {
			status = 502
		}
		root := gatewaySpan(ss, r, id, pcommon.SpanID{}, "GET "+route, ptrace.SpanKindServer, at, 5*time.Millisecond)
		a := root.Attributes()
		a.PutStr("http.request.method", "GET")
		a.PutStr("http.route", route)
		a.PutStr("url.path", fmt.Sprintf("/api/v1/resource/%d", r.IntN(100000)))
		a.PutStr("url.scheme", "http")
		a.PutStr("network.protocol.version", "1.1")
		a.PutStr("client.address", fmt.Sprintf("10.0.%d.%d", r.IntN(4), r.IntN(256)))
		a.PutStr("user_agent.original", "Mozilla/5.0 (X11; Linux x86_64)")
		a.PutInt("http.response.status_code", status)
		a.PutInt("http.response.body.size", int64(r.IntN(5000)))
		a.PutInt("binnacle.revision", 7)
		for i := range 2 {
			c := gatewaySpan(ss, r, id, root.SpanID(), "GET", ptrace.SpanKindClient, at.Add(time.Duration(r.IntN(200000))), 3*time.Millisecond)
			a := c.Attributes()
			a.PutStr("http.request.method", "GET")
			a.PutStr("server.address", fmt.Sprintf("backend-%d.internal", r.IntN(8)))
			a.PutInt("server.port", 8080)
			a.PutStr("url.full", fmt.Sprintf("http://backend-%d.internal:8080/items/%d", i, r.IntN(100000)))
			a.PutStr("url.scheme", "http")
			a.PutStr("network.protocol.version", "1.1")
			a.PutStr("network.peer.address", "10.1.0.7")
			a.PutInt("http.response.status_code", status)
			a.PutInt("http.response.body.size", int64(r.IntN(5000)))
			a.PutInt("binnacle.revision", 7)
		}
	}
	return td
}

func gatewaySpan(ss ptrace.ScopeSpans, r *rand.Rand, id pcommon.TraceID, parent pcommon.SpanID, name string, kind ptrace.SpanKind, at time.Time, mean time.Duration) ptrace.Span {
	sp := ss.Spans().AppendEmpty()
	var sid pcommon.SpanID
	binary.BigEndian.PutUint64(sid[:], r.Uint64())
	sp.SetTraceID(id)
	sp.SetSpanID(sid)
	sp.SetParentSpanID(parent)
	sp.SetName(name)
	sp.SetKind(kind)
	sp.SetFlags(0x101)
	sp.SetStartTimestamp(pcommon.NewTimestampFromTime(at))
	sp.SetEndTimestamp(pcommon.NewTimestampFromTime(at.Add(time.Duration(r.ExpFloat64() * float64(mean)))))
	return sp
}

// wildTraces makes spans with everything that OTLP knows, at random.
func wildTraces(r *rand.Rand) ptrace.Traces {
	td := ptrace.NewTraces()
	str := func() string { return fmt.Sprint("s", r.IntN(5)) }
	var value func(v pcommon.Value, depth int)
	value = func(v pcommon.Value, depth int) {
		switch n := r.IntN(9); {
		case n == 0:
		case n == 1:
			v.SetInt(r.Int64() - r.Int64())
		case n == 2:
			v.SetDouble(r.NormFloat64())
		case n == 3:
			v.SetBool(r.IntN(2) == 0)
		case n == 4:
			v.SetEmptyBytes().FromRaw([]byte(str()))
		case n == 5 && depth < 3:
			s := v.SetEmptySlice()
			for range r.IntN(3) {
				value(s.AppendEmpty(), depth+1)
			}
		case n == 6 && depth < 3:
			m := v.SetEmptyMap()
			for range r.IntN(3) {
				value(m.PutEmpty(str()), depth+1)
			}
		default:
			v.SetStr(str())
		}
	}
	attrs := func(m pcommon.Map) {
		for range r.IntN(5) {
			value(m.PutEmpty(str()), 0)
		}
	}
	sid := func() pcommon.SpanID { return pcommon.SpanID{0: 1, 7: byte(r.IntN(100))} }
	for i := range 1 + r.IntN(3) {
		rs := td.ResourceSpans().AppendEmpty()
		rs.SetSchemaUrl(str())
		attrs(rs.Resource().Attributes())
		rs.Resource().Attributes().PutStr("service.name", fmt.Sprint("service", i))
		rs.Resource().SetDroppedAttributesCount(uint32(r.IntN(2)))
		for j := range 1 + r.IntN(2) {
			ss := rs.ScopeSpans().AppendEmpty()
			ss.SetSchemaUrl(str())
			ss.Scope().SetName(fmt.Sprint("scope", j))
			ss.Scope().SetVersion(str())
			attrs(ss.Scope().Attributes())
			for range r.IntN(20) {
				sp := ss.Spans().AppendEmpty()
				sp.SetTraceID(traceID(byte(1 + r.IntN(4))))
				sp.SetSpanID(pcommon.SpanID{byte(i), byte(j), byte(ss.Spans().Len()), 3: 1})
				if r.IntN(3) > 0 {
					sp.SetParentSpanID(sid())
				}
				if n := ss.Spans().Len(); n > 1 && r.IntN(2) == 0 {
					sp.SetParentSpanID(ss.Spans().At(n - 2).SpanID())
				}
				sp.SetName(str())
				sp.SetKind(ptrace.SpanKind(r.IntN(6)))
				sp.SetFlags(r.Uint32N(3))
				sp.TraceState().FromRaw(str())
				start := uint64(base.UnixNano()) + r.Uint64N(1e12)
				sp.SetStartTimestamp(pcommon.Timestamp(start))
				sp.SetEndTimestamp(pcommon.Timestamp(start - 10 + r.Uint64N(1e9)))
				sp.Status().SetCode(ptrace.StatusCode(r.IntN(3)))
				sp.Status().SetMessage(str())
				sp.SetDroppedAttributesCount(r.Uint32N(2))
				sp.SetDroppedEventsCount(r.Uint32N(2))
				sp.SetDroppedLinksCount(r.Uint32N(2))
				attrs(sp.Attributes())
				for range r.IntN(3) {
					e := sp.Events().AppendEmpty()
					e.SetName(str())
					e.SetTimestamp(pcommon.Timestamp(start + r.Uint64N(100)))
					e.SetDroppedAttributesCount(r.Uint32N(2))
					attrs(e.Attributes())
				}
				for range r.IntN(3) {
					l := sp.Links().AppendEmpty()
					l.SetTraceID(traceID(9))
					l.SetSpanID(sid())
					l.TraceState().FromRaw(str())
					l.SetFlags(r.Uint32N(2))
					l.SetDroppedAttributesCount(r.Uint32N(2))
					attrs(l.Attributes())
				}
			}
		}
	}
	return td
}

// canonical renders spans with their resource and scope, in the order of
// their ids, so that two ways to group the same spans compare equal.
func canonical(t testing.TB, tds ...ptrace.Traces) []string {
	t.Helper()
	var out []string
	m := ptrace.JSONMarshaler{}
	for _, td := range tds {
		for _, rs := range td.ResourceSpans().All() {
			for _, ss := range rs.ScopeSpans().All() {
				for _, sp := range ss.Spans().All() {
					one := ptrace.NewTraces()
					r := one.ResourceSpans().AppendEmpty()
					rs.Resource().CopyTo(r.Resource())
					r.SetSchemaUrl(rs.SchemaUrl())
					s := r.ScopeSpans().AppendEmpty()
					ss.Scope().CopyTo(s.Scope())
					s.SetSchemaUrl(ss.SchemaUrl())
					sp.CopyTo(s.Spans().AppendEmpty())
					b, err := m.MarshalTraces(one)
					if err != nil {
						t.Fatal(err)
					}
					out = append(out, string(bytes.TrimSpace(b)))
				}
			}
		}
	}
	slices.Sort(out)
	return out
}
