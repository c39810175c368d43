package metrics

import (
	"fmt"
	"math"
	"slices"
	"strconv"

	"github.com/prometheus/prometheus/model/histogram"
	"go.opentelemetry.io/collector/pdata/pmetric"
)

// explicit is an explicit-bucket histogram being read, added up or encoded.
// counts has one more element than bounds.
type explicit struct {
	bounds []float64 // never changed once set: stored samples share it
	counts []uint64
	count  uint64
	sum    float64
}

// load fills e from a data point, reusing the memory of its counts and, if
// they are equal, the given bounds. A bound of +Inf, which the data model has
// no use for but senders send, is dropped with its bucket merged.
func (e *explicit) load(p pmetric.HistogramDataPoint, known []float64) error {
	src, counts := p.ExplicitBounds(), p.BucketCounts()
	n := src.Len()
	if counts.Len() != n+1 && !(counts.Len() == 0 && n == 0) {
		return fmt.Errorf("histogram has %d bounds and %d buckets: want one bucket more than bounds, or none of both", n, counts.Len())
	}
	if n > maxBuckets {
		return fmt.Errorf("histogram has %d bounds: at most %d are stored", n, maxBuckets)
	}
	e.count, e.sum = p.Count(), p.Sum()
	e.counts = e.counts[:0]
	for i := range counts.Len() {
		e.counts = append(e.counts, counts.At(i))
	}
	if len(e.counts) == 0 { // count and sum only
		e.counts = append(e.counts, e.count)
	}
	if n > 0 && math.IsInf(src.At(n-1), 1) {
		n--
		e.counts[n] += e.counts[n+1]
		e.counts = e.counts[:n+1]
	}
	same := len(known) == n
	for i := 0; i < n && same; i++ {
		same = known[i] == src.At(i)
	}
	if same {
		e.bounds = known
		return nil
	}
	e.bounds = make([]float64, n)
	for i := range e.bounds {
		e.bounds[i] = src.At(i)
		if math.IsNaN(e.bounds[i]) || i > 0 && e.bounds[i] <= e.bounds[i-1] {
			return fmt.Errorf("histogram bounds do not rise at %g", e.bounds[i])
		}
	}
	return nil
}

// add adds o, whose bounds must be equal, to e.
func (e *explicit) add(o *explicit) {
	for i, c := range o.counts {
		e.counts[i] += c
	}
	e.count += o.count
	e.sum += o.sum
}

// clone returns a copy that shares only the bounds.
func (e *explicit) clone() *explicit {
	c := *e
	c.counts = slices.Clone(e.counts)
	return &c
}

// encode returns the stored form: a native histogram with custom buckets.
func (e *explicit) encode(enc *bucketEncoder, l *layout) (*histogram.Histogram, error) {
	row := dense{counts: e.counts}
	for len(row.counts) > 0 && row.counts[0] == 0 {
		row.counts = row.counts[1:]
		row.offset++
	}
	h, err := enc.encode(histogram.CustomBucketsSchema, row, dense{}, 0, l)
	if err != nil {
		return nil, err
	}
	h.CustomValues = e.bounds
	h.Count = e.count
	h.Sum = e.sum
	return h, nil
}

// formatBound writes a bound as the le label has it.
func formatBound(v float64) string { return strconv.FormatFloat(v, 'f', -1, 64) }
