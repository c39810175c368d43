package rollout

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/binnacle-project/binnacle"
	"github.com/binnacle-project/binnacle/api"
	"github.com/binnacle-project/binnacle/events"
)

// returnWithin is how long nodes may take to go back before a failed rollout
// ends without them. They go back when they can.
const returnWithin = 10 * time.Minute

// rollBack takes the revision away from all nodes that have it.
func (s *Service) rollBack(ctx context.Context, r *rollout, reason string, at time.Time) error {
	s.mu.Lock()
	desired, err := s.cameFromLocked(r)
	s.mu.Unlock()
	if err != nil {
		return err
	}
	desired.Since = at
	if err := s.goBack(ctx, r, desired, func(rec *rolloutRecord) {
		rec.Steps[rec.Step].State, rec.Steps[rec.Step].Ended = api.StepFailed, at
		rec.State, rec.Gate, rec.Baseline, rec.Reason = api.RolloutRollingBack, nil, nil, reason
	}); err != nil {
		return err
	}
	s.mu.Lock()
	out := r.rec.clone().Rollout
	s.mu.Unlock()
	s.announceVerdict(ctx, out, out.Step)
	s.announce(ctx, events.RolloutRollingBack, out, "manager", fmt.Sprintf("back to revision %d: %s", out.From, reason))
	return nil
}

// settleReturn ends a failed rollout when its nodes have confirmed the way back.
func (s *Service) settleReturn(ctx context.Context, r *rollout, at time.Time) error {
	s.mu.Lock()
	var back, missing []binnacle.NodeID
	from := s.lineLocked(r.rec.Group).desired
	for _, id := range slices.Sorted(maps.Keys(r.targets())) {
		n := s.nodes[id]
		if n != nil && runs(n.ledger, from) {
			back = append(back, id)
		} else if since, gone := r.gone[id]; !gone || at.Sub(since) < awayAfter {
			missing = append(missing, id)
		}
	}
	began := r.rec.Steps[r.rec.Step].Ended
	same := slices.Equal(back, r.rec.Returned)
	s.mu.Unlock()
	if len(missing) > 0 && at.Sub(began) < returnWithin {
		if same {
			return nil
		}
		_, err := s.change(ctx, r, func(rec *rolloutRecord) { rec.Returned = back })
		return err
	}
	out, err := s.change(ctx, r, func(rec *rolloutRecord) {
		rec.Returned, rec.State, rec.Ended = back, api.RolloutFailed, at
		if len(missing) > 0 {
			rec.Reason += fmt.Sprintf("; not back yet: %s", listOf(missing))
		}
	})
	if err == nil {
		s.announce(ctx, events.RolloutFailed, out, "manager", fmt.Sprintf("%s; %s %s back on revision %d", out.Reason, count(len(back), "node"), are(len(back)), out.From))
	}
	return err
}

// runs reports whether a ledger says that its node runs what it should. A node
// that never applied anything runs its own file.
func runs(l ledgerRecord, want desiredRecord) bool {
	if want.Number == 0 {
		return l.Applied == nil || l.Applied.Number == 0
	}
	return l.Applied != nil && l.Applied.SHA256 == want.SHA256
}
