package membership

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/binnacle-project/binnacle/api"
	"github.com/binnacle-project/binnacle/events"
	"github.com/binnacle-project/binnacle/membership/gossip"
	"github.com/binnacle-project/binnacle/state"
)

// keyGossip is where the keyring is kept.
const keyGossip = "membership/gossip"

// ring is the keyring as it is kept: one key, or two while the key changes.
type ring struct {
	// Keys has the key in use first.
	Keys []api.GossipKey `json:"keys"`
	// Old is the id of the key on its way out, empty when there is none.
	Old string `json:"old,omitempty"`
	// Again asks for another change when this one is done.
	Again bool `json:"again,omitempty"`
}

// rotate begins a change of the key: the new one is added, not yet used.
func (r ring) rotate(next api.GossipKey) ring {
	if r.Old != "" {
		r.Again = true
		return r
	}
	return ring{Keys: []api.GossipKey{r.Keys[0], next}, Old: r.Keys[0].ID}
}

// advance takes the next step of a change once all members confirmed the last
// one: use the new key, then remove the old. reports are the keyrings that
// polling members say they have, as gossip.KeyID names them. next is for the
// change after this one, if one is wanted.
func (r ring) advance(reports []string, next api.GossipKey) (ring, bool) {
	now := gossip.KeyID(r.Keys)
	if r.Old == "" || slices.ContainsFunc(reports, func(s string) bool { return s != now }) {
		return r, false
	}
	if r.Keys[0].ID == r.Old {
		r.Keys = []api.GossipKey{r.Keys[1], r.Keys[0]}
		return r, true
	}
	done := ring{Keys: r.Keys[:1:1]}
	if r.Again {
		done = done.rotate(next)
	}
	return done, true
}

// GossipKeys keeps the cluster's gossip keyring in control state, makes it part
// of plans and changes the key without a gap. It is safe for concurrent use.
type GossipKeys struct {
	o GossipKeysOptions

	mu      sync.RWMutex // guards what follows; the arrays never change
	ring    ring
	version int64 // of ring in control state
	seeds   []string
}

// GossipKeysOptions say where the keyring is kept.
type GossipKeysOptions struct {
	Store *state.Store
	// Events may be nil.
	Events Events
	Log    *slog.Logger // may be nil
}

// OpenGossipKeys reads the keyring and makes the first key when there is none.
func OpenGossipKeys(ctx context.Context, o GossipKeysOptions) (*GossipKeys, error) {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	o.Log = o.Log.With("component", "gossip")
	g := &GossipKeys{o: o, seeds: []string{}}
	err := state.CreateJSON(ctx, o.Store, keyGossip, ring{Keys: []api.GossipKey{gossip.NewKey()}})
	if err == nil || errors.Is(err, state.ErrConflict) {
		err = g.reload(ctx)
	}
	if err != nil {
		return nil, fmt.Errorf("gossip keyring: %w", err)
	}
	return g, nil
}

func (g *GossipKeys) reload(ctx context.Context) error {
	r, version, err := state.GetJSON[ring](ctx, g.o.Store, keyGossip)
	if err != nil {
		return err
	}
	if err := gossip.CheckKeys(r.Keys); err != nil {
		return err
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if version > g.version {
		g.ring, g.version = r, version
	}
	return nil
}

// change replaces the ring by what f makes of it, unless f leaves it.
func (g *GossipKeys) change(ctx context.Context, f func(ring) (ring, bool)) (bool, error) {
	for range maxConflicts {
		if err := g.reload(ctx); err != nil {
			return false, err
		}
		g.mu.RLock()
		r, version := g.ring, g.version
		g.mu.RUnlock()
		r, changed := f(r)
		if !changed {
			return false, nil
		}
		_, err := state.UpdateJSON(ctx, g.o.Store, keyGossip, r, version)
		if err == nil {
			return true, g.reload(ctx)
		} else if !errors.Is(err, state.ErrConflict) {
			return false, err
		}
	}
	return false, state.ErrConflict
}

// Rotate begins to change the key, as after a node was forgotten or revoked.
// Run does the rest: it takes three steps of plans, each after all polling nodes
// confirmed the one before.
func (g *GossipKeys) Rotate(ctx context.Context) error {
	if _, err := g.change(ctx, func(r ring) (ring, bool) { return r.rotate(gossip.NewKey()), true }); err != nil {
		return fmt.Errorf("rotate the gossip key: %w", err)
	}
	g.o.Log.Info("gossip key begins to change", "keys", gossip.KeyID(g.Keys()))
	return nil
}

// rotateEvery is how often Run looks, while the key changes, whether the next step
// may be taken.
const rotateEvery = time.Second

// Run follows the keyring and takes the steps of its changes. reports gives the
// keyrings that polling nodes say they have (Registry.GossipReports); changed is
// called after each change, by whichever manager, and at the start: it should
// give Keys to the manager's own Gossip and have plans made anew. Run ends with
// ctx and returns nil then.
func (g *GossipKeys) Run(ctx context.Context, reports func() []string, changed func()) error {
	changes := g.o.Store.Watch(ctx, keyGossip)
	tick := time.NewTicker(rotateEvery)
	defer tick.Stop()
	told := gossip.KeyID(g.Keys())
	changed()
	err := g.reload(ctx) // what was written before the watch
	for {
		if err != nil && ctx.Err() == nil {
			g.o.Log.Warn("gossip key does not change; trying on", "error", err)
		}
		if id := gossip.KeyID(g.Keys()); id != told {
			told = id
			changed()
		}
		look := tick.C
		if err == nil && !g.rotating() {
			look = nil // at rest only a change of the ring wakes us
		}
		select {
		case <-ctx.Done():
			return nil
		case _, ok := <-changes:
			if !ok {
				changes = nil // the store is closed
				continue
			}
			err = g.reload(ctx)
		case <-look:
			err = g.step(ctx, reports)
		}
	}
}

// rotating says whether the key is being changed.
func (g *GossipKeys) rotating() bool {
	g.mu.RLock()
	defer g.mu.RUnlock()
	return g.ring.Old != ""
}

// step takes one step, if it may. Plans in the making when a node reported are
// no matter: its report names the keys it has.
func (g *GossipKeys) step(ctx context.Context, reports func() []string) error {
	before := g.Keys()
	took, err := g.change(ctx, func(r ring) (ring, bool) { return r.advance(reports(), gossip.NewKey()) })
	if err != nil || !took {
		return err
	}
	keys := g.Keys()
	g.o.Log.Info("gossip key changes", "from", gossip.KeyID(before), "to", gossip.KeyID(keys))
	if g.o.Events != nil && len(keys) == 1 {
		_, err = g.o.Events.Append(ctx, api.Event{Kind: events.GossipKeyRotated, Actor: "manager",
			Message: "the gossip key is now " + keys[0].ID + "; nodes that were away get it with their next plan"})
	}
	return err
}

// Keys returns the keyring, the key to use first. The caller must not change it.
func (g *GossipKeys) Keys() []api.GossipKey {
	g.mu.RLock()
	defer g.mu.RUnlock()
	return g.ring.Keys
}

// SetSeeds names the managers' advertised gossip addresses, host:port, for
// plans. A cluster without gossip has none.
func (g *GossipKeys) SetSeeds(seeds []string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.seeds = append([]string{}, seeds...)
}

// GossipPlan returns the part of a plan that is about gossip. The caller must
// not change its slices.
func (g *GossipKeys) GossipPlan() api.GossipPlan {
	g.mu.RLock()
	defer g.mu.RUnlock()
	return api.GossipPlan{Keys: g.ring.Keys, Seeds: g.seeds}
}
