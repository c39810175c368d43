package rollout

import (
	"context"
	"crypto/rand"
	"fmt"
	"strings"

	"github.com/binnacle-project/binnacle"
	"github.com/binnacle-project/binnacle/api"
	"github.com/binnacle-project/binnacle/events"
	"github.com/binnacle-project/binnacle/state"
)

// maxErrorBytes bounds what one node can make the manager keep of an error.
const maxErrorBytes = 2048

// Report takes a node's account of itself. Its ledger is in memory at once and
// in the state within a second or two; what it means to a running rollout is
// durable before anything follows from it.
func (s *Service) Report(ctx context.Context, id binnacle.NodeID, g binnacle.Group, st api.Status) error {
	for _, e := range []*api.LedgerEntry{st.Attempted, st.Applied, st.LastGood} {
		if e != nil && len(e.SHA256) > 64 {
			return invalid("status of node %s: sha256 %.80q is none", id, e.SHA256)
		}
	}
	if len(st.RestartDone) > 64 {
		return invalid("status of node %s: restart_done %.80q is no restart order", id, st.RestartDone)
	}
	s.m.reports.Inc()
	s.arrive(id, g)
	s.mu.Lock()
	n := s.nodeLocked(id)
	restarted := st.RestartDone != "" && st.RestartDone == n.order.Restart && st.RestartDone != n.ledger.RestartDone
	n.ledger = ledgerRecord{
		Group:       n.group,
		Reported:    now(),
		Attempted:   copyEntry(st.Attempted),
		Applied:     copyEntry(st.Applied),
		LastGood:    copyEntry(st.LastGood),
		RestartDone: st.RestartDone,
		Crashes:     st.Crashes,
		Serving:     st.Serving,
		Draining:    st.Draining,
	}
	n.unstored = true
	refused := s.observeLocked(id, n)
	s.mu.Unlock()

	if restarted {
		s.notice(ctx, api.Event{Kind: events.NodeRestarted, Group: g, Node: id, Actor: string(id), Message: "restart order " + st.RestartDone + " was carried out"})
	}
	if refused != "" {
		s.notice(ctx, api.Event{Kind: events.RolloutNodeRefused, Group: g, Node: id, Actor: string(id), Message: refused})
	}
	return nil
}

func copyEntry(e *api.LedgerEntry) *api.LedgerEntry {
	if e == nil {
		return nil
	}
	c := *e
	if len(c.Error) > maxErrorBytes {
		c.Error = strings.ToValidUTF8(c.Error[:maxErrorBytes], "") + " …"
	}
	return &c
}

// Ledger returns how far a node has come, or nil for a node that never polled.
// The caller owns it.
func (s *Service) Ledger(id binnacle.NodeID) *api.Ledger {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := s.nodes[id]
	if n == nil {
		return nil
	}
	l := &api.Ledger{
		Attempted: copyEntry(n.ledger.Attempted),
		Applied:   copyEntry(n.ledger.Applied),
		LastGood:  copyEntry(n.ledger.LastGood),
	}
	if line := s.lines[n.group]; line != nil {
		if want, _ := line.wanted(id); want.Number > 0 {
			l.Desired = &api.LedgerEntry{RevisionRef: want.RevisionRef, Time: want.Since}
		}
	}
	return l
}

// Drain tells a node to stop taking traffic, or to take it again. Saying what
// it was told before is no change.
func (s *Service) Drain(ctx context.Context, id binnacle.NodeID, on bool, actor string) error {
	s.mu.Lock()
	n := s.nodes[id]
	same, group := n != nil && n.order.Drain == on, binnacle.Group("")
	if n != nil {
		group = n.group
	}
	s.mu.Unlock()
	if same || n == nil && !on {
		return nil
	}
	if err := s.order(ctx, id, func(o *orderRecord) { o.Drain = on }); err != nil {
		return fmt.Errorf("drain node %s: %w", id, err)
	}
	e := api.Event{Kind: events.NodeDrained, Group: group, Node: id, Actor: actor, Message: "the node is to stop taking traffic"}
	if !on {
		e.Kind, e.Message = events.NodeUndrained, "the node is to take traffic again"
	}
	s.notice(ctx, e)
	return nil
}

// Draining reports whether the node is told to drain.
func (s *Service) Draining(id binnacle.NodeID) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := s.nodes[id]
	return n != nil && n.order.Drain
}

// Restart orders one graceful restart of the node's worker, and returns the id
// of the order, which the node will report when it is done.
func (s *Service) Restart(ctx context.Context, id binnacle.NodeID, actor string) (orderID string, err error) {
	orderID = "restart-" + strings.ToLower(rand.Text()[:12])
	if err := s.order(ctx, id, func(o *orderRecord) { o.Restart = orderID }); err != nil {
		return "", fmt.Errorf("restart node %s: %w", id, err)
	}
	s.mu.Lock()
	group := s.nodeLocked(id).group
	s.mu.Unlock()
	s.notice(ctx, api.Event{Kind: events.NodeRestartOrdered, Group: group, Node: id, Actor: actor, Message: "order " + orderID})
	return orderID, nil
}

// Forget drops all that is kept of a node. Who watches its plan
// hears ErrForgotten, and no rollout waits for it. The error says that records stay
// behind in the state, which harms nobody.
func (s *Service) Forget(id binnacle.NodeID) error {
	ctx, cancel := context.WithTimeout(context.Background(), flushEvery*5)
	defer cancel()
	s.changes.Lock()
	defer s.changes.Unlock()
	s.mu.Lock()
	if n := s.nodes[id]; n != nil {
		n.gone, n.unstored = true, false
		s.wakeLocked(n)
		delete(s.nodes, id)
	}
	for _, r := range s.rollouts {
		if r.active() {
			r.forget(id)
		}
	}
	s.mu.Unlock()
	s.wakeRun()
	if err := s.o.Store.Txn(ctx, nil, []state.Op{state.OpDelete(orderKey(id)), state.OpDelete(ledgerKey(id))}); err != nil {
		return fmt.Errorf("forget node %s: %w", id, err)
	}
	return nil
}
