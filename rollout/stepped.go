package rollout

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/binnacle-project/binnacle"
	"github.com/binnacle-project/binnacle/api"
	"github.com/binnacle-project/binnacle/events"
	"github.com/binnacle-project/binnacle/rollout/gate"
	"github.com/binnacle-project/binnacle/state"
)

// candidates returns the nodes of a group that are alive.
func (s *Service) candidates(g binnacle.Group) []candidate {
	ids := s.o.Nodes.InGroup(g)
	slices.Sort(ids)
	out := make([]candidate, len(ids))
	for i, id := range ids {
		out[i].ID = id
		if s.o.Labels != nil {
			out[i].Zone = zoneOf(s.o.Labels.Labels(id))
		}
	}
	return out
}

// viewOf collects what nextMove looks at.
func (s *Service) viewOf(r *rollout, alive []candidate, at time.Time) stepsView {
	s.mu.Lock()
	defer s.mu.Unlock()
	rec := r.rec.clone()
	v := stepsView{
		Now: at, Paused: rec.State == api.RolloutPaused, Steps: rec.Steps, Step: rec.Step, MaxUnavailable: rec.MaxUnavailable,
		Alive: alive, Told: setOf(s.lineLocked(rec.Group).steps.Nodes), Confirmed: setOf(rec.Confirmed), Pending: setOf(rec.Pending),
		Failed: make(map[binnacle.NodeID]string), Away: make(map[binnacle.NodeID]bool),
	}
	maps.Copy(v.Failed, rec.Refused)
	maps.Copy(v.Failed, rec.Lost)
	for id, since := range r.gone {
		v.Away[id] = at.Sub(since) >= awayAfter
	}
	return v
}

func setOf(ids []binnacle.NodeID) map[binnacle.NodeID]bool {
	out := make(map[binnacle.NodeID]bool, len(ids))
	for _, id := range ids {
		out[id] = true
	}
	return out
}

// settleSteps makes the next move of a rollout in steps. The caller holds
// s.changes.
func (s *Service) settleSteps(ctx context.Context, r *rollout, at time.Time) error {
	s.mu.Lock()
	g := r.rec.Group
	s.mu.Unlock()
	alive := s.candidates(g)
	m := nextMove(s.viewOf(r, alive, at))
	switch m.Kind {
	case moveTell:
		return s.tell(ctx, r, m.Nodes, at)
	case moveBake:
		return s.bake(ctx, r, alive, at)
	case moveAsk:
		out, err := s.change(ctx, r, func(rec *rolloutRecord) {
			rec.Steps[rec.Step].State, rec.Reason = api.StepAsking, m.Reason
		})
		if err == nil {
			s.announce(ctx, events.RolloutAsks, out, "manager", m.Reason)
		}
		return err
	case moveOn:
		return s.stepOn(ctx, r, at)
	case moveComplete:
		return s.complete(ctx, r, at)
	case moveRollBack:
		return s.rollBack(ctx, r, m.Reason, at)
	}
	s.mu.Lock()
	same := !r.unstored && r.rec.Reason == m.Reason
	s.mu.Unlock()
	if same {
		return nil
	}
	_, err := s.change(ctx, r, func(rec *rolloutRecord) {
		if rec.State != api.RolloutPaused {
			rec.Reason = m.Reason
		}
	})
	return err
}

// tell gives the revision to more nodes of the step.
func (s *Service) tell(ctx context.Context, r *rollout, ids []binnacle.NodeID, at time.Time) error {
	s.mu.Lock()
	g := r.rec.Group
	l := s.lineLocked(g)
	ahead := l.steps
	ahead.Nodes = slices.Concat(ahead.Nodes, ids)
	crashes := make(map[binnacle.NodeID]uint64)
	for _, id := range ids {
		crashes[id] = s.nodeLocked(id).ledger.Crashes
	}
	change := func(rec *rolloutRecord) {
		step := &rec.Steps[rec.Step]
		if step.State != api.StepRolling {
			step.State, step.Started = api.StepRolling, at
		}
		step.Added = slices.Concat(step.Added, ids)
		for _, id := range ids {
			rec.Pending = insertSorted(rec.Pending, id)
			if rec.Crashes == nil {
				rec.Crashes = make(map[binnacle.NodeID]uint64)
			}
			rec.Crashes[id] = crashes[id]
		}
		rec.Reason = ""
	}
	rec := r.rec.clone()
	begins := rec.Steps[rec.Step].State != api.StepRolling
	change(&rec)
	conds := []state.Cond{state.IfVersion(stepsKey(g), l.stepsAt), state.IfVersion(rolloutKey(r.number), r.version)}
	ops := []state.Op{state.OpPut(stepsKey(g), encode(ahead)), state.OpPut(rolloutKey(r.number), encode(rec))}
	s.mu.Unlock()

	version, err := s.o.Store.TxnVersion(ctx, conds, ops)
	if err != nil {
		return fmt.Errorf("give revision %d to %s: %w", rec.To, count(len(ids), "node"), err)
	}
	s.mu.Lock()
	change(&r.rec)
	r.version = version
	l.setSteps(ahead, version)
	for _, id := range ids {
		s.wakeLocked(s.nodeLocked(id))
	}
	s.observeAllLocked(r)
	out := r.rec.clone().Rollout
	s.mu.Unlock()
	s.wakeRun()
	if begins {
		s.announce(ctx, events.RolloutStep, out, "manager", fmt.Sprintf("step %d of %d: revision %d goes to %s", out.Step+1, len(out.Steps), out.To, listOf(ids)))
	}
	return nil
}

// listOf names nodes, and counts those of a long list.
func listOf(ids []binnacle.NodeID) string {
	const most = 5
	parts := make([]string, 0, most+1)
	for i, id := range ids {
		if i == most {
			parts = append(parts, fmt.Sprintf("%d more", len(ids)-most))
			break
		}
		parts = append(parts, string(id))
	}
	return strings.Join(parts, ", ")
}

// bake begins to watch the nodes of the step.
func (s *Service) bake(ctx context.Context, r *rollout, alive []candidate, at time.Time) error {
	s.mu.Lock()
	ahead := s.lineLocked(r.rec.Group).ahead
	before := !slices.ContainsFunc(alive, func(c candidate) bool { return !ahead[c.ID] })
	s.mu.Unlock()
	out, err := s.change(ctx, r, func(rec *rolloutRecord) {
		rec.Steps[rec.Step].State, rec.Steps[rec.Step].BakeStarted = api.StepBaking, at
		rec.Gate, rec.Baseline, rec.Reason = &gate.State{Before: before}, nil, ""
	})
	if err != nil {
		return err
	}
	what := "the other nodes"
	if before {
		what = "the same nodes before the step, for there are no others"
	}
	step := out.Steps[out.Step]
	s.announce(ctx, events.RolloutBake, out, "manager", fmt.Sprintf("step %d of %d: %s %s confirmed and %s compared with %s for %v", out.Step+1, len(out.Steps),
		count(len(out.Confirmed), "node"), have(len(out.Confirmed)), are(len(out.Confirmed)), what, seconds(step.Bake)))
	return nil
}

// stepOn ends the step that passed; the next one begins with the next move.
func (s *Service) stepOn(ctx context.Context, r *rollout, at time.Time) error {
	out, err := s.change(ctx, r, func(rec *rolloutRecord) {
		rec.Steps[rec.Step].State, rec.Steps[rec.Step].Ended = api.StepPassed, at
		rec.Step++
		rec.Gate, rec.Baseline, rec.Reason = nil, nil, ""
	})
	if err != nil {
		return err
	}
	s.announceVerdict(ctx, out, out.Step-1)
	s.wakeRun()
	return nil
}

// announceVerdict tells how a step ended, if a gate looked at it.
func (s *Service) announceVerdict(ctx context.Context, r api.Rollout, i int) {
	step := r.Steps[i]
	v := step.Verdict
	switch {
	case step.PromotedBy != "":
		return // told when it happened
	case v == nil:
		return
	}
	short := *v
	if len(encode(short)) > events.MaxEventBytes/2 { // all of it stands in the rollout
		short.Comparisons = nil
	}
	s.notice(ctx, api.Event{Kind: events.RolloutVerdict, Group: r.Group, Actor: "manager",
		Message: fmt.Sprintf("%s: step %d of %d: %s: %s", r.ID, i+1, len(r.Steps), v.Result, v.Reason), Data: encode(short)})
}

// complete makes the revision that of the whole group.
func (s *Service) complete(ctx context.Context, r *rollout, at time.Time) error {
	s.mu.Lock()
	rev := s.revisionLocked(r.rec.Group, r.rec.To)
	s.mu.Unlock()
	if rev == nil {
		return fmt.Errorf("complete rollout %s: %w", rolloutID(r.number), noRevision(r.rec.Group, r.rec.To))
	}
	desired := desiredRecord{RevisionRef: rev.RevisionRef, Signature: rev.Signature, Since: at}
	err := s.goBack(ctx, r, desired, func(rec *rolloutRecord) {
		rec.Steps[rec.Step].State, rec.Steps[rec.Step].Ended = api.StepPassed, at
		rec.State, rec.Ended, rec.Gate, rec.Baseline, rec.Reason = api.RolloutCompleted, at, nil, nil, ""
	})
	if err != nil {
		return err
	}
	s.mu.Lock()
	out := r.rec.clone().Rollout
	s.mu.Unlock()
	s.announceVerdict(ctx, out, out.Step)
	s.announce(ctx, events.RolloutCompleted, out, "manager", fmt.Sprintf("revision %d confirmed by %s in %v", out.To, count(len(out.Confirmed), "node"), out.Ended.Sub(out.Started).Round(time.Second)))
	return nil
}
