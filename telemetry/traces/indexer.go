package traces

import (
	"strconv"
	"sync"

	"github.com/cespare/xxhash/v2"
)

// indexer makes indexes; it holds the buffers, which are recycled.
type indexer struct {
	b      *block
	order  []uint32
	firsts []uint32
	// The terms of spans, an attribute of one type to a column; columns[0] has
	// their operations.
	columns  []indexColumn
	colOf    map[colKey]uint32
	shapes   shapeCache
	numbers  numbering
	numbered []uint64
	uses     []uint32              // of each value of a column; 0 between columns
	at       []uint32              // where the rows of a common value go
	rows     []uint32              // of all common terms
	common   map[uint64][][]uint32 // rows of terms; nil in place of a list: any
	rare     []uint64
	mask     []uint64
	sums     []uint64 // hashes of strings, as they are needed
	summed   []bool
}

// indexColumn has the values of one attribute with their rows, in order.
type indexColumn struct {
	key    colKey
	rows   []uint32
	values []uint64 // attr.n
}

var indexers = sync.Pool{New: func() any {
	return &indexer{common: map[uint64][][]uint32{}, colOf: map[colKey]uint32{}}
}}

// makeIndex makes the index of a block.
func makeIndex(b *block) blockIndex {
	x := indexers.Get().(*indexer)
	defer indexers.Put(x)
	x.reset(b)
	x.order, x.firsts = b.byTrace(x.order, x.firsts)
	x.spread()
	for i := range x.columns {
		x.column(i)
	}
	x.groups()
	x.fields()
	x.both()
	out := blockIndex{durations: make([]byte, len(b.spans))}
	for i, row := range x.order {
		out.durations[i] = durationClass(b.spans[row].duration())
	}
	out.pages = x.pages()
	x.b = nil
	return out
}

func (x *indexer) reset(b *block) {
	x.b = b
	x.columns, x.rows, x.rare = x.columns[:0], x.rows[:0], x.rare[:0]
	x.shapes = shapeCache{}
	clear(x.common)
	clear(x.colOf)
	if n := len(b.strs.list); cap(x.sums) < n {
		x.sums, x.summed = make([]uint64, n), make([]bool, n)
	} else {
		x.sums, x.summed = x.sums[:n], x.summed[:n]
		clear(x.summed)
	}
}

// spread puts the operations and attributes of all rows into columns: what is
// then looked up in tables are the values of one, which fit into the cache of a
// processor.
func (x *indexer) spread() {
	b := x.b
	x.newColumn(colKey{})
	entries := 0
	for row, i := range x.order {
		s := &b.spans[i]
		x.columns[0].put(uint32(row), uint64(b.resources[s.resource].service)<<32|uint64(s.name))
		attrs := b.list(s.attrs)
		for j, c := range x.columnsOf(attrs) {
			x.columns[c].put(uint32(row), attrs[j].n)
		}
		entries += 1 + len(attrs)
	}
	if cap(x.rows) < entries {
		x.rows = make([]uint32, 0, entries)
	}
}

func (c *indexColumn) put(row uint32, value uint64) {
	c.rows, c.values = append(c.rows, row), append(c.values, value)
}

// columnsOf returns the columns of the attributes of a span.
func (x *indexer) columnsOf(attrs []attr) []uint32 {
	if k := x.shapes.find(attrs); k != nil {
		return k.cols
	}
	return x.shapes.put(newShape(attrs, func(k colKey) uint32 {
		c, ok := x.colOf[k]
		if !ok {
			c = x.newColumn(k)
			x.colOf[k] = c
		}
		return c
	})).cols
}

func (x *indexer) newColumn(k colKey) uint32 {
	n := len(x.columns)
	if n < cap(x.columns) {
		x.columns = x.columns[:n+1] // with the buffers of a former use
	} else {
		x.columns = append(x.columns, indexColumn{})
	}
	c := &x.columns[n]
	c.key, c.rows, c.values = k, c.rows[:0], c.values[:0]
	return uint32(n)
}

// column lists the rows of the common values of a column and the hashes of all
// others.
func (x *indexer) column(i int) {
	c := &x.columns[i]
	of := func(value uint64) uint64 { return x.hash(c.key, value) }
	numbers := c.values
	switch {
	case i == 0:
		of = func(value uint64) uint64 {
			return operationTerm(x.b.strs.list[value>>32], x.b.strs.list[uint32(value)])
		}
		numbers = x.dense(c.values)
	case c.key.typ == typeInt || c.key.typ == typeDouble:
		numbers = x.dense(c.values)
	}
	n := max(len(x.b.strs.list), len(c.values)) // more than any of numbers
	if len(x.uses) < n {
		x.uses, x.at = make([]uint32, n), make([]uint32, n)
	}
	for _, v := range numbers {
		x.uses[v]++
	}
	const met = 1 << 31 // in uses: the value has its place, or its hash is noted
	for j, v := range numbers {
		n := x.uses[v]
		if n&met == 0 {
			x.uses[v] |= met
			h := of(c.values[j])
			if n < commonRows {
				x.rare = append(x.rare, h)
				continue
			}
			x.at[v] = uint32(len(x.rows))
			x.rows = x.rows[:len(x.rows)+int(n)]
			x.add(h, x.rows[x.at[v]:])
		}
		if n&^met >= commonRows {
			x.rows[x.at[v]] = c.rows[j]
			x.at[v]++
		}
	}
	for _, v := range numbers {
		x.uses[v] = 0
	}
}

// dense numbers values from 0 on. What it returns is valid until the next call.
func (x *indexer) dense(values []uint64) []uint64 {
	x.numbers.reset(len(values))
	x.numbered = x.numbered[:0]
	for _, v := range values {
		n := x.numbers.number(v)
		x.numbered = append(x.numbered, uint64(n))
	}
	return x.numbered
}

// hash is the hash of an attribute with its value.
func (x *indexer) hash(k colKey, value uint64) uint64 {
	var buf [32]byte
	var v uint64
	switch k.typ {
	case typeString:
		v = x.sum(value)
	case typeInt:
		v = xxhash.Sum64(strconv.AppendInt(buf[:0], int64(value), 10))
	default:
		v = xxhash.Sum64String(x.b.valueString(attr{key: k.key, typ: k.typ, n: value}))
	}
	return tagHash(x.sum(uint64(k.key)), v)
}

func (x *indexer) sum(i uint64) uint64 {
	if !x.summed[i] {
		x.sums[i], x.summed[i] = xxhash.Sum64String(x.b.strs.list[i]), true
	}
	return x.sums[i]
}
