package manager

import (
	"context"
	"errors"
	"fmt"

	"github.com/binnacle-project/binnacle/api"
	"github.com/binnacle-project/binnacle/events"
	"github.com/binnacle-project/binnacle/state"
)

// keyEpoch holds the epoch of the last start. A backup carries it along, so that
// a start that finds another epoch is the first one after a restore.
const keyEpoch = "manager/epoch"

// noteRestore records, once, that control state was restored from a backup.
func (m *Manager) noteRestore(ctx context.Context) error {
	was, _, err := state.GetJSON[uint64](ctx, m.store, keyEpoch)
	if err != nil && !errors.Is(err, state.ErrNotFound) {
		return fmt.Errorf("read the epoch of the last start: %w", err)
	}
	now := m.store.Epoch()
	if was == now {
		return nil
	}
	if was != 0 {
		m.log.Warn("control state was restored from a backup: what was changed since then is not known", "epoch_before", was, "epoch", now)
		m.record(ctx, api.Event{
			Kind: events.StateRestored, Actor: "manager",
			Message: fmt.Sprintf("control state was restored from a backup, and its epoch rose from %d to %d: nodes go on with their leases and take what this state wants of them; nodes that enrolled since the backup enroll anew", was, now),
		})
	}
	if _, err := state.PutJSON(ctx, m.store, keyEpoch, now); err != nil && !errors.Is(err, state.ErrReadOnly) {
		return fmt.Errorf("keep the epoch of this start: %w", err)
	}
	return nil
}
