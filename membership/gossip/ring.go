package gossip

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"

	"github.com/hashicorp/memberlist"

	"github.com/binnacle-project/binnacle/api"
)

// maxGossipKeys is two: memberlist moves keys of a longer ring under readers.
const maxGossipKeys = 2

// KeyBytes makes AES-256.
const KeyBytes = 32

// KeyID names a keyring, the key in use first, as status reports and
// events do: "4f2a91c0" or, while one replaces another, "4f2a91c0,d07e55b2".
func KeyID(keys []api.GossipKey) string {
	ids := make([]string, len(keys))
	for i, k := range keys {
		ids[i] = k.ID
	}
	return strings.Join(ids, ",")
}

// NewKey returns a random key; its id tells nothing of it.
func NewKey() api.GossipKey {
	key := make([]byte, KeyBytes)
	rand.Read(key) // never fails
	sum := sha256.Sum256(append([]byte("binnacle gossip key id\n"), key...))
	return api.GossipKey{ID: hex.EncodeToString(sum[:4]), Key: key}
}

// SetKeys replaces the keyring by keys, at most two, the one to use first.
// Nothing is interrupted as long as members share a key.
func (g *Gossip) SetKeys(keys []api.GossipKey) error {
	if err := CheckKeys(keys); err != nil {
		return err
	}
	g.keysMu.Lock()
	defer g.keysMu.Unlock()
	if KeyID(keys) == KeyID(g.keys) {
		return nil
	}
	if err := setRing(g.ring, keys); err != nil {
		return fmt.Errorf("change gossip keys to %s: %w", KeyID(keys), err)
	}
	g.log.Info("gossip keys changed", "from", KeyID(g.keys), "to", KeyID(keys))
	g.keys = slices.Clone(keys)
	return nil
}

// KeyID names the keys installed, as a node's status reports them.
func (g *Gossip) KeyID() string {
	g.keysMu.Lock()
	defer g.keysMu.Unlock()
	return KeyID(g.keys)
}

// setRing brings ring to keys without ever holding a third key, and removes
// only last ones: memberlist shifts keys in place, under its readers.
func setRing(ring *memberlist.Keyring, keys []api.GossipKey) error {
	wanted := func(k []byte) bool {
		return slices.ContainsFunc(keys, func(w api.GossipKey) bool { return bytes.Equal(w.Key, k) })
	}
	drop := func() error {
		for _, k := range slices.Backward(slices.Clone(ring.GetKeys())) {
			if !wanted(k) && !bytes.Equal(k, ring.GetPrimaryKey()) {
				if err := ring.RemoveKey(k); err != nil {
					return err
				}
			}
		}
		return nil
	}
	if err := drop(); err != nil {
		return err
	}
	primaryKnown := slices.ContainsFunc(ring.GetKeys(), func(k []byte) bool { return bytes.Equal(k, keys[0].Key) })
	if !primaryKnown {
		if err := ring.AddKey(keys[0].Key); err != nil {
			return err
		}
	}
	if err := ring.UseKey(keys[0].Key); err != nil {
		return err
	}
	if err := drop(); err != nil {
		return err
	}
	for _, k := range keys[1:] {
		if err := ring.AddKey(k.Key); err != nil {
			return err
		}
	}
	return nil
}

func CheckKeys(keys []api.GossipKey) error {
	if len(keys) == 0 || len(keys) > maxGossipKeys {
		return fmt.Errorf("gossip needs 1 or 2 keys: have %d", len(keys))
	}
	for _, k := range keys {
		if len(k.Key) != KeyBytes {
			return fmt.Errorf("gossip key %q has %d bytes; want %d", k.ID, len(k.Key), KeyBytes)
		}
	}
	return nil
}
