package traces

import (
	"context"
	"fmt"
	"log/slog"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/bloom"
)

const (
	// memTable is the size of Pebble's memtables, and of the log beside each, of
	// which two or three files exist.
	memTable = 16 << 20
	// memTables is the number of them from which writes wait, Pebble's default.
	memTables = 2
	// pageCache is for what Pebble reads: pages of the index, first of all.
	pageCache = 32 << 20
)

// pebbleOptions tunes Pebble for few large values that are compressed already
// and many small keys that are random.
func pebbleOptions(o Options, log *slog.Logger, c corruptions) *pebble.Options {
	opts := &pebble.Options{
		FS:     o.fs,
		Logger: pebbleLogger{log},
		// The default ends the process, at each start anew.
		EventListener:               &pebble.EventListener{DataCorruption: c.found},
		FormatMajorVersion:          pebble.FormatNewest,
		MemTableSize:                memTable,
		MemTableStopWritesThreshold: memTables,
		// Pebble takes its memtables out of the size of its cache: where they
		// are as large, nothing is ever cached.
		CacheSize:    memTables*memTable + pageCache,
		MaxOpenFiles: 512,
		// Blocks are written in order and never again: one compaction at a
		// time leaves the processor to ingest.
		CompactionConcurrencyRange: func() (int, int) { return 1, 2 },
		Merger:                     pebble.DefaultMerger, // concatenation
	}
	for i := range opts.Levels {
		opts.Levels[i].BlockSize = 32 << 10
		opts.Levels[i].FilterPolicy = bloom.FilterPolicy(10) // for reads by trace id
	}
	opts.ApplyCompressionSettings(func() pebble.DBCompressionSettings { return pebble.DBCompressionBalanced })
	return opts
}

// pebbleLogger gives Pebble's messages to slog. What Pebble calls info is for
// its developers.
type pebbleLogger struct{ log *slog.Logger }

// Infof implements pebble.Logger.
func (l pebbleLogger) Infof(format string, args ...any) {
	if l.log.Enabled(context.Background(), slog.LevelDebug) {
		l.log.Debug("pebble", "message", fmt.Sprintf(format, args...))
	}
}

// Errorf implements pebble.Logger.
func (l pebbleLogger) Errorf(format string, args ...any) {
	l.log.Warn("pebble", "message", fmt.Sprintf(format, args...))
}

// Fatalf implements pebble.Logger. Pebble's own exits the process; ours
// panics, which Store.commit survives.
func (l pebbleLogger) Fatalf(format string, args ...any) {
	msg := fmt.Sprintf(format, args...)
	l.log.Error("pebble cannot go on", "message", msg)
	panic(msg)
}
