package metrics

import (
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
)

// unixMillis is a time as the TSDB has it. As an alias it keeps vet from taking
// the Seek of its iterators for that of io.Seeker.
type unixMillis = int64

// scalarSet turns native histogram series into their _count or _sum.
type scalarSet struct {
	storage.SeriesSet
	name string
	part part
}

// At returns the current series. One that holds no histogram (the quantiles of
// a summary) has no samples.
func (s *scalarSet) At() storage.Series {
	inner := s.SeriesSet.At()
	return &scalarSeries{inner: inner, lbls: rename(inner.Labels(), s.name), part: s.part}
}

type scalarSeries struct {
	inner storage.Series
	lbls  labels.Labels
	part  part
}

func (s *scalarSeries) Labels() labels.Labels { return s.lbls }

func (s *scalarSeries) Iterator(reuse chunkenc.Iterator) chunkenc.Iterator {
	it, ok := reuse.(*scalarIterator)
	if !ok {
		it = &scalarIterator{}
	}
	it.inner = s.inner.Iterator(it.inner)
	it.part = s.part
	it.t, it.v = 0, 0
	return it
}

// scalarIterator reads one number of each histogram.
type scalarIterator struct {
	inner chunkenc.Iterator
	part  part
	h     histogram.Histogram // memory for reading
	fh    histogram.FloatHistogram
	t     int64
	v     float64
}

func (it *scalarIterator) Next() chunkenc.ValueType { return it.take(it.inner.Next()) }

func (it *scalarIterator) Seek(t unixMillis) chunkenc.ValueType { return it.take(it.inner.Seek(t)) }

// take reads the sample that inner stands on, or the next that is a histogram.
func (it *scalarIterator) take(vt chunkenc.ValueType) chunkenc.ValueType {
	for ; vt != chunkenc.ValNone; vt = it.inner.Next() {
		if vt == chunkenc.ValFloat {
			continue
		}
		var sum float64
		if vt == chunkenc.ValHistogram { // as stored: nothing is added up
			var h *histogram.Histogram
			it.t, h = it.inner.AtHistogram(&it.h)
			it.v, sum = float64(h.Count), h.Sum
		} else {
			var h *histogram.FloatHistogram
			it.t, h = it.inner.AtFloatHistogram(&it.fh)
			it.v, sum = h.Count, h.Sum
		}
		if it.part == partSum || value.IsStaleNaN(sum) {
			it.v = sum // the marker of staleness stands there
		}
		return chunkenc.ValFloat
	}
	return chunkenc.ValNone
}

func (it *scalarIterator) At() (int64, float64) { return it.t, it.v }

func (it *scalarIterator) AtHistogram(*histogram.Histogram) (int64, *histogram.Histogram) {
	panic("BUG: histogram asked of a float series")
}

func (it *scalarIterator) AtFloatHistogram(*histogram.FloatHistogram) (int64, *histogram.FloatHistogram) {
	panic("BUG: histogram asked of a float series")
}

func (it *scalarIterator) AtT() int64 { return it.t }

func (it *scalarIterator) AtST() int64 { return it.inner.AtST() }

func (it *scalarIterator) Err() error { return it.inner.Err() }
