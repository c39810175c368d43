package rollout

import (
	"context"
	"errors"
	"net/http"

	"github.com/binnacle-project/binnacle/api"
	"github.com/binnacle-project/binnacle/events"
	"github.com/binnacle-project/binnacle/state"
)

// Pause has a rollout go no further until Resume. What nodes were told stays,
// and a gate that fails still rolls back.
func (s *Service) Pause(ctx context.Context, id, actor string) (api.Rollout, error) {
	return s.steer(ctx, id, "paused", events.RolloutPaused, actor, func(rec *rolloutRecord) error {
		if rec.State != api.RolloutRunning || rec.Strategy == StrategyAll {
			return conflict("rollout %s is %s, with strategy %q: only a running one in steps, or a restart, can be paused", id, rec.State, rec.Strategy)
		}
		rec.State, rec.Reason = api.RolloutPaused, "paused by "+actor
		return nil
	})
}

// Resume lets a paused rollout go on.
func (s *Service) Resume(ctx context.Context, id, actor string) (api.Rollout, error) {
	return s.steer(ctx, id, "resumed", events.RolloutResumed, actor, func(rec *rolloutRecord) error {
		if rec.State != api.RolloutPaused {
			return conflict("rollout %s is %s, and not paused", id, rec.State)
		}
		rec.State, rec.Reason = api.RolloutRunning, ""
		return nil
	})
}

// Promote lets the step under way pass without its gate, as soon as its nodes
// have confirmed. A gate that has failed cannot be passed so.
func (s *Service) Promote(ctx context.Context, id, actor string) (api.Rollout, error) {
	return s.steer(ctx, id, "promoted", events.RolloutPromoted, actor, func(rec *rolloutRecord) error {
		if rec.Strategy != StrategySteps || rec.State != api.RolloutRunning && rec.State != api.RolloutPaused {
			return conflict("rollout %s is %s, with strategy %q: only one in steps that is under way can be promoted", id, rec.State, rec.Strategy)
		}
		rec.Steps[rec.Step].PromotedBy = actor
		if rec.State == api.RolloutPaused {
			rec.State, rec.Reason = api.RolloutRunning, ""
		}
		return nil
	})
}

// steer changes a rollout by an operator's word.
func (s *Service) steer(ctx context.Context, id, what, kind, actor string, f func(*rolloutRecord) error) (api.Rollout, error) {
	s.changes.Lock()
	defer s.changes.Unlock()
	s.mu.Lock()
	r := s.rolloutLocked(id)
	if r == nil {
		s.mu.Unlock()
		return api.Rollout{}, noRollout(id)
	}
	try := r.rec.clone()
	s.mu.Unlock()
	if err := f(&try); err != nil {
		return api.Rollout{}, err
	}
	out, err := s.change(ctx, r, func(rec *rolloutRecord) { _ = f(rec) }) // nobody else changes the state meanwhile
	if errors.Is(err, state.ErrConflict) {
		return out, problem(http.StatusConflict, "Conflict", "another manager changed rollout %s at the same time: try again", id)
	} else if err != nil {
		return out, err
	}
	s.wakeRun()
	s.announce(ctx, kind, out, actor, what+" by "+actor)
	return out, nil
}
