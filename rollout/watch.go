package rollout

import (
	"context"
	"slices"
	"time"

	"github.com/binnacle-project/binnacle"
	"github.com/binnacle-project/binnacle/api"
	"github.com/binnacle-project/binnacle/rollout/gate"
)

const (
	// lookEvery is the time between two looks of a gate: that of exports and
	// roll-ups in a bake.
	lookEvery = fineInterval * time.Second
	// lookWithin bounds one look.
	lookWithin = 20 * time.Second
	// keepEvery is how often an inconclusive gate's memory is stored.
	keepEvery = 10 * time.Second
)

// watcher looks at the evidence of bakes, beside everything else, for a look may
// take seconds in a large fleet.
type watcher struct {
	s       *Service
	readers map[uint64]*watched // by number of the rollout
}

// watched is what a watcher keeps of one bake. None of it is needed to go on
// after a restart.
type watched struct {
	since time.Time // the begin of the bake
	*reader
	stored time.Time
	warned bool
}

// watch looks at all bakes until ctx ends, and writes the reports of what ended.
func (s *Service) watch(ctx context.Context) {
	if s.o.Telemetry == nil {
		<-ctx.Done()
		return
	}
	w := &watcher{s: s, readers: make(map[uint64]*watched)}
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		for _, r := range s.bakesUnderWay() {
			w.look(ctx, r)
		}
		w.report(ctx)
	}
}

// bakesUnderWay returns the rollouts whose gates are to look.
func (s *Service) bakesUnderWay() []*rollout {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []*rollout
	for _, r := range s.rollouts {
		if r.active() && r.rec.State != api.RolloutRollingBack && r.rec.Gate != nil {
			out = append(out, r)
		}
	}
	return out
}

// keepBakes has what gates found be stored, however little.
func (s *Service) keepBakes() {
	for _, r := range s.bakesUnderWay() {
		s.mu.Lock()
		r.unstored = true
		s.mu.Unlock()
	}
}

// look has the gate of one rollout look once. What it finds is dropped if the
// rollout has moved meanwhile.
func (w *watcher) look(ctx context.Context, r *rollout) {
	s := w.s
	at := now()
	s.mu.Lock()
	rec := r.rec.clone()
	s.mu.Unlock()
	alive := s.o.Nodes.InGroup(rec.Group)
	slices.Sort(alive)
	s.mu.Lock()
	ahead := s.lineLocked(rec.Group).ahead
	s.mu.Unlock()
	q, ok := questionOf(rec, alive, ahead, at)
	if !ok {
		return
	}
	known := w.readers[r.number]
	if known == nil || !known.since.Equal(q.From) {
		known = &watched{since: q.From, reader: newReader(s.o.Telemetry)}
		w.readers[r.number] = known
	}
	ctx, cancel := context.WithTimeout(ctx, lookWithin)
	defer cancel()
	g, base := rec.Gate.Clone(), rec.Baseline
	v, err := known.judge(ctx, q, g, &base)
	if err != nil {
		if ctx.Err() == nil && !known.warned {
			known.warned = true
			s.log.Warn("a gate could not look at the telemetry; it is inconclusive until it can", "rollout", rec.ID, "err", err)
		}
		return
	}
	known.warned = false

	s.mu.Lock()
	if r.rec.Gate != rec.Gate || r.rec.State.Ended() { // it has moved on
		s.mu.Unlock()
		return
	}
	r.rec.Gate, r.rec.Baseline = g, base
	news := true
	if rec.Strategy == StrategySteps {
		step := &r.rec.Steps[r.rec.Step]
		news = step.Verdict == nil || step.Verdict.Result != v.Result
		// The slice may be shared with a clone that is being encoded.
		r.rec.Steps = slices.Clone(r.rec.Steps)
		r.rec.Steps[r.rec.Step].Verdict = &v
	} else if r.rec.Turn == nil || v.Result != api.VerdictFail {
		news = false
	} else {
		if r.rec.Lost == nil {
			r.rec.Lost = make(map[binnacle.NodeID]string)
		}
		for _, id := range q.Canary.nodes {
			r.rec.Lost[id] = "after its restart it is worse than the rest: " + v.Reason
		}
	}
	if news || at.Sub(known.stored) >= keepEvery {
		known.stored = at
		r.unstored = true
	}
	s.mu.Unlock()
	s.wakeRun()
}

// judge reads the evidence and has the gate judge it.
func (r *reader) judge(ctx context.Context, q question, g *gate.State, base **baseline) (api.Verdict, error) {
	if *base == nil {
		b, slow, err := readBaseline(ctx, r, q)
		if err != nil {
			return api.Verdict{}, err
		}
		*base, g.Slow = &b, slow
	}
	l, err := readLook(ctx, r, q, **base, g.Slow)
	if err != nil {
		return api.Verdict{}, err
	}
	if _, ok := g.Slow[""]; !ok && !q.Before && l.All.Control.Requests >= gate.EnoughRequests {
		// Nothing was served before: what slow means is taken from the control
		// so far, and latency compared from here on.
		slow, err := r.thresholds(ctx, q.Control, q.At.Sub(q.From), q.At)
		if err != nil {
			return api.Verdict{}, err
		}
		if s, ok := slow[""]; ok {
			g.Slow = map[string][2]float64{"": s}
		}
	}
	v := g.Judge(l)
	q.sign(&v)
	found, err := r.saturation(ctx, q, l)
	if err != nil {
		return api.Verdict{}, err
	}
	saturate(&v, found)
	return v, nil
}

// questionOf says what the gate of a rollout asks now.
func questionOf(rec rolloutRecord, alive []binnacle.NodeID, ahead map[binnacle.NodeID]bool, at time.Time) (question, bool) {
	var q question
	if rec.Strategy == StrategyRestart {
		return questionOfRestart(rec, alive, at)
	}
	step := rec.Steps[rec.Step]
	if step.State != api.StepBaking && step.State != api.StepAsking {
		return q, false
	}
	q = question{
		Canary:  side{group: rec.Group, revision: rec.To},
		Control: side{group: rec.Group, revision: rec.From},
		From:    step.BakeStarted, At: at, Before: rec.Gate.Before,
		Baseline:   side{group: rec.Group, revision: rec.From},
		BaselineTo: rec.Started,
	}
	if q.Before {
		// The nodes of the step alone, and their minutes just before it.
		q.Canary.nodes = slices.Sorted(slices.Values(step.Added))
		q.Baseline.nodes = q.Canary.nodes
		q.BaselineTo = step.Started
	} else {
		q.Canary.nodes = slices.Sorted(func(yield func(binnacle.NodeID) bool) {
			for id := range ahead {
				if !yield(id) {
					return
				}
			}
		})
		for _, id := range alive {
			if !ahead[id] {
				q.Control.nodes = append(q.Control.nodes, id)
			}
		}
	}
	q.BaselineFrom = q.BaselineTo.Add(-baselineFor)
	return q, true
}

// tellBakes says which groups are in a bake, when that changed.
func (s *Service) tellBakes() {
	if s.o.Bakes == nil {
		return
	}
	s.mu.Lock()
	is := make(map[binnacle.Group]bool)
	for g, l := range s.lines {
		if l.desired.Fine {
			is[g] = true
		}
	}
	s.mu.Unlock()
	for g := range s.baking {
		if !is[g] {
			s.o.Bakes.SetBake(g, false)
			delete(s.baking, g)
		}
	}
	for g := range is {
		if !s.baking[g] {
			s.o.Bakes.SetBake(g, true)
			s.baking[g] = true
		}
	}
}
