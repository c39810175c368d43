package traces

import (
	"encoding/binary"
	"slices"
	"sync"

	"github.com/klauspost/compress/zstd"
)

// encoder holds the buffers of one encoding; they are recycled.
type encoder struct {
	cols    [numCols][]byte
	raw     []byte
	rawTail []byte // parents and links
	values  [][]byte
	colOf   map[colKey]uint32
	shapeOf map[string]uint32
	shapes  shapeCache
	key     []byte
	dir     []byte // sizes of frames
	frames  []byte
	chunk   []byte
	uses    []uint32 // of strings
	order   []uint32
	firsts  []uint32
}

var encoders = sync.Pool{New: func() any {
	return &encoder{colOf: map[colKey]uint32{}, shapeOf: map[string]uint32{}}
}}

func (e *encoder) reset() {
	for i := range e.cols {
		e.cols[i] = e.cols[i][:0]
	}
	for i := range e.values {
		e.values[i] = e.values[i][:0]
	}
	e.values = e.values[:0]
	e.raw, e.rawTail = e.raw[:0], e.rawTail[:0]
	e.dir, e.frames = e.dir[:0], e.frames[:0]
	clear(e.colOf)
	clear(e.shapeOf)
	e.shapes = shapeCache{}
}

// zstdEncoder is safe for concurrent use by EncodeAll. The fastest level: the
// columns leave little to gain.
var zstdEncoder = must(zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(4)))

func must[T any](v T, err error) T {
	if err != nil {
		panic("BUG: " + err.Error())
	}
	return v
}

// encodeBlock appends the block to dst.
func encodeBlock(dst []byte, b *block) []byte {
	e := encoders.Get().(*encoder)
	defer encoders.Put(e)
	e.reset()
	for _, r := range b.resources {
		e.nums(colResources, r.service, r.schema, r.dropped, e.shape(b, r.attrs))
	}
	for _, s := range b.scopes {
		e.nums(colScopes, s.name, s.version, s.schema, s.dropped, e.shape(b, s.attrs))
	}
	e.spans(b)
	e.names(b)
	for _, c := range e.cols {
		e.frame(c)
	}
	for _, c := range e.values {
		e.frame(c)
	}
	for i := 0; i < len(b.strs.list); i += chunkStrings {
		e.strings(b.strs.list[i:min(i+chunkStrings, len(b.strs.list))])
	}

	dst = slices.Grow(dst, len(e.raw)+len(e.rawTail)+len(e.dir)+len(e.frames)+64)
	dst = append(dst, blockMagic...)
	for _, n := range []int{len(b.spans), len(b.traces), len(b.strs.list), len(e.values), len(e.raw) + len(e.rawTail)} {
		dst = binary.AppendUvarint(dst, uint64(n))
	}
	dst = append(append(dst, e.raw...), e.rawTail...)
	return append(append(dst, e.dir...), e.frames...)
}

// frame adds a frame that holds c.
func (e *encoder) frame(c []byte) {
	start := len(e.frames)
	if len(c) > 16 { // a frame of zstd has that much of its own
		e.frames = zstdEncoder.EncodeAll(c, e.frames)
	}
	if n := len(e.frames) - start; n == 0 || n >= len(c) {
		e.frames = append(e.frames[:start], c...)
	}
	e.dir = binary.AppendUvarint(e.dir, uint64(len(c)))
	e.dir = binary.AppendUvarint(e.dir, uint64(len(e.frames)-start))
}

func (e *encoder) strings(list []string) {
	e.chunk = e.chunk[:0]
	for _, s := range list {
		e.chunk = binary.AppendUvarint(e.chunk, uint64(len(s)))
	}
	for _, s := range list {
		e.chunk = append(e.chunk, s...)
	}
	e.frame(e.chunk)
}

// names fills colNames: what a search must know to decide on a span, that is
// services, operations, keys and all of the resources, and what many spans have.
func (e *encoder) names(b *block) {
	if cap(e.uses) < len(b.strs.list) {
		e.uses = make([]uint32, len(b.strs.list))
	}
	uses := e.uses[:len(b.strs.list)]
	clear(uses)
	always := func(i uint32) { uses[i] |= 1 << 31 }
	for i := range b.attrs {
		if a := &b.attrs[i]; a.typ == typeString || a.typ == typeOther {
			uses[a.n]++
		}
	}
	for k := range e.colOf {
		always(k.key)
	}
	for _, r := range b.resources {
		always(r.service)
		for _, a := range b.list(r.attrs) {
			if a.typ == typeString || a.typ == typeOther {
				always(uint32(a.n))
			}
		}
	}
	for i := range b.spans {
		always(b.spans[i].name)
	}
	for i, n := range uses {
		if n >= commonUses {
			s := b.strs.list[i]
			e.nums(colNames, uint32(i))
			e.cols[colNames] = appendString(e.cols[colNames], s)
		}
	}
}

func (e *encoder) num(col int, v uint64) { e.cols[col] = binary.AppendUvarint(e.cols[col], v) }

func (e *encoder) nums(col int, v ...uint32) {
	for _, n := range v {
		e.num(col, uint64(n))
	}
}

func (e *encoder) delta(col int, v, from uint64) {
	e.cols[col] = binary.AppendVarint(e.cols[col], int64(v-from))
}

func (e *encoder) spans(b *block) {
	for _, id := range b.traces {
		e.raw = append(e.raw, id[:]...)
	}
	e.order, e.firsts = b.byTrace(e.order, e.firsts)
	order, firsts := e.order, e.firsts
	var before uint64 // start of the trace before
	for t := range b.traces {
		rows := order[firsts[t]:firsts[t+1]]
		e.num(colTraceRows, uint64(len(rows)))
		for i, row := range rows {
			s := &b.spans[row]
			from := before
			if i > 0 {
				from = b.spans[rows[0]].start
			}
			e.delta(colStart, s.start, from)
			e.parent(b, s, rows)
			e.span(b, s)
		}
		if len(rows) > 0 {
			before = b.spans[rows[0]].start
		}
	}
}

// parent writes a span's parent as its place in the trace if it is in this
// block, which spares the eight random bytes of its id.
func (e *encoder) parent(b *block, s *span, rows []uint32) {
	if s.parent.IsEmpty() {
		e.num(colParent, parentNone)
		return
	}
	for i, row := range rows[:min(len(rows), parentScan)] {
		if b.spans[row].id == s.parent {
			e.num(colParent, uint64(i)+parentRef)
			return
		}
	}
	e.num(colParent, parentRaw)
	e.rawTail = append(e.rawTail, s.parent[:]...)
}

func (e *encoder) span(b *block, s *span) {
	e.raw = append(e.raw, s.id[:]...)
	e.delta(colDuration, s.end, s.start)
	e.num(colName, uint64(s.name))
	e.cols[colKind] = append(e.cols[colKind], s.kind|s.status<<4)
	if s.flags|s.state|s.message|s.dropped[0]|s.dropped[1]|s.dropped[2] == 0 {
		e.num(colRare, 0)
	} else {
		e.nums(colRare, 1, s.flags, s.state, s.message, s.dropped[0], s.dropped[1], s.dropped[2])
	}
	e.num(colResource, uint64(s.resource))
	e.num(colScope, uint64(s.scope))
	e.num(colShape, uint64(e.shape(b, s.attrs)))
	e.num(colEvents, uint64(s.events.n))
	for _, ev := range b.events[s.events.off : s.events.off+s.events.n] {
		e.delta(colEventTime, ev.time, s.start)
		e.num(colEventName, uint64(ev.name))
		e.nums(colEventRest, ev.dropped, e.shape(b, ev.attrs))
	}
	e.num(colLinks, uint64(s.links.n))
	for _, l := range b.links[s.links.off : s.links.off+s.links.n] {
		e.rawTail = append(append(e.rawTail, l.trace[:]...), l.id[:]...)
		e.nums(colLinkRest, l.state, l.flags, l.dropped, e.shape(b, l.attrs))
	}
}

// shape writes the values of one owner's attributes into their columns and
// returns the number of its shape.
func (e *encoder) shape(b *block, l attrList) uint32 {
	attrs := b.list(l)
	k := e.known(attrs)
	for i, a := range attrs {
		v := &e.values[k.cols[i]]
		switch a.typ {
		case typeInt:
			*v = binary.AppendVarint(*v, int64(a.n))
		case typeDouble:
			*v = binary.LittleEndian.AppendUint64(*v, a.n)
		case typeString, typeOther, typeBool:
			*v = binary.AppendUvarint(*v, a.n)
		}
	}
	return k.num
}

// known returns the shape of attrs, which most often is that of one of the
// last spans.
func (e *encoder) known(attrs []attr) *knownShape {
	if k := e.shapes.find(attrs); k != nil {
		return k
	}
	k := newShape(attrs, e.column)
	e.key = e.key[:0]
	for _, c := range k.cols {
		e.key = binary.AppendUvarint(e.key, uint64(c))
	}
	n, ok := e.shapeOf[string(e.key)]
	if !ok {
		n = uint32(len(e.shapeOf))
		e.shapeOf[string(e.key)] = n
		e.num(colShapes, uint64(len(attrs)))
		e.cols[colShapes] = append(e.cols[colShapes], e.key...)
	}
	k.num = n
	return e.shapes.put(k)
}

// column returns the number of the value column of a key and type.
func (e *encoder) column(k colKey) uint32 {
	c, ok := e.colOf[k]
	if !ok {
		c = uint32(len(e.values))
		e.colOf[k] = c
		if cap(e.values) > len(e.values) {
			e.values = e.values[:c+1] // with the buffer of a former use
			e.values[c] = e.values[c][:0]
		} else {
			e.values = append(e.values, nil)
		}
		e.nums(colKeys, k.key, uint32(k.typ))
	}
	return c
}
