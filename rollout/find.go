package rollout

import (
	"context"
	"slices"
	"strconv"
	"strings"

	"github.com/binnacle-project/binnacle"
	"github.com/binnacle-project/binnacle/api"
)

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
