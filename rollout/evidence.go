package rollout

import (
	"context"
	"errors"
	"time"

	"github.com/binnacle-project/binnacle"
	"github.com/binnacle-project/binnacle/api"
	"github.com/binnacle-project/binnacle/rollout/gate"
)

// baselineFor is how long before a rollout its baseline begins.
const baselineFor = 10 * time.Minute

// question is what a gate asks the telemetry.
type question struct {
	Canary, Control side
	// From is the begin of the bake, At the time of the look.
	From, At time.Time
	// Baseline is who served before the step, and from when on, up to
	// BaselineTo.
	Baseline     side
	BaselineFrom time.Time
	BaselineTo   time.Time
	// Before says that the baseline is the control.
	Before bool
	// ByNode says that both sides run the same revision: roll-ups by endpoint,
	// which know no nodes, do not tell them apart.
	ByNode bool
}

// baseline is what the group served before the step. It is read once and
// stored.
type baseline struct {
	All       gate.Tally            `json:"all"`
	Endpoints map[string]gate.Tally `json:"endpoints,omitempty"`
	// Spells are the worst ones, the shortest first; only where the baseline is
	// the control.
	Spells []gate.Spell `json:"spells,omitempty"`
	// History is of the hours before, and Own the share of errors that the canary's
	// own nodes had all the time; only where other nodes are the control.
	History *gate.History `json:"history,omitempty"`
	Own     float64       `json:"own,omitempty"`
}

// readBaseline reads what served before the step, and the thresholds of latency
// from it.
func readBaseline(ctx context.Context, r *reader, q question) (baseline, map[string][2]float64, error) {
	var b baseline
	slow, err := r.thresholds(ctx, q.Baseline, q.BaselineTo.Sub(q.BaselineFrom), q.BaselineTo)
	if err != nil {
		return b, nil, err
	}
	once := newReader(r.t)
	if b.All, err = once.all(ctx, q.Baseline, q.BaselineFrom, q.BaselineTo, slow[""]); err != nil {
		return b, nil, err
	}
	b.Endpoints, err = once.endpoints(ctx, q.Baseline, q.BaselineFrom, q.BaselineTo, slow)
	if q.Before && err == nil {
		b.Spells, err = r.spells(ctx, q.Baseline, q.BaselineTo.Sub(q.BaselineFrom), q.BaselineTo)
	}
	if !q.Before && err == nil {
		b.History, err = r.history(ctx, q.Baseline, q.BaselineTo)
	}
	if !q.Before && err == nil {
		own := q.Baseline
		own.nodes = q.Canary.nodes
		b.Own, err = r.own(ctx, own, q.BaselineTo)
	}
	if b.All.Requests < gate.EnoughRequests {
		delete(slow, "") // a quantile of a handful says little
	}
	for name := range slow {
		if name != "" && b.Endpoints[name].Requests < gate.EnoughRequests {
			delete(slow, name)
		}
	}
	return b, slow, err
}

// readLook reads both sides as of q.At.
func readLook(ctx context.Context, r *reader, q question, b baseline, slow map[string][2]float64) (gate.Look, error) {
	l := gate.Look{At: q.At, Endpoints: make(map[string]gate.Sides)}
	var errs []error
	read := func(s side, all func(*gate.Sides) *gate.Tally) {
		t, err := r.all(ctx, s, q.From, q.At, slow[""])
		errs = append(errs, err)
		*all(&l.All) = t
		if q.ByNode {
			return
		}
		ends, err := r.endpoints(ctx, s, q.From, q.At, slow)
		errs = append(errs, err)
		for name, t := range ends {
			e := l.Endpoints[name]
			*all(&e) = t
			l.Endpoints[name] = e
		}
	}
	read(q.Canary, func(s *gate.Sides) *gate.Tally { return &s.Canary })
	if !q.Before {
		read(q.Control, func(s *gate.Sides) *gate.Tally { return &s.Control })
	}
	bake := q.At.Sub(q.From)
	l.History = b.History
	l.All.Baseline, l.All.Spell = b.All, b.Own
	if q.Before {
		l.All.Spell = gate.WorstSpell(b.Spells, "", bake)
	}
	for name, e := range l.Endpoints {
		e.Baseline, e.Spell = b.Endpoints[name], b.Own
		if q.Before {
			e.Spell = gate.WorstSpell(b.Spells, name, bake)
		}
		l.Endpoints[name] = e
	}
	return l, errors.Join(errs...)
}

// sign puts nodes, windows and queries beside what a verdict found.
func (q question) sign(v *api.Verdict) {
	v.From = q.From
	v.Canaries, v.Controls = first(q.Canary.nodes), first(q.Control.nodes)
	control, from, at := q.Control, q.From, time.Time{}
	if q.BaselineFrom.Before(q.BaselineTo) {
		v.BaselineFrom = q.BaselineFrom
	}
	if q.Before {
		v.Controls = first(q.Baseline.nodes)
		control, from, at = q.Baseline, q.BaselineFrom, q.BaselineTo
	}
	for i := range v.Comparisons {
		c := &v.Comparisons[i]
		c.CanaryQuery = q.Canary.query(c, q.From, time.Time{})
		c.ControlQuery = control.query(c, from, at)
	}
}

func first(ids []binnacle.NodeID) []binnacle.NodeID { return ids[:min(len(ids), maxNamedNodes)] }
