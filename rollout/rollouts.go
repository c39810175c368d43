package rollout

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"time"

	"github.com/binnacle-project/binnacle"
	"github.com/binnacle-project/binnacle/api"
	"github.com/binnacle-project/binnacle/rollout/gate"
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
	Gate     *gate.State `json:"gate,omitempty"`
	Baseline *baseline   `json:"baseline,omitempty"`
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
func (s *Service) setDesiredLocked(g binnacle.Group, l *line, desired desiredRecord, version int64) {
	l.desired, l.desiredAt = desired, version
	s.wakeGroupLocked(g)
}

func (s *Service) announce(ctx context.Context, kind string, r api.Rollout, actor, message string) {
	s.notice(ctx, api.Event{Kind: kind, Group: r.Group, Actor: actor, Message: r.ID + ": " + message, Data: encode(struct {
		ID   string            `json:"id"`
		From binnacle.Revision `json:"from"`
		To   binnacle.Revision `json:"to"`
	}{r.ID, r.From, r.To})})
}
