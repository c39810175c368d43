package traces

import (
	"math"

	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/ptrace"
)

// setAttrs copies attributes into m.
func (b *block) setAttrs(m pcommon.Map, l attrList) {
	m.EnsureCapacity(int(l.n))
	for _, a := range b.list(l) {
		b.setValue(m.PutEmpty(b.strs.list[a.key]), a)
	}
}

func (b *block) setValue(v pcommon.Value, a attr) {
	switch a.typ {
	case typeString:
		v.SetStr(b.strs.list[a.n])
	case typeInt:
		v.SetInt(int64(a.n))
	case typeDouble:
		v.SetDouble(math.Float64frombits(a.n))
	case typeBool:
		v.SetBool(a.n != 0)
	case typeOther:
		consumeValue(v, []byte(b.strs.list[a.n]), 0) // was checked when it was decoded
	}
}

// fill copies span i into sp.
func (b *block) fill(sp ptrace.Span, i int) {
	s := &b.spans[i]
	sp.SetTraceID(b.traces[s.trace])
	sp.SetSpanID(s.id)
	sp.SetParentSpanID(s.parent)
	sp.TraceState().FromRaw(b.strs.list[s.state])
	sp.SetFlags(s.flags)
	sp.SetName(b.strs.list[s.name])
	sp.SetKind(ptrace.SpanKind(s.kind))
	sp.SetStartTimestamp(pcommon.Timestamp(s.start))
	sp.SetEndTimestamp(pcommon.Timestamp(s.end))
	sp.Status().SetCode(ptrace.StatusCode(s.status))
	sp.Status().SetMessage(b.strs.list[s.message])
	b.setAttrs(sp.Attributes(), s.attrs)
	sp.SetDroppedAttributesCount(s.dropped[0])
	sp.SetDroppedEventsCount(s.dropped[1])
	sp.SetDroppedLinksCount(s.dropped[2])
	sp.Events().EnsureCapacity(int(s.events.n))
	for _, e := range b.events[s.events.off : s.events.off+s.events.n] {
		out := sp.Events().AppendEmpty()
		out.SetTimestamp(pcommon.Timestamp(e.time))
		out.SetName(b.strs.list[e.name])
		out.SetDroppedAttributesCount(e.dropped)
		b.setAttrs(out.Attributes(), e.attrs)
	}
	sp.Links().EnsureCapacity(int(s.links.n))
	for _, l := range b.links[s.links.off : s.links.off+s.links.n] {
		out := sp.Links().AppendEmpty()
		out.SetTraceID(l.trace)
		out.SetSpanID(l.id)
		out.TraceState().FromRaw(b.strs.list[l.state])
		out.SetFlags(l.flags)
		out.SetDroppedAttributesCount(l.dropped)
		b.setAttrs(out.Attributes(), l.attrs)
	}
}

// fillResource copies resource i into rs, fillScope scope i into ss.
func (b *block) fillResource(rs ptrace.ResourceSpans, i uint32) {
	r := &b.resources[i]
	rs.SetSchemaUrl(b.strs.list[r.schema])
	rs.Resource().SetDroppedAttributesCount(r.dropped)
	b.setAttrs(rs.Resource().Attributes(), r.attrs)
}

func (b *block) fillScope(ss ptrace.ScopeSpans, i uint32) {
	s := &b.scopes[i]
	ss.SetSchemaUrl(b.strs.list[s.schema])
	ss.Scope().SetName(b.strs.list[s.name])
	ss.Scope().SetVersion(b.strs.list[s.version])
	ss.Scope().SetDroppedAttributesCount(s.dropped)
	b.setAttrs(ss.Scope().Attributes(), s.attrs)
}
