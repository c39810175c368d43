package activity

import (
	"slices"

	"github.com/binnacle-project/binnacle/api"
)

// index holds all keys, and those of each kind in order.
type index struct {
	byID    map[keyID]*key
	ordered [numKinds]ordered
	dirty   [numKinds]bool // ordered lacks keys or has dropped ones
	drops   int            // how many keys were dropped, ever
}

// ordered lists the aggregates of one kind, and beside each its name as readers
// get it.
type ordered struct {
	keys  []*key
	names []api.ActivityRow
}

func (x *index) get(id keyID) *key { return x.byID[id] }

func (x *index) make(id keyID) *key {
	if x.byID == nil {
		x.byID = map[keyID]*key{}
	}
	k := &key{id: id}
	x.byID[id] = k
	x.dirty[id.kind] = true
	return k
}

func (x *index) drop(id keyID) {
	delete(x.byID, id)
	x.dirty[id.kind] = true
	x.drops++
}

// of returns the keys of a kind in order. The slices are replaced, not changed,
// when keys come and go.
func (x *index) of(kd kind) ordered {
	if x.dirty[kd] {
		var keys []*key
		for id, k := range x.byID {
			if id.kind == kd {
				keys = append(keys, k)
			}
		}
		slices.SortFunc(keys, func(a, b *key) int { return a.id.compare(b.id) })
		names := make([]api.ActivityRow, len(keys))
		for i, k := range keys {
			names[i] = k.id.name()
		}
		x.ordered[kd], x.dirty[kd] = ordered{keys, names}, false
	}
	return x.ordered[kd]
}
