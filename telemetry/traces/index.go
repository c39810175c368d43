package traces

import "math/bits"

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
