package traces

import (
	"math"

	"go.opentelemetry.io/collector/pdata/pcommon"
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
	lastTrace uint32                     // that a span was added to
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

// newBlockAfter makes an empty block with room for a little more than the one
// before it had: growing to that size anew would cost a fifth of filling it.
func newBlockAfter(prev *block) *block {
	room := func(n int) int { return n + n/16 }
	return &block{
		strs:     newStringTable(room(len(prev.strs.list))),
		traces:   make([]pcommon.TraceID, 0, room(len(prev.traces))),
		traceIdx: make(map[pcommon.TraceID]uint32, room(len(prev.traces))),
		groupIdx: map[string]uint32{},
		ops:      make(map[opKey]opStat, len(prev.ops)),
		spans:    make([]span, 0, room(len(prev.spans))),
		attrs:    make([]attr, 0, room(len(prev.attrs))),
		events:   make([]event, 0, room(len(prev.events))),
		links:    make([]link, 0, room(len(prev.links))),
		minStart: math.MaxUint64,
	}
}

// size estimates the memory the block takes, in bytes.
func (b *block) size() int {
	return len(b.spans)*160 + len(b.attrs)*16 + len(b.events)*24 + len(b.links)*48 + b.strs.bytes + len(b.traces)*64
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

// list returns the attributes of one owner.
func (b *block) list(l attrList) []attr { return b.attrs[l.off : l.off+l.n] }
