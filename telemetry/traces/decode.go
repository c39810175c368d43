package traces

import (
	"encoding/binary"
	"sync"

	"go.opentelemetry.io/collector/pdata/pcommon"
)

// decoder is a place in the columns of a block.
type decoder struct {
	o      *opened
	raw    reader // parents and links
	cols   [numCols]reader
	values []reader // those in open
	open   []bool
	read   []int  // values of spans before the place, of columns that are not open
	chunks []bool // of strings that are in b
	have   [numCols]bool
	lent   []*[]byte // buffers of columns, see release
	row    int       // where it stands
	trace  int       // the number of its trace
	before uint64    // start of the trace before
	b      *block    // what was decoded
	// grouped says that the values of resources and scopes are what is read.
	grouped bool
}

// need inflates columns.
func (d *decoder) need(cols ...int) error {
	for _, c := range cols {
		if d.have[c] {
			continue
		}
		data, err := d.inflate(c)
		if err != nil {
			return err
		}
		d.cols[c], d.have[c] = reader{b: data}, true
	}
	return nil
}

// inflate returns what a frame holds, until release.
func (d *decoder) inflate(number int) ([]byte, error) {
	buf := buffers.Get().(*[]byte)
	d.lent = append(d.lent, buf)
	return d.o.frames[number].inflate(buf)
}

// release ends the reading of columns. Strings and numbers that were read stay.
func (d *decoder) release() {
	for _, buf := range d.lent {
		giveBack(buf)
	}
	d.lent = nil
}

// buffers are for inflated columns, of which a query needs a megabyte for a block.
var buffers = sync.Pool{New: func() any { return new([]byte) }}

func giveBack(buf *[]byte) {
	if cap(*buf) <= 1<<20 {
		buffers.Put(buf)
	}
}

// value returns the values of a column at the place.
func (d *decoder) value(c uint32) *reader {
	v := &d.values[c]
	if d.grouped {
		d.read[c]++
	}
	if !d.open[c] {
		d.open[c] = true
		data, err := d.inflate(numCols + int(c))
		*v = reader{b: data, err: err}
		if !d.grouped {
			v.skipValues(d.o.types[c].typ, d.o.groups[c]+d.read[c])
		}
	}
	return v
}

// readGroups reads resources and scopes.
func (d *decoder) readGroups() error {
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
	i := r.below(len(d.o.shapes))
	if r.err != nil {
		return r.err
	}
	l.off = uint32(len(d.b.attrs))
	l.n = uint32(len(d.o.shapes[i]))
	for _, c := range d.o.shapes[i] {
		v := d.value(c)
		a := attr{key: d.o.types[c].key, typ: d.o.types[c].typ}
		switch a.typ {
		case typeInt:
			a.n = uint64(v.varint())
		case typeDouble:
			a.n = binary.LittleEndian.Uint64(v.take8())
		case typeBool:
			a.n = uint64(v.below(2))
		case typeString, typeOther:
			a.n = uint64(d.str(v))
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

// failed returns the first error of the columns.
func (d *decoder) failed() error {
	for i := range d.cols {
		if d.cols[i].err != nil {
			return d.cols[i].err
		}
	}
	return d.raw.err
}

// spans decodes the trace that d stands at.
func (d *decoder) spans() error {
	o, b := d.o, d.b
	n := int(d.cols[colTraceRows].below(o.spans - d.row + 1))
	first := len(b.spans)
	for i := range n {
		s := span{trace: uint32(len(b.traces)), id: pcommon.SpanID(o.ids[16*o.traces+8*d.row:][:8])}
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
	b.traces = append(b.traces, o.traceID(d.trace))
	d.trace++
	if n > 0 {
		d.before = b.spans[first].start
	}
	return nil
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
