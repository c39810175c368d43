package traces

import "slices"

// fewRows is the number of rows of a block from which it is worth to go through
// the values of a tag before all else.
const fewRows = 256

// narrow keeps the rows that have the tags, as far as the values of the tags alone
// tell. The index lets all rows of a block through for a value that few have: of
// the others nothing need be read then.
func (sc *scan) narrow(may rowSet) (rowSet, error) {
	if len(sc.tags) == 0 || may.few(fewRows) {
		return may, nil
	}
	if err := sc.d.need(colShape, colEventName, colLinkRest); err != nil {
		return may, err
	}
	if len(sc.d.cols[colEventName].b) > 0 || len(sc.d.cols[colLinkRest].b) > 0 {
		return may, nil // their values stand among those of spans
	}
	for i := range sc.tags {
		if t := &sc.tags[i]; t.derived != nil || slices.Contains(t.resources, true) {
			continue
		}
		if may.words == nil {
			may.n = sc.o.spans
		}
		rows, err := sc.rowsWith(i, max(sc.o.spans, 64*len(may.words)))
		if err != nil {
			return may, err
		}
		if may.keep(rows); may.empty() {
			break
		}
	}
	return may, nil
}

// rowsWith returns the rows whose spans have tag i, of n. It leaves all columns where
// they are.
func (sc *scan) rowsWith(i, n int) ([]uint64, error) {
	columns, err := sc.columnsOf(i)
	if err != nil {
		return nil, err
	}
	rows := make([]uint64, (n+63)/64)
	for j, c := range sc.tags[i].columns {
		values := *columns[j].values
		uses := make([]uint16, len(sc.o.shapes))
		for s, shape := range sc.o.shapes {
			for _, of := range shape {
				if of == c {
					uses[s]++ // more than once where a span has a key twice
				}
			}
		}
		shapes := sc.d.cols[colShape]
		for row := range sc.o.spans {
			shape := shapes.below(len(uses))
			if shapes.err != nil {
				return nil, shapes.err
			}
			for range uses[shape] {
				if columns[j].is(&values) {
					rows[row/64] |= 1 << (row % 64)
				}
			}
		}
		if values.err != nil {
			return nil, values.err
		}
	}
	return rows, nil
}

// columnsOf returns the columns of tag i.
func (sc *scan) columnsOf(i int) ([]tagColumn, error) {
	t := &sc.tags[i]
	if t.readers == nil {
		for _, c := range t.columns {
			tc, err := newTagColumn(sc.d, c, i, t.value)
			if err != nil {
				return nil, err
			}
			t.readers = append(t.readers, tc)
		}
	}
	return t.readers, nil
}
