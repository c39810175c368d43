package histsum

import (
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
)

// rows are the samples of one series, decoded.
type rows struct {
	t                []int64
	count, sum, zero []float64
	// reset says that the counter began anew since the row before.
	reset []bool
	lo    []int32 // number of the first bucket
	off   []int   // where the row's buckets begin in buckets; one more at the end
	all   []float64
	// schema is that of all rows; only a series without rows has none.
	schema int32
	spare  [2]*histogram.FloatHistogram
}

func (r *rows) empty() {
	r.t, r.count, r.sum, r.zero = r.t[:0], r.count[:0], r.sum[:0], r.zero[:0]
	r.reset, r.lo, r.off, r.all = r.reset[:0], r.lo[:0], r.off[:0], r.all[:0]
}

// read decodes the samples from mint to maxt. cells bounds the buckets.
func (r *rows) read(it chunkenc.Iterator, mint, maxt int64, cells int) error {
	r.empty()
	r.off = append(r.off, 0)
	var prev *histogram.FloatHistogram
	for {
		switch it.Next() {
		case chunkenc.ValNone:
			return it.Err()
		case chunkenc.ValHistogram, chunkenc.ValFloatHistogram:
		default:
			return errIrregular
		}
		t := it.AtT()
		if t < mint {
			continue
		}
		if t > maxt {
			return nil
		}
		_, h := it.AtFloatHistogram(r.spare[0])
		if value.IsStaleNaN(h.Sum) {
			r.spare[0] = h
			continue
		}
		if h.UsesCustomBuckets() || h.ZeroThreshold != 0 || len(h.NegativeBuckets) > 0 || h.CounterResetHint == histogram.GaugeType ||
			prev != nil && h.Schema != prev.Schema || len(r.all) > cells {
			return errIrregular
		}
		r.schema = h.Schema
		r.t = append(r.t, t)
		r.count, r.sum, r.zero = append(r.count, h.Count), append(r.sum, h.Sum), append(r.zero, h.ZeroCount)
		r.reset = append(r.reset, prev != nil && h.DetectReset(prev))
		if err := r.buckets(h); err != nil {
			return err
		}
		prev, r.spare[0], r.spare[1] = h, r.spare[1], h
	}
}

// maxWidth bounds the buckets of a histogram between the first and the last.
const maxWidth = 1 << 12

func (r *rows) buckets(h *histogram.FloatHistogram) error {
	at, n := int32(0), 0
	lo := int32(0)
	for i, s := range h.PositiveSpans {
		at += s.Offset
		if i == 0 {
			lo = at
		} else {
			for range s.Offset {
				r.all = append(r.all, 0)
			}
		}
		if at-lo > maxWidth || s.Length > maxWidth || n+int(s.Length) > len(h.PositiveBuckets) {
			return errIrregular
		}
		r.all = append(r.all, h.PositiveBuckets[n:n+int(s.Length)]...)
		at += int32(s.Length)
		n += int(s.Length)
	}
	r.lo = append(r.lo, lo)
	r.off = append(r.off, len(r.all))
	return nil
}

// row returns the buckets of row i and the number of the first.
func (r *rows) row(i int) (lo int, buckets []float64) {
	return int(r.lo[i]), r.all[r.off[i]:r.off[i+1]]
}
