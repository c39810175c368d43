package etcd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/binnacle-project/binnacle/state"
	"github.com/binnacle-project/binnacle/state/atomicfile"
)

// Restore makes new state in o.Dir from a snapshot. The directory must be empty
// or missing; it appears only when all of the snapshot was read and checked.
// The epoch of the new state is above that of the snapshot and of every earlier
// restore of it.
func Restore(ctx context.Context, o Options, r io.Reader) (state.Restored, error) {
	if entries, err := os.ReadDir(o.Dir); err == nil && len(entries) > 0 {
		return state.Restored{}, fmt.Errorf("restore control state: %s is not empty: move it away first, and keep it", o.Dir)
	} else if err != nil && !errors.Is(err, os.ErrNotExist) {
		return state.Restored{}, fmt.Errorf("restore control state: %w", err)
	}
	final := filepath.Clean(o.Dir)
	if err := os.MkdirAll(filepath.Dir(final), 0o700); err != nil {
		return state.Restored{}, fmt.Errorf("restore control state: %w", err)
	}
	work, err := os.MkdirTemp(filepath.Dir(final), filepath.Base(final)+".restore-")
	if err != nil {
		return state.Restored{}, fmt.Errorf("restore control state: %w", err)
	}
	defer os.RemoveAll(work)
	o.Dir, o.Metrics = work, nil // nobody scrapes this one
	out, err := fill(ctx, o, r)
	if err == nil {
		err = os.Remove(final) // empty, or missing
		if errors.Is(err, os.ErrNotExist) {
			err = nil
		}
	}
	if err == nil {
		err = atomicfile.Rename(work, final)
	}
	if err != nil {
		return out, fmt.Errorf("restore control state into %s: %w", final, err)
	}
	return out, nil
}

func fill(ctx context.Context, o Options, r io.Reader) (out state.Restored, err error) {
	s, err := Open(ctx, o)
	if err != nil {
		return out, err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	return s.LoadSnapshot(ctx, r)
}
