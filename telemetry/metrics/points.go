package metrics

import (
	"math"

	"github.com/prometheus/prometheus/model/histogram"
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

func (w *writer) explicitPoint(res *resource, fam *family, dp *wire.Point) error {
	t, err := w.when(dp.Time)
	if err != nil {
		return err
	}
	attrs := dp.Key
	// The series of the fam.name itself exists in every form: as the native
	// histogram, or, when only classic series are stored, as the _count.
	p, err := w.point(res, fam, dp, true, func(p *point) (err error) {
		name := fam.name
		if w.s.opts.Histograms == Classic {
			name += "_count"
		}
		p.series, err = w.series(&p.own, res, fam, name, attrs)
		return err
	})
	if err != nil {
		return err
	}
	if dp.NoValue {
		return w.staleExplicit(fam, p, t)
	}
	if err := w.explicit.load(dp, w.known(fam, p), &w.s.bounds); err != nil {
		return err
	}
	if err := w.classicSeries(res, fam, p, attrs); err != nil {
		return err
	}
	p.shape.bounds, fam.bounds = w.explicit.bounds, w.explicit.bounds
	if !fam.key.kind.delta() {
		return w.storeExplicit(fam, p, t, dp.Start, &w.explicit, dp)
	}
	s := p.series
	s.mu.Lock()
	defer s.mu.Unlock()
	d, err := s.nextDeltaLocked(dp.Start, dp.Time)
	if err != nil {
		return err
	}
	d.addExplicit(&w.explicit, dp.Start)
	return w.storeExplicit(fam, p, t, d.start, d.explicit, dp)
}

// known returns the bounds that the next histogram of p most probably has.
func (w *writer) known(fam *family, p *point) *bounds {
	if p.shape.bounds != nil {
		return p.shape.bounds
	}
	return fam.bounds
}

// storeExplicit appends the native sample, the classic ones, or both.
func (w *writer) storeExplicit(fam *family, p *point, t int64, start uint64, e *explicit, dp *wire.Point) error {
	if w.s.opts.Histograms != Native {
		if err := w.classic(fam, p, t, start, e, dp); err != nil {
			return err
		}
	}
	if w.s.opts.Histograms == Classic {
		return nil
	}
	return w.native(fam, p, t, start, e, dp.Exemplars)
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

// stale ends a native series: the sender says that there is no value now.
func (w *writer) stale(fam *family, p *point, t int64) error {
	if err := p.series.appendHistogram(w.app, t, staleHistogram(), storage.AppendV2Options{}); err != nil {
		return err
	}
	w.buckets.recycler.hold(p, t, nil, nil)
	fam.stamp(t)
	return nil
}

// staleExplicit ends all stored forms of an explicit-bucket histogram.
func (w *writer) staleExplicit(fam *family, p *point, t int64) error {
	for _, s := range p.shape.classic {
		if err := w.float(fam, s, t, staleNaN, storage.AppendV2Options{}); err != nil {
			return err
		}
	}
	switch {
	case w.s.opts.Histograms != Classic:
		return w.stale(fam, p, t)
	case len(p.shape.classic) == 0: // never had a value
		return w.float(fam, p.series, t, staleNaN, storage.AppendV2Options{})
	}
	return nil
}

// classicSeries makes the classic series of a point whose bounds are new:
// _count, _sum, and one _bucket for each bound and +Inf.
func (w *writer) classicSeries(res *resource, fam *family, p *point, attrs wire.PointAttrs) error {
	if w.s.opts.Histograms == Native {
		return nil
	}
	if len(p.shape.classic) > 0 && p.shape.bounds == w.explicit.bounds {
		return nil
	}
	bounds := w.explicit.bounds.upper
	list := make([]*Series, 0, len(bounds)+3)
	add := func(suffix string, extra ...label) error {
		s, err := w.series(&Series{}, res, fam, fam.name+suffix, attrs, extra...)
		list = append(list, s)
		return err
	}
	if err := add("_count"); err != nil {
		return err
	}
	if err := add("_sum"); err != nil {
		return err
	}
	for _, b := range bounds {
		if err := add("_bucket", label{leLabel, formatBound(b)}); err != nil {
			return err
		}
	}
	if err := add("_bucket", label{leLabel, "+Inf"}); err != nil {
		return err
	}
	p.shape.classic = list
	return nil
}

// classic appends the classic samples of a point.
func (w *writer) classic(fam *family, p *point, t int64, start uint64, e *explicit, dp *wire.Point) error {
	one := func(s *Series, v float64, o storage.AppendV2Options) error {
		if zero, ok := fam.zeroAt(s, start, t); ok {
			if err := s.appendZeroFloat(w.app, zero); err != nil {
				return err
			}
		}
		return w.stored(s.appendFloat(w.app, t, v, o))
	}
	// Exemplars go to the buckets they fall into; a native series, if there
	// is one, takes them instead.
	if w.s.opts.Histograms == Classic {
		w.exemplars(dp.Exemplars, p, t)
	} else {
		w.exs = w.exs[:0]
	}
	count, sum, buckets := p.shape.classic[0], p.shape.classic[1], p.shape.classic[2:]
	if err := one(count, float64(e.count), storage.AppendV2Options{}); err != nil {
		return err
	}
	if err := one(sum, e.sum, storage.AppendV2Options{}); err != nil {
		return err
	}
	var cumulative uint64
	lower := math.Inf(-1)
	for i, s := range buckets {
		upper := math.Inf(1)
		if i < len(e.bounds.upper) {
			upper = e.bounds.upper[i]
		}
		cumulative += e.counts[i]
		v := float64(cumulative)
		if i == len(buckets)-1 {
			v = float64(e.count)
		}
		var o storage.AppendV2Options
		for _, ex := range w.exs {
			if ex.Value > lower && ex.Value <= upper {
				o.Exemplars = append(o.Exemplars, ex)
			}
		}
		if err := one(s, v, o); err != nil {
			return err
		}
		lower = upper
	}
	fam.stamp(t)
	return nil
}

func (w *writer) summary(res *resource, fam *family, dp *wire.Point) error {
	t, err := w.when(dp.Time)
	if err != nil {
		return err
	}
	attrs := dp.Key
	p, err := w.point(res, fam, dp, true, func(p *point) (err error) {
		p.series, err = w.series(&p.own, res, fam, fam.name+"_count", attrs)
		return err
	})
	if err != nil {
		return err
	}
	if err := w.summarySeries(res, fam, p, dp); err != nil {
		return err
	}
	count, sum := float64(dp.Count), dp.Sum
	gone := dp.NoValue
	if gone {
		count, sum = staleNaN, staleNaN
	} else {
		for _, s := range p.shape.classic[:2] {
			if zero, ok := fam.zeroAt(s, dp.Start, t); ok {
				if err := s.appendZeroFloat(w.app, zero); err != nil {
					return err
				}
			}
		}
	}
	if err := w.float(fam, p.shape.classic[0], t, count, storage.AppendV2Options{}); err != nil {
		return err
	}
	if err := w.float(fam, p.shape.classic[1], t, sum, storage.AppendV2Options{}); err != nil {
		return err
	}
	for i, s := range p.shape.classic[2:] {
		v := staleNaN
		if qs := dp.Quantiles; !gone && i < len(qs) {
			v = qs[i].Value
		}
		if err := w.float(fam, s, t, v, storage.AppendV2Options{}); err != nil {
			return err
		}
	}
	return nil
}

// summarySeries makes the series of a summary whose quantiles are new; they
// stand in p.shape.quantiles.
func (w *writer) summarySeries(res *resource, fam *family, p *point, dp *wire.Point) error {
	qs := dp.Quantiles
	same := len(p.shape.classic) > 0 && (len(p.shape.quantiles) == len(qs) || dp.NoValue)
	for i := 0; same && i < min(len(qs), len(p.shape.quantiles)); i++ {
		same = p.shape.quantiles[i] == qs[i].Quantile
	}
	if same {
		return nil
	}
	sum, err := w.series(&Series{}, res, fam, fam.name+"_sum", dp.Key)
	if err != nil {
		return err
	}
	list, quantiles := []*Series{p.series, sum}, make([]float64, len(qs))
	for i := range quantiles {
		quantiles[i] = qs[i].Quantile
		s, err := w.series(&Series{}, res, fam, fam.name, dp.Key, label{quantileLabel, formatBound(quantiles[i])})
		if err != nil {
			return err
		}
		list = append(list, s)
	}
	p.shape.classic, p.shape.quantiles = list, quantiles
	return nil
}

// targetInfoEvery is how often the attributes of a resource are stored again:
// often enough that a query's look-back of five minutes always finds them.
const targetInfoEvery = 60_000 // ms

var targetInfoNamed = &named{key: familyKey{kind: kindGauge}, name: targetInfo}

// targetInfo stores what else is known of a resource, as the labels of a
// series whose value is 1. A refusal is not told: it is no point of the sender.
func (w *writer) targetInfo(res *resource, t int64) {
	if res.info == nil || t < res.infoAt+targetInfoEvery && t >= res.infoAt {
		return
	}
	if res.infoTo == nil || res.infoTo.dead.Load() {
		w.labels.list = append(w.labels.list[:0], res.info...)
		lbls, err := w.labels.build(targetInfo, res.base, kindUnknown)
		if err != nil {
			return
		}
		if res.infoTo, err = w.s.table.intern(&Series{}, lbls, res.owner); err != nil {
			return
		}
		w.s.meta.add(targetInfoNamed, "What a sender says of itself.")
	}
	if err := res.infoTo.appendFloat(w.app, t, 1, storage.AppendV2Options{}); err == nil {
		res.infoAt = t
	}
}
