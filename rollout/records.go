package rollout

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/binnacle-project/binnacle"
	"github.com/binnacle-project/binnacle/api"
)

// Keys in the state. Configurations are kept by their own hash (blobs.go).
//
//	rollout/common                   commonRecord
//	rollout/groups/<group>           groupRecord
//	rollout/desired/<group>          desiredRecord
//	rollout/steps/<group>            stepsRecord, while a rollout in steps is under way
//	rollout/revisions/<group>/<n>    revisionRecord
//	rollout/rollouts/<n>             rolloutRecord
//	rollout/orders/<node>            orderRecord
//	rollout/ledgers/<node>           ledgerRecord
const (
	keyCommon     = "rollout/common"
	keyGroups     = "rollout/groups/"
	keyDesired    = "rollout/desired/"
	keySteps      = "rollout/steps/"
	keyRevisions  = "rollout/revisions/"
	keyRollouts   = "rollout/rollouts/"
	keyOrders     = "rollout/orders/"
	keyLedgers    = "rollout/ledgers/"
	formatKrakenD = "krakend"
)

func groupKey(g binnacle.Group) string   { return keyGroups + string(g) }
func desiredKey(g binnacle.Group) string { return keyDesired + string(g) }
func stepsKey(g binnacle.Group) string   { return keySteps + string(g) }
func orderKey(id binnacle.NodeID) string { return keyOrders + string(id) }
func ledgerKey(id binnacle.NodeID) string {
	return keyLedgers + string(id)
}

func revisionKey(g binnacle.Group, n binnacle.Revision) string {
	return fmt.Sprintf("%s%s/%010d", keyRevisions, g, n)
}

func rolloutKey(number uint64) string { return fmt.Sprintf("%s%010d", keyRollouts, number) }

// commonRecord exists for its version: it is written when something changed
// that every plan covers and that is kept elsewhere.
type commonRecord struct {
	// Hash is over all such things.
	Hash string `json:"hash"`
}

type groupRecord struct {
	Format string `json:"format"`
	// Last is the highest number ever given to a revision of the group.
	Last binnacle.Revision `json:"last"`
}

// desiredRecord is what the nodes of a group should run. A number of 0 means
// their own file.
type desiredRecord struct {
	api.RevisionRef
	Signature string    `json:"signature,omitempty"`
	Since     time.Time `json:"since"`
	// Fine has the group's nodes export every two seconds: gates are at work.
	Fine bool `json:"fine,omitempty"`
}

// stepsRecord has the nodes of a group that are ahead of it: those whom a
// rollout in steps has given its revision.
type stepsRecord struct {
	desiredRecord
	Rollout string            `json:"rollout"`
	Nodes   []binnacle.NodeID `json:"nodes"`
}

type revisionRecord struct {
	api.Revision
	Signature string  `json:"signature"`
	Blob      blobRef `json:"blob"`
}

// orderRecord is what one node alone is told to do.
type orderRecord struct {
	// Group is set when the node changed its group: the record is then the
	// reason for a higher serial.
	Group binnacle.Group `json:"group,omitempty"`
	Drain bool           `json:"drain,omitempty"`
	// Restart is the id of the newest restart order.
	Restart string `json:"restart,omitempty"`
	// Retries counts how often the node was asked to try again what it should
	// run: the record is then the reason for a higher serial.
	Retries int `json:"retries,omitempty"`
}

type ledgerRecord struct {
	Group       binnacle.Group   `json:"group"`
	Reported    time.Time        `json:"reported,omitzero"`
	Attempted   *api.LedgerEntry `json:"attempted,omitempty"`
	Applied     *api.LedgerEntry `json:"applied,omitempty"`
	LastGood    *api.LedgerEntry `json:"last_good,omitempty"`
	RestartDone string           `json:"restart_done,omitempty"`
	Crashes     uint64           `json:"crashes,omitempty"`
	Serving     bool             `json:"serving,omitempty"`
	Draining    bool             `json:"draining,omitempty"`
}

// load fills the service from the state.
func (s *Service) load(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := eachRecord(ctx, s, keyCommon, func(_ string, r commonRecord, v int64) error {
		s.common.record, s.common.version = r, v
		return nil
	}); err != nil {
		return err
	}
	if err := eachRecord(ctx, s, keyGroups, func(name string, r groupRecord, v int64) error {
		l := s.lineLocked(binnacle.Group(name))
		l.group, l.version = r, v
		return nil
	}); err != nil {
		return err
	}
	if err := eachRecord(ctx, s, keyDesired, func(name string, r desiredRecord, v int64) error {
		l := s.lineLocked(binnacle.Group(name))
		l.desired, l.desiredAt = r, v
		return nil
	}); err != nil {
		return err
	}
	if err := eachRecord(ctx, s, keySteps, func(name string, r stepsRecord, v int64) error {
		s.lineLocked(binnacle.Group(name)).setSteps(r, v)
		return nil
	}); err != nil {
		return err
	}
	if err := eachRecord(ctx, s, keyRevisions, func(_ string, r revisionRecord, v int64) error {
		l := s.lineLocked(r.Group)
		l.revisions = append(l.revisions, &revisionData{r, v})
		return nil
	}); err != nil {
		return err
	}
	if err := eachRecord(ctx, s, keyRollouts, func(name string, r rolloutRecord, v int64) error {
		n, err := strconv.ParseUint(name, 10, 64)
		if err != nil {
			return err
		}
		s.rollouts = append(s.rollouts, &rollout{number: n, rec: r, version: v})
		return nil
	}); err != nil {
		return err
	}
	if err := eachRecord(ctx, s, keyOrders, func(name string, r orderRecord, v int64) error {
		n := s.nodeLocked(binnacle.NodeID(name))
		n.order, n.orderAt, n.group = r, v, r.Group
		return nil
	}); err != nil {
		return err
	}
	return eachRecord(ctx, s, keyLedgers, func(name string, r ledgerRecord, _ int64) error {
		n := s.nodeLocked(binnacle.NodeID(name))
		n.ledger = r
		if r.Group != "" {
			n.group = r.Group
		}
		return nil
	})
}

// eachRecord calls fn with each record below prefix, in order of the keys.
func eachRecord[T any](ctx context.Context, s *Service, prefix string, fn func(name string, r T, version int64) error) error {
	kvs, err := s.o.Store.List(ctx, prefix)
	if err != nil {
		return err
	}
	for _, kv := range kvs {
		var r T
		if err := json.Unmarshal(kv.Value, &r); err != nil {
			return fmt.Errorf("decode %s: %w", kv.Key, err)
		}
		if err := fn(strings.TrimPrefix(kv.Key, prefix), r, kv.Version); err != nil {
			return fmt.Errorf("read %s: %w", kv.Key, err)
		}
	}
	return nil
}

// encode is for records, which always marshal.
func encode(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic(fmt.Sprintf("BUG: %T does not marshal: %v", v, err))
	}
	return b
}

func sortedKeys[K cmp.Ordered, V any](m map[K]V) []K {
	return slices.Sorted(maps.Keys(m))
}
