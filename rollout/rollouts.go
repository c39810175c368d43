package rollout

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
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
}

func (r rolloutRecord) clone() rolloutRecord {
	r.Confirmed = slices.Clone(r.Confirmed)
	r.Pending = slices.Clone(r.Pending)
	r.Refused = maps.Clone(r.Refused)
	return r
}

func rolloutID(number uint64) string { return "r" + strconv.FormatUint(number, 10) }

// StartRollout moves group g to a revision, and returns the rollout that begins
// with it. It is durable when StartRollout returns, and the nodes' polls are
// awake. A running rollout of the group is superseded, unless it goes to the
// same revision: then it is returned.
func (s *Service) StartRollout(ctx context.Context, g binnacle.Group, r api.NewRollout, author string) (api.Rollout, error) {
	switch r.Strategy {
	case StrategyAll, "":
	case StrategySteps:
		return api.Rollout{}, problem(http.StatusNotImplemented, "Not in this version", `strategy "steps" is not in this version: use "all"`)
	default:
		return api.Rollout{}, invalid(`strategy %.40q is none: use "all"`, r.Strategy)
	}
	s.changes.Lock()
	defer s.changes.Unlock()
	return s.start(ctx, g, r.Revision, author, false)
}

// Rollback moves group g back to the newest revision that completed a rollout
// and was not rolled back since.
func (s *Service) Rollback(ctx context.Context, g binnacle.Group, author string) (api.Rollout, error) {
	s.changes.Lock()
	defer s.changes.Unlock()
	s.mu.Lock()
	var history []past
	for _, r := range s.rollouts {
		if r.rec.Group == g {
			history = append(history, past{r.rec.From, r.rec.To, r.rec.State == api.RolloutCompleted, r.rec.Rollback})
		}
	}
	to := rollbackTarget(history, s.lineLocked(g).desired.Number)
	s.mu.Unlock()
	if to == 0 {
		return api.Rollout{}, conflict("group %s has no earlier revision that completed a rollout: start a rollout to the revision you want", g)
	}
	return s.start(ctx, g, to, author, true)
}

// start does it. The caller holds s.changes.
func (s *Service) start(ctx context.Context, g binnacle.Group, to binnacle.Revision, author string, rollback bool) (api.Rollout, error) {
	alive := s.o.Nodes.InGroup(g)
	slices.Sort(alive)

	s.mu.Lock()
	rev := s.revisionLocked(g, to)
	if rev == nil {
		s.mu.Unlock()
		return api.Rollout{}, noRevision(g, to)
	}
	l := s.lineLocked(g)
	running := s.runningLocked(g)
	if running != nil && running.rec.To == to {
		out := running.rec.clone().Rollout
		s.mu.Unlock()
		return out, nil
	}
	r := &rollout{number: 1}
	if n := len(s.rollouts); n > 0 {
		r.number = s.rollouts[n-1].number + 1
	}
	r.rec = rolloutRecord{
		Rollout: api.Rollout{
			ID: rolloutID(r.number), Group: g, From: l.desired.Number, To: to,
			Strategy: StrategyAll, State: api.RolloutRunning, Author: author, Started: now(),
			Confirmed: []binnacle.NodeID{}, Pending: slices.Clone(alive), // observe changes it
		},
		SHA256:   rev.SHA256,
		Rollback: rollback,
	}
	for _, id := range alive {
		n := s.nodes[id]
		if n == nil {
			continue
		}
		if e := n.ledger.Attempted; e != nil && e.SHA256 == rev.SHA256 && e.Error != "" {
			if r.rec.Stale == nil {
				r.rec.Stale = make(map[binnacle.NodeID]time.Time)
			}
			r.rec.Stale[id] = e.Time
		}
		r.observe(id, n)
	}
	desired := desiredRecord{RevisionRef: rev.RevisionRef, Signature: rev.Signature, Since: r.rec.Started}
	conds := []state.Cond{state.IfVersion(desiredKey(g), l.desiredAt), state.IfAbsent(rolloutKey(r.number))}
	ops := []state.Op{state.OpPut(desiredKey(g), encode(desired)), state.OpPut(rolloutKey(r.number), encode(r.rec))}
	var ended rolloutRecord
	if running != nil {
		ended = running.rec.clone()
		ended.State, ended.Ended, ended.Reason = api.RolloutSuperseded, r.rec.Started, "superseded by "+r.rec.ID
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
		return api.Rollout{}, fmt.Errorf("start a rollout of group %s to revision %d: %w", g, to, err)
	}

	s.mu.Lock()
	r.version, r.unstored = version, false
	if running != nil {
		running.rec, running.version, running.unstored = ended, version, false
	}
	s.rollouts = slices.DeleteFunc(s.rollouts, func(old *rollout) bool { return slices.Contains(drop, old) })
	s.rollouts = append(s.rollouts, r)
	for id := range r.targets() { // reports that came during the write
		if n := s.nodes[id]; n != nil {
			r.observe(id, n)
		}
	}
	s.setDesiredLocked(l, desired, version)
	out := r.rec.clone().Rollout
	s.mu.Unlock()
	s.wakeRun()

	if running != nil {
		s.announce(ctx, events.RolloutSuperseded, ended.Rollout, author, ended.Reason)
	}
	what := "rollout"
	if rollback {
		what = "rollback"
	}
	s.announce(ctx, events.RolloutStarted, out, author, fmt.Sprintf("%s from revision %d to %d on %d nodes", what, out.From, out.To, len(alive)))
	return out, nil
}

// Abort ends a running rollout and sets the group back to what it came from.
func (s *Service) Abort(ctx context.Context, id, actor string) (api.Rollout, error) {
	s.changes.Lock()
	defer s.changes.Unlock()
	s.mu.Lock()
	r := s.rolloutLocked(id)
	if r == nil {
		s.mu.Unlock()
		return api.Rollout{}, noRollout(id)
	}
	if r.rec.State != api.RolloutRunning {
		defer s.mu.Unlock()
		return api.Rollout{}, conflict("rollout %s is %s and cannot be aborted: use a rollback", id, r.rec.State)
	}
	g := r.rec.Group
	l := s.lineLocked(g)
	desired := desiredRecord{Since: now()} // their own file
	if r.rec.From > 0 {
		rev := s.revisionLocked(g, r.rec.From)
		if rev == nil {
			defer s.mu.Unlock()
			return api.Rollout{}, conflict("rollout %s came from revision %d, which is not kept any more: start a rollout to another one", id, r.rec.From)
		}
		desired.RevisionRef, desired.Signature = rev.RevisionRef, rev.Signature
	}
	rec := r.rec.clone()
	rec.State, rec.Ended = api.RolloutAborted, desired.Since
	rec.Reason = fmt.Sprintf("aborted by %s; the group goes back to revision %d", actor, rec.From)
	conds := []state.Cond{state.IfVersion(desiredKey(g), l.desiredAt), state.IfVersion(rolloutKey(r.number), r.version)}
	ops := []state.Op{state.OpPut(desiredKey(g), encode(desired)), state.OpPut(rolloutKey(r.number), encode(rec))}
	s.mu.Unlock()

	version, err := s.o.Store.TxnVersion(ctx, conds, ops)
	if errors.Is(err, state.ErrConflict) {
		return api.Rollout{}, conflict("another manager changed group %s at the same time: try again", g)
	} else if err != nil {
		return api.Rollout{}, fmt.Errorf("abort rollout %s: %w", id, err)
	}
	s.mu.Lock()
	r.rec, r.version, r.unstored = rec, version, false
	s.setDesiredLocked(l, desired, version)
	out := rec.clone().Rollout
	s.mu.Unlock()
	s.announce(ctx, events.RolloutAborted, out, actor, rec.Reason)
	return out, nil
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

// Running returns the rollouts under way, newest last.
func (s *Service) Running() []api.Rollout {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := []api.Rollout{}
	for _, r := range s.rollouts {
		if r.rec.State == api.RolloutRunning {
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

// runningLocked returns the group's running rollout, or nil. There is one at
// most.
func (s *Service) runningLocked(g binnacle.Group) *rollout {
	for _, r := range slices.Backward(s.rollouts) {
		if r.rec.Group == g && r.rec.State == api.RolloutRunning {
			return r
		}
	}
	return nil
}

// oldRolloutsLocked returns the ended rollouts that one more leaves no room for.
func (s *Service) oldRolloutsLocked() []*rollout {
	var old []*rollout
	for _, r := range s.rollouts {
		if len(s.rollouts)+1-len(old) > keepRollouts && r.rec.State != api.RolloutRunning {
			old = append(old, r)
		}
	}
	return old[:min(len(old), 100)]
}

// targets are the nodes that have to confirm.
func (r *rollout) targets() map[binnacle.NodeID]struct{} {
	out := make(map[binnacle.NodeID]struct{}, len(r.rec.Pending))
	for _, ids := range [][]binnacle.NodeID{r.rec.Pending, r.rec.Confirmed, slices.Collect(maps.Keys(r.rec.Refused))} {
		for _, id := range ids {
			out[id] = struct{}{}
		}
	}
	return out
}

// observeLocked takes a new ledger into the running rollout of the node's group.
// It returns the text of an event if the node refused just now.
func (s *Service) observeLocked(id binnacle.NodeID, n *node) string {
	r := s.runningLocked(n.group)
	if r == nil {
		return ""
	}
	was := r.rec.Refused[id]
	if !r.observe(id, n) {
		return ""
	}
	s.wakeRun()
	if is := r.rec.Refused[id]; is != "" && was == "" {
		return fmt.Sprintf("%s: revision %d was refused: %s", r.rec.ID, r.rec.To, is)
	}
	return ""
}

// observe files a node under what its ledger says, and reports whether that
// changed. A node that need not confirm changes nothing.
func (r *rollout) observe(id binnacle.NodeID, n *node) bool {
	i, isPending := slices.BinarySearch(r.rec.Pending, id)
	j, isConfirmed := slices.BinarySearch(r.rec.Confirmed, id)
	message, isRefused := r.rec.Refused[id]
	if !isPending && !isConfirmed && !isRefused {
		return false
	}
	is := answerOf(r.rec.SHA256, n.ledger.Attempted, n.ledger.Applied, r.rec.Stale[id])
	switch {
	case is == confirmed && isConfirmed, is == pending && isPending,
		is == refused && isRefused && message == n.ledger.Attempted.Error,
		// It was confirmed. That it runs something else by now is drift, which
		// its ledger shows.
		isConfirmed:
		return false
	}
	switch {
	case isPending:
		r.rec.Pending = slices.Delete(r.rec.Pending, i, i+1)
	case isRefused:
		delete(r.rec.Refused, id)
	}
	switch is {
	case confirmed:
		r.rec.Confirmed = slices.Insert(r.rec.Confirmed, j, id)
	case refused:
		if r.rec.Refused == nil {
			r.rec.Refused = make(map[binnacle.NodeID]string)
		}
		r.rec.Refused[id] = n.ledger.Attempted.Error
	case pending:
		r.rec.Pending = insertSorted(r.rec.Pending, id)
	}
	r.unstored = true
	return true
}

func insertSorted(ids []binnacle.NodeID, id binnacle.NodeID) []binnacle.NodeID {
	i, _ := slices.BinarySearch(ids, id)
	return slices.Insert(ids, i, id)
}

// forget takes a node out of those that have to confirm.
func (r *rollout) forget(id binnacle.NodeID) {
	is := func(have binnacle.NodeID) bool { return have == id }
	before := len(r.rec.Pending) + len(r.rec.Confirmed) + len(r.rec.Refused)
	r.rec.Pending = slices.DeleteFunc(r.rec.Pending, is)
	r.rec.Confirmed = slices.DeleteFunc(r.rec.Confirmed, is)
	delete(r.rec.Refused, id)
	delete(r.gone, id)
	r.unstored = r.unstored || before != len(r.rec.Pending)+len(r.rec.Confirmed)+len(r.rec.Refused)
}
