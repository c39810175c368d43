package traces

import (
	"slices"
)

// search calls found with every trace that has a matching span in the block and
// the start of that span, as matcher.block does for a block in memory. It reads
// only the columns that the query asks about, of the rows that the index names.
func (o *opened) search(m *matcher, may rowSet, found func(trace int, start uint64)) error {
	sc, ok := newScan(o, m)
	if !ok {
		return nil
	}
	defer sc.d.release()
	if sc.slow {
		b, err := o.block()
		if err != nil {
			return err
		}
		bm := blockMatcher{matcher: m, b: b}
		if bm.resolve() {
			for i := range b.spans {
				if s := &b.spans[i]; bm.span(s) {
					found(int(s.trace), s.start)
				}
			}
		}
		return nil
	}
	may, err := sc.narrow(may)
	if err != nil || may.empty() {
		return err
	}
	rows, err := sc.candidates(may)
	if err != nil {
		return err
	}
	if len(sc.tags) > 0 && len(rows) > 0 {
		if rows, err = sc.withTags(rows); err != nil {
			return err
		}
	}
	for _, r := range rows {
		found(r.trace, r.start)
	}
	return nil
}

// scan is one search of one block.
type scan struct {
	o    *opened
	d    *decoder
	bm   blockMatcher
	tags []scanTag
	// slow says that a tag stands in a column that is not worth a reader of
	// its own.
	slow bool
}

// scanTag is a tag with what the block knows of it.
type scanTag struct {
	derived   func(*block, *span) string // nil: it is an attribute only
	value     string
	resources []bool   // that have it
	columns   []uint32 // of values of that key
	readers   []tagColumn
}

// candidate is a span that fulfils all but the tags.
type candidate struct {
	row, trace int
	resource   uint32
	start      uint64
	kind       byte // as it stands in colKind
}

// newScan reports false where the block has no match for sure.
func newScan(o *opened, m *matcher) (*scan, bool) {
	d := o.cursor()
	sc := &scan{o: o, d: d, bm: blockMatcher{matcher: m, b: d.b}}
	if !sc.bm.resolve() {
		return nil, false
	}
	for key, value := range m.tags {
		t := scanTag{derived: derivedTags[key], value: value}
		switch key {
		case "error", "span.kind", "otel.status_code":
		default:
			sc.slow = sc.slow || t.derived != nil
		}
		any := false
		for _, r := range d.b.resources {
			has := d.b.hasTag(r.attrs, key, value)
			t.resources = append(t.resources, has)
			any = any || has
		}
		for c, k := range o.types {
			if d.b.strs.list[k.key] == key {
				t.columns = append(t.columns, uint32(c))
			}
		}
		if t.derived == nil && !any && len(t.columns) == 0 {
			return nil, false
		}
		sc.tags = append(sc.tags, t)
	}
	return sc, true
}

// candidates returns the spans among may that fulfil all but the tags.
func (sc *scan) candidates(may rowSet) (out []candidate, err error) {
	d, m := sc.d, &sc.bm
	if err := d.need(colTraceRows, colStart, colDuration, colName, colResource, colKind); err != nil {
		return nil, err
	}
	out = make([]candidate, 0, 256)
	row, behind := 0, 0 // behind: rows that most columns have yet to skip
	for t := range sc.o.traces {
		n := int(d.cols[colTraceRows].below(sc.o.spans - row + 1))
		if n > 0 && !may.any(row, row+n) {
			d.before += uint64(d.cols[colStart].varint())
			d.cols[colStart].skip(n - 1)
			row += n
			behind += n
			continue
		}
		if behind > 0 {
			for _, c := range []int{colDuration, colName, colResource} {
				d.cols[c].skip(behind)
			}
			d.cols[colKind].take(uint64(behind))
			behind = 0
		}
		base := d.before
		for i := range n {
			start := base + uint64(d.cols[colStart].varint())
			if i == 0 {
				base, d.before = start, start
			}
			s := span{start: start, end: start + uint64(d.cols[colDuration].varint())}
			s.name = uint32(d.cols[colName].uvarint())
			s.resource = d.cols[colResource].below(len(d.b.resources))
			kind := d.cols[colKind].byte()
			if may.has(row) && d.cols[colResource].err == nil && m.fields(&s) {
				out = append(out, candidate{row, t, s.resource, start, kind})
			}
			row++
		}
	}
	return out, d.failed()
}

// withTags keeps those of rows, which are in order, that have all tags.
func (sc *scan) withTags(rows []candidate) (out []candidate, err error) {
	w, err := newTagWalk(sc)
	if err != nil {
		return nil, err
	}
	has := make([]bool, len(sc.tags))
	for _, r := range rows {
		for w.row < r.row {
			w.next(nil)
		}
		s := span{kind: r.kind & 15, status: r.kind >> 4}
		for i, t := range sc.tags {
			has[i] = t.resources[r.resource] || t.derived != nil && t.derived(sc.d.b, &s) == t.value
		}
		w.next(has)
		if !slices.Contains(has, false) {
			out = append(out, r)
		}
	}
	return out, sc.d.failed()
}
