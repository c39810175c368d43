package membership

import (
	"context"
	"encoding/json"
	"fmt"
	"iter"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/binnacle-project/binnacle"
	"github.com/binnacle-project/binnacle/api"
	"github.com/binnacle-project/binnacle/events"
	"github.com/binnacle-project/binnacle/state"
)

const (
	// noteEvery is how often Run looks at all nodes, for states that come with
	// time alone. Others are noted when their sign arrives.
	noteEvery = 500 * time.Millisecond
	// noteAtMost spaces looks that signs cause. These are at the nodes alone that
	// signs came of.
	noteAtMost = 50 * time.Millisecond
	// maxLossesKept bounds the losses remembered of a node.
	maxLossesKept = 16
)

// Run notes changes of state: it keeps them, tells them as events and wakes
// those who wait on Changed. It follows what other managers write, too. It ends
// with ctx and returns nil then.
func (r *Registry) Run(ctx context.Context) error {
	changes := r.o.Store.Watch(ctx, prefixNodes)
	// What was written between OpenRegistry and the watch.
	if err := r.load(ctx); err != nil && ctx.Err() == nil {
		r.log.Error("node registry does not follow control state", "error", err)
	}
	tick := time.NewTicker(noteEvery)
	defer tick.Stop()
	failing := false
	for {
		var err error
		select {
		case <-ctx.Done():
			return nil
		case batch, ok := <-changes:
			if !ok {
				changes = nil // the store is closed: what is in memory still counts
				continue
			}
			r.follow(ctx, batch)
			continue
		case <-r.kick:
			err = r.note(ctx, time.Now())
		case <-tick.C:
			err = r.noteAll(ctx, time.Now())
		}
		if err != nil && ctx.Err() == nil && !failing {
			r.log.Warn("node states are not kept; trying on", "error", err)
		}
		failing = err != nil
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(noteAtMost):
		}
	}
}

// follow brings memory up to what was written, by whomever.
func (r *Registry) follow(ctx context.Context, batch []state.Change) {
	for _, c := range batch {
		var err error
		if c.Resync {
			err = r.load(ctx)
		} else {
			err = r.reload(ctx, binnacle.NodeID(strings.TrimPrefix(c.Key, prefixNodes)))
		}
		if err != nil && ctx.Err() == nil {
			r.log.Error("node registry does not follow control state", "key", c.Key, "error", err)
		}
	}
}

// transition is a change of state that was found.
type transition struct {
	node    api.Node
	from    api.NodeState
	flapped bool // it began to flap now
	damped  bool // it flaps, and its comings and goings are not told
}

// note finds what changed with the signs that came, keeps it and tells it.
func (r *Registry) note(ctx context.Context, now time.Time) error {
	return r.noteOf(ctx, now, func(yield func(*node) bool) {
		for _, n := range r.touched {
			// Forgotten meanwhile?
			if r.nodes[n.rec.ID] == n && !yield(n) {
				return
			}
		}
	})
}

// noteAll is note for all nodes, and so for what comes with time alone.
func (r *Registry) noteAll(ctx context.Context, now time.Time) error {
	return r.noteOf(ctx, now, maps.Values(r.nodes))
}

// noteOf is note for some nodes, which are read while r.mu is held.
func (r *Registry) noteOf(ctx context.Context, now time.Time, nodes iter.Seq[*node]) error {
	found, joined, lives, changed := r.findChanges(now, nodes)
	err := r.keepLives(ctx, lives)
	if changed {
		r.announceChange()
	}
	for _, n := range joined {
		r.tell(ctx, api.Event{Kind: events.NodeJoined, Group: n.Group, Node: n.ID, Actor: string(n.ID), Message: n.Name + " joined"})
	}
	for _, t := range found {
		r.tellTransition(ctx, t)
	}
	return err
}

// findChanges looks at all nodes, notes their states in memory, and returns
// what is to be told and kept.
func (r *Registry) findChanges(now time.Time, nodes iter.Seq[*node]) (found []transition, joined []api.Node, lives map[binnacle.NodeID]life, changed bool) {
	lives = make(map[binnacle.NodeID]life)
	r.mu.Lock()
	defer r.mu.Unlock()
	defer r.untouchLocked()
	for n := range nodes {
		id := n.rec.ID
		if !n.rec.Revoked.IsZero() {
			continue
		}
		v := StateOf(n.signs, now, r.o.Periods)
		if v.State != n.noted {
			if v.State == api.Unreachable || v.State == api.Down && n.noted != api.Unreachable {
				n.signs.Losses = append(n.signs.Losses, v.Since)
				n.signs.Losses = n.signs.Losses[max(0, len(n.signs.Losses)-maxLossesKept):]
				v = StateOf(n.signs, now, r.o.Periods)
			}
			t := transition{node: n.view(v), from: n.noted}
			flaps := slices.ContainsFunc(v.Conditions, func(c api.Condition) bool { return c.Kind == api.CondFlapping })
			t.flapped, t.damped = flaps && !n.flaps, flaps
			n.flaps = flaps
			found = append(found, t)
			// A suspicion is not kept: it is over before anyone reads it.
			if v.State != api.Suspect && !(n.noted == api.Suspect && v.State == api.Alive) {
				n.dirty = true
			}
			n.noted, changed = v.State, true
		}
		if ready := n.isReady(v); ready != n.ready {
			n.ready, changed = ready, true
		}
		if n.joined && !n.told {
			n.told, n.dirty = true, true
			joined = append(joined, n.view(v))
		}
		if n.dirty {
			n.dirty = false
			lives[id] = n.life(v)
		}
	}
	slices.SortFunc(found, func(a, b transition) int { return strings.Compare(string(a.node.ID), string(b.node.ID)) })
	return found, joined, lives, changed
}

// untouchLocked begins a new list of nodes that signs come of.
func (r *Registry) untouchLocked() {
	for i, n := range r.touched {
		n.touched = false
		r.touched[i] = nil
	}
	r.touched = r.touched[:0]
}

// life returns what is to be kept of the node.
func (n *node) life(v Verdict) life {
	l := life{
		State: v.State, AliveSince: n.signs.AliveSince, LastPoll: n.signs.LastPoll,
		LeftAt: n.signs.LeftAt, LeaseEnded: n.signs.LeaseEnded, SeatSince: n.seatSince, DrainingSince: n.signs.DrainingSince, Losses: slices.Clone(n.signs.Losses),
		Joined: n.joined, Serving: n.serving, Address: n.address, GossipAddress: n.gossipAddress, Version: n.versionName,
	}
	switch v.State {
	case api.Suspect:
		l.State = api.Alive
	case api.Unreachable:
		l.LostAt = v.Since
	case api.Down:
		l.DownAt = v.Since
	}
	return l
}

// livesPerTxn keeps one write small.
const livesPerTxn = 100

// keepLives writes lives, but for nodes that were forgotten meanwhile. Those
// that cannot be written are dirty again.
func (r *Registry) keepLives(ctx context.Context, lives map[binnacle.NodeID]life) error {
	r.lifeMu.Lock()
	defer r.lifeMu.Unlock()
	var ids []binnacle.NodeID
	for id := range lives {
		if r.IsNode(id) {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	for part := range slices.Chunk(ids, livesPerTxn) {
		var ops []state.Op
		for _, id := range part {
			b, err := json.Marshal(lives[id])
			if err != nil {
				return fmt.Errorf("encode life of node %s: %w", id, err)
			}
			ops = append(ops, state.OpPut(prefixLives+string(id), b))
		}
		if err := r.o.Store.Txn(ctx, nil, ops); err != nil {
			r.mu.Lock()
			for _, id := range ids {
				if n := r.nodes[id]; n != nil {
					n.dirty = true
				}
			}
			r.mu.Unlock()
			return fmt.Errorf("keep node states: %w", err)
		}
	}
	return nil
}

func (r *Registry) tellTransition(ctx context.Context, t transition) {
	n := t.node
	r.log.Info("node changed state", "node", n.ID, "name", n.Name, "from", t.from, "to", n.State, "cause", n.StateCause, "flapping", t.damped)
	e := api.Event{Group: n.Group, Node: n.ID, Actor: "manager"}
	if n.State == api.Left {
		e.Actor = string(n.ID)
	}
	if t.flapped {
		f := e
		f.Kind, f.Message = events.NodeFlapping, fmt.Sprintf("%s comes and goes (%s); its changes are not told until it is steady", n.Name, n.StateCause)
		r.tell(ctx, f)
	}
	// While a node flaps, only what ends its coming and going is told.
	if t.damped && n.State != api.Down && n.State != api.Left {
		return
	}
	switch n.State {
	case api.Alive:
		e.Kind, e.Message = events.NodeAlive, fmt.Sprintf("%s is alive again, it was %s", n.Name, t.from)
		if t.from == api.Left {
			e.Kind, e.Message = events.NodeJoined, n.Name+" joined again"
		}
	case api.Suspect:
		e.Kind, e.Message = events.NodeSuspect, fmt.Sprintf("%s is suspect: %s", n.Name, n.StateCause)
	case api.Unreachable:
		e.Kind, e.Message = events.NodeUnreachable, fmt.Sprintf("%s is unreachable: %s", n.Name, n.StateCause)
	case api.Down:
		e.Kind, e.Message = events.NodeDown, fmt.Sprintf("%s is down: %s", n.Name, n.StateCause)
	case api.Left:
		e.Kind, e.Message = events.NodeLeft, fmt.Sprintf("%s left: %s", n.Name, n.StateCause)
	}
	r.tell(ctx, e)
}

// tell appends an event. One that cannot be kept is logged: what it is about
// has happened all the same.
func (r *Registry) tell(ctx context.Context, e api.Event) {
	if r.o.Events == nil {
		return
	}
	if _, err := r.o.Events.Append(ctx, e); err != nil {
		r.log.Error("event not kept", "kind", e.Kind, "node", e.Node, "message", e.Message, "error", err)
	}
}
