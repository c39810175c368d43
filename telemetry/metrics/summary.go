package metrics

import (
	"github.com/prometheus/prometheus/storage"

	"github.com/binnacle-project/binnacle/otlp/wire"
)

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
