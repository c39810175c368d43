package activity

import (
	"time"

	"github.com/binnacle-project/binnacle"
)

// fed notes that a stream fed its target, increase or not.
func (a *Aggregator) fed(t *target) {
	at := a.in.cur.t
	life := int64(0)
	for ; t != nil && t.fed != at; t = t.shared {
		t.fed = at
		for _, k := range t.keys {
			k.touch(at)
		}
		if life == 0 {
			life = a.in.process.limit(a.in.sender.managed)
		}
		for _, r := range t.rollups {
			r.fed = max(r.fed, at)
			r.life = life
		}
	}
}

// increase books what happened between from and in.cur.t.
func (a *Aggregator) increase(t *target, inc *increase, from int64) {
	in := &a.in
	limit := in.process.limit(in.sender.managed)
	if in.cur.t-from > limit || from == 0 {
		a.self.gapRequests.Add(int(inc.count))
		for ; t != nil; t = t.shared {
			t.count(inc.count)
		}
		return
	}
	as := manner{
		at: in.cur.t,
		// It is of the past: the windows know where to put it, a counter that
		// is written now does not.
		late:  in.wall-in.cur.t > limit,
		fresh: from >= a.started.UnixNano(),
	}
	if as.late {
		a.self.late.Add(int(inc.count))
	}
	a.book(t, inc, as)
	if t.shared == nil {
		return
	}
	if in.from != 0 && !in.as.same(as) {
		a.flush()
	}
	if in.from == 0 {
		in.as, in.from = as, from
	}
	in.as.at, in.from = max(in.as.at, as.at), min(in.from, from)
	if t.shared.pending == nil {
		t.shared.pending = in.newPending()
		in.pending = append(in.pending, t.shared)
	}
	t.shared.pending.add(inc)
}

// manner is how an increase is booked.
type manner struct {
	at    int64 // Unix ns
	late  bool  // too old for the roll-ups
	fresh bool  // all of it happened since the manager's start
}

// same reports whether both go into the same places.
func (m manner) same(o manner) bool {
	return m.late == o.late && m.fresh == o.fresh && slotOf(m.at, fineStep) == slotOf(o.at, fineStep)
}

// book adds an increase to what stands in t itself.
func (a *Aggregator) book(t *target, inc *increase, as manner) {
	in := &a.in
	t.count(inc.count)
	now := in.wall / int64(time.Second)
	for _, k := range t.keys {
		k.book(t.outcome, inc, as.at, now, &in.space)
	}
	if as.late {
		return
	}
	for _, r := range t.rollups {
		r.add(inc, as.fresh, a.settling)
	}
}

// flush books what is pending in shared targets: the sixty increases of an
// export go to cluster, group and node as one for each outcome.
func (a *Aggregator) flush() {
	in := &a.in
	now := in.wall / int64(time.Second)
	in.cluster.reset()
	cluster := false
	for _, t := range in.pending {
		inc := t.pending.take(in.buckets)
		in.buckets = inc.buckets[:0]
		a.book(t, &inc, in.as)
		if t.cluster {
			cluster = true
			in.cluster.add(t.outcome, &inc)
		}
		in.spare, t.pending = append(in.spare, t.pending), nil
	}
	if cluster {
		a.chart.book(&in.cluster, in.from, in.as.at, now)
	}
	in.pending, in.as, in.from = in.pending[:0], manner{}, 0
}

// booking is an increase of all outcomes.
type booking struct {
	n [binnacle.NumOutcomes]uint64
	h dense
}

func (b *booking) reset() {
	b.n = [binnacle.NumOutcomes]uint64{}
	b.h.reset()
}

// add adds an increase of one outcome. The limited ones stay out of the
// latency: a refusal takes no time and says nothing of the service.
func (b *booking) add(o binnacle.Outcome, inc *increase) {
	b.n[o] += inc.count
	if o != binnacle.Limited {
		b.h.addIncrease(inc)
	}
}

func (in *ingest) newPending() *pending {
	if n := len(in.spare); n > 0 {
		p := in.spare[n-1]
		in.spare = in.spare[:n-1]
		return p
	}
	p := &pending{}
	p.h.reset()
	return p
}

// pending adds increases of one outcome up.
type pending struct {
	inc increase // without its buckets
	h   dense
}

func (p *pending) add(inc *increase) {
	p.inc.count += inc.count
	p.inc.sum += inc.sum
	p.inc.coarser = max(p.inc.coarser, inc.coarser)
	p.h.addIncrease(inc)
}

// take returns the whole, its buckets in mem's memory, and empties p.
func (p *pending) take(mem []bucket) increase {
	inc := p.inc
	inc.zero = p.h.zero
	inc.buckets = p.h.list(mem[:0])
	p.inc = increase{}
	p.h.reset()
	return inc
}
