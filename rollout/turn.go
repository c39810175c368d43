package rollout

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/binnacle-project/binnacle"
	"github.com/binnacle-project/binnacle/rollout/gate"
)

const (
	// idleFor is how long no request may have come until a node counts as
	// idle: that covers two exports.
	idleFor = 5 * time.Second
	// drainWithin is how long a node may take to become idle. Its worker
	// finishes what it has in flight in any case.
	drainWithin = 30 * time.Second
	// stageWithin bounds what a node has to do by itself in its turn.
	stageWithin = 2 * time.Minute
)

// stage is how far a node is in its turn.
type stage string

const (
	stageDrain   stage = "drain"   // told to drain, has not said that it does
	stageIdle    stage = "idle"    // drains, may have requests in flight
	stageRestart stage = "restart" // told to restart
	stageReady   stage = "ready"   // restarted, is to take traffic again
)

// turn is one node's turn in a rolling restart.
type turn struct {
	Node  binnacle.NodeID `json:"node"`
	Stage stage           `json:"stage"`
	// Since is the begin of the stage.
	Since time.Time `json:"since"`
	// Order is the id of the restart order.
	Order string `json:"order"`
	// Drained says that the node was drained before its turn, and stays so.
	Drained bool `json:"drained,omitempty"`
	// Served is how many requests the node had served by the last look, and
	// Still since when that has not changed.
	Served float64   `json:"served,omitempty"`
	Still  time.Time `json:"still,omitzero"`
}

// turnView is what the next stage depends on.
type turnView struct {
	Now  time.Time
	Turn turn
	// Alive says that the node polls; Told is its drain order; the rest is its
	// own account.
	Alive    bool
	Draining bool
	Serving  bool
	Done     string // the last restart order carried out
	Right    bool   // it runs what it should
	Error    string // of the last attempt with what it should run
}

// nextStage returns the stage that follows, with done for the end of the turn, or
// why the turn failed.
func nextStage(v turnView) (next stage, done bool, failed string) {
	t := v.Turn
	if v.Now.Sub(t.Since) > stageWithin {
		return t.Stage, false, fmt.Sprintf("it is at the stage %q for more than %v", t.Stage, stageWithin)
	}
	switch t.Stage {
	case stageDrain:
		if v.Draining {
			return stageIdle, false, ""
		}
	case stageIdle:
		idle := !t.Still.IsZero() && v.Now.Sub(t.Still) >= idleFor
		if idle || v.Now.Sub(t.Since) >= drainWithin {
			return stageRestart, false, ""
		}
	case stageRestart:
		if v.Done != t.Order {
			return t.Stage, false, ""
		}
		if strings.HasPrefix(v.Error, "restart order "+t.Order) {
			return t.Stage, false, v.Error
		}
		if v.Right && v.Serving {
			return stageReady, false, ""
		}
	case stageReady:
		return stageReady, v.Alive && v.Serving && v.Right && v.Draining == t.Drained, ""
	}
	return t.Stage, false, ""
}

// takeTurn looks how far the node is, and gives the order of the next stage.
// Orders are given again after a restart of the manager: they say what shall be.
func (s *Service) takeTurn(ctx context.Context, r *rollout, t turn, at time.Time) error {
	s.countServed(ctx, r.rec.Group, &t, at)
	alive := slices.Contains(s.o.Nodes.InGroup(r.rec.Group), t.Node)
	s.mu.Lock()
	want, _ := s.lineLocked(r.rec.Group).wanted(t.Node)
	n := s.nodeLocked(t.Node)
	l, order := n.ledger, n.order
	if before := r.rec.Crashes[t.Node]; l.Crashes > before {
		s.mu.Unlock()
		return s.endRestart(ctx, r, fmt.Sprintf("node %s: its worker crashed", t.Node), at)
	}
	s.mu.Unlock()
	v := turnView{Now: at, Turn: t, Alive: alive, Draining: l.Draining, Serving: l.Serving, Done: l.RestartDone, Right: runs(l, want)}
	if l.Attempted != nil {
		v.Error = l.Attempted.Error
	}
	next, done, failed := nextStage(v)
	switch {
	case failed != "":
		return s.endRestart(ctx, r, fmt.Sprintf("node %s: %s", t.Node, failed), at)
	case done:
		_, err := s.change(ctx, r, func(rec *rolloutRecord) {
			rec.Confirmed = insertSorted(rec.Confirmed, t.Node)
			rec.Pending, rec.Turn, rec.Reason = []binnacle.NodeID{}, nil, ""
			rec.Gate, rec.Baseline = &gate.State{}, &baseline{}
			rec.Restarted = append(slices.Clone(rec.Restarted), restarted{t.Node, at})
		})
		s.wakeRun()
		return err
	}
	var err error
	switch {
	case (next == stageDrain || next == stageIdle) && !order.Drain:
		err = s.orderHeld(ctx, t.Node, func(o *orderRecord) { o.Drain = true })
	case next == stageRestart && order.Restart != t.Order:
		err = s.orderHeld(ctx, t.Node, func(o *orderRecord) { o.Restart = t.Order })
	case next == stageReady && order.Drain != t.Drained:
		err = s.orderHeld(ctx, t.Node, func(o *orderRecord) { o.Drain = t.Drained })
	}
	if err != nil {
		return err
	}
	if next != t.Stage {
		t.Stage, t.Since = next, at
		_, err = s.change(ctx, r, func(rec *rolloutRecord) {
			rec.Turn = &t
			rec.Reason = fmt.Sprintf("%s: %s", t.Node, t.Stage)
		})
		return err
	}
	s.mu.Lock()
	r.rec.Turn = &t
	s.mu.Unlock()
	return nil
}

// countServed notes since when the node has served nothing. Without telemetry
// nobody knows, and a drain takes all of its time.
func (s *Service) countServed(ctx context.Context, g binnacle.Group, t *turn, at time.Time) {
	if t.Stage != stageIdle || s.o.Telemetry == nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	v, err := s.o.Telemetry.Query(ctx, fmt.Sprintf(`histogram_count(sum(%s{group=%q,instance=%q}))`, binnacle.RollupNode, g, t.Node), at)
	if err != nil {
		return
	}
	served := 0.0
	for _, x := range v {
		served += x.F
	}
	if t.Still.IsZero() || served != t.Served {
		t.Served, t.Still = served, at
	}
}

// endTurn lets the node of an interrupted turn take traffic again. The caller
// holds s.changes.
func (s *Service) endTurn(ctx context.Context, t *turn) {
	if t.Drained {
		return
	}
	if err := s.orderHeld(ctx, t.Node, func(o *orderRecord) { o.Drain = false }); err != nil {
		s.log.Error("a node of an interrupted restart stays drained: undrain it", "node", t.Node, "err", err)
	}
}
