package activity

import "github.com/binnacle-project/binnacle"

// target resolves where the increases of a place go, now.
func (a *Aggregator) target(p *place) *target {
	s := a.in.sender
	id := targetID{p, a.in.origin.Revision}
	if t := s.targets[id]; t != nil {
		return t
	}
	b := a.building(p.outcome)
	gateway := s.managed || s.info.Gateway
	switch {
	case !p.client:
		b.t.shared = a.shared(p.outcome)
		if gateway {
			b.key(keyID{kind: kindEndpoint, group: b.base.group, method: p.method, route: p.route})
			b.rollup(rollupEndpoint, func(id *rollupID) { id.method, id.route = p.method, p.route })
		}
	case gateway && p.address != "":
		backend := p.backend()
		a.endpoints.add(backend, p.endpoint)
		b.key(keyID{kind: kindBackend, backend: backend})
		b.key(keyID{kind: kindNodeBackend, node: s.id, backend: backend})
		b.rollup(rollupBackend, func(id *rollupID) { id.address, id.port = p.address, p.port })
		b.rollup(rollupNodeBackend, func(id *rollupID) { id.address, id.port, id.node = p.address, p.port, s.id })
	}
	s.targets[id] = b.t
	return b.t
}

// shared resolves what all requests of the sender with one outcome add to.
func (a *Aggregator) shared(o binnacle.Outcome) *target {
	s := a.in.sender
	id := sharedID{o, a.in.origin.Revision}
	if t := s.shared[id]; t != nil {
		return t
	}
	b := a.building(o)
	b.key(keyID{kind: kindNode, node: s.id})
	b.rollup(rollupNode, func(id *rollupID) { id.node = s.id })
	if s.managed || s.info.Gateway {
		b.t.cluster = true
		b.key(keyID{kind: kindCluster})
		b.key(keyID{kind: kindGroup, group: b.base.group})
		if s.managed {
			b.key(keyID{kind: kindRevision, group: b.base.group, revision: b.base.revision})
		}
		b.rollup(rollupGroup, func(*rollupID) {})
	}
	s.shared[id] = b.t
	return b.t
}

// building makes one target of the sender of the batch in work.
type building struct {
	a    *Aggregator
	t    *target
	base rollupID
}

func (a *Aggregator) building(o binnacle.Outcome) building {
	s := a.in.sender
	b := building{a: a, t: &target{outcome: o}, base: rollupID{outcome: o}}
	if s.managed {
		b.base.managed, b.base.group, b.base.revision = true, s.group, a.in.origin.Revision
	}
	return b
}

func (b building) key(id keyID) {
	if k := b.a.keyOf(id); k != nil {
		b.t.keys = append(b.t.keys, k)
	}
}

func (b building) rollup(kd rollupKind, set func(*rollupID)) {
	id := b.base
	id.kind = kd
	set(&id)
	if r := b.a.rollupOf(id); r != nil {
		b.t.rollups = append(b.t.rollups, r)
	}
}

// keyOf finds or makes a key; nil when there are too many.
func (a *Aggregator) keyOf(id keyID) *key {
	k := a.keys.get(id)
	if k == nil {
		if len(a.keys.byID) >= a.o.MaxKeys {
			a.self.overKeys.Inc()
			return nil
		}
		k = a.keys.make(id)
	}
	return k
}

// rollupsPerKey bounds the roll-up series by MaxKeys: outcomes times the
// revisions of a week.
const rollupsPerKey = 8

// rollupOf finds or makes a roll-up; nil when there are too many.
func (a *Aggregator) rollupOf(id rollupID) *rollup {
	r := a.rollups[id]
	if r == nil {
		if len(a.rollups) >= rollupsPerKey*a.o.MaxKeys {
			a.self.overKeys.Inc()
			return nil
		}
		r = &rollup{id: id, series: &RollupSeries{Labels: id.labels()}}
		a.rollups[id] = r
	}
	return r
}

// placed returns the one copy of p: a fleet's streams have few places.
func (a *Aggregator) placed(p place) *place {
	if known := a.places[p]; known != nil {
		return known
	}
	if a.places == nil {
		a.places = map[place]*place{}
	}
	a.places[p] = &p
	return &p
}

// forgetPlaces drops the places that no stream has any more.
func (a *Aggregator) forgetPlaces() {
	used := map[place]*place{}
	for _, s := range a.senders {
		for _, st := range s.streams {
			if st.place != nil {
				used[*st.place] = st.place
			}
		}
	}
	a.places = used
}
