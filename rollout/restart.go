package rollout

import (
	"context"
	"crypto/rand"
	"fmt"
	"strings"
	"time"

	"github.com/binnacle-project/binnacle"
	"github.com/binnacle-project/binnacle/api"
	"github.com/binnacle-project/binnacle/events"
)

// A rolling restart is one transaction of a group: its nodes take turns. The
// node drains, is idle or was given long enough, restarts, serves what it
// should, takes traffic again, and then the next one drains. A crash, an order
// that failed or a gate that finds a restarted node worse than the rest ends it.

// RestartGroup restarts the nodes of a group one after the other. What is under
// way in the group comes first: the restart waits for it.
func (s *Service) RestartGroup(ctx context.Context, g binnacle.Group, author string) (api.Rollout, error) {
	if err := binnacle.CheckName("group", string(g)); err != nil {
		return api.Rollout{}, invalid("%v", err)
	}
	s.changes.Lock()
	defer s.changes.Unlock()
	return s.start(ctx, rolloutRecord{Rollout: api.Rollout{Group: g, Strategy: StrategyRestart, Author: author}}, true)
}

// settleRestart moves a rolling restart on. The caller holds s.changes.
func (s *Service) settleRestart(ctx context.Context, r *rollout, at time.Time) error {
	s.mu.Lock()
	rec := r.rec.clone()
	s.mu.Unlock()
	if len(rec.Lost) > 0 {
		id := firstKey(rec.Lost)
		return s.endRestart(ctx, r, fmt.Sprintf("node %s: %s", id, rec.Lost[id]), at)
	}
	if rec.Turn != nil {
		return s.takeTurn(ctx, r, *rec.Turn, at)
	}
	if rec.State == api.RolloutPaused {
		return nil
	}
	done := setOf(rec.Confirmed)
	var have, free []candidate
	for _, c := range s.candidates(rec.Group) {
		if done[c.ID] {
			have = append(have, c)
		} else {
			free = append(free, c)
		}
	}
	next := choose(have, free, 1)
	if len(next) == 0 {
		return s.endRestart(ctx, r, "", at)
	}
	s.mu.Lock()
	n := s.nodeLocked(next[0])
	t := &turn{Node: next[0], Stage: stageDrain, Since: at, Order: "restart-" + strings.ToLower(rand.Text()[:12]), Drained: n.order.Drain}
	crashes := n.ledger.Crashes
	s.mu.Unlock()
	if _, err := s.change(ctx, r, func(rec *rolloutRecord) {
		rec.Turn = t
		rec.Pending = []binnacle.NodeID{t.Node}
		if rec.Crashes == nil {
			rec.Crashes = make(map[binnacle.NodeID]uint64)
		}
		rec.Crashes[t.Node] = crashes
		rec.Reason = fmt.Sprintf("%s drains", t.Node)
	}); err != nil {
		return err
	}
	return s.orderHeld(ctx, t.Node, func(o *orderRecord) { o.Drain = true })
}

// endRestart ends a rolling restart, for a reason or because all is done.
func (s *Service) endRestart(ctx context.Context, r *rollout, failed string, at time.Time) error {
	s.mu.Lock()
	t := r.rec.Turn
	desired := s.lineLocked(r.rec.Group).desired
	s.mu.Unlock()
	desired.Fine = false
	if err := s.goBack(ctx, r, desired, func(rec *rolloutRecord) {
		rec.State, rec.Ended, rec.Turn, rec.Gate, rec.Baseline, rec.Reason = api.RolloutCompleted, at, nil, nil, nil, failed
		rec.Pending = []binnacle.NodeID{}
		if failed != "" {
			rec.State = api.RolloutFailed
		}
	}); err != nil {
		return err
	}
	if t != nil {
		s.endTurn(ctx, t)
	}
	s.mu.Lock()
	out := r.rec.clone().Rollout
	s.mu.Unlock()
	if failed != "" {
		s.announce(ctx, events.RolloutFailed, out, "manager", failed)
	} else {
		s.announce(ctx, events.RolloutCompleted, out, "manager", fmt.Sprintf("%s restarted in %v", count(len(out.Confirmed), "node"), out.Ended.Sub(out.Started).Round(time.Second)))
	}
	return nil
}

// restarted is a node that has had its turn.
type restarted struct {
	Node binnacle.NodeID `json:"node"`
	At   time.Time       `json:"at"`
}

// questionOfRestart compares the node that was restarted last with the rest.
func questionOfRestart(rec rolloutRecord, alive []binnacle.NodeID, at time.Time) (question, bool) {
	if len(rec.Restarted) == 0 || rec.Gate == nil {
		return question{}, false
	}
	last := rec.Restarted[len(rec.Restarted)-1]
	q := question{
		Canary:  side{group: rec.Group, revision: rec.To, nodes: []binnacle.NodeID{last.Node}},
		Control: side{group: rec.Group, revision: rec.To},
		From:    last.At, At: at, ByNode: true,
	}
	for _, id := range alive {
		if id != last.Node && (rec.Turn == nil || rec.Turn.Node != id) {
			q.Control.nodes = append(q.Control.nodes, id)
		}
	}
	return q, len(q.Control.nodes) > 0 && q.Control.named()
}
