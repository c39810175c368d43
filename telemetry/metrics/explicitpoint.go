package metrics

import (
	"math"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"

	"github.com/binnacle-project/binnacle/otlp/wire"
)

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
		if len(p.shape.classic) == 0 && len(dp.Bounds) > 0 {
			// Those of an earlier run of the store end, too.
			if err := w.explicit.load(dp, w.known(fam, p), &w.s.bounds); err == nil {
				if err := w.classicSeries(res, fam, p, attrs); err != nil {
					return err
				}
			}
		}
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
	bounds := w.explicit.bounds
	n := len(bounds.les())
	list, room := make([]*Series, 0, 2+n), make([]Series, 2+n) // one piece of memory: they come and go together
	add := func(lbls labels.Labels, err error) error {
		if err != nil {
			return err
		}
		s, err := w.s.table.intern(&room[len(list)], lbls, res.owner)
		list = append(list, s)
		return err
	}
	for _, suffix := range []string{"_count", "_sum"} {
		if err := add(w.labels.series(fam.name+suffix, res.base, attrs, fam.key.kind)); err != nil {
			return err
		}
	}
	// The buckets differ in a single value.
	if err := add(w.labels.series(fam.name+"_bucket", res.base, attrs, fam.key.kind, label{leLabel, bounds.les()[0]})); err != nil {
		return err
	}
	for _, le := range bounds.les()[1:] {
		if err := add(w.labels.another(le)); err != nil {
			return err
		}
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
