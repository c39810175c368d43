package activity

import (
	"cmp"
	"math"
	"slices"
	"time"

	"github.com/binnacle-project/binnacle"
	"github.com/binnacle-project/binnacle/api"
)

// kind says what a key is an aggregate of. The numbers are in the checkpoint:
// append only.
type kind uint8

const (
	kindCluster kind = iota
	kindGroup
	kindNode
	kindBackend
	kindNodeBackend
	kindEndpoint
	kindRevision
	numKinds
)

// keyID names an aggregate. Only the fields of its kind are set.
type keyID struct {
	kind     kind
	node     binnacle.NodeID
	backend  binnacle.BackendID
	group    binnacle.Group
	revision binnacle.Revision
	method   string
	route    string
}

func (a keyID) compare(b keyID) int {
	return cmp.Or(
		cmp.Compare(a.kind, b.kind),
		cmp.Compare(a.group, b.group),
		cmp.Compare(a.backend, b.backend),
		cmp.Compare(a.node, b.node),
		cmp.Compare(a.route, b.route),
		cmp.Compare(a.method, b.method),
		cmp.Compare(a.revision, b.revision),
	)
}

func (a keyID) row() api.ActivityRow {
	r := api.ActivityRow{Node: a.node, Backend: a.backend, Group: a.group, Method: a.method, Route: a.route}
	if a.kind == kindRevision {
		r.Revision = &a.revision
	}
	return r
}

// key is one aggregate. The aggregator's mutex guards it.
type key struct {
	id      keyID
	total   uint64 // requests, for ever
	lastFed int64  // time of the newest point, with or without an increase, Unix ns
	open    openSlot
	rings   [numTiers]ring
	cached  [numWindows]cached
}

// cached is a window's last sum. A reader then waits for additions only where
// something changed since Run made it.
type cached struct {
	at      int64 // made for this aligned time, Unix s; 0 is never
	until   int64 // good until then, if nothing is booked
	shown   shown
	some    bool          // else no point came in the window
	seconds int64         // that act is of
	act     *api.Activity // nil until it is read
}

// touch notes a point of time t.
func (k *key) touch(t int64) {
	k.lastFed = max(k.lastFed, t)
	for i := range k.cached {
		k.cached[i].at = 0
	}
}

// refresh brings the sum of Windows[i] up to now, and reports whether there is
// one.
func (k *key) refresh(i int, w, now int64, ws *work) bool {
	c := &k.cached[i]
	if c.at == 0 || now < c.at || now >= c.until {
		*c = cached{at: now, until: math.MaxInt64}
		s, some := k.sum(w, now, ws)
		if some {
			c.some, c.until, c.shown = true, s.until, s.show(ws)
		}
	}
	return c.some
}

// read returns the activity over Windows[i], nil where no point came in it.
func (k *key) read(i int, w, now, seconds int64, ws *work) *api.Activity {
	if !k.refresh(i, w, now, ws) {
		return nil
	}
	c := &k.cached[i]
	if c.act == nil || c.seconds != seconds {
		c.act, c.seconds = c.shown.activity(w, seconds, k.total, time.Unix(0, k.lastFed)), seconds
	}
	return c.act
}

// idle reports whether nothing in k's slots is of use any more.
func (k *key) idle(now int64) bool {
	return now-k.lastFed/int64(time.Second) > tiers[numTiers-1].keep
}

// empty gives the memory of k's slots back.
func (k *key) empty() { k.open, k.rings = openSlot{}, [numTiers]ring{} }

// work is the memory that reading works in.
type work struct {
	sum dense
	q   [3]float64
}

var quantilesShown = []float64{0.50, 0.95, 0.99}

// sum adds up the window that ends at now (aligned Unix seconds), in ws. It
// reports false when no point came in it: no data is not zero requests.
func (k *key) sum(w, now int64, ws *work) (s sum, some bool) {
	fed := k.lastFed / int64(time.Second)
	if fed <= now-w-fineStep {
		return s, false
	}
	ws.sum.reset()
	s = sum{h: &ws.sum, until: fed + w + fineStep}
	parts, _ := cut(now, w)
	for tier := range topTier(w) + 1 {
		s.add(k.rings[tier], tier, parts[tier], w)
		s.addOpen(&k.open, tier, parts[tier], w)
	}
	return s, true
}

// shown is what is shown of a sum.
type shown struct {
	n       [binnacle.NumOutcomes]uint64
	latency api.Latency
	timed   bool // latency is of something
}

func (s *sum) show(ws *work) shown {
	out := shown{n: s.n}
	if s.h.lo <= s.h.hi || s.h.zero > 0 {
		s.h.quantiles(quantilesShown, ws.q[:])
		out.latency, out.timed = api.Latency{P50: ws.q[0], P95: ws.q[1], P99: ws.q[2]}, true
	}
	return out
}

// activity shows it in the one form of all activity. The rate is over seconds,
// which is about w.
func (s *shown) activity(w, seconds int64, total uint64, seen time.Time) *api.Activity {
	// One allocation for all parts: there are tens of thousands of these.
	mem := &struct {
		act     api.Activity
		ratio   float64
		latency api.Latency
	}{}
	a := &mem.act
	for _, n := range s.n {
		a.Requests += n
	}
	a.Window = float64(w)
	a.RequestsPerSecond = float64(a.Requests) / float64(seconds)
	a.Errors = s.n[binnacle.Error]
	a.ClientErrors = s.n[binnacle.ClientError]
	a.Limited = s.n[binnacle.Limited]
	a.RequestsTotal = total
	a.LastSeen = seen.UTC()
	if a.Requests > 0 {
		mem.ratio = float64(a.Errors) / float64(a.Requests)
		a.ErrorRatio = &mem.ratio
	}
	if s.timed {
		mem.latency = s.latency
		a.Latency = &mem.latency
	}
	return a
}

// index holds all keys, and those of each kind in order.
type index struct {
	byID    map[keyID]*key
	ordered [numKinds][]*key
	dirty   [numKinds]bool // ordered lacks keys or has dropped ones
	drops   int            // how many keys were dropped, ever
}

func (x *index) get(id keyID) *key { return x.byID[id] }

func (x *index) make(id keyID) *key {
	if x.byID == nil {
		x.byID = map[keyID]*key{}
	}
	k := &key{id: id}
	x.byID[id] = k
	x.dirty[id.kind] = true
	return k
}

func (x *index) drop(id keyID) {
	delete(x.byID, id)
	x.dirty[id.kind] = true
	x.drops++
}

// of returns the keys of a kind in order. The slice is replaced, not changed,
// when keys come and go.
func (x *index) of(kd kind) []*key {
	if x.dirty[kd] {
		var keys []*key
		for id, k := range x.byID {
			if id.kind == kd {
				keys = append(keys, k)
			}
		}
		slices.SortFunc(keys, func(a, b *key) int { return a.id.compare(b.id) })
		x.ordered[kd], x.dirty[kd] = keys, false
	}
	return x.ordered[kd]
}
