package traces

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/klauspost/compress/zstd"
	"go.opentelemetry.io/collector/pdata/pcommon"
)

var errBadBlock = errors.New("block is malformed")

// maxPacked bounds the columns of a block when inflated. A block is closed at
// maxBlockBytes, but one batch, of any size a receiver lets in, may go over.
const maxPacked = 256 << 20

// zstdDecoder is safe for concurrent use by DecodeAll.
var zstdDecoder = must(zstd.NewReader(nil, zstd.WithDecoderConcurrency(4), zstd.WithDecoderMaxMemory(maxPacked)))

// opened is a block read back: its columns inflated and its dictionaries read,
// its spans still in the columns. Most reads want few of 16,000 spans, and
// walking the columns that matter costs a tenth of decoding all of them. It
// never changes and is safe for concurrent use.
type opened struct {
	spans, traces int
	start         decoder // at the first row; dec.b has strings and groups
	bytes         int     // of memory, about
}

// openBlock inflates what encodeBlock made. What it returns keeps no reference
// to data. Columns that are malformed are found when they are read.
func openBlock(data []byte) (*opened, error) {
	o, err := tryOpen(data)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errBadBlock, err)
	}
	return o, nil
}

func tryOpen(data []byte) (*opened, error) {
	r := reader{b: data}
	if string(r.take(uint64(len(blockMagic)))) != blockMagic {
		return nil, errors.New("unknown format")
	}
	spans, traces := r.uvarint(), r.uvarint()
	ids := r.bytes()
	if r.err != nil {
		return nil, r.err
	}
	if spans > uint64(len(ids)/8) || traces > uint64(len(ids)/16) || traces > spans || 16*traces+8*spans > uint64(len(ids)) {
		return nil, errShort
	}
	packed, err := zstdDecoder.DecodeAll(r.b, nil)
	if err != nil {
		return nil, err
	}
	return openColumns(int(spans), int(traces), bytes.Clone(ids), packed)
}

// openColumns takes ids and packed over.
func openColumns(spans, traces int, ids, packed []byte) (*opened, error) {
	o := &opened{spans: spans, traces: traces, start: decoder{ids: ids, b: &block{}}}
	d := &o.start
	for _, read := range []func() error{func() error { return d.columns(packed) }, d.strings, d.groups} {
		if err := read(); err != nil {
			return nil, err
		}
	}
	d.raw = reader{b: ids[16*traces+8*spans:]}
	o.bytes = len(ids) + cap(packed) + len(d.cols[colStrings].b) + 16*len(d.b.strs.list) + 16*len(d.b.attrs)
	return o, nil
}

// decodeBlock decodes all spans of a block. The block has what reading needs:
// not the indexes of a block being filled.
func decodeBlock(data []byte) (*block, error) {
	o, err := openBlock(data)
	if err != nil {
		return nil, err
	}
	return o.block()
}

// block decodes all spans.
func (o *opened) block() (*block, error) { return o.rows(0, o.traces) }

// find returns the number of a trace.
func (o *opened) find(id pcommon.TraceID) (t int, ok bool) {
	for ids := o.start.ids[:16*o.traces]; len(ids) > 0; ids = ids[16:] {
		if [16]byte(ids) == id {
			return t, true
		}
		t++
	}
	return 0, false
}

// pick decodes the spans of one trace, nil where there are none.
func (o *opened) pick(id pcommon.TraceID) (*block, error) {
	t, ok := o.find(id)
	if !ok {
		return nil, nil
	}
	return o.rows(t, t+1)
}

// rows decodes the spans of the traces from … to.
func (o *opened) rows(from, to int) (*block, error) {
	d := o.cursor()
	err := d.skip(o, from)
	if err == nil {
		err = d.spans(o, from, to)
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errBadBlock, err)
	}
	return d.b, nil
}

// cursor returns a decoder at the first row, with a block of its own to fill.
func (o *opened) cursor() *decoder {
	d := o.start
	d.values = slices.Clone(d.values)
	b := *d.b
	b.attrs = slices.Clip(b.attrs)
	d.b = &b
	return &d
}

func (o *opened) traceID(t int) pcommon.TraceID { return pcommon.TraceID(o.start.ids[16*t : 16*t+16]) }

// decoder is a place in the columns of a block.
type decoder struct {
	ids    []byte // of traces, then of spans
	raw    reader // parents and links
	cols   [numCols]reader
	values []reader
	types  []colKey
	shapes [][]uint32
	row    int
	before uint64 // start of the trace before
	b      *block // what was decoded
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

// skip moves from the first row to that of trace number to, reading as little
// as that needs.
func (d *decoder) skip(o *opened, to int) error {
	if to == 0 {
		return nil
	}
	rows := 0
	for range to {
		n := int(d.cols[colTraceRows].below(o.spans - rows + 1))
		if n > 0 {
			d.before += uint64(d.cols[colStart].varint())
			d.cols[colStart].skip(n - 1)
		}
		rows += n
	}
	d.row = rows
	for _, c := range []int{colDuration, colName, colResource, colScope} {
		d.cols[c].skip(rows)
	}
	d.cols[colKind].take(uint64(rows))
	for range rows {
		if d.cols[colRare].uvarint() != 0 {
			d.cols[colRare].skip(6)
		}
		if d.cols[colParent].uvarint() == parentRaw {
			d.raw.take(8)
		}
	}
	uses := make([]int, len(d.shapes)) // of each shape
	for range rows {
		d.use(uses, &d.cols[colShape])
	}
	for range d.sum(colEvents, rows, len(d.cols[colEventName].b)) {
		d.cols[colEventTime].skip(1)
		d.cols[colEventName].skip(1)
		d.cols[colEventRest].skip(1)
		d.use(uses, &d.cols[colEventRest])
	}
	for range d.sum(colLinks, rows, len(d.cols[colLinkRest].b)) {
		d.raw.take(24)
		d.cols[colLinkRest].skip(3)
		d.use(uses, &d.cols[colLinkRest])
	}
	return errors.Join(d.failed(), d.skipValues(uses))
}

// use counts the shape that r has next.
func (d *decoder) use(uses []int, r *reader) {
	if i := r.below(len(d.shapes)); r.err == nil {
		uses[i]++
	}
}

// sum adds up rows numbers of a column, of which each element has a byte of its
// own in another that has limit left.
func (d *decoder) sum(col, rows, limit int) (n int) {
	for range rows {
		n += int(d.cols[col].below(limit - n + 1))
	}
	return n
}

// skipValues moves past the values of shapes that were used so many times.
func (d *decoder) skipValues(uses []int) error {
	skip := make([]int, len(d.values))
	for shape, n := range uses {
		for _, c := range d.shapes[shape] {
			skip[c] += n
		}
	}
	for c, n := range skip {
		v := &d.values[c]
		v.skipValues(d.types[c].typ, n)
		if v.err != nil {
			return v.err
		}
	}
	return nil
}

// skipValues moves past n values of a column.
func (r *reader) skipValues(typ valueType, n int) {
	switch typ {
	case typeEmpty:
	case typeDouble:
		r.take(8 * uint64(n))
	default:
		r.skip(n)
	}
}

// failed returns the first error of the columns.
func (d *decoder) failed() error {
	for i := range d.cols {
		if d.cols[i].err != nil {
			return d.cols[i].err
		}
	}
	return d.raw.err
}

// spans decodes the traces from … to, from being the one d stands at.
func (d *decoder) spans(o *opened, from, to int) error {
	b := d.b
	b.minStart = math.MaxUint64
	if from == 0 && to == o.traces {
		b.spans = make([]span, 0, o.spans)
	}
	for t := from; t < to; t++ {
		n := int(d.cols[colTraceRows].below(o.spans - d.row + 1))
		first := len(b.spans)
		for i := range n {
			s := span{trace: uint32(len(b.traces)), id: pcommon.SpanID(d.ids[16*o.traces+8*d.row:][:8])}
			base := d.before
			if i > 0 {
				base = b.spans[first].start
			}
			s.start = base + uint64(d.cols[colStart].varint())
			if err := d.span(&s); err != nil {
				return err
			}
			b.spans = append(b.spans, s)
			b.minStart, b.maxStart = min(b.minStart, s.start), max(b.maxStart, s.start)
			d.row++
		}
		if err := d.parents(b.spans[first:]); err != nil {
			return err
		}
		b.traces = append(b.traces, o.traceID(t))
		if n > 0 {
			d.before = b.spans[first].start
		}
	}
	if to == o.traces && d.row != o.spans {
		return errShort
	}
	return d.failed()
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
