package histsum

import (
	"encoding/binary"
	"math"
	"math/bits"
	"slices"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
)

// decoder reads the TSDB's chunks of histograms into rows. The format is that of
// chunkenc.HistogramChunk, whose own iterator takes about four times as long: it
// asks for each bit, and has the whole histogram ready after each sample. The
// fuzz test holds both against each other.
//
// What is damaged or of a kind that is not evaluated here is errIrregular: it is
// for the engine to say so.
//
// The zero value is ready. Not safe for concurrent use.
type decoder struct {
	buf   []byte // of the chunk, with padding
	at    uint   // in bits
	limit uint   // bits of the chunk

	spans []histogram.Span
	// Of each stored bucket: its difference to the one before it, and what that
	// changed by with the last sample.
	diff, change []int64
	turns        []byte    // of one sample, see read1
	place        []int32   // of each stored bucket in a row
	first        int32     // number of the row's first bucket
	width        int       // of a row
	bounds       []float64 // of custom buckets

	// before is the last row of the chunk before, for finding resets.
	before      []float64
	beforeFirst int32
	beforeCount float64
	beforeZero  float64
	hasBefore   bool
	scratch     []float64
}

// padding is how far behind the end of a chunk a read may reach.
const padding = 24

// sizes is how many bits follow a prefix of so many ones.
var sizes = [9]uint8{0, 3, 6, 9, 12, 18, 25, 56, 64}

// peek returns at least 57 bits from d.at on, left-aligned.
func (d *decoder) peek(at uint) uint64 {
	return binary.BigEndian.Uint64(d.buf[at>>3:]) << (at & 7)
}

// take returns the next n bits, 1 to 64.
func (d *decoder) take(n uint) uint64 {
	if d.at > d.limit {
		return 0
	}
	x := d.peek(d.at) >> (64 - min(n, 32))
	if n > 32 {
		x = x<<(n-32) | d.peek(d.at+32)>>(96-n)
	}
	d.at += n
	return x
}

// uint reads what putVarbitUint writes.
func (d *decoder) uint() uint64 {
	if d.at > d.limit {
		return 0
	}
	ones := uint(bits.LeadingZeros64(^d.peek(d.at)))
	if ones == 0 {
		d.at++
		return 0
	}
	ones = min(ones, 8)
	d.at += min(ones+1, 8)
	return d.take(uint(sizes[ones]))
}

// int reads what putVarbitInt writes.
func (d *decoder) int() int64 {
	if d.at > d.limit {
		return 0
	}
	x := d.peek(d.at)
	if x>>63 == 0 {
		d.at++
		return 0
	}
	ones := uint(bits.LeadingZeros64(^x))
	if ones > 6 {
		ones = min(ones, 8)
		d.at += 8
		size := uint(sizes[ones])
		return signed(d.take(size), size)
	}
	size := uint(sizes[ones])
	d.at += ones + 1 + size
	return signed(x<<(ones+1)>>(64-size), size)
}

// signed undoes the two's complement of so many bits; 1<<(size-1) is positive.
func signed(x uint64, size uint) int64 {
	if x > 1<<(size-1) {
		x -= 1 << size // of size 64: 0, and x is the number already
	}
	return int64(x)
}

// layout reads the head of a chunk, up to the first sample, and returns the
// schema.
func (d *decoder) layout(chunk []byte) (schema int32, err error) {
	const header = 3
	if len(chunk) < header || chunkenc.CounterResetHeader(chunk[2]&chunkenc.CounterResetHeaderMask) == chunkenc.GaugeType {
		return 0, errIrregular
	}
	d.buf = append(d.buf[:0], chunk[header:]...)
	d.buf = append(d.buf, make([]byte, padding)...)
	d.at, d.limit = 0, uint(len(chunk)-header)*8
	if d.take(8) != 0 { // the zero threshold
		return 0, errIrregular
	}
	s := d.int()
	custom := s == int64(histogram.CustomBucketsSchema)
	if !custom && (s < int64(histogram.ExponentialSchemaMin) || s > int64(histogram.ExponentialSchemaMax)) {
		return 0, errIrregular
	}
	n := d.uint()
	if n > maxWidth {
		return 0, errIrregular
	}
	d.spans, d.place, d.width, d.first = d.spans[:0], d.place[:0], 0, 0
	at := int64(0)
	for i := range n {
		length, offset := d.uint(), d.int()
		if d.at > d.limit || length > maxWidth || i > 0 && (offset < 0 || offset > maxWidth) || offset < math.MinInt32 || offset > math.MaxInt32 {
			return 0, errIrregular
		}
		at += offset
		if i == 0 {
			d.first = int32(at)
		}
		if at+int64(length)-int64(d.first) > maxWidth || at+int64(length) > math.MaxInt32 {
			return 0, errIrregular
		}
		for j := range int64(length) {
			d.place = append(d.place, int32(at+j)-d.first)
		}
		at += int64(length)
		d.width = int(at) - int(d.first)
	}
	if d.uint() != 0 || d.at > d.limit { // negative buckets
		return 0, errIrregular
	}
	d.bounds = d.bounds[:0]
	if custom {
		if n = d.uint(); n > maxWidth || d.first < 0 || d.width+int(d.first) > int(n)+1 {
			return 0, errIrregular
		}
		for range n {
			switch b := d.uint(); {
			case d.at > d.limit:
				return 0, errIrregular
			case b == 0:
				d.bounds = append(d.bounds, math.Float64frombits(d.take(64)))
			default:
				d.bounds = append(d.bounds, float64(b-1)/1000)
			}
		}
	}
	d.diff, d.change = zeroed(d.diff, len(d.place)), zeroed(d.change, len(d.place))
	return int32(s), nil
}

// read appends the samples from mint to maxt to r, with buckets or without. more
// is false at the first sample after maxt.
func (d *decoder) read(chunk []byte, r *rows, mint, maxt int64, buckets bool, cells int) (more bool, err error) {
	if len(chunk) < 2 {
		return false, errIrregular
	}
	n := int(binary.BigEndian.Uint16(chunk))
	if n == 0 {
		return true, nil
	}
	schema, err := d.layout(chunk)
	if err != nil {
		return false, err
	}
	var t, tDelta, countDelta, zeroDelta int64
	var count, zero uint64
	var sum uint64
	var leading, trailing uint8
	last := -1 // the row that d.diff is of
	for i := range n {
		if i == 0 {
			t, count, zero, sum = d.int(), d.uint(), d.uint(), d.take(64)
		} else {
			tDelta += d.int()
			t += tDelta
			countDelta += d.int()
			count = uint64(int64(count) + countDelta)
			zeroDelta += d.int()
			zero = uint64(int64(zero) + zeroDelta)
			sum ^= d.xor(&leading, &trailing)
		}
		stale := value.IsStaleNaN(math.Float64frombits(sum))
		wanted := !stale && t >= mint && t <= maxt
		var row []float64
		if wanted && buckets {
			if len(r.all) > cells {
				return false, errIrregular
			}
			row = r.grow(d.width)
		}
		if i == 0 {
			for j := range d.diff {
				d.diff[j] = d.int()
			}
			err = d.row(row)
		} else if !stale {
			d.read1()
			err = d.advance(row)
		}
		switch {
		case d.at > d.limit || err != nil:
			return false, errIrregular
		case t > maxt && !stale:
			return false, nil
		case !wanted:
			continue
		case len(r.t) > 0 && (schema != r.schema || !slices.Equal(d.bounds, r.bounds)):
			return false, errIrregular
		}
		if last = len(r.t); last == 0 {
			r.schema, r.bounds = schema, append(r.bounds[:0], d.bounds...)
		}
		r.t = append(r.t, t)
		r.count, r.sum, r.zero = append(r.count, float64(count)), append(r.sum, math.Float64frombits(sum)), append(r.zero, float64(zero))
		reset := false
		if i == 0 && d.hasBefore { // within a chunk there is none
			d.scratch = zeroed(d.scratch, d.width)
			if err = d.row(d.scratch); err != nil {
				return false, err
			}
			reset = d.isReset(float64(count), float64(zero), d.scratch)
		}
		r.reset = append(r.reset, reset)
		r.lo = append(r.lo, d.first)
		r.off = append(r.off, len(r.all))
	}
	return true, d.keep(r, last)
}

// runs says what bits begin with: as many whole numbers as runBits hold, six at
// most. The lower six bytes are the numbers, one each, then follow how many they are
// and how many bits they take. Zero if not even one fits.
var runs = func() (all [1 << runBits]uint64) {
	for i := range all {
		x, used, n := uint64(i)<<(64-runBits), uint(0), uint(0)
		for n < 6 {
			v, size := small(x)
			if used+size > runBits || size > runBits {
				break
			}
			all[i] |= uint64(uint8(v)) << (8 * n)
			x <<= size
			used += size
			n++
		}
		all[i] |= uint64(n)<<48 | uint64(used)<<56
	}
	return all
}()

const runBits = 11

// small returns the number that x begins with and its length in bits, which
// is more than 32 if the number is not there.
func small(x uint64) (int64, uint) {
	ones := uint(bits.LeadingZeros64(^x))
	if ones > 6 {
		return 0, 64
	}
	size := uint(sizes[ones])
	if ones == 0 {
		return 0, 1
	}
	return signed(x<<(ones+1)>>(64-size), size), ones + 1 + size
}

// read1 reads how much each bucket's change differs from the one before, for one
// sample that is not a chunk's first: into d.turns, mostly several in one step. What
// is too large for that is in d.change already.
func (d *decoder) read1() {
	change := d.change
	n := len(change)
	if cap(d.turns) < n+8 {
		d.turns = make([]byte, 2*n+8)
	}
	turns := d.turns[:n+8] // a run may reach behind the last
	buf, at := d.buf, d.at
	for j := 0; j < n && at <= d.limit; {
		x := binary.BigEndian.Uint64(buf[at>>3:]) << (at & 7)
		used := uint(0)
		for used <= 57-32 && j < n {
			run := runs[x>>(64-runBits)]
			if k := int(run >> 48 & 0xff); k > 0 && j+k <= n {
				binary.LittleEndian.PutUint64(turns[j:j+8], run)
				size := uint(run >> 56)
				j += k
				x <<= size & 63
				used += size
				continue
			}
			v, size := small(x)
			if size > 32 {
				d.at = at + used
				v = d.int()
				at, used = d.at, 0
				turns[j] = 0
				change[j] += v
				j++
				break
			}
			turns[j] = 0
			change[j] += v
			j++
			x <<= size
			used += size
		}
		at += used
	}
	d.at = at
}

// advance goes on by what read1 has read, and puts the buckets into row, which is
// empty if nobody wants them.
func (d *decoder) advance(row []float64) error {
	diff := d.diff
	change, turns := d.change[:len(diff)], d.turns[:len(diff)]
	if len(row) != len(diff) {
		for j, turn := range turns {
			c := change[j] + int64(int8(turn))
			change[j] = c
			diff[j] += c
		}
		return d.row(row)
	}
	row = row[:len(diff)]
	var sum, all int64
	for j, turn := range turns {
		c := change[j] + int64(int8(turn))
		change[j] = c
		c += diff[j]
		diff[j] = c
		sum += c
		all |= sum
		row[j] = float64(sum)
	}
	return counted(all)
}

// counted is an error if one of the counts that went into all is negative, or more
// than a float counts.
func counted(all int64) error {
	if uint64(all)>>53 != 0 {
		return errIrregular
	}
	return nil
}

// xor reads by which bits a sum differs from the one before.
func (d *decoder) xor(leading, trailing *uint8) uint64 {
	if d.take(1) == 0 {
		return 0
	}
	if d.take(1) == 1 {
		*leading = uint8(d.take(5))
		n := uint8(d.take(6))
		if n == 0 {
			n = 64
		}
		*trailing = 64 - *leading - n
	}
	n := 64 - *leading - *trailing
	if n == 0 {
		return 0
	}
	return d.take(uint(n)) << *trailing
}

// row puts the buckets as they are now into row, which is zero, and as wide as
// they are or empty.
func (d *decoder) row(row []float64) error {
	if len(row) == 0 {
		return nil
	}
	var sum, all int64
	for j, v := range d.diff {
		sum += v
		all |= sum
		row[d.place[j]] = float64(sum)
	}
	return counted(all)
}

// keep notes the last row read, for the first of the next chunk.
func (d *decoder) keep(r *rows, last int) error {
	if last < 0 {
		return nil
	}
	d.before = zeroed(d.before, d.width)
	d.beforeFirst, d.beforeCount, d.beforeZero, d.hasBefore = d.first, r.count[last], r.zero[last], true
	return d.row(d.before)
}

// isReset says whether a counter began anew between the row before and one of
// the present layout. It is what FloatHistogram.DetectReset says of histograms
// of one schema.
func (d *decoder) isReset(count, zero float64, row []float64) bool {
	if count < d.beforeCount || zero < d.beforeZero {
		return true
	}
	shift := int(d.beforeFirst) - int(d.first)
	for i, n := range d.before {
		if j := i + shift; j < 0 || j >= len(row) {
			if n != 0 {
				return true
			}
		} else if row[j] < n {
			return true
		}
	}
	return false
}
