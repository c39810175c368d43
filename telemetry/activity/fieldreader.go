package activity

import (
	"encoding/binary"
	"fmt"
	"math"
)

// reader reads what writer wrote. After the first error it reads zeros.
type reader struct {
	b       []byte
	version int
	err     error
}

func (r *reader) fail(what string) {
	if r.err == nil {
		r.err = fmt.Errorf("%w: %s", errCheckpoint, what)
	}
	r.b = nil
}

func (r *reader) uint() uint64 {
	v, n := binary.Uvarint(r.b)
	if n <= 0 {
		r.fail("it ends within a number")
		return 0
	}
	r.b = r.b[n:]
	return v
}

func (r *reader) int() int64 {
	v, n := binary.Varint(r.b)
	if n <= 0 {
		r.fail("it ends within a number")
		return 0
	}
	r.b = r.b[n:]
	return v
}

func (r *reader) take(n uint64) []byte {
	if uint64(len(r.b)) < n {
		r.fail("it ends within a field")
		return nil
	}
	b := r.b[:n]
	r.b = r.b[n:]
	return b
}

func (r *reader) fixed() uint64 {
	b := r.take(8)
	if b == nil {
		return 0
	}
	return binary.LittleEndian.Uint64(b)
}

func (r *reader) float() float64 {
	v := math.Float64frombits(r.fixed())
	if math.IsNaN(v) || math.IsInf(v, 0) {
		r.fail("a number is not finite")
		return 0
	}
	return v
}

func (r *reader) byte() byte {
	b := r.take(1)
	if b == nil {
		return 0
	}
	return b[0]
}

func (r *reader) bool() bool { return r.byte() == 1 }

func (r *reader) str() string {
	n := r.uint()
	if n > 1<<16 {
		r.fail("a text is too long")
		return ""
	}
	return string(r.take(n))
}

// len reads a count of things of at least size bytes each, so that a count
// cannot ask for more memory than the file is long.
func (r *reader) len(size int) int {
	n := r.uint()
	if n > uint64(len(r.b)/size) {
		r.fail("a count is larger than the rest of the file")
		return 0
	}
	return int(n)
}

func (r *reader) counts() []uint64 {
	n := make([]uint64, r.len(1))
	for i := range n {
		n[i] = r.uint()
	}
	return n
}
