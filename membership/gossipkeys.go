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
	seeds func() []string

	mu   sync.RWMutex // guards keys, whose array never changes
	keys []api.GossipKey
}

// OpenGossipKeys reads the keyring and makes the first key when there is none.
// seeds returns the managers' advertised gossip addresses; nil means that the
// cluster does without gossip, and plans then name no seeds.
func OpenGossipKeys(ctx context.Context, store *state.Store, seeds func() []string) (*GossipKeys, error) {
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
	return &GossipKeys{seeds: seeds, keys: keys}, nil
}

// Keys returns the keyring, the key to use first. The caller must not change it.
func (g *GossipKeys) Keys() []api.GossipKey {
	g.mu.RLock()
	defer g.mu.RUnlock()
	return g.keys
}

// GossipPlan returns the part of a plan that is about gossip.
func (g *GossipKeys) GossipPlan() api.GossipPlan {
	p := api.GossipPlan{Keys: g.Keys(), Seeds: []string{}}
	if g.seeds != nil {
		p.Seeds = append(p.Seeds, g.seeds()...)
	}
	return p
}

func newGossipKey() api.GossipKey {
	key := make([]byte, gossipKeyBytes)
	rand.Read(key) // never fails
	sum := sha256.Sum256(append([]byte("binnacle gossip key id\n"), key...))
	return api.GossipKey{ID: hex.EncodeToString(sum[:4]), Key: key}
}
