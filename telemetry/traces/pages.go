package traces

import (
	"errors"

	"github.com/cockroachdb/pebble/v2"
)

var errBadKind = errors.New("unknown kind of posting")

// descent reads the values of one range of keys of a partition that end in the
// numbers of blocks, the newest block first.
type descent struct {
	it     *pebble.Iterator
	prefix []byte
	begun  bool
	ok     bool // it stands at a key
}

func newDescent(db *pebble.DB, prefix []byte) (*descent, error) {
	upper := append([]byte(nil), prefix...)
	upper[len(upper)-1]++ // no prefix ends in 0xff
	it, err := db.NewIter(&pebble.IterOptions{LowerBound: prefix, UpperBound: upper})
	if err != nil {
		return nil, err
	}
	return &descent{it: it, prefix: prefix}, nil
}

// at returns the value of block seq, valid until the next call, or false where
// it has none. Blocks are asked for in falling order.
func (d *descent) at(seq uint32) ([]byte, bool, error) {
	switch {
	case !d.begun:
		d.begun = true
		d.ok = d.it.SeekLT(d.key(seq + 1))
	case d.ok && d.seq() > seq:
		// Most often the one before; else look for it.
		if d.ok = d.it.Prev(); d.ok && d.seq() > seq {
			d.ok = d.it.SeekLT(d.key(seq + 1))
		}
	}
	if !d.ok || d.seq() != seq {
		return nil, false, d.it.Error()
	}
	v, err := d.it.ValueAndErr()
	return v, err == nil, err
}

func (d *descent) key(seq uint32) []byte {
	return append(append(make([]byte, 0, len(d.prefix)+4), d.prefix...), byte(seq>>24), byte(seq>>16), byte(seq>>8), byte(seq))
}

// seq is the number at the end of the key it stands at; a malformed key is as
// old as can be.
func (d *descent) seq() uint32 {
	k := d.it.Key()
	if len(k) != len(d.prefix)+4 {
		return 0
	}
	k = k[len(d.prefix):]
	return uint32(k[0])<<24 | uint32(k[1])<<16 | uint32(k[2])<<8 | uint32(k[3])
}

func (d *descent) close() error { return d.it.Close() }

// hourIndex is the index of one partition as a search reads it.
type hourIndex struct {
	s     *Store
	p     partition
	m     *matcher
	terms []*descent // one for each of m.terms
	small *descent
	// durations is nil where the query does not ask for them.
	durations *descent
	lo, hi    byte // classes of durations
}

func (s *Store) openIndex(p partition, m *matcher) (x *hourIndex, err error) {
	x = &hourIndex{s: s, p: p, m: m, lo: durationClass(m.minDuration), hi: durationClass(m.maxDuration)}
	defer func() {
		if err != nil {
			err = errors.Join(err, x.close())
		}
	}()
	if x.lo > 0 || x.hi < 255 {
		if x.durations, err = newDescent(s.db, key(p, kindDurations)); err != nil {
			return x, err
		}
	}
	if len(m.terms) == 0 {
		return x, nil
	}
	if x.small, err = newDescent(s.db, indexKey(p, smallPage, 0)[:6]); err != nil {
		return x, err
	}
	for _, h := range m.terms {
		d, err := newDescent(s.db, indexKey(p, byte(pageOf(h)), 0)[:6])
		if err != nil {
			return x, err
		}
		x.terms = append(x.terms, d)
	}
	return x, nil
}

func (x *hourIndex) close() error {
	var errs []error
	for _, d := range append(x.terms, x.small, x.durations) {
		if d != nil {
			errs = append(errs, d.close())
		}
	}
	return errors.Join(errs...)
}

// rows returns the rows of a block of n spans that may match. Blocks are asked
// for from the newest to the oldest. Where the index is missing or malformed,
// the block itself must say.
func (x *hourIndex) rows(seq uint32, n int) (rowSet, error) {
	r := rowSet{n: n}
	for i, h := range x.m.terms {
		d := x.terms[i]
		if n <= smallSpans {
			d = x.small
		}
		page, ok, err := d.at(seq)
		if err != nil {
			return r, err
		}
		if !ok {
			continue
		}
		if err := r.lookUp(page, h); err != nil {
			x.s.meters.corrupt.Inc()
			x.s.log.Error("page of the index left out of a query", "block", seq, "hour", x.p.time(), "error", err)
		}
		if r.empty() {
			return r, nil
		}
	}
	if x.durations == nil {
		return r, nil
	}
	v, ok, err := x.durations.at(seq)
	if ok {
		r.durations(v, x.lo, x.hi)
	}
	return r, err
}
