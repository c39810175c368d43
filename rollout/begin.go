package rollout

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/binnacle-project/binnacle"
	"github.com/binnacle-project/binnacle/api"
	"github.com/binnacle-project/binnacle/events"
	"github.com/binnacle-project/binnacle/state"
)

// StartRollout moves group g to a revision, and returns the rollout that begins
// with it. It is durable when StartRollout returns, and the nodes' polls are
// awake. A rollout of the group that is under way to the same revision in the
// same way is returned; another one is superseded, or waited for, as r says.
func (s *Service) StartRollout(ctx context.Context, g binnacle.Group, r api.NewRollout, author string) (api.Rollout, error) {
	var steps []api.NewStep
	switch r.Strategy {
	case "":
		r.Strategy = StrategyAll
	case StrategyAll:
	case StrategySteps:
		var err error
		if steps, err = checkSteps(r.Steps); err != nil {
			return api.Rollout{}, err
		}
	default:
		return api.Rollout{}, invalid(`strategy %.40q is none: use "all" or "steps"`, r.Strategy)
	}
	if r.Strategy != StrategySteps && len(r.Steps) > 0 {
		return api.Rollout{}, invalid(`steps go with the strategy "steps", not with %q`, r.Strategy)
	}
	if r.MaxUnavailable < 0 {
		return api.Rollout{}, invalid("max_unavailable is a number of nodes, not %d", r.MaxUnavailable)
	}
	if r.WhenBusy != "" && r.WhenBusy != WhenBusySupersede && r.WhenBusy != WhenBusyQueue {
		return api.Rollout{}, invalid(`when_busy %.40q is none: use "supersede" or "queue"`, r.WhenBusy)
	}
	s.changes.Lock()
	defer s.changes.Unlock()
	rec := rolloutRecord{Rollout: api.Rollout{
		Group: g, To: r.Revision, Strategy: r.Strategy, Author: author, MaxUnavailable: r.MaxUnavailable,
	}}
	for _, step := range steps {
		rec.Steps = append(rec.Steps, api.RolloutStep{NewStep: step, State: api.StepWaiting})
	}
	return s.start(ctx, rec, r.WhenBusy == WhenBusyQueue)
}

// start begins a rollout, or queues it behind the one under way if it is to
// wait. rec has what was asked for. The caller holds s.changes.
func (s *Service) start(ctx context.Context, rec rolloutRecord, queue bool) (api.Rollout, error) {
	g := rec.Group
	s.mu.Lock()
	if s.revisionLocked(g, rec.To) == nil && rec.Strategy != StrategyRestart {
		s.mu.Unlock()
		return api.Rollout{}, noRevision(g, rec.To)
	}
	running := s.runningLocked(g)
	if running != nil && running.rec.State != api.RolloutRollingBack && running.rec.Strategy == rec.Strategy &&
		(running.rec.To == rec.To || rec.Strategy == StrategyRestart) {
		out := running.rec.clone().Rollout
		s.mu.Unlock()
		return out, nil
	}
	r := &rollout{number: 1}
	if n := len(s.rollouts); n > 0 {
		r.number = s.rollouts[n-1].number + 1
	}
	rec.ID, rec.Started = rolloutID(r.number), now()
	rec.Confirmed, rec.Pending = []binnacle.NodeID{}, []binnacle.NodeID{}
	r.rec = rec
	behind := running
	if q := s.queuedLocked(g); len(q) > 0 { // they begin any moment, if nobody is under way
		behind = q[len(q)-1]
	}
	s.mu.Unlock()
	if queue && behind != nil {
		return s.enqueue(ctx, r, behind)
	}
	return s.begin(ctx, r)
}

// enqueue keeps a rollout until the group's other one has ended.
func (s *Service) enqueue(ctx context.Context, r, behind *rollout) (api.Rollout, error) {
	r.rec.State, r.rec.Reason = api.RolloutQueued, "waits for the end of "+rolloutID(behind.number)
	version, err := s.o.Store.TxnVersion(ctx, []state.Cond{state.IfAbsent(rolloutKey(r.number))}, []state.Op{state.OpPut(rolloutKey(r.number), encode(r.rec))})
	if err != nil {
		return api.Rollout{}, fmt.Errorf("queue a rollout of group %s to revision %d: %w", r.rec.Group, r.rec.To, err)
	}
	s.mu.Lock()
	r.version = version
	s.rollouts = append(s.rollouts, r)
	out := r.rec.clone().Rollout
	s.mu.Unlock()
	s.announce(ctx, events.RolloutQueued, out, out.Author, out.Reason)
	return out, nil
}

// begin makes a new or a queued rollout the group's own, and supersedes what is
// under way. The caller holds s.changes.
func (s *Service) begin(ctx context.Context, r *rollout) (api.Rollout, error) {
	g := r.rec.Group
	alive := s.o.Nodes.InGroup(g)
	slices.Sort(alive)

	s.mu.Lock()
	l := s.lineLocked(g)
	rec := r.rec.clone()
	rec.From, rec.State, rec.Reason, rec.Started = l.desired.Number, api.RolloutRunning, "", now()
	desired, ahead := l.desired, stepsRecord{}
	rev := s.revisionLocked(g, rec.To)
	if rev == nil && rec.Strategy != StrategyRestart {
		s.mu.Unlock()
		return api.Rollout{}, noRevision(g, rec.To)
	}
	switch rec.Strategy {
	case StrategyRestart:
		rec.To = rec.From
		rec.SHA256 = desired.SHA256
		desired.Fine = true
	case StrategySteps:
		rec.SHA256 = rev.SHA256
		desired.Fine = true
		ahead = stepsRecord{Rollout: rec.ID, desiredRecord: desiredRecord{RevisionRef: rev.RevisionRef, Signature: rev.Signature, Since: rec.Started}}
		rec.Crashes = make(map[binnacle.NodeID]uint64)
	default:
		rec.SHA256 = rev.SHA256
		desired = desiredRecord{RevisionRef: rev.RevisionRef, Signature: rev.Signature, Since: rec.Started}
		rec.Pending = slices.Clone(alive) // observe changes it
	}
	for _, id := range alive {
		if n := s.nodes[id]; n != nil && rec.Strategy != StrategyRestart {
			if e := n.ledger.Attempted; e != nil && e.SHA256 == rec.SHA256 && e.Error != "" {
				if rec.Stale == nil {
					rec.Stale = make(map[binnacle.NodeID]time.Time)
				}
				rec.Stale[id] = e.Time
			}
		}
	}
	begun := &rollout{number: r.number, rec: rec}
	s.observeAllLocked(begun)
	rec = begun.rec

	conds := []state.Cond{state.IfVersion(desiredKey(g), l.desiredAt), state.IfVersion(stepsKey(g), l.stepsAt), state.IfVersion(rolloutKey(r.number), r.version)}
	ops := []state.Op{state.OpPut(desiredKey(g), encode(desired)), state.OpPut(rolloutKey(r.number), encode(rec))}
	if rec.Strategy == StrategySteps {
		ops = append(ops, state.OpPut(stepsKey(g), encode(ahead)))
	} else if l.stepsAt != 0 {
		ops = append(ops, state.OpDelete(stepsKey(g)))
	}
	running := s.runningLocked(g)
	var ended rolloutRecord
	if running != nil {
		ended = running.rec.clone()
		ended.State, ended.Ended, ended.Reason, ended.Gate = api.RolloutSuperseded, rec.Started, "superseded by "+rec.ID, nil
		conds = append(conds, state.IfVersion(rolloutKey(running.number), running.version))
		ops = append(ops, state.OpPut(rolloutKey(running.number), encode(ended)))
	}
	drop := s.oldRolloutsLocked()
	for _, old := range drop {
		ops = append(ops, state.OpDelete(rolloutKey(old.number)))
	}
	s.mu.Unlock()

	version, err := s.o.Store.TxnVersion(ctx, conds, ops)
	if errors.Is(err, state.ErrConflict) {
		return api.Rollout{}, conflict("another manager changed group %s at the same time: try again", g)
	} else if err != nil {
		return api.Rollout{}, fmt.Errorf("start a rollout of group %s to revision %d: %w", g, rec.To, err)
	}

	s.mu.Lock()
	isNew := r.version == 0
	r.rec, r.version, r.unstored = rec, version, false
	if running != nil {
		running.rec, running.version, running.unstored = ended, version, false
	}
	s.rollouts = slices.DeleteFunc(s.rollouts, func(old *rollout) bool { return slices.Contains(drop, old) })
	if isNew {
		s.rollouts = append(s.rollouts, r)
	}
	s.observeAllLocked(r) // reports that came during the write
	if rec.Strategy == StrategySteps {
		l.setSteps(ahead, version)
	} else {
		l.setSteps(stepsRecord{}, 0)
	}
	s.setDesiredLocked(g, l, desired, version)
	out := r.rec.clone().Rollout
	s.mu.Unlock()
	s.wakeRun()

	if running != nil {
		if t := ended.Turn; t != nil {
			s.endTurn(ctx, t)
		}
		s.announce(ctx, events.RolloutSuperseded, ended.Rollout, rec.Author, ended.Reason)
	}
	what := "rollout"
	if rec.Rollback {
		what = "rollback"
	}
	message := fmt.Sprintf("%s from revision %d to %d on %s", what, out.From, out.To, count(len(alive), "node"))
	switch rec.Strategy {
	case StrategySteps:
		message += " in " + count(len(rec.Steps), "step")
	case StrategyRestart:
		message = "rolling restart of " + count(len(alive), "node")
	}
	s.announce(ctx, events.RolloutStarted, out, rec.Author, message)
	return out, nil
}
