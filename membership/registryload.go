package membership

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/binnacle-project/binnacle"
	"github.com/binnacle-project/binnacle/api"
	"github.com/binnacle-project/binnacle/state"
)

// load replaces all that is known by what control state says. Signs of nodes
// that are known already are kept.
func (r *Registry) load(ctx context.Context) error {
	// Only these may turn out to be gone: whoever enrolls while control state is
	// read is not in what was read.
	r.mu.RLock()
	known := slices.Collect(maps.Keys(r.nodes))
	r.mu.RUnlock()
	kvs, err := r.o.Store.List(ctx, prefixNodes)
	if err != nil {
		return err
	}
	lives, err := r.o.Store.List(ctx, prefixLives)
	if err != nil {
		return err
	}
	lifeOf := make(map[string][]byte, len(lives))
	for _, kv := range lives {
		lifeOf[strings.TrimPrefix(kv.Key, prefixLives)] = kv.Value
	}
	// Decoded before the lock is taken: thousands of records take their time.
	type stored struct {
		rec  Record
		life life
	}
	nodes := make([]stored, len(kvs))
	there := make(map[binnacle.NodeID]bool, len(kvs))
	for i, kv := range kvs {
		n := &nodes[i]
		if err := json.Unmarshal(kv.Value, &n.rec); err != nil {
			return fmt.Errorf("decode %s: %w", kv.Key, err)
		}
		if b := lifeOf[string(n.rec.ID)]; b != nil {
			if err := json.Unmarshal(b, &n.life); err != nil {
				return fmt.Errorf("decode life of %s: %w", n.rec.ID, err)
			}
		}
		there[n.rec.ID] = true
	}
	now := time.Now()
	r.mu.Lock()
	defer r.mu.Unlock()
	for i, n := range nodes {
		r.applyLocked(n.rec, kvs[i].Version, n.life, now)
	}
	for _, id := range known {
		if !there[id] {
			r.removeLocked(id)
		}
	}
	return nil
}

// applyLocked takes a record as control state has it. l counts for a node that
// is new here.
func (r *Registry) applyLocked(rec Record, version int64, l life, now time.Time) *node {
	n := r.nodes[rec.ID]
	if n == nil {
		n = &node{}
		n.restore(rec, l, now)
		r.nodes[rec.ID] = n
	} else if version <= n.version {
		return n
	}
	n.rec, n.version = rec, version
	r.byKey[rec.KeyFP] = n
	return n
}

// restore takes up a life where a manager before this one left it.
func (n *node) restore(rec Record, l life, now time.Time) {
	n.address, n.gossipAddress, n.versionName = rec.Address, rec.GossipAddress, rec.Version
	n.noted = api.Alive
	n.signs = Signs{AliveSince: rec.Enrolled, LastPoll: rec.Enrolled, Resumed: now}
	n.seatSince = rec.Enrolled
	if l.State == "" {
		return
	}
	n.noted, n.serving = l.State, l.Serving
	n.joined, n.told = l.Joined, l.Joined
	n.address, n.gossipAddress, n.versionName = l.Address, l.GossipAddress, l.Version
	n.signs.AliveSince, n.signs.LastPoll = l.AliveSince, l.LastPoll
	n.signs.LostBefore, n.signs.DownBefore, n.signs.LeftAt = l.LostAt, l.DownAt, l.LeftAt
	n.signs.DrainingSince, n.signs.Losses = l.DrainingSince, l.Losses
	n.signs.LeaseEnded = l.LeaseEnded
	if !l.SeatSince.IsZero() {
		n.seatSince = l.SeatSince
	}
}

func (r *Registry) removeLocked(id binnacle.NodeID) {
	if n := r.nodes[id]; n != nil {
		delete(r.nodes, id)
		delete(r.byKey, n.rec.KeyFP)
	}
}

// reload brings one node up to what control state says now.
func (r *Registry) reload(ctx context.Context, id binnacle.NodeID) error {
	rec, version, err := state.GetJSON[Record](ctx, r.o.Store, prefixNodes+string(id))
	if err != nil && !errors.Is(err, state.ErrNotFound) {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if err != nil {
		r.removeLocked(id)
		return nil
	}
	r.applyLocked(rec, version, life{}, time.Now())
	return nil
}
