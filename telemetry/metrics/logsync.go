package metrics

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"
)

// syncInterval bounds what a power failure loses: the TSDB hands each commit
// to the operating system at once, which survives a killed process, but syncs
// its log to disk only when a segment is full. It is half of the second that is
// promised, so that a slow disk has the other half.
const syncInterval = 500 * time.Millisecond

// logSyncer syncs the newest segments of the TSDB's two logs (in order, and
// out of order). The TSDB does not lend its files, but syncing a file through
// another descriptor writes the same pages. Not safe for concurrent use.
type logSyncer struct {
	logs []*syncedLog
}

// syncedLog is one log directory and its newest segment.
type syncedLog struct {
	dir  string
	name string // base name of file; "" before the first
	file *os.File
	size int64 // at the last sync
}

func newLogSyncer(dir string) *logSyncer {
	return &logSyncer{logs: []*syncedLog{
		{dir: filepath.Join(dir, "wal")},
		{dir: filepath.Join(dir, "wbl")}, // made with the first late sample
	}}
}

// sync brings all that was written before the call to disk.
func (l *logSyncer) sync() error {
	var errs []error
	for _, g := range l.logs {
		if err := g.sync(); err != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

func (l *logSyncer) close() {
	for _, g := range l.logs {
		if g.file != nil {
			g.file.Close() // only ever read
			g.file, g.name = nil, ""
		}
	}
}

func (g *syncedLog) sync() error {
	newest, err := newestSegment(g.dir)
	if err != nil {
		return err
	}
	if newest == "" {
		return nil
	}
	if newest != g.name {
		if err := g.roll(newest); err != nil {
			return err
		}
	}
	info, err := g.file.Stat()
	if err != nil {
		return fmt.Errorf("sync metrics log: %w", err)
	}
	if info.Size() == g.size {
		return nil // a log only grows
	}
	if err := g.file.Sync(); err != nil {
		return fmt.Errorf("sync metrics log: %w", err)
	}
	g.size = info.Size()
	return nil
}

// roll moves on to a new segment. The TSDB syncs the one it leaves, but in the
// background, so the old one is synced here once more; then the directory, or
// the new file's name could be lost.
func (g *syncedLog) roll(newest string) error {
	if g.file != nil {
		err := g.file.Sync()
		g.file.Close()
		g.file, g.name = nil, ""
		if err != nil {
			return fmt.Errorf("sync metrics log: %w", err)
		}
	}
	f, err := os.Open(filepath.Join(g.dir, newest))
	if err != nil {
		return fmt.Errorf("sync metrics log: %w", err)
	}
	g.file, g.name, g.size = f, newest, -1
	d, err := os.Open(g.dir)
	if err != nil {
		return fmt.Errorf("sync metrics log: %w", err)
	}
	defer d.Close()
	if err := d.Sync(); err != nil {
		return fmt.Errorf("sync metrics log directory: %w", err)
	}
	return nil
}

// newestSegment returns the name of the newest segment in dir, or "" if there
// is none. Segments are named by zero-padded numbers.
func newestSegment(dir string) (string, error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, os.ErrNotExist) {
		return "", nil
	} else if err != nil {
		return "", fmt.Errorf("list metrics log: %w", err)
	}
	newest := ""
	for _, e := range entries {
		if n := e.Name(); !e.IsDir() && len(n) == 8 && n > newest {
			newest = n
		}
	}
	return newest, nil
}

// syncLogs syncs and counts; a failing disk shows in the counters and, through
// the next commit, at the senders.
func (s *Store) syncLogs(l *logSyncer) {
	start := time.Now()
	err := l.sync()
	s.self.syncSeconds.UpdateDuration(start)
	if err != nil {
		s.self.syncErrors.Inc()
		s.log.Error("metrics log could not be synced to disk: a power failure would lose it", "dir", s.opts.Dir, "err", err)
		return
	}
	s.self.lastSync.Set(float64(start.UnixMilli()) / 1000)
}
