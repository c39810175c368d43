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
	id      keyID
	total   uint64 // requests, for ever
	lastFed int64  // time of the newest point, with or without an increase, Unix ns
	open    openSlot
	rings   [numTiers]ring
	holds   [numWindows]holds
	shown   [numWindows]shown
}

// holds is how long what is shown of a window is good, if nothing is booked: the
// aligned times from at to before until, Unix s. An at of 0 is never.
type holds struct{ at, until int64 }

// shown is what is shown of a window.
type shown struct {
	n       [binnacle.NumOutcomes]uint64
	latency api.Latency
	timed   bool // latency is of something
	some    bool // else no point came in the window: no data is not zero requests
}

// touch notes a point of time t.
func (k *key) touch(t int64) {
	k.lastFed = max(k.lastFed, t)
	k.holds = [numWindows]holds{}
}

// refresh brings what is shown of Windows[i], w seconds, up to now, aligned Unix
// seconds.
func (k *key) refresh(i int, w, now int64, ws *work) *shown {
	if h := &k.holds[i]; now < h.at || now >= h.until {
		s, some := k.sum(w, now, ws)
		*h = holds{now, math.MaxInt64}
		k.shown[i] = shown{}
		if some {
			h.until = s.until
			k.shown[i] = s.show(ws)
		}
	}
	return &k.shown[i]
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

func (s *sum) show(ws *work) shown {
	out := shown{n: s.n, some: true}
	if s.h.lo <= s.h.hi || s.h.zero > 0 {
		s.h.quantiles(quantilesShown, ws.q[:])
		out.latency, out.timed = api.Latency{P50: ws.q[0], P95: ws.q[1], P99: ws.q[2]}, true
	}
	return out
}
