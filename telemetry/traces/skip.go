package traces

import "errors"

// skip moves past n traces, reading as little as that needs.
func (d *decoder) skip(n int) error {
	o := d.o
	if n == 0 {
		return nil
	}
	rows := 0
	for range n {
		n := int(d.cols[colTraceRows].below(o.spans - d.row - rows + 1))
		if n > 0 {
			d.before += uint64(d.cols[colStart].varint())
			d.cols[colStart].skip(n - 1)
		}
		rows += n
	}
	d.row += rows
	d.trace += n
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
	uses := make([]int, len(o.shapes)) // of each shape
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
	return errors.Join(d.failed(), d.skipShapes(uses))
}

// use counts the shape that r has next.
func (d *decoder) use(uses []int, r *reader) {
	if i := r.below(len(d.o.shapes)); r.err == nil {
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

// skipShapes moves past the values of shapes that were used so many times.
func (d *decoder) skipShapes(uses []int) error {
	for shape, n := range uses {
		for _, c := range d.o.shapes[shape] {
			if err := d.skipColumn(c, n); err != nil {
				return err
			}
		}
	}
	return nil
}

// skipColumn moves a column past n values, of which it need not see any.
func (d *decoder) skipColumn(c uint32, n int) error {
	if d.open[c] {
		d.values[c].skipValues(d.o.types[c].typ, n)
		return d.values[c].err
	}
	d.read[c] += n
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
