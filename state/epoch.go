package state

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"
)

// epochKey is reserved, so that no snapshot carries it along as a plain key.
const epochKey = "~epoch"

// Epoch says which life of the control state this is: 1 at first, higher after
// each restore from a backup. Nodes compare it before they compare serials, so
// that a restored manager, which counts from the past, is not taken for a stale
// one. It is fixed while the Store is open.
func (s *Store) Epoch() uint64 { return s.epoch }

func (s *Store) loadEpoch(ctx context.Context) (uint64, error) {
	kv, err := s.eng.Get(ctx, epochKey)
	if errors.Is(err, ErrNotFound) {
		return 1, s.storeEpoch(ctx, 1)
	} else if err != nil {
		return 0, fmt.Errorf("read epoch: %w", err)
	}
	epoch, err := strconv.ParseUint(string(kv.Value), 10, 64)
	if err != nil || epoch == 0 {
		return 0, fmt.Errorf("epoch %q is not a number: %w", kv.Value, ErrDamaged)
	}
	return epoch, nil
}

func (s *Store) storeEpoch(ctx context.Context, epoch uint64) error {
	op := OpPut(epochKey, strconv.AppendUint(nil, epoch, 10))
	if _, err := s.eng.Commit(ctx, nil, []Op{op}); err != nil {
		return fmt.Errorf("store epoch %d: %w", epoch, err)
	}
	return nil
}

// nextEpoch is the epoch of a state restored at now from a snapshot taken in
// epoch old. One more than old is not enough: the same snapshot may be restored
// twice, and the second life must be newer than the first. The time in seconds
// is, and leaves room for a restore each second.
func nextEpoch(old uint64, now time.Time) uint64 {
	return max(old+1, uint64(max(now.Unix(), 0)))
}
