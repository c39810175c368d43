package traces

import (
	"encoding/binary"
	"errors"
	"fmt"
	"sync"

	"github.com/klauspost/compress/zstd"
	"go.opentelemetry.io/collector/pdata/pcommon"
)

// The format of a block on disk. Numbers are uvarints unless said otherwise,
// spans stand in the order of their traces:
//
//	+--------+-------+--------+-----+---------------------------+-------------+
//	| "bst1" | spans | traces | len | raw: trace ids (16 each), | zstd frame: |
//	|        |       |        |     | span ids (8 each), parent | columns     |
//	|        |       |        |     | and link ids              |             |
//	+--------+-------+--------+-----+---------------------------+-------------+
//
// Ids are random and do not compress; all else stands in columns, each a
// length and its bytes, in the order of the constants below, then one column
// for each pair of attribute key and type, in the order of colKeys:
//
//	+-----+----------+-----+----------+---
//	| len | column 0 | len | column 1 | …
//	+-----+----------+-----+----------+---
//
// The set of keys and types of a span, its shape, is one number.
const blockMagic = "bst1"

// Columns. The numbers are part of the format.
const (
	colStringSizes = iota
	colStrings
	colResources // service, schema, dropped, shape
	colScopes    // name, version, schema, dropped, shape
	colTraceRows // spans of each trace
	colStart     // varint: first of a trace against the trace before, others against the first
	colDuration  // varint of end-start, nanoseconds
	colName
	colKind // kind | status<<4, one byte
	colRare // 0, or 1 and flags, state, message, dropped attributes, events, links
	colResource
	colScope
	colParent // 0 none, 1 raw, n+2: the n-th span of the trace
	colShape
	colEvents    // number of events of each span
	colEventTime // varint against the span's start
	colEventName
	colEventRest // dropped, shape
	colLinks     // number of links of each span
	colLinkRest  // state, flags, dropped, shape
	colKeys      // pairs of key and type, one for each value column
	colShapes    // each: number of attributes, then the value column of each
	numCols
)

const (
	parentNone = 0
	parentRaw  = 1
	parentRef  = 2
	// parentScan bounds the search for a parent among the spans of its trace,
	// so that one huge trace does not cost the square of its size.
	parentScan = 64
)

type colKey struct {
	key uint32
	typ valueType
}

// encoder holds the buffers of one encoding; they are recycled.
type encoder struct {
	cols    [numCols][]byte
	raw     []byte
	rawTail []byte // parents and links
	values  [][]byte
	colOf   map[colKey]uint32
	shapeOf map[string]uint32
	recent  [4]knownShape // of the last shapes used
	next    int
	key     []byte
	packed  []byte
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
	e.raw, e.rawTail, e.packed = e.raw[:0], e.rawTail[:0], e.packed[:0]
	clear(e.colOf)
	clear(e.shapeOf)
	e.recent = [4]knownShape{}
}

// knownShape is a shape that was written, with the columns of its values.
type knownShape struct {
	keys []colKey // nil: none
	cols []uint32
	num  uint32
}

func (k *knownShape) fits(attrs []attr) bool {
	if k.keys == nil || len(k.keys) != len(attrs) {
		return false
	}
	for i := range attrs {
		if k.keys[i].key != attrs[i].key || k.keys[i].typ != attrs[i].typ {
			return false
		}
	}
	return true
}

// zstdEncoder and zstdDecoder are safe for concurrent use by EncodeAll and
// DecodeAll. The fastest level: the columns leave little to gain.
var zstdEncoder = must(zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(4)))

// maxPacked bounds the columns of a block when inflated. A block is closed at
// maxBlockBytes, but one batch, of any size a receiver lets in, may go over.
const maxPacked = 256 << 20

var zstdDecoder = must(zstd.NewReader(nil, zstd.WithDecoderConcurrency(4), zstd.WithDecoderMaxMemory(maxPacked)))

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
	for _, s := range b.strs.list {
		e.num(colStringSizes, uint64(len(s)))
		e.cols[colStrings] = append(e.cols[colStrings], s...)
	}
	for _, r := range b.resources {
		e.nums(colResources, r.service, r.schema, r.dropped, e.shape(b, r.attrs))
	}
	for _, s := range b.scopes {
		e.nums(colScopes, s.name, s.version, s.schema, s.dropped, e.shape(b, s.attrs))
	}
	e.spans(b)

	dst = append(dst, blockMagic...)
	dst = binary.AppendUvarint(dst, uint64(len(b.spans)))
	dst = binary.AppendUvarint(dst, uint64(len(b.traces)))
	dst = binary.AppendUvarint(dst, uint64(len(e.raw)+len(e.rawTail)))
	dst = append(append(dst, e.raw...), e.rawTail...)
	for _, c := range e.cols {
		e.packed = append(binary.AppendUvarint(e.packed, uint64(len(c))), c...)
	}
	for _, c := range e.values {
		e.packed = append(binary.AppendUvarint(e.packed, uint64(len(c))), c...)
	}
	return zstdEncoder.EncodeAll(e.packed, dst)
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

// byTrace orders spans by the number of their trace, in linear time, and
// returns for each trace where it begins.
func (e *encoder) byTrace(b *block) (order, firsts []uint32) {
	if cap(e.firsts) < len(b.traces)+1 {
		e.firsts = make([]uint32, len(b.traces)+1)
	}
	firsts = e.firsts[:len(b.traces)+1]
	clear(firsts)
	for i := range b.spans {
		firsts[b.spans[i].trace+1]++
	}
	for i := 1; i < len(firsts); i++ {
		firsts[i] += firsts[i-1]
	}
	if cap(e.order) < len(b.spans) {
		e.order = make([]uint32, len(b.spans))
	}
	order = e.order[:len(b.spans)]
	for i := range b.spans {
		t := b.spans[i].trace
		order[firsts[t]] = uint32(i)
		firsts[t]++
	}
	copy(firsts[1:], firsts) // each was moved to its end, which is the next one's begin
	firsts[0] = 0
	return order, firsts
}

func (e *encoder) spans(b *block) {
	for _, id := range b.traces {
		e.raw = append(e.raw, id[:]...)
	}
	order, firsts := e.byTrace(b)
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
	for i := range e.recent {
		if e.recent[i].fits(attrs) {
			return &e.recent[i]
		}
	}
	k := knownShape{keys: make([]colKey, len(attrs)), cols: make([]uint32, len(attrs))}
	e.key = e.key[:0]
	for i, a := range attrs {
		k.keys[i] = colKey{a.key, a.typ}
		k.cols[i] = e.column(k.keys[i])
		e.key = binary.AppendUvarint(e.key, uint64(k.cols[i]))
	}
	n, ok := e.shapeOf[string(e.key)]
	if !ok {
		n = uint32(len(e.shapeOf))
		e.shapeOf[string(e.key)] = n
		e.num(colShapes, uint64(len(attrs)))
		e.cols[colShapes] = append(e.cols[colShapes], e.key...)
	}
	k.num = n
	slot := &e.recent[e.next%len(e.recent)]
	e.next++
	*slot = k
	return slot
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

var errBadBlock = errors.New("block is malformed")

// decodeBlock decodes what encodeBlock made. The block keeps no reference to
// data. It has what reading needs: not the indexes of a block being filled.
func decodeBlock(data []byte) (*block, error) {
	d := decoder{raw: reader{b: data}}
	b, err := d.block()
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errBadBlock, err)
	}
	return b, nil
}

type decoder struct {
	raw    reader // ids
	cols   [numCols]reader
	values []reader
	types  []colKey
	shapes [][]uint32
	b      *block
}

func (d *decoder) block() (*block, error) {
	if string(d.raw.take(uint64(len(blockMagic)))) != blockMagic {
		return nil, errors.New("unknown format")
	}
	spans, traces := d.raw.uvarint(), d.raw.uvarint()
	raw := reader{b: d.raw.bytes()}
	if d.raw.err != nil {
		return nil, d.raw.err
	}
	if spans > uint64(len(raw.b)/8) || traces > uint64(len(raw.b)/16) || traces > spans {
		return nil, errShort
	}
	packed, err := zstdDecoder.DecodeAll(d.raw.b, nil)
	if err != nil {
		return nil, err
	}
	d.raw = raw
	d.b = &block{}
	if err := d.columns(packed); err != nil {
		return nil, err
	}
	for _, read := range []func() error{d.strings, d.groups} {
		if err := read(); err != nil {
			return nil, err
		}
	}
	if err := d.spans(int(spans), int(traces)); err != nil {
		return nil, err
	}
	return d.b, nil
}

// columns cuts packed into columns and reads the dictionaries of attributes.
func (d *decoder) columns(packed []byte) error {
	r := reader{b: packed}
	for i := range d.cols {
		d.cols[i] = reader{b: r.bytes()}
	}
	for keys := &d.cols[colKeys]; len(keys.b) > 0; {
		k := colKey{uint32(keys.uvarint()), valueType(keys.below(int(numTypes)))}
		d.types = append(d.types, k)
		d.values = append(d.values, reader{b: r.bytes()})
		if keys.err != nil {
			return keys.err
		}
	}
	for sh := &d.cols[colShapes]; len(sh.b) > 0; {
		shape := make([]uint32, sh.below(maxAttrs+1))
		for i := range shape {
			shape[i] = sh.below(len(d.types))
		}
		d.shapes = append(d.shapes, shape)
		if sh.err != nil {
			return sh.err
		}
	}
	return r.err
}

func (d *decoder) strings() error {
	// One string backs all of them: it lives as long as the block does.
	all := string(d.cols[colStrings].b)
	sizes := &d.cols[colStringSizes]
	for len(sizes.b) > 0 {
		n := sizes.uvarint()
		if sizes.err != nil || n > uint64(len(all)) {
			return errShort
		}
		d.b.strs.list = append(d.b.strs.list, all[:n])
		all = all[n:]
		d.b.strs.bytes += int(n) + 16
	}
	for _, k := range d.types {
		if int(k.key) >= len(d.b.strs.list) {
			return errShort
		}
	}
	return nil
}

func (d *decoder) groups() error {
	for r := &d.cols[colResources]; len(r.b) > 0; {
		res := resource{service: d.str(r), schema: d.str(r), dropped: uint32(r.uvarint())}
		if err := d.attrs(&res.attrs, r); err != nil {
			return err
		}
		d.b.resources = append(d.b.resources, res)
	}
	for r := &d.cols[colScopes]; len(r.b) > 0; {
		sc := scope{name: d.str(r), version: d.str(r), schema: d.str(r), dropped: uint32(r.uvarint())}
		if err := d.attrs(&sc.attrs, r); err != nil {
			return err
		}
		d.b.scopes = append(d.b.scopes, sc)
	}
	return nil
}

// str reads the number of a string.
func (d *decoder) str(r *reader) uint32 { return r.below(len(d.b.strs.list)) }

// attrs reads the number of a shape from r and its values from their columns.
func (d *decoder) attrs(l *attrList, r *reader) error {
	i := r.below(len(d.shapes))
	if r.err != nil {
		return r.err
	}
	l.off = uint32(len(d.b.attrs))
	l.n = uint32(len(d.shapes[i]))
	for _, c := range d.shapes[i] {
		v := &d.values[c]
		a := attr{key: d.types[c].key, typ: d.types[c].typ}
		switch a.typ {
		case typeInt:
			a.n = uint64(v.varint())
		case typeDouble:
			a.n = binary.LittleEndian.Uint64(v.take8())
		case typeBool:
			a.n = uint64(v.below(2))
		case typeString, typeOther:
			a.n = uint64(d.str(v))
			if a.typ == typeOther && v.err == nil {
				if _, err := consumeValue(pcommon.NewValueEmpty(), []byte(d.b.strs.list[a.n]), 0); err != nil {
					return err
				}
			}
		}
		if v.err != nil {
			return v.err
		}
		// A shape of many attributes without bytes of their own could be
		// repeated to any length by a few bytes of a forged block.
		if len(d.b.attrs) >= maxPacked/16 {
			return errShort
		}
		d.b.attrs = append(d.b.attrs, a)
	}
	return nil
}

func (d *decoder) spans(spans, traces int) error {
	b := d.b
	b.traces = make([]pcommon.TraceID, traces)
	for i := range b.traces {
		copy(b.traces[i][:], d.raw.take(16))
	}
	ids := reader{b: d.raw.take(uint64(spans) * 8)}
	if d.raw.err != nil {
		return d.raw.err
	}
	b.spans = make([]span, spans)
	var (
		before uint64
		row    int
	)
	for t := range b.traces {
		rows := d.cols[colTraceRows].below(spans - row + 1)
		first := row
		for ; row < first+int(rows); row++ {
			s := &b.spans[row]
			s.trace = uint32(t)
			copy(s.id[:], ids.take(8))
			from := before
			if row > first {
				from = b.spans[first].start
			}
			s.start = from + uint64(d.cols[colStart].varint())
			if err := d.span(s); err != nil {
				return err
			}
		}
		if err := d.parents(b.spans[first:row]); err != nil {
			return err
		}
		if rows > 0 {
			before = b.spans[first].start
		}
	}
	if row != spans {
		return errShort
	}
	for i := range d.cols {
		if d.cols[i].err != nil {
			return d.cols[i].err
		}
	}
	return d.raw.err
}

// parents reads the parents of one trace's spans; links stand among the ids,
// each span's after its parent, so they are read here too.
func (d *decoder) parents(spans []span) error {
	for i := range spans {
		s := &spans[i]
		switch p := d.cols[colParent].below(len(spans) + parentRef); p {
		case parentNone:
		case parentRaw:
			copy(s.parent[:], d.raw.take(8))
		default:
			s.parent = spans[p-parentRef].id
		}
		links := d.b.links[s.links.off : s.links.off+s.links.n]
		for j := range links {
			copy(links[j].trace[:], d.raw.take(16))
			copy(links[j].id[:], d.raw.take(8))
		}
	}
	return d.raw.err
}

func (d *decoder) span(s *span) error {
	b := d.b
	s.end = s.start + uint64(d.cols[colDuration].varint())
	s.name = d.str(&d.cols[colName])
	k := d.cols[colKind].byte()
	s.kind, s.status = k&15, k>>4
	if r := &d.cols[colRare]; r.uvarint() != 0 {
		s.flags = uint32(r.uvarint())
		s.state, s.message = d.str(r), d.str(r)
		for i := range s.dropped {
			s.dropped[i] = uint32(r.uvarint())
		}
	}
	s.resource = d.cols[colResource].below(len(b.resources))
	s.scope = d.cols[colScope].below(len(b.scopes))
	if err := d.attrs(&s.attrs, &d.cols[colShape]); err != nil {
		return err
	}
	// An event has a byte of its own in colEventName, a link in colLinkRest.
	s.events = attrList{uint32(len(b.events)), d.cols[colEvents].below(len(d.cols[colEventName].b) + 1)}
	for range s.events.n {
		ev := event{
			time:    s.start + uint64(d.cols[colEventTime].varint()),
			name:    d.str(&d.cols[colEventName]),
			dropped: uint32(d.cols[colEventRest].uvarint()),
		}
		if err := d.attrs(&ev.attrs, &d.cols[colEventRest]); err != nil {
			return err
		}
		b.events = append(b.events, ev)
	}
	s.links = attrList{uint32(len(b.links)), d.cols[colLinks].below(len(d.cols[colLinkRest].b) + 1)}
	for range s.links.n {
		r := &d.cols[colLinkRest]
		l := link{state: d.str(r), flags: uint32(r.uvarint()), dropped: uint32(r.uvarint())}
		if err := d.attrs(&l.attrs, r); err != nil {
			return err
		}
		b.links = append(b.links, l)
	}
	return nil
}
