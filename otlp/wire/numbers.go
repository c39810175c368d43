package wire

import (
	"encoding/binary"
	"math"
	"unsafe"
)

// Fixed64s is a packed list of 8-byte numbers.
type Fixed64s []byte

// Len returns how many numbers there are.
func (f Fixed64s) Len() int { return len(f) / 8 }

// Uint64 returns number i.
func (f Fixed64s) Uint64(i int) uint64 { return binary.LittleEndian.Uint64(f[i*8:]) }

// Float64 returns number i as a float.
func (f Fixed64s) Float64(i int) float64 { return math.Float64frombits(f.Uint64(i)) }

// Varints is a packed list of numbers of variable length. Those in a Point are
// whole: Next never meets a cut-off one.
type Varints []byte

// Len returns how many numbers there are.
func (v Varints) Len() (n int) {
	for _, c := range v {
		if c < 0x80 {
			n++
		}
	}
	return n
}

// Next returns the first number and the rest. v must not be empty.
func (v Varints) Next() (uint64, Varints) {
	if v[0] < 0x80 {
		return uint64(v[0]), v[1:]
	}
	n, next := varint(v, 0)
	if next < 0 {
		return 0, nil
	}
	return n, v[next:]
}

// view returns b as a string that shares its memory.
func view(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }

// varint reads a number at b[i:] and returns where it ends, or a negative place
// for one that is cut off or longer than ten bytes. What does not fit into 64
// bits is lost, as pdata has it.
func varint(b []byte, i int) (n uint64, next int) {
	for shift := uint(0); shift < 64; shift += 7 {
		if i >= len(b) {
			return 0, -1
		}
		c := b[i]
		i++
		n |= uint64(c&0x7f) << shift
		if c < 0x80 {
			return n, i
		}
	}
	return 0, -1
}

// bytesAt reads a size at b[i:] and returns what it counts and where that ends, or
// a negative place.
func bytesAt(b []byte, i int) (v []byte, next int) {
	if i < len(b) && b[i] < 0x80 {
		begin := i + 1
		end := begin + int(b[i])
		if end > len(b) {
			return nil, -1
		}
		return b[begin:end:end], end
	}
	n, begin := varint(b, i)
	if begin < 0 || n > uint64(len(b)-begin) {
		return nil, -1
	}
	end := begin + int(n)
	return b[begin:end:end], end
}

// fixed64At reads eight bytes at b[i:].
func fixed64At(b []byte, i int) (n uint64, next int) {
	if len(b)-i < 8 {
		return 0, -1
	}
	return binary.LittleEndian.Uint64(b[i:]), i + 8
}

// fixed32At reads four bytes at b[i:].
func fixed32At(b []byte, i int) (n uint32, next int) {
	if len(b)-i < 4 {
		return 0, -1
	}
	return binary.LittleEndian.Uint32(b[i:]), i + 4
}

// zigzag reads an sint32.
func zigzag(n uint64) int32 { return int32(uint32(n>>1) ^ uint32(int32((n&1)<<31)>>31)) }

const (
	resourceBytes = int64(unsafe.Sizeof(Resource{}))
	attrBytes     = int64(unsafe.Sizeof(Attr{}))
	metricBytes   = int64(unsafe.Sizeof(Metric{}))
	pointBytes    = int64(unsafe.Sizeof(Point{}))
	exemplarBytes = int64(unsafe.Sizeof(Exemplar{}))
	quantileBytes = int64(unsafe.Sizeof(Quantile{}))
)
