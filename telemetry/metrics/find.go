package metrics

import (
	binnacle "github.com/binnacle-project/binnacle"
	"github.com/binnacle-project/binnacle/otlp/wire"
)

// This file takes the writer from what a request says to the entries of the cache:
// resource, family and point, each made at need.

// lockResource returns the resource of attrs, locked, making it at need.
func (w *writer) lockResource(attrs wire.Attrs) *resource {
	w.resKey = appendResourceKey(w.resKey[:0], w.origin, attrs)
	for {
		res := w.s.cache.get(w.resKey)
		if res == nil {
			res = w.s.cache.put(w.resKey, w.newResource(attrs))
		}
		res.mu.Lock()
		if !res.gone {
			return res
		}
		res.mu.Unlock() // left the cache between get and Lock
		w.s.cache.forget(w.resKey, res)
	}
}

// unlockResource unlocks the resource that is locked, if one is. It drops it from
// the cache again if none of its points could be stored: refused senders cost no
// memory.
func (w *writer) unlockResource() {
	res := w.locked
	if res == nil {
		return
	}
	w.locked = nil
	if res.points == 0 {
		res.gone = true
		w.s.cache.forget(w.resKey, res)
	}
	res.mu.Unlock()
}

func (w *writer) newResource(attrs wire.Attrs) *resource {
	base, info := resourceLabels(attrs)
	for i := range base {
		base[i].value = w.labels.clean(base[i].value)
	}
	return &resource{
		owner: w.s.table.ownerOf(w.origin.Managed, get(base, binnacle.LabelInstance)),
		base:  base,
		info:  info,
		used:  w.now,
	}
}

// family returns the family of key, making it at need.
func (w *writer) family(res *resource, key familyKey, help string) (*family, error) {
	likely := res.first
	if w.family0 != nil {
		likely = w.family0.after
	}
	if likely != nil && likely.key == key {
		w.family0 = likely
		return likely, nil
	}
	if f := res.families.get(key); f != nil {
		w.follows(res, f)
		return f, nil
	}
	n, err := w.s.names.get(key)
	if err != nil {
		return nil, err
	}
	f := &family{named: n}
	if len(res.families.list) < maxFamilies {
		res.families.add(f)
		w.follows(res, f)
	} else {
		f.passing = true
	}
	w.s.meta.add(n, help)
	return f, nil
}

// follows notes that f came after the family before.
func (w *writer) follows(res *resource, f *family) {
	if w.family0 == nil {
		res.first = f
	} else {
		w.family0.after = f
	}
	w.family0 = f
}

// maxFamilies bounds the metrics of one resource that are cached.
const maxFamilies = 10_000

// point returns the cached point of dp, making it at need by resolve, which
// fills in its series. shaped ones have a shape. It is valid until the next call at
// least.
func (w *writer) point(res *resource, fam *family, dp *wire.Point, shaped bool, resolve func(*point) error) (*point, error) {
	p := fam.first
	if w.point0 != nil {
		p = w.point0.after
	}
	var h uint64
	if p == nil || p.key != string(dp.Key) {
		h = w.s.cache.hash(dp.Key)
		p = fam.points.get(h, dp.Key)
	}
	if p != nil {
		w.comes(fam, p)
		if p.alive() {
			w.hits++
			if p.shape != nil {
				dp.Cell = &p.shape.cell
			}
			return p, nil
		}
	}
	w.misses++
	fresh := w.room.next(shaped)
	if err := resolve(fresh); err != nil {
		return nil, err
	}
	w.room.taken(fresh)
	switch {
	case p != nil: // its series left memory: follow the new one
		p.series, p.shape, p.exemplar = fresh.series, fresh.shape, fresh.exemplar
		return p, nil
	case fam.passing:
		w.uncached++
	case res.owner.points.Load() < pointsPerSeries*res.owner.max:
		fresh.hash, fresh.key = h, w.room.key(dp.Key)
		fam.points.add(fresh)
		w.comes(fam, fresh)
		res.points++
		w.added++
		res.owner.points.Add(1)
		if fresh.shape != nil {
			dp.Cell = &fresh.shape.cell
		}
	default:
		w.uncached++
	}
	return fresh, nil
}

// comes notes that p came after the point before.
func (w *writer) comes(fam *family, p *point) {
	if w.point0 == nil {
		fam.first = p
	} else {
		w.point0.after = p
	}
	w.point0 = p
}

// one resolves a point that has a single series.
func (w *writer) one(res *resource, fam *family, dp *wire.Point, shaped bool) (*point, error) {
	return w.point(res, fam, dp, shaped, func(p *point) (err error) {
		p.series, err = w.series(&p.own, res, fam, fam.name, dp.Key)
		return err
	})
}

// series interns the series of a point under the given name. It lies in room if
// it is new.
func (w *writer) series(room *Series, res *resource, fam *family, name string, attrs wire.PointAttrs, extra ...label) (*Series, error) {
	lbls, err := w.labels.series(name, res.base, attrs, fam.key.kind, extra...)
	if err != nil {
		return nil, err
	}
	return w.s.table.intern(room, lbls, res.owner)
}
