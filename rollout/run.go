package rollout

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/binnacle-project/binnacle"
	"github.com/binnacle-project/binnacle/api"
	"github.com/binnacle-project/binnacle/events"
	"github.com/binnacle-project/binnacle/state"
)

const (
	// flushEvery is how often ledgers go to the state, and how often nodes that
	// are gone are looked at.
	flushEvery = time.Second
	// gatherFor, and gatherPerNode for each node of the rollouts under way, lets
	// answers that come together become a few writes of a rollout's record, which
	// names all these nodes, instead of one for each. Ten thousand take 0.4 s.
	gatherFor     = 20 * time.Millisecond
	gatherPerNode = 40 * time.Microsecond
	// flushBatch and flushBytes bound the ledgers stored in one transaction.
	flushBatch = state.MaxTxnOps / 2
	flushBytes = state.MaxValueBytes
)

// wakeRun makes Run look at the rollouts.
func (s *Service) wakeRun() {
	select {
	case s.kick <- struct{}{}:
	default:
	}
}

// Run moves rollouts on, stores ledgers and follows the gossip plan until ctx
// ends; what is in memory then is stored before it returns.
func (s *Service) Run(ctx context.Context) error {
	var looking sync.WaitGroup
	defer looking.Wait()
	looking.Go(func() { s.watch(ctx) })
	tick := time.NewTicker(flushEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
			defer cancel()
			s.keepBakes()
			s.settle(last)
			return s.flushLedgers(last)
		case <-s.kick:
			select {
			case <-ctx.Done():
			case <-time.After(s.gatherTime()):
			}
			s.settle(ctx)
		case <-s.gossip:
			if err := s.renewCommon(ctx); err != nil && ctx.Err() == nil {
				s.log.Warn("the new gossip plan reaches no node yet", "err", err)
				s.GossipChanged() // again with the next tick, at the latest
				wait(ctx, flushEvery)
			}
		case <-tick.C:
			s.noteGone(now())
			s.settle(ctx)
			s.tellBakes()
			s.repair(ctx, now())
			if err := s.flushLedgers(ctx); err != nil && ctx.Err() == nil {
				s.log.Warn("ledgers are in memory only, for now", "err", err)
			}
		}
	}
}

// gatherTime is how long answers are gathered.
func (s *Service) gatherTime() time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	nodes := 0
	for _, r := range s.rollouts {
		if r.active() {
			nodes += len(r.rec.Pending) + len(r.rec.Confirmed)
		}
	}
	return gatherFor + time.Duration(nodes)*gatherPerNode
}

func wait(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// noteGone keeps for rollouts under way since when their nodes are gone.
func (s *Service) noteGone(now time.Time) {
	s.mu.Lock()
	groups := make(map[binnacle.Group]map[binnacle.NodeID]bool)
	for _, r := range s.rollouts {
		if r.active() {
			groups[r.rec.Group] = nil
		}
	}
	s.mu.Unlock()
	for g := range groups { // asked without our lock: it is another's code
		alive := make(map[binnacle.NodeID]bool)
		for _, id := range s.o.Nodes.InGroup(g) {
			alive[id] = true
		}
		groups[g] = alive
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range s.rollouts {
		alive, asked := groups[r.rec.Group]
		if !asked || !r.active() {
			continue
		}
		gone := make(map[binnacle.NodeID]time.Time)
		for id := range r.targets() {
			if alive[id] {
				continue
			}
			gone[id] = now
			if since, ok := r.gone[id]; ok {
				gone[id] = since
			}
		}
		r.gone = gone
	}
}

// settle stores what nodes answered and takes each rollout's next step. The step
// is taken from what is stored, so that a restart finds the reason for it.
func (s *Service) settle(ctx context.Context) {
	s.changes.Lock()
	defer s.changes.Unlock()
	s.mu.Lock()
	var under []*rollout
	for _, r := range s.rollouts {
		if !r.rec.State.Ended() {
			under = append(under, r)
		}
	}
	s.mu.Unlock()
	for _, r := range under {
		if err := s.settleAny(ctx, r, now()); err != nil && ctx.Err() == nil {
			s.log.Warn("a rollout stands still", "rollout", rolloutID(r.number), "err", err)
		}
	}
}

// settleAny is settle for one rollout. The caller holds s.changes, so that nobody
// else ends it meanwhile.
func (s *Service) settleAny(ctx context.Context, r *rollout, at time.Time) error {
	s.mu.Lock()
	st, strategy := r.rec.State, r.rec.Strategy
	queued := st == api.RolloutQueued
	free := queued && s.runningLocked(r.rec.Group) == nil && s.queuedLocked(r.rec.Group)[0] == r
	s.mu.Unlock()
	switch {
	case queued && !free:
		return nil
	case queued:
		_, err := s.begin(ctx, r)
		return err
	case st == api.RolloutRollingBack:
		return s.settleReturn(ctx, r, at)
	case strategy == StrategySteps:
		return s.settleSteps(ctx, r, at)
	case strategy == StrategyRestart:
		return s.settleRestart(ctx, r, at)
	}
	return s.settleOne(ctx, r, at)
}

// settleOne is settle for a rollout to all nodes at once.
func (s *Service) settleOne(ctx context.Context, r *rollout, at time.Time) error {
	s.mu.Lock()
	rec := r.rec.clone()
	v := view{Confirmed: len(rec.Confirmed), Refused: rec.Refused, Pending: rec.Pending, Away: make(map[binnacle.NodeID]bool)}
	for id, since := range r.gone {
		v.Away[id] = at.Sub(since) >= awayAfter
	}
	d := next(v)
	if rec.State == api.RolloutPaused && d.State == api.RolloutRunning {
		d.State = api.RolloutPaused
	}
	if !r.unstored && d.State == rec.State && d.Reason == rec.Reason {
		s.mu.Unlock()
		return nil
	}
	r.unstored = false
	s.mu.Unlock()

	rec.State, rec.Reason = d.State, d.Reason
	if d.State.Ended() {
		rec.Ended = at
	}
	version, err := s.o.Store.Update(ctx, rolloutKey(r.number), encode(rec), r.version)
	s.mu.Lock()
	if err != nil {
		r.unstored = true
		s.mu.Unlock()
		return err
	}
	r.version = version
	if !d.State.Ended() {
		r.rec.Reason = d.Reason
	} else {
		r.rec, r.unstored = rec, false
	}
	s.mu.Unlock()

	summary := fmt.Sprintf("revision %d confirmed by %s", rec.To, count(len(rec.Confirmed), "node"))
	if d.Reason != "" {
		summary += "; " + d.Reason
	}
	switch d.State {
	case api.RolloutCompleted:
		s.announce(ctx, events.RolloutCompleted, rec.Rollout, "manager", summary)
	case api.RolloutFailed:
		s.announce(ctx, events.RolloutFailed, rec.Rollout, "manager", summary)
	}
	return nil
}

// flushLedgers stores the ledgers that changed, many at a time.
func (s *Service) flushLedgers(ctx context.Context) error {
	s.changes.Lock() // against Forget, which must have the last word
	defer s.changes.Unlock()
	type entry struct {
		n     *node
		key   string
		value []byte
	}
	var entries []entry
	s.mu.Lock()
	for id, n := range s.nodes {
		if n.unstored {
			n.unstored = false
			entries = append(entries, entry{n, ledgerKey(id), encode(n.ledger)})
		}
	}
	s.mu.Unlock()
	var errs []error
	for len(entries) > 0 {
		var ops []state.Op
		for size := 0; len(ops) < min(flushBatch, len(entries)); {
			e := entries[len(ops)]
			size += len(e.key) + len(e.value)
			if len(ops) > 0 && size > flushBytes {
				break
			}
			ops = append(ops, state.OpPut(e.key, e.value))
		}
		batch := entries[:len(ops)]
		entries = entries[len(ops):]
		if err := s.o.Store.Txn(ctx, nil, ops); err != nil {
			s.mu.Lock()
			for _, e := range batch {
				e.n.unstored = !e.n.gone
			}
			s.mu.Unlock()
			errs = append(errs, err)
			continue
		}
		s.m.ledgerWrites.Add(len(batch))
	}
	if len(errs) > 0 {
		return fmt.Errorf("store ledgers: %w", errors.Join(errs...))
	}
	return nil
}
