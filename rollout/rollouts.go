package rollout

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/binnacle-project/binnacle"
	"github.com/binnacle-project/binnacle/api"
	"github.com/binnacle-project/binnacle/events"
	"github.com/binnacle-project/binnacle/state"
)

// Strategies of a rollout.
const (
	// StrategyAll tells all nodes of the group at once.
	StrategyAll = "all"
	// StrategySteps goes in steps with gates between them.
	StrategySteps = "steps"
	// StrategyRestart restarts the nodes of the group one after the other.
	StrategyRestart = "restart"
)

// What happens to a rollout under way when another one is started.
const (
	// WhenBusySupersede ends it.
	WhenBusySupersede = "supersede"
	// WhenBusyQueue waits for its end.
	WhenBusyQueue = "queue"
)

// keepRollouts bounds the rollouts kept, over all groups.
const keepRollouts = 500

// rollout is one rollout in memory. The service's mu guards it.
type rollout struct {
	number  uint64
	rec     rolloutRecord
	version int64
	// unstored: rec has answers that the state does not have yet.
	unstored bool
	// gone says since when a pending node is not alive. It is not kept: after a
	// restart the time begins anew.
	gone map[binnacle.NodeID]time.Time
}

type rolloutRecord struct {
	api.Rollout
	SHA256   string `json:"sha256"`
	Rollback bool   `json:"rollback,omitempty"`
	// Stale has the time of failed attempts with the same revision from before
	// the rollout.
	Stale map[binnacle.NodeID]time.Time `json:"stale,omitempty"`
	// Crashes is how often the worker of a node had crashed when the node was
	// told. Lost says of nodes that had confirmed why they do not run the
	// revision any more.
	Crashes map[binnacle.NodeID]uint64 `json:"crashes,omitempty"`
	Lost    map[binnacle.NodeID]string `json:"lost,omitempty"`
	// Gate is what the gate of the step remembers, Baseline what served before
	// it. Neither is changed, only replaced.
	Gate     *gateState `json:"gate,omitempty"`
	Baseline *baseline  `json:"baseline,omitempty"`
	// Turn is the restart under way, of strategy "restart", and Restarted those
	// that were.
	Turn      *turn       `json:"turn,omitempty"`
	Restarted []restarted `json:"restarted,omitempty"`
}

func (r rolloutRecord) clone() rolloutRecord {
	r.Confirmed = slices.Clone(r.Confirmed)
	r.Pending = slices.Clone(r.Pending)
	r.Refused = maps.Clone(r.Refused)
	r.Steps = slices.Clone(r.Steps) // what they hold is replaced, never changed
	r.Returned = slices.Clone(r.Returned)
	r.Stale = maps.Clone(r.Stale)
	r.Crashes = maps.Clone(r.Crashes)
	r.Lost = maps.Clone(r.Lost)
	return r
}

// active reports whether the rollout has begun and not ended.
func (r *rollout) active() bool {
	return !r.rec.State.Ended() && r.rec.State != api.RolloutQueued
}

func rolloutID(number uint64) string { return "r" + strconv.FormatUint(number, 10) }

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

// Rollback moves group g back to the newest revision that completed a rollout
// and was not rolled back since. A rollout in steps that is under way is aborted
// instead: the group has not left its revision yet.
func (s *Service) Rollback(ctx context.Context, g binnacle.Group, author string) (api.Rollout, error) {
	s.mu.Lock()
	running := s.runningLocked(g)
	stepped := running != nil && running.rec.Strategy != StrategyAll
	s.mu.Unlock()
	if stepped {
		return s.Abort(ctx, rolloutID(running.number), author)
	}
	s.changes.Lock()
	defer s.changes.Unlock()
	s.mu.Lock()
	var history []past
	for _, r := range s.rollouts {
		if r.rec.Group == g && r.rec.Strategy != StrategyRestart {
			history = append(history, past{r.rec.From, r.rec.To, r.rec.State == api.RolloutCompleted, r.rec.Rollback})
		}
	}
	to := rollbackTarget(history, s.lineLocked(g).desired.Number)
	s.mu.Unlock()
	if to == 0 {
		return api.Rollout{}, conflict("group %s has no earlier revision that completed a rollout: start a rollout to the revision you want", g)
	}
	return s.start(ctx, rolloutRecord{Rollout: api.Rollout{Group: g, To: to, Strategy: StrategyAll, Author: author}, Rollback: true}, false)
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
	s.setDesiredLocked(l, desired, version)
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
	message := fmt.Sprintf("%s from revision %d to %d on %d nodes", what, out.From, out.To, len(alive))
	switch rec.Strategy {
	case StrategySteps:
		message += fmt.Sprintf(" in %d steps", len(rec.Steps))
	case StrategyRestart:
		message = fmt.Sprintf("rolling restart of %d nodes", len(alive))
	}
	s.announce(ctx, events.RolloutStarted, out, rec.Author, message)
	return out, nil
}

// Abort ends a rollout that is under way and sets the group back to what it came
// from. A queued one just ends.
func (s *Service) Abort(ctx context.Context, id, actor string) (api.Rollout, error) {
	s.changes.Lock()
	defer s.changes.Unlock()
	s.mu.Lock()
	r := s.rolloutLocked(id)
	if r == nil {
		s.mu.Unlock()
		return api.Rollout{}, noRollout(id)
	}
	if r.rec.State.Ended() || r.rec.State == api.RolloutRollingBack {
		defer s.mu.Unlock()
		return api.Rollout{}, conflict("rollout %s is %s and cannot be aborted: use a rollback", id, r.rec.State)
	}
	if r.rec.State == api.RolloutQueued {
		s.mu.Unlock()
		return s.change(ctx, r, func(rec *rolloutRecord) {
			rec.State, rec.Ended, rec.Reason = api.RolloutAborted, now(), "aborted by "+actor+" before it began"
		})
	}
	desired, err := s.cameFromLocked(r)
	s.mu.Unlock()
	if err != nil {
		return api.Rollout{}, err
	}
	end := func(rec *rolloutRecord) {
		rec.State, rec.Ended, rec.Gate = api.RolloutAborted, desired.Since, nil
		rec.Reason = fmt.Sprintf("aborted by %s; the group goes back to revision %d", actor, rec.From)
		if rec.Strategy == StrategyRestart {
			rec.Reason = "aborted by " + actor
		}
	}
	if err := s.goBack(ctx, r, desired, end); err != nil {
		return api.Rollout{}, fmt.Errorf("abort rollout %s: %w", id, err)
	}
	s.mu.Lock()
	out, t := r.rec.clone().Rollout, r.rec.Turn
	s.mu.Unlock()
	if t != nil {
		s.endTurn(ctx, t)
	}
	s.announce(ctx, events.RolloutAborted, out, actor, out.Reason)
	return out, nil
}

// cameFromLocked is what the group of a rollout should run if it goes back.
func (s *Service) cameFromLocked(r *rollout) (desiredRecord, error) {
	desired := desiredRecord{Since: now()} // their own file
	if r.rec.From > 0 {
		rev := s.revisionLocked(r.rec.Group, r.rec.From)
		if rev == nil {
			return desired, conflict("rollout %s came from revision %d, which is not kept any more: start a rollout to another one", rolloutID(r.number), r.rec.From)
		}
		desired.RevisionRef, desired.Signature = rev.RevisionRef, rev.Signature
	}
	return desired, nil
}

// goBack takes the revision of a rollout away from all nodes: desired is what
// they should run instead, and end changes the rollout's record in the same
// transaction. The caller holds s.changes.
func (s *Service) goBack(ctx context.Context, r *rollout, desired desiredRecord, end func(*rolloutRecord)) error {
	g := r.rec.Group
	s.mu.Lock()
	l := s.lineLocked(g)
	rec := r.rec.clone()
	end(&rec)
	conds := []state.Cond{state.IfVersion(desiredKey(g), l.desiredAt), state.IfVersion(stepsKey(g), l.stepsAt), state.IfVersion(rolloutKey(r.number), r.version)}
	ops := []state.Op{state.OpPut(desiredKey(g), encode(desired)), state.OpPut(rolloutKey(r.number), encode(rec))}
	if l.stepsAt != 0 {
		ops = append(ops, state.OpDelete(stepsKey(g)))
	}
	s.mu.Unlock()

	version, err := s.o.Store.TxnVersion(ctx, conds, ops)
	if errors.Is(err, state.ErrConflict) {
		return conflict("another manager changed group %s at the same time: try again", g)
	} else if err != nil {
		return err
	}
	s.mu.Lock()
	end(&r.rec) // answers that came meanwhile stay
	r.version = version
	l.setSteps(stepsRecord{}, 0)
	s.setDesiredLocked(l, desired, version)
	s.mu.Unlock()
	s.wakeRun()
	return nil
}

// change changes the record of a rollout, durably. The caller holds s.changes.
func (s *Service) change(ctx context.Context, r *rollout, f func(*rolloutRecord)) (api.Rollout, error) {
	s.mu.Lock()
	rec := r.rec.clone()
	f(&rec)
	was := r.unstored
	r.unstored = false
	s.mu.Unlock()
	version, err := s.o.Store.Update(ctx, rolloutKey(r.number), encode(rec), r.version)
	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil {
		r.unstored = r.unstored || was
		return api.Rollout{}, fmt.Errorf("store rollout %s: %w", rolloutID(r.number), err)
	}
	f(&r.rec) // answers that came meanwhile stay
	r.version = version
	return r.rec.clone().Rollout, nil
}

// setDesiredLocked makes what is durable visible, and wakes the group's polls.
func (s *Service) setDesiredLocked(l *line, desired desiredRecord, version int64) {
	l.desired, l.desiredAt = desired, version
	close(l.changed)
	l.changed = make(chan struct{})
}

func (s *Service) announce(ctx context.Context, kind string, r api.Rollout, actor, message string) {
	s.notice(ctx, api.Event{Kind: kind, Group: r.Group, Actor: actor, Message: r.ID + ": " + message, Data: encode(struct {
		ID   string            `json:"id"`
		From binnacle.Revision `json:"from"`
		To   binnacle.Revision `json:"to"`
	}{r.ID, r.From, r.To})})
}

// Rollouts returns all rollouts kept, newest last.
func (s *Service) Rollouts(ctx context.Context) ([]api.Rollout, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([]api.Rollout, 0, len(s.rollouts))
	for _, r := range s.rollouts {
		out = append(out, r.rec.clone().Rollout)
	}
	return out, nil
}

// Running returns the rollouts that are under way or queued, newest last.
func (s *Service) Running() []api.Rollout {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := []api.Rollout{}
	for _, r := range s.rollouts {
		if !r.rec.State.Ended() {
			out = append(out, r.rec.clone().Rollout)
		}
	}
	return out
}

// Rollout returns one rollout. One that does not exist is an *api.Problem.
func (s *Service) Rollout(ctx context.Context, id string) (api.Rollout, error) {
	if err := ctx.Err(); err != nil {
		return api.Rollout{}, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	r := s.rolloutLocked(id)
	if r == nil {
		return api.Rollout{}, noRollout(id)
	}
	return r.rec.clone().Rollout, nil
}

func noRollout(id string) *api.Problem { return notFound("there is no rollout %.40q", id) }

func (s *Service) rolloutLocked(id string) *rollout {
	number, err := strconv.ParseUint(strings.TrimPrefix(id, "r"), 10, 64)
	if err != nil || rolloutID(number) != id {
		return nil
	}
	i, ok := slices.BinarySearchFunc(s.rollouts, number, func(r *rollout, n uint64) int { return int(int64(r.number) - int64(n)) })
	if !ok {
		return nil
	}
	return s.rollouts[i]
}

// runningLocked returns the group's rollout that is under way, or nil. There is
// one at most.
func (s *Service) runningLocked(g binnacle.Group) *rollout {
	for _, r := range slices.Backward(s.rollouts) {
		if r.rec.Group == g && r.active() {
			return r
		}
	}
	return nil
}

// queuedLocked returns the group's rollouts that wait, in the order in which they
// begin.
func (s *Service) queuedLocked(g binnacle.Group) []*rollout {
	var queue []*rollout
	for _, r := range s.rollouts {
		if r.rec.Group == g && r.rec.State == api.RolloutQueued {
			queue = append(queue, r)
		}
	}
	return queue
}

// oldRolloutsLocked returns the ended rollouts that one more leaves no room for.
func (s *Service) oldRolloutsLocked() []*rollout {
	var old []*rollout
	for _, r := range s.rollouts {
		if len(s.rollouts)+1-len(old) > keepRollouts && r.rec.State.Ended() {
			old = append(old, r)
		}
	}
	return old[:min(len(old), 100)]
}
