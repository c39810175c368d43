package metrics

import (
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/storage"

	"github.com/binnacle-project/binnacle/otlp/wire"
)

func (w *writer) number(res *resource, fam *family, dp *wire.Point) error {
	t, err := w.when(dp.Time)
	if err != nil {
		return err
	}
	p, err := w.one(res, fam, dp, false)
	if err != nil {
		return err
	}
	s := p.series
	v := dp.Value
	start := dp.Start
	switch {
	case dp.NoValue:
		return w.float(fam, s, t, staleNaN, storage.AppendV2Options{})
	case fam.key.kind.delta():
		if v, start, err = s.addDelta(v, start, dp.Time); err != nil {
			return err
		}
	}
	if fam.key.kind == kindCounter || fam.key.kind == kindCounterDelta {
		if zero, ok := fam.zeroAt(s, start, t); ok {
			if err := s.appendZeroFloat(w.app, zero); err != nil {
				return err
			}
		}
	}
	return w.float(fam, s, t, v, storage.AppendV2Options{Exemplars: w.exemplars(dp.Exemplars, p, t)})
}

// addDelta adds an increase to the series' sum and returns the sum and its
// start.
func (s *Series) addDelta(v float64, start, at uint64) (float64, uint64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	d, err := s.nextDeltaLocked(start, at)
	if err != nil {
		return 0, 0, err
	}
	d.value += v
	return d.value, d.start, nil
}

// float appends one float sample.
func (w *writer) float(fam *family, s *Series, t int64, v float64, o storage.AppendV2Options) error {
	if value.IsStaleNaN(v) && !w.exists(s) {
		fam.stamp(t)
		return nil
	}
	if err := w.stored(s.appendFloat(w.app, t, v, o)); err != nil {
		return err
	}
	fam.stamp(t)
	return nil
}

func (w *writer) exponential(res *resource, fam *family, dp *wire.Point) error {
	t, err := w.when(dp.Time)
	if err != nil {
		return err
	}
	p, err := w.one(res, fam, dp, true)
	if err != nil {
		return err
	}
	if dp.NoValue {
		return w.stale(fam, p, t)
	}
	if err := w.expo.load(dp); err != nil {
		return err
	}
	if !fam.key.kind.delta() {
		return w.native(fam, p, t, dp.Start, &w.expo, dp.Exemplars)
	}
	s := p.series
	s.mu.Lock()
	defer s.mu.Unlock()
	d, err := s.nextDeltaLocked(dp.Start, dp.Time)
	if err != nil {
		return err
	}
	if err := d.addExpo(&w.expo, dp.Start); err != nil {
		return err
	}
	return w.native(fam, p, t, d.start, d.expo, dp.Exemplars)
}

// nativeForm is what native asks of a histogram that was read.
type nativeForm interface {
	encode(*bucketEncoder, *shape) (*histogram.Histogram, *smallHistogram, error)
}

// native appends one native histogram sample, with a zero before a new one.
func (w *writer) native(fam *family, p *point, t int64, start uint64, e nativeForm, exs []wire.Exemplar) error {
	h, small, err := e.encode(&w.buckets, p.shape)
	if err != nil {
		return err
	}
	var empty *smallHistogram
	if zero, ok := fam.zeroAt(p.series, start, t); ok {
		empty = w.buckets.recycler.get()
		if err := p.series.appendZero(w.app, zero, &empty.Histogram, h); err != nil {
			return err
		}
	}
	err = p.series.appendHistogram(w.app, t, h, storage.AppendV2Options{Exemplars: w.exemplars(exs, p, t)})
	if err := w.stored(err); err != nil {
		return err
	}
	w.buckets.recycler.hold(p, t, small, empty)
	fam.stamp(t)
	return nil
}

// exists reports whether a series has samples in memory. The end of one that has
// none is not stored: there is nothing to end, and the zero before its first value
// belongs there.
func (w *writer) exists(s *Series) bool {
	if s.ref.Load() != 0 {
		return true
	}
	head, ok := w.app.(storage.GetRef)
	if !ok {
		return true
	}
	ref, _ := head.GetRef(s.lbls, s.lbls.Hash())
	return ref != 0
}

// stale ends a native series: the sender says that there is no value now.
func (w *writer) stale(fam *family, p *point, t int64) error {
	if !w.exists(p.series) {
		fam.stamp(t)
		return nil
	}
	if err := p.series.appendHistogram(w.app, t, staleHistogram(), storage.AppendV2Options{}); err != nil {
		return err
	}
	w.buckets.recycler.hold(p, t, nil, nil)
	fam.stamp(t)
	return nil
}
