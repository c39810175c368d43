package traces

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"syscall"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// corruptions are what Pebble's readers and compactions found in its files, on
// its way from their goroutines to heal.
type corruptions chan pebble.DataCorruptionInfo

// found is Pebble's listener. It must return at once; what finds no room is
// found again by the next reader.
func (c corruptions) found(info pebble.DataCorruptionInfo) {
	select {
	case c <- info:
	default:
	}
}

// heal puts the files aside that were found corrupt: each is linked into a
// folder beside the store, then its range of keys is cut out of the store, so
// that searches and compactions go on with what is left. A file holds a few
// minutes to hours of spans. It returns how many files it put aside.
func (s *Store) heal(ctx context.Context) (healed int) {
	done := map[string]bool{}
	for {
		select {
		case info := <-s.corruptions:
			if done[info.Path] {
				continue
			}
			done[info.Path] = true
			if err := s.cutOut(ctx, info); err != nil {
				s.log.Error("a corrupt file of the trace store could not be put aside", "file", info.Path, "error", err)
				continue
			}
			healed++
		default:
			return healed
		}
	}
}

func (s *Store) cutOut(ctx context.Context, info pebble.DataCorruptionInfo) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("pebble: %v", p)
		}
	}()
	aside := filepath.Clean(s.o.Dir) + ".corrupt-files"
	kept := filepath.Join(aside, fmt.Sprintf("%d-%s", s.o.now().Unix(), filepath.Base(info.Path)))
	if err := s.o.fs.MkdirAll(aside, 0o700); err != nil {
		return err
	}
	if err := vfs.LinkOrCopy(s.o.fs, info.Path, kept); err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, fs.ErrExist) {
		return err
	}
	end := append([]byte(nil), info.Bounds.End.Key...)
	if info.Bounds.End.Kind != 0 { // inclusive
		end = append(end, 0)
	}
	if err := s.db.Excise(ctx, pebble.KeyRange{Start: info.Bounds.Start, End: end}); err != nil {
		return err
	}
	s.meters.quarantined.Inc()
	s.log.Error("a file of the trace store is corrupt and was put aside; its spans are missing from queries",
		"file", info.Path, "kept_at", kept, "error", info.Details)
	return nil
}

// environmental says that an error of opening is not about what the files hold:
// nothing is put aside for it.
func environmental(err error) bool {
	for _, e := range []error{
		fs.ErrPermission, syscall.ENOSPC, syscall.EDQUOT, syscall.EMFILE, syscall.ENFILE, syscall.ENOMEM, syscall.EROFS,
	} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}
