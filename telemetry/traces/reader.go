package traces

import (
	"encoding/binary"
	"errors"
	"math/bits"
)

// errShort says that an encoding ends before it should, or promises more than
// it has.
var errShort = errors.New("unexpected end")

// reader reads an encoding with one check of err at the end: after an error
// every read gives zero and an empty rest.
type reader struct {
	b   []byte
	err error
}

func (r *reader) fail() {
	if r.err == nil {
		r.err = errShort
	}
	r.b = nil
}

func (r *reader) byte() byte {
	if len(r.b) == 0 {
		r.fail()
		return 0
	}
	c := r.b[0]
	r.b = r.b[1:]
	return c
}

func (r *reader) uvarint() uint64 {
	if len(r.b) > 0 && r.b[0] < 0x80 {
		c := r.b[0]
		r.b = r.b[1:]
		return uint64(c)
	}
	v, n := binary.Uvarint(r.b)
	if n <= 0 {
		r.fail()
		return 0
	}
	r.b = r.b[n:]
	return v
}

func (r *reader) varint() int64 {
	u := r.uvarint()
	return int64(u>>1) ^ -int64(u&1)
}

// skip moves past n varints.
func (r *reader) skip(n int) {
	i := 0
	for n >= 8 && len(r.b)-i >= 8 { // eight bytes end at most eight of them
		ends := ^binary.LittleEndian.Uint64(r.b[i:]) & 0x8080808080808080
		n -= bits.OnesCount64(ends)
		i += 8
	}
	for ; n > 0; i++ {
		if i == len(r.b) {
			r.fail()
			return
		}
		if r.b[i] < 0x80 {
			n--
		}
	}
	r.b = r.b[i:]
}

// below reads a number below limit.
func (r *reader) below(limit int) uint32 {
	v := r.uvarint()
	if v >= uint64(limit) {
		r.fail()
		return 0
	}
	return uint32(v)
}

// count reads a number of elements of which each has at least size bytes, so
// that a count that cannot be true allocates nothing.
func (r *reader) count(size int) int {
	v := r.uvarint()
	if v > uint64(len(r.b)/size) {
		r.fail()
		return 0
	}
	return int(v)
}

// bytes reads a length and as many bytes; they are part of what is read.
func (r *reader) bytes() []byte { return r.take(r.uvarint()) }

func (r *reader) take(n uint64) []byte {
	if n > uint64(len(r.b)) {
		r.fail()
		return nil
	}
	b := r.b[:n:n]
	r.b = r.b[n:]
	return b
}

// take8 always returns eight bytes.
func (r *reader) take8() []byte {
	if b := r.take(8); b != nil {
		return b
	}
	return make([]byte, 8)
}
