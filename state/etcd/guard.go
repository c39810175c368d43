package etcd

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/binnacle-project/binnacle/state"
	"github.com/binnacle-project/binnacle/state/diskspace"
)

// guard refuses writes while the disk is nearly full. A full disk is worse for
// etcd than for most: a failed commit ends the whole process, and it can not
// start again until there is room. Telemetry shares the disk and can fill it in
// minutes, so the guard looks at the disk and not at this state's size.
type guard struct {
	dir string
	min uint64
	log *slog.Logger

	mu   sync.Mutex // guards what follows
	at   time.Time  // when free was read
	free uint64
	low  bool
}

// guardEvery is how old a reading of free space may be. At 1 GB/s, more than
// most disks take, it is still less than half of the default margin.
const guardEvery = 50 * time.Millisecond

// startBytes is what a start needs on the disk: two log segments and a new
// database file.
const startBytes = 2*walSegmentBytes + 8<<20

func newGuard(dir string, minFree uint64, log *slog.Logger) *guard {
	return &guard{dir: dir, min: minFree, log: log}
}

// check answers state.ErrReadOnly below the limit. An unreadable disk is no reason to
// refuse.
func (g *guard) check() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if now := time.Now(); now.Sub(g.at) >= guardEvery {
		free, err := diskspace.Free(g.dir)
		if err != nil {
			return nil
		}
		g.at, g.free = now, free
		if low := free < g.min; low != g.low {
			g.low = low
			if low {
				g.log.Error("control state is read-only until the disk has room again", "dir", g.dir, "free_bytes", free, "needed_bytes", g.min)
			} else {
				g.log.Info("control state is writable again", "dir", g.dir, "free_bytes", free)
			}
		}
	}
	if g.low {
		return fmt.Errorf("%w: the disk of %s has %d MiB free and %d are needed: free some space or grow the disk", state.ErrReadOnly, g.dir, g.free>>20, g.min>>20)
	}
	return nil
}

// checkStart refuses a start that would end in a panic for lack of room.
func (g *guard) checkStart() error {
	free, err := diskspace.Free(g.dir)
	if err == nil && free < startBytes {
		return fmt.Errorf("open control state: the disk of %s has %d MiB free and the start needs %d: free some space or grow the disk", g.dir, free>>20, startBytes>>20)
	}
	return nil
}

func (g *guard) isLow() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.low
}

func (g *guard) lastFree() uint64 {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.free
}

// lockDir takes the directory for this process. Two etcd servers on one
// directory would wait for each other without a word.
func lockDir(dir string) (*os.File, error) {
	path := filepath.Join(dir, "lock")
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock control state: %w", err)
	}
	if err := tryLock(f); err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("control state in %s is in use by another process: stop it, or use another data directory: %w", dir, err)
	}
	return f, nil
}
