package histsum

import (
	"slices"

	"github.com/prometheus/prometheus/tsdb/chunkenc"
)

// rows are the samples of one series, decoded.
type rows struct {
	t                []int64
	count, sum, zero []float64
	// reset says that the counter began anew since the row before.
	reset []bool
	lo    []int32 // number of the first bucket
	off   []int   // where the row's buckets begin in all; one more at the end
	all   []float64
	// schema and, of custom buckets, bounds are those of all rows; only a series
	// without rows has none.
	schema int32
	bounds []float64

	decoder decoder
}

func (r *rows) empty() {
	r.t, r.count, r.sum, r.zero = r.t[:0], r.count[:0], r.sum[:0], r.zero[:0]
	r.reset, r.lo, r.off, r.all = r.reset[:0], r.lo[:0], append(r.off[:0], 0), r.all[:0]
	r.decoder.hasBefore = false
}

// grow returns room for n more buckets, zeros.
func (r *rows) grow(n int) []float64 {
	from := len(r.all)
	r.all = slices.Grow(r.all, n)[:from+n]
	clear(r.all[from:])
	return r.all[from:]
}

// read decodes the samples from mint to maxt of a series. Without buckets the
// rows have none. cells bounds the buckets.
func (r *rows) read(pieces []piece, mint, maxt int64, buckets bool, cells int) error {
	r.empty()
	for _, p := range pieces {
		if p.max < mint || p.min > maxt {
			continue
		}
		more, err := true, error(nil)
		if p.it != nil {
			more, err = r.iterate(p.it, mint, maxt, buckets, cells)
		} else {
			more, err = r.decoder.read(p.chunk, r, mint, maxt, buckets, cells)
		}
		if err != nil || !more {
			return err
		}
	}
	return nil
}

// iterate reads a chunk of which not all samples may be seen yet.
func (r *rows) iterate(it chunkenc.Iterator, mint, maxt int64, buckets bool, cells int) (more bool, err error) {
	chunk := chunkenc.NewHistogramChunk()
	app, err := chunk.Appender()
	if err != nil {
		return false, err
	}
	for it.Next() == chunkenc.ValHistogram {
		t, h := it.AtHistogram(nil)
		next, _, _, err := app.AppendHistogram(nil, 0, t, h, true)
		if err != nil || next != nil {
			return false, errIrregular
		}
	}
	if err := it.Err(); err != nil {
		return false, err
	}
	return r.decoder.read(chunk.Bytes(), r, mint, maxt, buckets, cells)
}

// maxWidth bounds the buckets of a histogram between the first and the last.
const maxWidth = 1 << 12

// row returns the buckets of row i and the number of the first.
func (r *rows) row(i int) (lo int, buckets []float64) {
	return int(r.lo[i]), r.all[r.off[i]:r.off[i+1]]
}
