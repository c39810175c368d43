package activity

import (
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"

	"github.com/binnacle-project/binnacle"
)

// refiller turns the stored samples of one roll-up metric back into bookings.
type refiller struct {
	a     *Aggregator
	kind  rollupKind
	until int64 // Unix ns: what is younger comes from the streams

	labels labels.Labels
	id     rollupID
	ok     bool // labels are of a series that we write
	last   *cumulative
	lastT  int64 // Unix ms
	booked []booked
}

type booked struct {
	t   int64 // Unix ns
	inc increase
}

// sample takes one stored sample. It is the callback of Rollups.Select.
func (f *refiller) sample(l labels.Labels, t int64, h *histogram.Histogram) bool {
	if !labels.Equal(l, f.labels) {
		f.finish()
		f.labels = l
		f.id, f.ok = rollupIDOf(f.kind, l)
	}
	if !f.ok {
		return true
	}
	c, ok := fromNative(h)
	if !ok {
		return true
	}
	if f.last != nil && t*1e6 <= f.until {
		from := f.last
		if !c.covers(from) {
			from = &cumulative{} // the counter began anew
		}
		if inc := c.since(from); inc.count > 0 {
			f.booked = append(f.booked, booked{t * 1e6, inc})
		}
	}
	f.last, f.lastT = c, t
	return true
}

// finish books the series that ended.
func (f *refiller) finish() {
	if f.last == nil {
		return
	}
	a := f.a
	a.mu.Lock()
	defer a.mu.Unlock()
	a.in.wall = max(a.in.wall, a.started.UnixNano())
	for _, id := range f.id.keys() {
		if len(f.booked) == 0 {
			break
		}
		k := a.keyOf(id)
		if k == nil {
			continue
		}
		for i := range f.booked {
			k.book(f.id.outcome, &f.booked[i].inc, f.booked[i].t, a.started.Unix(), &a.in.space)
		}
		k.touch(f.booked[len(f.booked)-1].t)
	}
	r := a.rollupOf(f.id)
	if r == nil {
		f.last, f.booked = nil, nil
		return
	}
	if f.lastT > r.wrote {
		r.wrote, r.ended = f.lastT, false
		r.fed = max(r.fed, f.lastT*1e6)
		r.life = max(r.life, minLimit)
	}
	r.cum.coarsen(f.last.coarser) // what is in the store cannot get finer: PromQL would see a reset
	if !r.told().covers(f.last) {
		r.floor = f.last
	}
	f.last, f.booked = nil, nil
}

// keys returns the aggregates that a roll-up series feeds at a refill.
func (id rollupID) keys() []keyID {
	switch id.kind {
	case rollupGroup:
		keys := []keyID{{kind: kindCluster}, {kind: kindGroup, group: id.group}}
		if id.managed {
			keys = append(keys, keyID{kind: kindRevision, group: id.group, revision: id.revision})
		}
		return keys
	case rollupNode:
		return []keyID{{kind: kindNode, node: id.node}}
	case rollupEndpoint:
		return []keyID{{kind: kindEndpoint, group: id.group, method: id.method, route: id.route}}
	case rollupBackend:
		return []keyID{{kind: kindBackend, backend: binnacle.MakeBackendID(id.address, id.port)}}
	case rollupNodeBackend:
		return []keyID{{kind: kindNodeBackend, node: id.node, backend: binnacle.MakeBackendID(id.address, id.port)}}
	}
	return nil
}
