package traces

import (
	"encoding/binary"
	"math"

	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/ptrace"
)

// A block is a batch of spans in memory: the one that is being filled, those
// being written, and those read back. Strings are kept once and everything
// else refers to them by number, so that a span of ten attributes takes 270
// bytes where its decoded protobuf takes 2,000.
//
// A block is not safe for concurrent use while spans are appended; the store's
// lock guards it. After that it never changes.
type block struct {
	strs stringTable

	traces    []pcommon.TraceID
	traceIdx  map[pcommon.TraceID]uint32 // nil in blocks read back
	resources []resource
	scopes    []scope
	groupIdx  map[string]uint32 // encoded resource or scope -> index; nil in blocks read back

	spans  []span
	attrs  []attr
	events []event
	links  []link

	ops                map[opKey]opStat
	minStart, maxStart uint64 // Unix nanoseconds

	scratch []byte
}

// attrList is a run of block.attrs.
type attrList struct{ off, n uint32 }

// attr is one attribute. n is a string number, or the bits of a number or bool.
type attr struct {
	n   uint64
	key uint32
	typ valueType
}

// valueType is the type of an attribute's value, and part of the file format.
type valueType uint8

const (
	typeEmpty  valueType = iota
	typeString           // n is a string number
	typeInt
	typeDouble
	typeBool
	typeOther // bytes, array or map; n is the number of a string that encodes it
	numTypes
)

type resource struct {
	attrs   attrList
	service uint32 // string number of service.name
	schema  uint32
	dropped uint32
}

type scope struct {
	attrs         attrList
	name, version uint32
	schema        uint32
	dropped       uint32
}

type span struct {
	id, parent      pcommon.SpanID
	start, end      uint64
	trace           uint32 // index into block.traces
	resource, scope uint32
	name            uint32
	state           uint32 // tracestate
	message         uint32 // of the status
	flags           uint32
	attrs           attrList
	events, links   attrList  // runs of block.events and block.links
	dropped         [3]uint32 // attributes, events, links
	kind, status    uint8
}

type event struct {
	time    uint64
	name    uint32
	dropped uint32
	attrs   attrList
}

type link struct {
	trace   pcommon.TraceID
	id      pcommon.SpanID
	state   uint32
	flags   uint32
	dropped uint32
	attrs   attrList
}

// opKey names an operation: what searches and the lists of services ask for.
type opKey struct {
	service, name uint32
	kind          uint8
}

// opStat is what a search wants to know of an operation's spans in a block.
type opStat struct {
	minDuration, maxDuration uint64 // nanoseconds
}

func newBlock() *block { return newBlockAfter(&block{}) }

// newBlockAfter makes an empty block with room for what the one before it had:
// growing to that size anew would cost a fifth of filling it.
func newBlockAfter(prev *block) *block {
	b := &block{
		traces:   make([]pcommon.TraceID, 0, len(prev.traces)),
		traceIdx: make(map[pcommon.TraceID]uint32, len(prev.traces)),
		groupIdx: map[string]uint32{},
		ops:      make(map[opKey]opStat, len(prev.ops)),
		spans:    make([]span, 0, len(prev.spans)),
		attrs:    make([]attr, 0, len(prev.attrs)),
		events:   make([]event, 0, len(prev.events)),
		links:    make([]link, 0, len(prev.links)),
		minStart: math.MaxUint64,
	}
	b.strs.idx = make(map[string]uint32, len(prev.strs.list))
	b.strs.list = make([]string, 0, len(prev.strs.list))
	b.strs.recent = new([recentStrings]uint32)
	b.strs.add("")
	return b
}

// size estimates the memory the block takes, in bytes.
func (b *block) size() int {
	return len(b.spans)*160 + len(b.attrs)*16 + len(b.events)*24 + len(b.links)*48 + b.strs.bytes + len(b.traces)*64
}

// stringTable numbers strings. Number 0 is the empty one.
type stringTable struct {
	list  []string
	idx   map[string]uint32 // nil in blocks read back
	bytes int
	// recent has the last string added for each value of a hash that costs a
	// tenth of the map's: most strings of spans come again and again.
	recent *[recentStrings]uint32
}

const recentStrings = 1 << 10

func (t *stringTable) add(s string) uint32 {
	if s == "" && len(t.list) > 0 {
		return 0
	}
	slot := &t.recent[quickHash(s)%recentStrings]
	if i := *slot; i != 0 && t.list[i] == s {
		return i
	}
	i, ok := t.idx[s]
	if !ok {
		i = uint32(len(t.list))
		t.list = append(t.list, s)
		t.idx[s] = i
		t.bytes += len(s) + 48
	}
	*slot = i
	return i
}

// quickHash mixes the length and the ends of s.
func quickHash(s string) uint64 {
	h := uint64(len(s))
	if n := len(s); n >= 8 {
		h ^= uint64(s[0]) | uint64(s[1])<<8 | uint64(s[2])<<16 | uint64(s[3])<<24 | uint64(s[4])<<32 | uint64(s[5])<<40 | uint64(s[6])<<48 | uint64(s[7])<<56
		h *= 0x9e3779b97f4a7c15
		e := s[n-8:]
		h ^= uint64(e[0]) | uint64(e[1])<<8 | uint64(e[2])<<16 | uint64(e[3])<<24 | uint64(e[4])<<32 | uint64(e[5])<<40 | uint64(e[6])<<48 | uint64(e[7])<<56
	} else {
		for i := range n {
			h = h<<8 ^ uint64(s[i])
		}
	}
	h *= 0x9e3779b97f4a7c15
	return h >> 40
}

// find returns the number of a string, or false where no span has it.
func (t *stringTable) find(s string) (uint32, bool) {
	if t.idx != nil {
		i, ok := t.idx[s]
		return i, ok
	}
	for i, have := range t.list {
		if have == s {
			return uint32(i), true
		}
	}
	return 0, false
}

// append adds the spans of td and returns how many lack an id that OTLP
// demands and were left out.
func (b *block) append(td ptrace.Traces) (invalid int) {
	for _, rs := range td.ResourceSpans().All() {
		res := b.addResource(rs)
		for _, ss := range rs.ScopeSpans().All() {
			sc := b.addScope(ss)
			for _, sp := range ss.Spans().All() {
				if sp.TraceID().IsEmpty() || sp.SpanID().IsEmpty() {
					invalid++
					continue
				}
				b.addSpan(sp, res, sc)
			}
		}
	}
	return invalid
}

func (b *block) addResource(rs ptrace.ResourceSpans) uint32 {
	r := resource{
		attrs:   b.addAttrs(rs.Resource().Attributes()),
		schema:  b.strs.add(rs.SchemaUrl()),
		dropped: rs.Resource().DroppedAttributesCount(),
	}
	if v, ok := rs.Resource().Attributes().Get("service.name"); ok {
		r.service = b.strs.add(v.AsString())
	}
	return b.internResource(r)
}

// internResource returns the number of a resource whose attributes were added
// last; it takes them back where the same one is known.
func (b *block) internResource(r resource) uint32 {
	key := b.groupKey('r', r.attrs, r.schema, r.dropped)
	if i, ok := b.groupIdx[key]; ok {
		b.attrs = b.attrs[:r.attrs.off] // known: take its attributes back
		return i
	}
	i := uint32(len(b.resources))
	b.resources = append(b.resources, r)
	b.groupIdx[key] = i
	return i
}

func (b *block) addScope(ss ptrace.ScopeSpans) uint32 {
	in := ss.Scope()
	s := scope{
		attrs:   b.addAttrs(in.Attributes()),
		name:    b.strs.add(in.Name()),
		version: b.strs.add(in.Version()),
		schema:  b.strs.add(ss.SchemaUrl()),
		dropped: in.DroppedAttributesCount(),
	}
	return b.internScope(s)
}

// internScope does for a scope what internResource does for a resource.
func (b *block) internScope(s scope) uint32 {
	key := b.groupKey('s', s.attrs, s.schema, s.dropped, s.name, s.version)
	if i, ok := b.groupIdx[key]; ok {
		b.attrs = b.attrs[:s.attrs.off]
		return i
	}
	i := uint32(len(b.scopes))
	b.scopes = append(b.scopes, s)
	b.groupIdx[key] = i
	return i
}

// groupKey is the identity of a resource or scope within the block.
func (b *block) groupKey(kind byte, attrs attrList, more ...uint32) string {
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
	return string(k)
}

func (b *block) internTrace(id pcommon.TraceID) uint32 {
	t, ok := b.traceIdx[id]
	if !ok {
		t = uint32(len(b.traces))
		b.traces = append(b.traces, id)
		b.traceIdx[id] = t
	}
	return t
}

func (b *block) addSpan(in ptrace.Span, res, sc uint32) {
	s := span{
		id: in.SpanID(), parent: in.ParentSpanID(),
		start: uint64(in.StartTimestamp()), end: uint64(in.EndTimestamp()),
		trace: b.internTrace(in.TraceID()), resource: res, scope: sc,
		name:    b.strs.add(in.Name()),
		state:   b.strs.add(in.TraceState().AsRaw()),
		message: b.strs.add(in.Status().Message()),
		flags:   in.Flags(),
		attrs:   b.addAttrs(in.Attributes()),
		dropped: [3]uint32{in.DroppedAttributesCount(), in.DroppedEventsCount(), in.DroppedLinksCount()},
		kind:    clampEnum(int32(in.Kind())),
		status:  clampEnum(int32(in.Status().Code())),
	}
	s.events = attrList{uint32(len(b.events)), uint32(in.Events().Len())}
	for _, e := range in.Events().All() {
		b.events = append(b.events, event{
			time: uint64(e.Timestamp()), name: b.strs.add(e.Name()),
			dropped: e.DroppedAttributesCount(), attrs: b.addAttrs(e.Attributes()),
		})
	}
	s.links = attrList{uint32(len(b.links)), uint32(in.Links().Len())}
	for _, l := range in.Links().All() {
		b.links = append(b.links, link{
			trace: l.TraceID(), id: l.SpanID(), state: b.strs.add(l.TraceState().AsRaw()),
			flags: l.Flags(), dropped: l.DroppedAttributesCount(), attrs: b.addAttrs(l.Attributes()),
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

// note keeps what the summary of the block is made of.
func (b *block) note(s *span) {
	b.minStart = min(b.minStart, s.start)
	b.maxStart = max(b.maxStart, s.start)
	k := opKey{b.resources[s.resource].service, s.name, s.kind}
	d := s.duration()
	st, ok := b.ops[k]
	if !ok {
		st.minDuration = d
	}
	st.minDuration = min(st.minDuration, d)
	st.maxDuration = max(st.maxDuration, d)
	b.ops[k] = st
}

// index gives a block that was read back what one that is being filled has.
func (b *block) index() {
	b.traceIdx = make(map[pcommon.TraceID]uint32, len(b.traces))
	for i, id := range b.traces {
		b.traceIdx[id] = uint32(i)
	}
	b.ops = map[opKey]opStat{}
	for i := range b.spans {
		b.note(&b.spans[i])
	}
}

// duration is in nanoseconds, 0 where the clock ran backwards.
func (s *span) duration() uint64 {
	if s.end < s.start {
		return 0
	}
	return s.end - s.start
}

// maxAttrs bounds the attributes kept of one owner, eight times what receivers
// let in by default; those beyond are left out.
const maxAttrs = 1024

func (b *block) addAttrs(m pcommon.Map) attrList {
	l := attrList{off: uint32(len(b.attrs))}
	for k, v := range m.All() {
		if len(b.attrs)-int(l.off) == maxAttrs {
			break
		}
		a := attr{key: b.strs.add(k)}
		switch v.Type() {
		case pcommon.ValueTypeStr:
			a.typ, a.n = typeString, uint64(b.strs.add(v.Str()))
		case pcommon.ValueTypeInt:
			a.typ, a.n = typeInt, uint64(v.Int())
		case pcommon.ValueTypeDouble:
			a.typ, a.n = typeDouble, math.Float64bits(v.Double())
		case pcommon.ValueTypeBool:
			a.typ = typeBool
			if v.Bool() {
				a.n = 1
			}
		case pcommon.ValueTypeEmpty:
		default:
			a.typ, a.n = typeOther, uint64(b.strs.add(string(appendValue(nil, v))))
		}
		b.attrs = append(b.attrs, a)
	}
	l.n = uint32(len(b.attrs)) - l.off
	return l
}

// list returns the attributes of one owner.
func (b *block) list(l attrList) []attr { return b.attrs[l.off : l.off+l.n] }

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
