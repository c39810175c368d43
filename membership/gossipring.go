package membership

import (
	"bytes"
	"fmt"
	"slices"

	"github.com/hashicorp/memberlist"

	"github.com/binnacle-project/binnacle/api"
)

// maxGossipKeys is two: memberlist moves keys of a longer ring under readers.
const maxGossipKeys = 2

// SetKeys replaces the keyring by keys, at most two, the one to use first.
// Nothing is interrupted as long as members share a key.
func (g *Gossip) SetKeys(keys []api.GossipKey) error {
	if err := checkGossipKeys(keys); err != nil {
		return err
	}
	g.keysMu.Lock()
	defer g.keysMu.Unlock()
	if GossipKeyID(keys) == GossipKeyID(g.keys) {
		return nil
	}
	if err := setRing(g.ring, keys); err != nil {
		return fmt.Errorf("change gossip keys to %s: %w", GossipKeyID(keys), err)
	}
	g.log.Info("gossip keys changed", "from", GossipKeyID(g.keys), "to", GossipKeyID(keys))
	g.keys = slices.Clone(keys)
	return nil
}

// KeyID names the keys installed, as a node's status reports them.
func (g *Gossip) KeyID() string {
	g.keysMu.Lock()
	defer g.keysMu.Unlock()
	return GossipKeyID(g.keys)
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

func checkGossipKeys(keys []api.GossipKey) error {
	if len(keys) == 0 || len(keys) > maxGossipKeys {
		return fmt.Errorf("gossip needs 1 or 2 keys: have %d", len(keys))
	}
	for _, k := range keys {
		if len(k.Key) != gossipKeyBytes {
			return fmt.Errorf("gossip key %q has %d bytes; want %d", k.ID, len(k.Key), gossipKeyBytes)
		}
	}
	return nil
}
