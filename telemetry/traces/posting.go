package traces

import (
	"encoding/binary"
	"math/bits"
)

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
