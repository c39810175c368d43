package membership

import (
	"context"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/binnacle-project/binnacle/api"
	"github.com/binnacle-project/binnacle/events"
	"github.com/binnacle-project/binnacle/membership/gossip"
	"github.com/binnacle-project/binnacle/state/statetest"
)

func TestRingAdvances(t *testing.T) {
	key := func(id string) api.GossipKey { return api.GossipKey{ID: id, Key: make([]byte, gossip.KeyBytes)} }
	a := ring{Keys: []api.GossipKey{key("a")}}
	ab := a.rotate(key("b"))
	ba, _ := ab.advance(nil, key("x"))
	again := ba.rotate(key("c"))
	tests := []struct {
		name    string
		ring    ring
		reports []string
		want    string
		changed bool
	}{
		{"steady", a, []string{"a", "z", ""}, "a", false},
		{"added, nobody confirmed", ab, []string{"a", "a"}, "a,b", false},
		{"added, one is missing", ab, []string{"a,b", "a"}, "a,b", false},
		{"added by all", ab, []string{"a,b", "a,b"}, "b,a", true},
		{"added, nobody is there", ab, nil, "b,a", true},
		{"in use, one is missing", ba, []string{"b,a", "a,b"}, "b,a", false},
		{"in use by all", ba, []string{"b,a", "b,a"}, "b", true},
		{"in use by all, and wanted again", again, []string{"b,a"}, "b,x", true},
	}
	for _, tt := range tests {
		got, changed := tt.ring.advance(tt.reports, key("x"))
		if gossip.KeyID(got.Keys) != tt.want || changed != tt.changed {
			t.Errorf("%s: got %s, %v; want %s, %v", tt.name, gossip.KeyID(got.Keys), changed, tt.want, tt.changed)
		}
	}
}

// A whole change, with two managers and a node that confirms late.
func TestRotateGossipKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		store, told := statetest.Memory(t), &eventList{}
		open := func() *GossipKeys {
			g, err := OpenGossipKeys(ctx, GossipKeysOptions{Store: store, Events: told})
			if err != nil {
				t.Fatal(err)
			}
			return g
		}
		one, two := open(), open()
		first := gossip.KeyID(one.Keys())
		if gossip.KeyID(two.Keys()) != first {
			t.Fatalf("two managers with keys %s and %s; want the same", first, gossip.KeyID(two.Keys()))
		}
		two.SetSeeds([]string{"10.0.0.5:9898"})
		if p := two.GossipPlan(); len(p.Keys) != 1 || !slices.Equal(p.Seeds, []string{"10.0.0.5:9898"}) {
			t.Errorf("GossipPlan: got %+v", p)
		}

		var mu sync.Mutex
		node := first // what the node says it has
		reports := func() []string {
			mu.Lock()
			defer mu.Unlock()
			return []string{node}
		}
		var seen []string // the keyrings that manager two was told of
		var wg sync.WaitGroup
		wg.Go(func() {
			if err := one.Run(ctx, reports, func() {}); err != nil {
				t.Error(err)
			}
		})
		wg.Go(func() {
			if err := two.Run(ctx, reports, func() { seen = append(seen, gossip.KeyID(two.Keys())) }); err != nil {
				t.Error(err)
			}
		})
		if err := one.Rotate(ctx); err != nil {
			t.Fatal(err)
		}
		for range 3 {
			time.Sleep(10 * time.Second)
			mu.Lock()
			node = gossip.KeyID(two.Keys())
			mu.Unlock()
		}
		time.Sleep(10 * time.Second)
		last := gossip.KeyID(one.Keys())
		cancel()
		wg.Wait()
		if len(seen) != 4 || seen[0] != first || seen[1] != first+","+last || seen[2] != last+","+first || seen[3] != last || last == first {
			t.Errorf("keyrings were %v; want the change from %s to %s", seen, first, last)
		}
		if kinds := told.take(); !slices.Equal(kinds, []string{events.GossipKeyRotated}) {
			t.Errorf("told %v; want %s", kinds, events.GossipKeyRotated)
		}
	})
}
