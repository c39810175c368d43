package traces

import (
	"encoding/binary"
	"math/bits"

	"github.com/cespare/xxhash/v2"
)

// A bloom is a Bloom filter: 64-bit words, little endian, ten bits for each
// hash that was put in. Seven probes let about one absent hash in a hundred
// through.

const (
	bloomBits   = 10
	bloomProbes = 7
)

// makeBloom appends the filter of hashes to dst.
func makeBloom(dst []byte, hashes []uint64) []byte {
	words := (len(hashes)*bloomBits + 63) / 64
	start := len(dst)
	dst = append(dst, make([]byte, 8*words)...)
	f := dst[start:]
	for _, h := range hashes {
		bloomEach(h, uint64(words), func(word uint64, bit uint) bool {
			f[word*8+uint64(bit>>3)] |= 1 << (bit & 7)
			return true
		})
	}
	return dst
}

// bloomHas reports whether the filter may have a hash. An empty one has none.
func bloomHas(f []byte, h uint64) bool {
	if len(f) < 8 {
		return false
	}
	return bloomEach(h, uint64(len(f)/8), func(word uint64, bit uint) bool {
		return f[word*8+uint64(bit>>3)]&(1<<(bit&7)) != 0
	})
}

// bloomEach calls f with each probe of h until it returns false. The hashes of
// a page of the index have their highest bits in common, so they are mixed.
func bloomEach(h, words uint64, f func(word uint64, bit uint) bool) bool {
	h *= 0x9e3779b97f4a7c15
	step := h>>32 | 1
	for range bloomProbes {
		word, _ := bits.Mul64(h, words)
		if !f(word, uint(h&63)) {
			return false
		}
		h = bits.RotateLeft64(h, 17) + step*0xd1b54a32d192ed03
	}
	return true
}

// tagHash is the hash of a pair of strings by those of both.
func tagHash(key uint64, value uint64) uint64 {
	hi, lo := bits.Mul64(key^0x9e3779b97f4a7c15, value^0xd1b54a32d192ed03)
	return hi ^ lo
}

// tagHashOf is the hash of an attribute with its value in the form that searches
// use (pcommon.Value.AsString).
func tagHashOf(key, value string) uint64 {
	return tagHash(xxhash.Sum64String(key), xxhash.Sum64String(value))
}

// appendWords appends words in little endian.
func appendWords(dst []byte, words []uint64) []byte {
	for _, w := range words {
		dst = binary.LittleEndian.AppendUint64(dst, w)
	}
	return dst
}
