package traces

import (
	"encoding/binary"
	"math"

	"go.opentelemetry.io/collector/pdata/pcommon"

	"github.com/binnacle-project/binnacle/otlp/wire"
)

// append adds the spans of t, of which it keeps nothing, and returns how many lack
// an id that OTLP demands and were left out.
func (b *block) append(t *wire.Traces) (invalid int) {
	for i := range t.Resources {
		rs := &t.Resources[i]
		res := b.addResource(rs)
		for j := range rs.Scopes {
			ss := &rs.Scopes[j]
			sc := b.addScope(ss)
			for k := range ss.Spans {
				if sp := &ss.Spans[k]; sp.TraceID == [16]byte{} || sp.ID == [8]byte{} {
					invalid++
				} else {
					b.addSpan(sp, res, sc)
				}
			}
		}
	}
	return invalid
}

func (b *block) addResource(rs *wire.ResourceSpans) uint32 {
	r := resource{schema: b.strs.add(rs.Schema), dropped: rs.Dropped, attrs: attrList{off: uint32(len(b.attrs))}}
	for _, a := range rs.Attrs[:min(len(rs.Attrs), maxAttrs)] {
		b.attrs = append(b.attrs, b.attr(a.Key, a.Value))
	}
	r.attrs.n = uint32(len(b.attrs)) - r.attrs.off
	if v, ok := rs.Attrs.Get("service.name"); ok {
		r.service = b.strs.add(v.View())
	}
	return b.internResource(r)
}

// internResource returns the number of a resource whose attributes were added
// last; it takes them back where the same one is known.
func (b *block) internResource(r resource) uint32 {
	key := b.groupKey('r', r.attrs, r.schema, r.dropped)
	if i, ok := b.groupIdx[string(key)]; ok {
		b.attrs = b.attrs[:r.attrs.off] // known: take its attributes back
		return i
	}
	i := uint32(len(b.resources))
	b.resources = append(b.resources, r)
	b.groupIdx[string(key)] = i
	return i
}

func (b *block) addScope(ss *wire.ScopeSpans) uint32 {
	return b.internScope(scope{
		attrs:   b.addAttrs(ss.Attrs),
		name:    b.strs.add(ss.Name),
		version: b.strs.add(ss.Version),
		schema:  b.strs.add(ss.Schema),
		dropped: ss.Dropped,
	})
}

// internScope does for a scope what internResource does for a resource.
func (b *block) internScope(s scope) uint32 {
	key := b.groupKey('s', s.attrs, s.schema, s.dropped, s.name, s.version)
	if i, ok := b.groupIdx[string(key)]; ok {
		b.attrs = b.attrs[:s.attrs.off]
		return i
	}
	i := uint32(len(b.scopes))
	b.scopes = append(b.scopes, s)
	b.groupIdx[string(key)] = i
	return i
}

// groupKey is the identity of a resource or scope within the block, valid until the
// next call.
func (b *block) groupKey(kind byte, attrs attrList, more ...uint32) []byte {
	k := append(b.scratch[:0], kind)
	for _, m := range more {
		k = binary.AppendUvarint(k, uint64(m))
	}
	for _, a := range b.list(attrs) {
		k = binary.AppendUvarint(k, uint64(a.key))
		k = append(k, byte(a.typ))
		k = binary.AppendUvarint(k, a.n)
	}
	b.scratch = k
	return k
}

func (b *block) internTrace(id pcommon.TraceID) uint32 {
	if t := b.lastTrace; int(t) < len(b.traces) && b.traces[t] == id {
		return t // as most often
	}
	t, ok := b.traceIdx[id]
	if !ok {
		t = uint32(len(b.traces))
		b.traces = append(b.traces, id)
		b.traceIdx[id] = t
	}
	b.lastTrace = t
	return t
}

func (b *block) addSpan(in *wire.Span, res, sc uint32) {
	s := span{
		id: in.ID, parent: in.Parent,
		start: in.Start, end: in.End,
		trace: b.internTrace(in.TraceID), resource: res, scope: sc,
		name:    b.strs.add(in.Name),
		state:   b.strs.add(in.State),
		message: b.strs.add(in.Message),
		flags:   in.Flags,
		attrs:   b.addAttrs(in.Attrs),
		dropped: in.Dropped,
		kind:    clampEnum(in.Kind),
		status:  clampEnum(in.Status),
	}
	s.events = attrList{uint32(len(b.events)), uint32(len(in.Events))}
	for i := range in.Events {
		e := &in.Events[i]
		b.events = append(b.events, event{time: e.Time, name: b.strs.add(e.Name), dropped: e.Dropped, attrs: b.addAttrs(e.Attrs)})
	}
	s.links = attrList{uint32(len(b.links)), uint32(len(in.Links))}
	for i := range in.Links {
		l := &in.Links[i]
		b.links = append(b.links, link{
			trace: l.TraceID, id: l.ID, state: b.strs.add(l.State),
			flags: l.Flags, dropped: l.Dropped, attrs: b.addAttrs(l.Attrs),
		})
	}
	b.spans = append(b.spans, s)
	b.note(&s)
}

// clampEnum keeps an enum within the four bits the format has for it; a value
// that no version of OTLP defines becomes 0, "unspecified".
func clampEnum(v int32) uint8 {
	if v < 0 || v > 15 {
		return 0
	}
	return uint8(v)
}

// maxAttrs bounds the attributes kept of one owner, eight times what receivers
// let in by default; those beyond are left out.
const maxAttrs = 1024

func (b *block) addAttrs(in wire.PointAttrs) attrList {
	l := attrList{off: uint32(len(b.attrs))}
	for a := range in.All() {
		if len(b.attrs)-int(l.off) == maxAttrs {
			break
		}
		b.attrs = append(b.attrs, b.attr(a.Key, a.Value))
	}
	l.n = uint32(len(b.attrs)) - l.off
	return l
}

func (b *block) attr(key string, v wire.Value) attr {
	a := attr{key: b.strs.add(key)}
	switch v.Type {
	case wire.Str:
		a.typ, a.n = typeString, uint64(b.strs.add(v.View()))
	case wire.Int:
		a.typ, a.n = typeInt, uint64(v.Int())
	case wire.Double:
		a.typ, a.n = typeDouble, math.Float64bits(v.Double())
	case wire.Bool:
		a.typ = typeBool
		if v.Bool() {
			a.n = 1
		}
	case wire.Empty:
	default:
		b.scratch = appendValue(b.scratch[:0], v)
		a.typ, a.n = typeOther, uint64(b.strs.add(string(b.scratch)))
	}
	return a
}
