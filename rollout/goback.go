package rollout

import (
	"context"
	"errors"
	"fmt"

	"github.com/binnacle-project/binnacle"
	"github.com/binnacle-project/binnacle/api"
	"github.com/binnacle-project/binnacle/events"
	"github.com/binnacle-project/binnacle/state"
)

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
	s.setDesiredLocked(g, l, desired, version)
	s.mu.Unlock()
	s.wakeRun()
	return nil
}
