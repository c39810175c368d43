package traces

import (
	"encoding/binary"
	"math"
	"math/bits"
	"strconv"

	"github.com/cespare/xxhash/v2"
)

// A filter is a Bloom filter over the attributes of a block: a search for one
// attribute reads ten bits for each distinct one instead of the block.
//
//	filter = bits, a power of two no smaller than 64, little endian words
//
// Ten bits and seven probes let about one block in a hundred through for
// nothing.

const (
	filterBits   = 10
	filterProbes = 7
)

// tagHash is the hash of an attribute with its value in the form that searches
// use (pcommon.Value.AsString).
func tagHash(key uint64, value uint64) uint64 {
	hi, lo := bits.Mul64(key^0x9e3779b97f4a7c15, value^0xd1b54a32d192ed03)
	return hi ^ lo
}

func tagHashOf(key, value string) uint64 {
	return tagHash(xxhash.Sum64String(key), xxhash.Sum64String(value))
}

// makeFilter makes the filter of a block's attributes, those of its resources
// included.
func makeFilter(b *block) []byte {
	sums := make([]uint64, len(b.strs.list)) // of strings, as they are needed
	done := make([]bool, len(b.strs.list))
	sum := func(i uint64) uint64 {
		if !done[i] {
			sums[i], done[i] = xxhash.Sum64String(b.strs.list[i]), true
		}
		return sums[i]
	}
	seen := newHashSet(len(b.attrs))
	var buf [32]byte
	for _, a := range b.attrs {
		// First by number, which is cheap and leaves few to format.
		if !seen.add(tagHash(uint64(a.key)<<8|uint64(a.typ), a.n)) {
			continue
		}
		var v uint64
		switch a.typ {
		case typeString:
			v = sum(a.n)
		case typeInt:
			v = xxhash.Sum64(strconv.AppendInt(buf[:0], int64(a.n), 10))
		default:
			v = xxhash.Sum64String(b.valueString(a))
		}
		seen.found = append(seen.found, tagHash(sum(uint64(a.key)), v))
	}
	words := nextPow2(uint64(len(seen.found))*filterBits/64 + 1)
	f := make([]byte, words*8)
	for _, h := range seen.found {
		filterEach(h, words, func(word uint64, bit uint) bool {
			f[word*8+uint64(bit>>3)] |= 1 << (bit & 7)
			return true
		})
	}
	return f
}

// filterHas reports whether the filter may have an attribute. Anything that is
// no filter has everything.
func filterHas(f []byte, h uint64) bool {
	words := uint64(len(f) / 8)
	if words == 0 || words&(words-1) != 0 {
		return true
	}
	return filterEach(h, words, func(word uint64, bit uint) bool {
		return f[word*8+uint64(bit>>3)]&(1<<(bit&7)) != 0
	})
}

// filterEach calls f with each probe of h until it returns false.
func filterEach(h, words uint64, f func(word uint64, bit uint) bool) bool {
	step := h>>32 | 1
	for range filterProbes {
		if !f(h>>6&(words-1), uint(h&63)) {
			return false
		}
		h = bits.RotateLeft64(h, 17) + step
	}
	return true
}

func nextPow2(n uint64) uint64 {
	if n <= 1 {
		return 1
	}
	return 1 << bits.Len64(n-1)
}

// hashSet is a set of hashes in open addressing: a map would cost more than
// all the rest of a block's encoding.
type hashSet struct {
	slots []uint64
	mask  uint64
	found []uint64
}

func newHashSet(n int) *hashSet {
	size := nextPow2(uint64(n)*2 + 2)
	return &hashSet{slots: make([]uint64, size), mask: size - 1}
}

// add reports whether h is new.
func (s *hashSet) add(h uint64) bool {
	if h == 0 {
		h = 1 // 0 marks a free slot
	}
	for i := h & s.mask; ; i = (i + 1) & s.mask {
		switch s.slots[i] {
		case h:
			return false
		case 0:
			s.slots[i] = h
			return true
		}
	}
}

// A summary says what a search needs to know of a block before it reads it:
//
//	summary = minStart:8 maxStart:8 (big endian) spans:uvarint complete:byte
//	          operations:uvarint (service:string name:string kind:byte
//	          minDuration:uvarint maxDuration:uvarint)…
//
// Times are Unix nanoseconds, durations nanoseconds.
type summary struct {
	minStart, maxStart uint64
	spans              uint64
	// complete is false where the block has more operations than fit: then
	// ops proves nothing.
	complete bool
	ops      []opSummary
}

type opSummary struct {
	service, name string
	kind          uint8
	opStat
}

// maxSummaryOps bounds the operations of a summary. A sender that puts ids
// into span names makes every block match by name, not the index huge.
const maxSummaryOps = 512

func summarize(b *block) summary {
	s := summary{minStart: b.minStart, maxStart: b.maxStart, spans: uint64(len(b.spans)), complete: len(b.ops) <= maxSummaryOps}
	if !s.complete {
		return s
	}
	for k, st := range b.ops {
		s.ops = append(s.ops, opSummary{b.strs.list[k.service], b.strs.list[k.name], k.kind, st})
	}
	return s
}

func (s *summary) encode() []byte {
	out := binary.BigEndian.AppendUint64(nil, s.minStart)
	out = binary.BigEndian.AppendUint64(out, s.maxStart)
	out = binary.AppendUvarint(out, s.spans)
	if s.complete {
		out = append(out, 1)
	} else {
		out = append(out, 0)
	}
	out = binary.AppendUvarint(out, uint64(len(s.ops)))
	for _, op := range s.ops {
		out = appendString(appendString(out, op.service), op.name)
		out = append(out, op.kind)
		out = binary.AppendUvarint(out, op.minDuration)
		out = binary.AppendUvarint(out, op.maxDuration)
	}
	return out
}

// summaryTimes reads only the times, which decide most cases.
func summaryTimes(b []byte) (minStart, maxStart uint64) {
	if len(b) < 16 {
		return 0, math.MaxUint64 // malformed: let it be decoded, and complained about
	}
	return binary.BigEndian.Uint64(b), binary.BigEndian.Uint64(b[8:])
}

func decodeSummary(b []byte) (summary, error) {
	r := reader{b: b}
	var s summary
	s.minStart = binary.BigEndian.Uint64(r.take8())
	s.maxStart = binary.BigEndian.Uint64(r.take8())
	s.spans = r.uvarint()
	s.complete = r.byte() == 1
	for n := r.count(5); n > 0 && r.err == nil; n-- {
		op := opSummary{service: string(r.bytes()), name: string(r.bytes()), kind: r.byte()}
		op.minDuration, op.maxDuration = r.uvarint(), r.uvarint()
		s.ops = append(s.ops, op)
	}
	return s, r.err
}
