package activity

import (
	"cmp"
	"math"
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

// name returns the row of a, without its activity.
func (a keyID) name() api.ActivityRow {
	r := api.ActivityRow{Node: a.node, Backend: a.backend, Group: a.group, Method: a.method, Route: a.route}
	if a.kind == kindRevision {
		r.Revision = &a.revision
	}
	return r
}

// key is one aggregate. The aggregator's mutex guards it.
type key struct {
	id       keyID
	total    uint64 // requests, for ever
	firstFed int64  // time of the oldest point, Unix ns; 0 is of an earlier life of the manager
	lastFed  int64  // time of the newest point, with or without an increase, Unix ns
	touched  uint32 // counts the points
	windows  [numWindows]shown
	open     openSlot
	rings    [numTiers]ring
	carried  [numTiers - 1]int32 // up to which slot the next tier has them, too
}

// shown is what is shown of a window, and how long it is good: for the aligned
// times from at to before until, Unix s, if nothing is booked. An at of 0 is
// never.
type shown struct {
	at, until int64
	touched   uint32 // the key's then
	n         [binnacle.NumOutcomes]uint64
	latency   api.Latency
	timed     bool // latency is of something
	some      bool // else no point came in the window: no data is not zero requests
}

// touch notes a point of time t.
func (k *key) touch(t int64) {
	switch {
	case k.lastFed == 0:
		k.firstFed = t
	case t < k.firstFed:
		k.firstFed = t
	}
	k.lastFed = max(k.lastFed, t)
	k.touched++
}

// refresh brings what is shown of Windows[i], w seconds, up to now, aligned Unix
// seconds. final says that what was added up for just then stays, though later
// points have come.
func (k *key) refresh(i int, w, now int64, final bool, ws *work) *shown {
	h := &k.windows[i]
	if !k.good(i, now, final) {
		s, some := k.sum(w, now, ws)
		k.show(i, w, now, &s, some, ws)
	}
	return h
}

// good reports whether what is shown of Windows[i] is of now.
func (k *key) good(i int, now int64, final bool) bool {
	h := &k.windows[i]
	return final && h.at == now || h.touched == k.touched && now >= h.at && now < h.until
}

// show notes what is shown of Windows[i], by its sum.
func (k *key) show(i int, w, now int64, s *sum, some bool, ws *work) {
	h := &k.windows[i]
	if some {
		s.show(h, ws)
		h.until = min(s.until(w), k.lastFed/int64(time.Second)+w+fineStep)
	} else {
		*h = shown{until: math.MaxInt64}
		if k.firstFed > now*int64(time.Second) {
			h.until = k.firstFed / int64(time.Second)
		}
	}
	h.at, h.touched = now, k.touched
}

// refreshShort is refresh for the two shortest windows, of which the second is the
// first and as many slots before it.
func (k *key) refreshShort(now int64, ws *work) {
	const short, long = 30, 60
	if k.good(0, now, false) && k.good(1, now, false) {
		return
	}
	s, some := k.sum(short, now, ws)
	k.show(0, short, now, &s, some, ws)
	if !some {
		k.refresh(1, long, now, false, ws)
		return
	}
	before := span{int32((now - long) / fineStep), int32((now - short) / fineStep)}
	ahead := s.ahead
	s.add(k.rings[0], 0, before)
	s.addOpen(&k.open, 0, before)
	s.ahead = ahead // to what is before, the first window is ahead
	k.show(1, long, now, &s, true, ws)
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
	if fed <= now-w-fineStep || k.firstFed > now*int64(time.Second) {
		return s, false
	}
	ws.sum.reset()
	s = sum{h: &ws.sum, oldest: math.MaxInt64, ahead: math.MaxInt64}
	parts, _ := cut(now, w)
	top := topTier(w)
	begin := int64(parts[top].from) * tiers[top].step
	for tier := range top + 1 {
		p := parts[tier]
		if tier < top { // coarser tiers lack what was not carried yet
			p.from = min(p.from, max(k.carried[tier], int32(begin/tiers[tier].step)))
		}
		s.add(k.rings[tier], tier, p)
		s.addOpen(&k.open, tier, parts[tier])
	}
	return s, true
}

func (s *sum) show(out *shown, ws *work) {
	*out = shown{n: s.n, some: true}
	if s.h.lo <= s.h.hi || s.h.zero > 0 {
		s.h.quantiles(quantilesShown, ws.q[:])
		out.latency, out.timed = api.Latency{P50: ws.q[0], P95: ws.q[1], P99: ws.q[2]}, true
	}
}
