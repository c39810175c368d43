package metrics

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/prometheus/prometheus/tsdb"
)

// corruptDir is where blocks go that cannot be read, inside the store's
// directory. The store never deletes them.
const corruptDir = "corrupt"

// quarantine moves blocks that the TSDB refuses to open out of its way, so
// that one bad file does not cost the start of the manager, and returns how
// many it moved.
func quarantine(dir string, log *slog.Logger) (moved int, _ error) {
	metas, err := filepath.Glob(filepath.Join(dir, "*", "meta.json"))
	if err != nil {
		return 0, fmt.Errorf("look for unreadable blocks: %w", err)
	}
	for _, m := range metas {
		from := filepath.Dir(m)
		cause := checkBlock(from)
		if cause == nil {
			continue
		}
		to := filepath.Join(dir, corruptDir, filepath.Base(from))
		if err := os.MkdirAll(filepath.Dir(to), 0o700); err != nil {
			return moved, fmt.Errorf("put aside the unreadable block %s: %w", from, err)
		}
		if err := os.Rename(from, to); err != nil {
			return moved, fmt.Errorf("put aside the unreadable block %s: %w", from, err)
		}
		moved++
		log.Error("a stored block cannot be read and was put aside; its time range is missing from queries",
			"block", filepath.Base(from), "kept_at", to, "err", cause)
	}
	return moved, nil
}

// checkBlock opens and closes a block as the TSDB does at its start.
func checkBlock(dir string) error {
	b, err := tsdb.OpenBlock(nil, dir, nil, nil)
	if err != nil {
		return err
	}
	return errors.Join(b.Close())
}

// suspects are what is put aside, step by step, while the TSDB does not open,
// though its blocks do and it has repaired what it can: first the chunks of the
// last hours, which are also in the log, then the logs.
var suspects = [][]string{nil, {"chunks_head"}, {"wal", "wbl"}}

// putAside moves parts of the store to corruptDir and returns how many there
// were.
func putAside(dir string, parts []string, log *slog.Logger) (moved int, _ error) {
	for _, part := range parts {
		from := filepath.Join(dir, part)
		if _, err := os.Stat(from); errors.Is(err, fs.ErrNotExist) {
			continue
		}
		to := filepath.Join(dir, corruptDir, fmt.Sprintf("%s-%d", part, time.Now().UnixNano()))
		if err := os.MkdirAll(filepath.Dir(to), 0o700); err != nil {
			return moved, fmt.Errorf("put aside %s: %w", from, err)
		}
		if err := os.Rename(from, to); err != nil {
			return moved, fmt.Errorf("put aside %s: %w", from, err)
		}
		moved++
		log.Error("a part of the metrics store cannot be read and was put aside", "part", part, "kept_at", to)
	}
	return moved, nil
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
