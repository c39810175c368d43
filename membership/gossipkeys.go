package membership

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"sync"

	"github.com/binnacle-project/binnacle/api"
	"github.com/binnacle-project/binnacle/state"
)

// gossipKeyBytes makes AES-256.
const gossipKeyBytes = 32

// keyGossip is where the keyring is kept.
const keyGossip = "membership/gossip"

// GossipKeyID names a keyring, the key in use first, as status reports and
// events do: "4f2a91c0" or, while one replaces another, "4f2a91c0,d07e55b2".
func GossipKeyID(keys []api.GossipKey) string {
	ids := make([]string, len(keys))
	for i, k := range keys {
		ids[i] = k.ID
	}
	return strings.Join(ids, ",")
}

// GossipKeys keeps the cluster's gossip keyring in control state and makes it
// part of plans. It is safe for concurrent use.
type GossipKeys struct {
	mu    sync.RWMutex // guards what follows; the arrays never change
	keys  []api.GossipKey
	seeds []string
}

// GossipKeysOptions say where the keyring is kept.
type GossipKeysOptions struct {
	Store *state.Store
}

// OpenGossipKeys reads the keyring and makes the first key when there is none.
func OpenGossipKeys(ctx context.Context, o GossipKeysOptions) (*GossipKeys, error) {
	store := o.Store
	keys, _, err := state.GetJSON[[]api.GossipKey](ctx, store, keyGossip)
	if errors.Is(err, state.ErrNotFound) {
		keys = []api.GossipKey{newGossipKey()}
		// Another manager may be first: its key counts.
		if err = state.CreateJSON(ctx, store, keyGossip, keys); errors.Is(err, state.ErrConflict) {
			keys, _, err = state.GetJSON[[]api.GossipKey](ctx, store, keyGossip)
		}
	}
	if err == nil {
		err = checkGossipKeys(keys)
	}
	if err != nil {
		return nil, fmt.Errorf("gossip keyring: %w", err)
	}
	return &GossipKeys{keys: keys, seeds: []string{}}, nil
}

// Keys returns the keyring, the key to use first. The caller must not change it.
func (g *GossipKeys) Keys() []api.GossipKey {
	g.mu.RLock()
	defer g.mu.RUnlock()
	return g.keys
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
	return api.GossipPlan{Keys: g.keys, Seeds: g.seeds}
}

func newGossipKey() api.GossipKey {
	key := make([]byte, gossipKeyBytes)
	rand.Read(key) // never fails
	sum := sha256.Sum256(append([]byte("binnacle gossip key id\n"), key...))
	return api.GossipKey{ID: hex.EncodeToString(sum[:4]), Key: key}
}
