package traces

import (
	"encoding/binary"
	"math/bits"
	"strconv"
	"sync"

	"github.com/cespare/xxhash/v2"
)

// The index of a block says in which rows its terms are, so that a search of
// many blocks reads few of them. A term is an attribute with its value, of the
// span or its resource, an operation, a service, or one of what Jaeger shows as
// tags and OTLP has in fields; all of them are 64-bit hashes. A row is a span, in
// the order of the block on disk.
//
// The index is cut into pages by the highest bits of the hashes. A page stands
// beside the same page of all other blocks of its hour, so a search for a term
// reads one short range of keys, whatever number of blocks there is:
//
//	+--------------+-------+--------------+------------------------------+---
//	| size:uvarint | bloom | terms:uvarint| hash:4, size:uvarint, posting | …
//	+--------------+-------+--------------+------------------------------+---
//
// Terms of few rows, which are most, are in the Bloom filter. The others have a
// posting: their rows, exactly; only the lower half of the hash is kept with it.
//
//	posting = kind:byte, then by kind:
//	  0  nothing: in any row
//	  1  rows, as uvarints, each less the one before less one
//	  2  a bit for each row, 64-bit words
//	  3  the rows that it is not in, as 1
//
// A block of few spans has one page, smallPage, for all hashes.
const (
	postingAny = iota
	postingRows
	postingBits
	postingBut
)

const (
	indexPages = 64
	smallPage  = indexPages
	// smallSpans is the number of spans up to which a block has one page: more
	// would be keys without much in them.
	smallSpans = 1024
	// commonRows is the number of rows from which a term has a posting.
	commonRows = 8
)

func pageOf(h uint64) int { return int(h >> 58) }

// Terms that are no attributes have keys that no attribute has, it is hoped; one
// that has will be found in more blocks than need be.
func operationTerm(service, name string) uint64 { return tagHashOf("\x00operation\x00"+service, name) }
func serviceTerm(service string) uint64         { return tagHashOf("\x00service", service) }

// indexer makes indexes; it holds the buffers, which are recycled.
type indexer struct {
	b       *block
	numbers numbering
	terms   []term // by number
	uses    []uint32
	flat    []uint32              // numbers of the terms of all rows, one row after the other
	ends    []uint32              // where each row ends in flat
	rows    []uint32              // of all common terms
	common  map[uint64][][]uint32 // rows of terms; nil in place of a list: any
	rare    []uint64
	order   []uint32
	firsts  []uint32
	mask    []uint64
}

// term is where a term was met first: its hash is made when all are known, as
// that costs more than to count.
type term struct {
	attr attr
	op   bool // attr.key is the service, attr.n the name
	from uint32
}

var indexers = sync.Pool{New: func() any { return &indexer{common: map[uint64][][]uint32{}} }}

// blockIndex is an index as it goes to disk.
type blockIndex struct {
	pages     [][]byte // indexPages of them, or one for all
	durations []byte   // a class for each row
}

func (x *blockIndex) size() int {
	n := len(x.durations)
	for _, p := range x.pages {
		n += len(p) + 24
	}
	return n
}

// number is the number of page i in keys.
func (x *blockIndex) number(i int) byte {
	if len(x.pages) == 1 {
		return smallPage
	}
	return byte(i)
}

// makeIndex makes the index of a block.
func makeIndex(b *block) blockIndex {
	x := indexers.Get().(*indexer)
	defer indexers.Put(x)
	x.reset(b)
	x.order, x.firsts = b.byTrace(x.order, x.firsts)
	x.count()
	x.gather()
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
	x.numbers.reset(len(b.attrs) + len(b.ops))
	x.terms, x.uses, x.flat, x.ends = x.terms[:0], x.uses[:0], x.flat[:0], x.ends[:0]
	x.rare = x.rare[:0]
	clear(x.common)
}

// count numbers the attributes and operations of all rows and counts their uses.
func (x *indexer) count() {
	b := x.b
	for _, row := range x.order {
		s := &b.spans[row]
		x.use(term{attr: attr{key: b.resources[s.resource].service, n: uint64(s.name)}, op: true})
		for _, a := range b.list(s.attrs) {
			x.use(term{attr: a})
		}
		x.ends = append(x.ends, uint32(len(x.flat)))
	}
}

func (x *indexer) use(t term) {
	kind := uint64(t.attr.typ)
	if t.op {
		kind = 1 << 7
	}
	n, fresh := x.numbers.number(tagHash(uint64(t.attr.key)<<8|kind, t.attr.n))
	if fresh {
		x.terms, x.uses = append(x.terms, t), append(x.uses, 0)
	}
	x.uses[n]++
	x.flat = append(x.flat, n)
}

// gather lists the rows of common terms and the hashes of all others.
func (x *indexer) gather() {
	total := uint32(0)
	for i, n := range x.uses {
		if n >= commonRows {
			x.terms[i].from = total
			total += n
		}
	}
	if cap(x.rows) < int(total) {
		x.rows = make([]uint32, total)
	}
	x.rows = x.rows[:total]
	at := uint32(0)
	for row, end := range x.ends {
		for _, n := range x.flat[at:end] {
			if x.uses[n] >= commonRows {
				t := &x.terms[n]
				x.rows[t.from] = uint32(row)
				t.from++
			}
		}
		at = end
	}
	for i := range x.terms {
		if n := x.uses[i]; n >= commonRows {
			end := x.terms[i].from
			x.add(x.hash(&x.terms[i]), x.rows[end-n:end])
		}
	}
	for i := range x.terms {
		if x.uses[i] < commonRows {
			x.rare = append(x.rare, x.hash(&x.terms[i]))
		}
	}
}

// add gives a term more rows.
func (x *indexer) add(h uint64, rows []uint32) {
	if lists, ok := x.common[h]; !ok || lists != nil {
		x.common[h] = append(lists, rows)
	}
}

// groups adds what spans have of their resources and scopes.
func (x *indexer) groups() {
	b := x.b
	resource := x.bucket(len(b.resources), func(s *span) uint32 { return s.resource })
	for i, rows := range resource {
		r := &b.resources[i]
		x.add(serviceTerm(b.strs.list[r.service]), rows)
		for _, a := range b.list(r.attrs) {
			x.add(x.hash(&term{attr: a}), rows)
		}
	}
	scope := x.bucket(len(b.scopes), func(s *span) uint32 { return s.scope })
	for i, rows := range scope {
		x.add(tagHashOf("otel.scope.name", b.strs.list[b.scopes[i].name]), rows)
		x.add(tagHashOf("otel.scope.version", b.strs.list[b.scopes[i].version]), rows)
	}
}

// fields adds what Jaeger shows as tags and OTLP has in fields.
func (x *indexer) fields() {
	b := x.b
	kinds := x.bucket(256, func(s *span) uint32 { return uint32(s.kind | s.status<<4) })
	for i, rows := range kinds {
		if len(rows) == 0 {
			continue
		}
		s := span{kind: uint8(i) & 15, status: uint8(i) >> 4}
		for _, tag := range []string{"error", "span.kind", "otel.status_code"} {
			x.add(tagHashOf(tag, derivedTags[tag](b, &s)), rows)
		}
	}
	messages := map[uint32][]uint32{}
	for row, i := range x.order {
		if m := b.spans[i].message; m != 0 {
			messages[m] = append(messages[m], uint32(row))
		}
	}
	for m, rows := range messages {
		x.add(tagHashOf("otel.status_description", b.strs.list[m]), rows)
	}
}

// both makes terms that are rare as one thing and common as another, such as an
// attribute that some resource has, too, be in any row.
func (x *indexer) both() {
	var maybe [1 << 10]uint64 // by 16 bits of the hashes: most are not
	for h := range x.common {
		maybe[h>>22&1023] |= 1 << (h & 63)
	}
	for _, h := range x.rare {
		if maybe[h>>22&1023]>>(h&63)&1 == 0 {
			continue
		}
		if _, ok := x.common[h]; ok {
			x.common[h] = nil
		}
	}
}

// bucket lists the rows by a number below n.
func (x *indexer) bucket(n int, of func(*span) uint32) [][]uint32 {
	ends := make([]uint32, n+1)
	for i := range x.b.spans {
		ends[of(&x.b.spans[i])+1]++
	}
	for i := 1; i <= n; i++ {
		ends[i] += ends[i-1]
	}
	all := make([]uint32, len(x.order))
	out := make([][]uint32, n)
	for i := range out {
		out[i] = all[ends[i]:ends[i]:ends[i+1]]
	}
	for row, i := range x.order {
		k := of(&x.b.spans[i])
		out[k] = append(out[k], uint32(row))
	}
	return out
}

// hash is the hash of a term.
func (x *indexer) hash(t *term) uint64 {
	if t.op {
		return operationTerm(x.b.strs.list[t.attr.key], x.b.strs.list[t.attr.n])
	}
	var buf [32]byte
	var v uint64
	switch t.attr.typ {
	case typeString:
		v = x.b.strs.sums[t.attr.n]
	case typeInt:
		v = xxhash.Sum64(strconv.AppendInt(buf[:0], int64(t.attr.n), 10))
	default:
		v = xxhash.Sum64String(x.b.valueString(t.attr))
	}
	return tagHash(x.b.strs.sums[t.attr.key], v)
}

// pages writes the pages.
func (x *indexer) pages() [][]byte {
	n, page := indexPages, pageOf
	if len(x.b.spans) <= smallSpans {
		n, page = 1, func(uint64) int { return 0 }
	}
	rare := make([][]uint64, n)
	for _, h := range x.rare {
		rare[page(h)] = append(rare[page(h)], h)
	}
	common := make([][]byte, n)
	counts := make([]uint64, n)
	var posting []byte
	for h, lists := range x.common {
		p := page(h)
		posting = x.posting(posting[:0], lists)
		common[p] = binary.LittleEndian.AppendUint32(common[p], uint32(h))
		common[p] = binary.AppendUvarint(common[p], uint64(len(posting)))
		common[p] = append(common[p], posting...)
		counts[p]++
	}
	out := make([][]byte, n)
	for p := range out {
		words := (len(rare[p])*bloomBits + 63) / 64
		b := binary.AppendUvarint(make([]byte, 0, 8*words+len(common[p])+16), uint64(8*words))
		b = makeBloom(b, rare[p])
		b = binary.AppendUvarint(b, counts[p])
		out[p] = append(b, common[p]...)
	}
	return out
}

// posting appends rows in the shortest form, nil being any.
func (x *indexer) posting(dst []byte, lists [][]uint32) []byte {
	if lists == nil {
		return append(dst, postingAny)
	}
	all := len(x.b.spans)
	rows := lists[0]
	if len(lists) > 1 || len(rows) > all/8 {
		x.mask = maskOf(x.mask, all, lists)
		n := 0
		for _, w := range x.mask {
			n += bits.OnesCount64(w)
		}
		switch {
		case n == all:
			return append(dst, postingAny)
		case all-n <= all/8:
			dst = append(dst, postingBut)
			before := -1
			for row := range all {
				if x.mask[row/64]>>(row%64)&1 == 0 {
					dst = binary.AppendUvarint(dst, uint64(row-before-1))
					before = row
				}
			}
			return dst
		case n > all/8:
			return appendWords(append(dst, postingBits), x.mask)
		}
		rows = rows[:0:0]
		for i, w := range x.mask {
			for ; w != 0; w &= w - 1 {
				rows = append(rows, uint32(i*64+bits.TrailingZeros64(w)))
			}
		}
	}
	dst = append(dst, postingRows)
	before := -1
	for _, row := range rows {
		if int(row) > before { // twice in a row where a span has a key twice
			dst = binary.AppendUvarint(dst, uint64(int(row)-before-1))
			before = int(row)
		}
	}
	return dst
}

// maskOf sets the bits of rows.
func maskOf(mask []uint64, all int, lists [][]uint32) []uint64 {
	n := (all + 63) / 64
	if cap(mask) < n {
		mask = make([]uint64, n)
	}
	mask = mask[:n]
	clear(mask)
	for _, rows := range lists {
		for _, row := range rows {
			mask[row/64] |= 1 << (row % 64)
		}
	}
	return mask
}

// durationClass puts a duration in nanoseconds into one of 256 classes, rising:
// eight to a doubling, from a microsecond to half an hour.
func durationClass(d uint64) byte {
	const lowest = 10 // bits
	n := bits.Len64(d)
	if n <= lowest {
		return 0
	}
	c := (n-lowest)<<3 | int(d>>(n-4)&7)
	return byte(min(c, 255))
}
