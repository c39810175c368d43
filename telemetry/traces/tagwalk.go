package traces

import (
	"encoding/binary"
	"strconv"
)

// tagWalk goes through the shapes of the spans and keeps the columns of tags in
// step with them.
type tagWalk struct {
	d       *decoder
	row     int
	columns []tagColumn
	byShape [][]uint8 // indexes of columns that a shape has a value in
	events  bool      // any span has events or links
}

// tagColumn is a column of values with what is searched in it.
type tagColumn struct {
	values *reader
	typ    valueType
	tag    int
	behind int                  // values that are yet to skip
	is     func(v *reader) bool // reads one value
}

func newTagWalk(sc *scan) (*tagWalk, error) {
	if err := sc.d.need(colShape, colEvents, colEventName, colEventRest, colLinks, colLinkRest); err != nil {
		return nil, err
	}
	w := &tagWalk{d: sc.d, byShape: make([][]uint8, len(sc.o.shapes))}
	number := map[uint32]uint8{}
	for i, t := range sc.tags {
		for j, c := range t.columns {
			// A key has at most one column for each type, and a query 32 tags.
			number[c] = uint8(len(w.columns) + j)
		}
		columns, err := sc.columnsOf(i)
		if err != nil {
			return nil, err
		}
		w.columns = append(w.columns, columns...)
	}
	for shape, cols := range sc.o.shapes {
		for _, c := range cols {
			if n, ok := number[c]; ok {
				w.byShape[shape] = append(w.byShape[shape], n)
			}
		}
	}
	w.events = len(sc.d.cols[colEventName].b) > 0 || len(sc.d.cols[colLinkRest].b) > 0
	return w, nil
}

func newTagColumn(d *decoder, column uint32, tag int, value string) (tagColumn, error) {
	c := tagColumn{values: d.value(column), typ: d.o.types[column].typ, tag: tag}
	switch c.typ {
	case typeString:
		want, ok := d.b.strs.find(value)
		if !ok { // it is not among those that many spans use
			var err error
			if want, ok, err = d.seek(value); err != nil {
				return c, err
			}
		}
		c.is = func(v *reader) bool { return v.uvarint() == uint64(want) && ok }
	case typeInt:
		want, err := strconv.ParseInt(value, 10, 64)
		ok := err == nil && strconv.FormatInt(want, 10) == value
		c.is = func(v *reader) bool { return v.varint() == want && ok }
	default:
		c.is = func(v *reader) bool {
			a := attr{typ: c.typ}
			switch c.typ {
			case typeDouble:
				a.n = binary.LittleEndian.Uint64(v.take8())
			case typeBool:
				a.n = uint64(v.below(2))
			case typeOther:
				a.n = uint64(d.str(v))
				if v.err == nil {
					v.err = d.text(uint32(a.n))
				}
			}
			return v.err == nil && d.b.valueString(a) == value
		}
	}
	return c, nil
}

// next moves over one row. Where has is not nil, it marks the tags that the
// span's attributes have.
func (w *tagWalk) next(has []bool) {
	d := w.d
	w.shape(&d.cols[colShape], has)
	if w.events {
		for range d.cols[colEvents].below(len(d.cols[colEventName].b) + 1) {
			d.cols[colEventName].skip(1)
			d.cols[colEventRest].skip(1)
			w.shape(&d.cols[colEventRest], nil)
		}
		for range d.cols[colLinks].below(len(d.cols[colLinkRest].b) + 1) {
			d.cols[colLinkRest].skip(3)
			w.shape(&d.cols[colLinkRest], nil)
		}
	}
	w.row++
}

func (w *tagWalk) shape(r *reader, has []bool) {
	i := r.below(len(w.byShape))
	if r.err != nil {
		return
	}
	for _, n := range w.byShape[i] {
		c := &w.columns[n]
		switch {
		case has == nil:
			c.behind++
			continue
		case c.behind > 0:
			c.values.skipValues(c.typ, c.behind)
			c.behind = 0
		}
		if c.is(c.values) {
			has[c.tag] = true
		}
		if c.values.err != nil {
			r.err = c.values.err // where failed sees it
		}
	}
}
