package wire

import "math"

// noRecordedValue is the one flag there is.
const noRecordedValue = 1

// fieldsOf says which field numbers the points of a type use for what all have.
var fieldsOf = [...]struct{ attrs, exemplars, flags byte }{
	Gauge:       {7, 5, 8},
	Sum:         {7, 5, 8},
	Histogram:   {9, 8, 10},
	Exponential: {1, 11, 10},
	Summary:     {7, 0, 8},
}

// point reads one data point of a type.
func (r *reader) point(of Type, b []byte) error {
	if err := r.element(); err != nil {
		return err
	}
	m := r.m
	if err := room(&r.checker, &m.points, 1, pointBytes); err != nil {
		return err
	}
	m.points = m.points[:len(m.points)+1]
	p := &m.points[len(m.points)-1]
	*p = Point{}

	var (
		f         = fieldsOf[of]
		attrs     attrRun
		exemplars = len(m.exemplars)
		quantiles = len(m.quantiles)
		seen      uint32 // fields that may come once
	)
	for i := 0; i < len(b); {
		tag := b[i]
		if tag >= 0x80 {
			return ErrOdd
		}
		field := tag >> 3
		switch tag & 7 {
		case fixed64Type:
			n, next := fixed64At(b, i+1)
			if next < 0 || !p.fixed64(of, field, n) {
				return ErrOdd
			}
			i = next
		case bytesType:
			v, next := bytesAt(b, i+1)
			if next < 0 {
				return ErrOdd
			}
			switch field {
			case f.attrs:
				key, err := attrs.take(&r.checker, "data point", v, i, next)
				if err != nil {
					return err
				}
				if reserved(key) {
					p.Reserved = true
				}
			case f.exemplars:
				if err := r.exemplar(v); err != nil {
					return err
				}
			default:
				if seen&(1<<field) != 0 && !(of == Summary && field == 6) {
					return ErrOdd
				}
				seen |= 1 << field
				if err := r.message(p, of, field, v); err != nil {
					return err
				}
			}
			i = next
		case varintType:
			n, next := varint(b, i+1)
			if next < 0 {
				return ErrOdd
			}
			switch {
			case field == f.flags:
				p.NoValue = uint32(n)&noRecordedValue != 0
			case of == Exponential && field == 6:
				p.Scale = zigzag(n)
			default:
				return ErrOdd
			}
			i = next
		default:
			return ErrOdd
		}
	}
	p.Key = attrs.of(b)
	if len(m.exemplars) > exemplars {
		p.Exemplars = m.exemplars[exemplars:len(m.exemplars):len(m.exemplars)]
	}
	if len(m.quantiles) > quantiles {
		p.Quantiles = m.quantiles[quantiles:len(m.quantiles):len(m.quantiles)]
	}
	return nil
}

// fixed64 sets a field of eight bytes.
func (p *Point) fixed64(of Type, field byte, n uint64) bool {
	switch field {
	case 2:
		p.Start = n
		return true
	case 3:
		p.Time = n
		return true
	}
	if of == Gauge || of == Sum {
		switch field {
		case 4:
			p.Value = math.Float64frombits(n)
		case 6:
			p.Value = float64(int64(n))
		default:
			return false
		}
		return true
	}
	switch field {
	case 4:
		p.Count = n
	case 5:
		p.Sum = math.Float64frombits(n)
	case 7:
		if of != Exponential {
			return false
		}
		p.Zero = n
	case 11:
		return of == Histogram // least
	case 12:
		return of == Histogram || of == Exponential // greatest, least
	case 13:
		return of == Exponential // greatest
	case 14:
		if of != Exponential {
			return false
		}
		p.ZeroThreshold = math.Float64frombits(n)
	default:
		return false
	}
	return true
}

// message sets a field that is of one type of points only.
func (r *reader) message(p *Point, of Type, field byte, v []byte) error {
	switch {
	case of == Histogram && field == 6 && len(v)%8 == 0:
		p.Counts = v
	case of == Histogram && field == 7 && len(v)%8 == 0:
		p.Bounds = v
	case of == Exponential && field == 8:
		return r.buckets(&p.Positive, v)
	case of == Exponential && field == 9:
		return r.buckets(&p.Negative, v)
	case of == Summary && field == 6:
		return r.quantile(v)
	default:
		return ErrOdd
	}
	return nil
}

// manyBuckets is a row for which leave is asked: its readers take eight bytes for
// each bucket, which has one here.
const manyBuckets = 4 << 10

func (r *reader) buckets(u *Buckets, b []byte) error {
	if len(b) > manyBuckets {
		if err := r.take(8 * int64(len(b))); err != nil {
			return err
		}
	}
	w := walk{b: b}
	for w.next() {
		switch {
		case w.tag == 1<<3|varintType:
			u.Offset = zigzag(w.n)
		case w.tag == 2<<3|bytesType && u.Counts == nil:
			for j := 0; j < len(w.v); {
				if w.v[j] < 0x80 {
					j++
					continue
				}
				if _, j = varint(w.v, j); j < 0 {
					return ErrOdd
				}
			}
			u.Counts = w.v
		default:
			return ErrOdd
		}
	}
	return w.err()
}

func (r *reader) exemplar(b []byte) error {
	if err := r.element(); err != nil {
		return err
	}
	m := r.m
	if err := room(&r.checker, &m.exemplars, 1, exemplarBytes); err != nil {
		return err
	}
	var e Exemplar
	var attrs attrRun
	w := walk{b: b}
	for {
		at := w.at
		if !w.next() {
			break
		}
		switch field := w.tag >> 3; {
		case w.tag == 2<<3|fixed64Type:
			e.Time = w.n
		case w.tag == 3<<3|fixed64Type:
			e.Value, e.HasValue = math.Float64frombits(w.n), true
		case w.tag == 6<<3|fixed64Type:
			e.Value, e.HasValue = float64(int64(w.n)), true
		case w.tag&7 != bytesType:
			return ErrOdd
		case field == 4 && (len(w.v) == 0 || len(w.v) == 8):
			e.SpanID = w.v
		case field == 5 && (len(w.v) == 0 || len(w.v) == 16):
			e.TraceID = w.v
		case field == 7:
			if _, err := attrs.take(&r.checker, "exemplar", w.v, at, w.at); err != nil {
				return err
			}
		default:
			return ErrOdd
		}
	}
	if err := w.err(); err != nil {
		return err
	}
	e.Attrs = attrs.of(b)
	m.exemplars = append(m.exemplars, e)
	return nil
}

func (r *reader) quantile(b []byte) error {
	if err := r.element(); err != nil {
		return err
	}
	m := r.m
	if err := room(&r.checker, &m.quantiles, 1, quantileBytes); err != nil {
		return err
	}
	var q Quantile
	w := walk{b: b}
	for w.next() {
		switch w.tag {
		case 1<<3 | fixed64Type:
			q.Quantile = math.Float64frombits(w.n)
		case 2<<3 | fixed64Type:
			q.Value = math.Float64frombits(w.n)
		default:
			return ErrOdd
		}
	}
	m.quantiles = append(m.quantiles, q)
	return w.err()
}
