package metrics

import (
	"fmt"
	"math"

	"github.com/prometheus/prometheus/model/histogram"

	"github.com/binnacle-project/binnacle/otlp/wire"
)

// defaultZeroThreshold is the width of the zero bucket of senders that name
// none, as Prometheus's own OTLP receiver sets it.
const defaultZeroThreshold = 1e-128

// expo is an exponential histogram being read, added up or encoded.
type expo struct {
	scale     int32
	threshold float64 // width of the zero bucket
	zero      uint64
	count     uint64
	sum       float64
	pos, neg  dense
}

// load fills e from a data point, reusing its memory. Scales above the finest
// that Prometheus has are brought down to it; below its coarsest there is no
// way, and the point is refused.
func (e *expo) load(p *wire.Point) error {
	e.scale = p.Scale
	if e.scale < histogram.ExponentialSchemaMin {
		return fmt.Errorf("exponential histogram has scale %d: the coarsest that can be stored is %d", e.scale, histogram.ExponentialSchemaMin)
	}
	e.threshold = p.ZeroThreshold
	if e.threshold == 0 {
		e.threshold = defaultZeroThreshold
	}
	if !(e.threshold > 0) || math.IsInf(e.threshold, 0) {
		return fmt.Errorf("exponential histogram has zero threshold %g", e.threshold)
	}
	e.zero, e.count, e.sum = p.Zero, p.Count, p.Sum
	for _, side := range []struct {
		to   *dense
		from wire.Buckets
	}{{&e.pos, p.Positive}, {&e.neg, p.Negative}} {
		n := side.from.Counts.Len()
		if int64(side.from.Offset)+int64(n) > math.MaxInt32 {
			return fmt.Errorf("exponential histogram has %d buckets from index %d on: out of range", n, side.from.Offset)
		}
		side.to.load(side.from, n)
	}
	e.downscale(max(0, e.scale-histogram.ExponentialSchemaMax))
	return e.fit()
}

// downscale lowers the scale.
func (e *expo) downscale(by int32) {
	if by <= 0 {
		return
	}
	e.pos.downscale(by)
	e.neg.downscale(by)
	e.scale -= by
}

// fit lowers the scale until the buckets are few enough.
func (e *expo) fit() error {
	for max(len(e.pos.counts), len(e.neg.counts)) > maxBuckets {
		if e.scale <= histogram.ExponentialSchemaMin {
			return fmt.Errorf("exponential histogram has more than %d buckets at the coarsest scale", maxBuckets)
		}
		e.downscale(1)
	}
	return nil
}

// add adds o, whose threshold must be equal, to e. It may lower the scale of
// both.
func (e *expo) add(o *expo) error {
	switch {
	case e.scale > o.scale:
		e.downscale(e.scale - o.scale)
	case o.scale > e.scale:
		o.downscale(o.scale - e.scale)
	}
	for max(width(e.pos, o.pos), width(e.neg, o.neg)) > maxBuckets {
		if e.scale <= histogram.ExponentialSchemaMin {
			return fmt.Errorf("sum of exponential histograms has more than %d buckets at the coarsest scale", maxBuckets)
		}
		e.downscale(1)
		o.downscale(1)
	}
	e.pos.add(o.pos)
	e.neg.add(o.neg)
	e.zero += o.zero
	e.count += o.count
	e.sum += o.sum
	return nil
}

// clone returns a copy that shares nothing.
func (e *expo) clone() *expo {
	c := *e
	c.pos.counts = append([]uint64(nil), e.pos.counts...)
	c.neg.counts = append([]uint64(nil), e.neg.counts...)
	return &c
}

// encode returns the stored form. The reset hint stays unknown, which is
// always safe: the TSDB does not check a claim of "no reset" and breaks on a
// false one.
func (e *expo) encode(enc *bucketEncoder, s *shape) (*histogram.Histogram, *smallHistogram, error) {
	h, small, err := enc.encode(e.scale, e.pos, e.neg, 1, s.laidOut())
	if err != nil {
		return nil, nil, err
	}
	h.ZeroThreshold = e.threshold
	h.ZeroCount = e.zero
	h.Count = e.count
	h.Sum = e.sum
	return h, small, nil
}
