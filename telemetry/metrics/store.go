// Package metrics keeps the cluster's metrics: a Prometheus TSDB in process,
// written from OTLP through a cache that takes a known data point straight to
// its series reference, and read back by PromQL and the Prometheus HTTP API.
//
// The cache is what the package is for. Prometheus spends two thirds of its
// OTLP ingest on turning attributes into label strings and looking these up;
// here that happens once for each series, and afterwards a resource costs one
// map lookup and a point a comparison of the bytes of its attributes (cache.go).
//
// It leaves to others who the sender is (otlp attributes the resources before
// they come here), what the numbers mean (telemetry/activity makes aggregates
// and writes them back as roll-ups by Batch), and who may ask (manager). Only
// manager and telemetry/activity import it.
package metrics

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/tsdb"

	"github.com/binnacle-project/binnacle/telemetry/metrics/histsum"
	"github.com/prometheus/prometheus/tsdb/fileutil"
	"github.com/prometheus/prometheus/util/compression"
)

// Store is the metrics store. It is safe for concurrent use.
type Store struct {
	opts   Options
	log    *slog.Logger
	lock   fileutil.Releaser
	db     *tsdb.DB
	reg    *prometheus.Registry // the TSDB's and the engine's own metrics
	parser parser.Parser
	engine *promql.Engine
	ranges *histsum.Engine // in front of it
	cache  *cache
	table  *table
	meta   *metaStore
	bounds boundsTable
	names  names
	// knownSince is the time (Unix ms) beyond which the log that was replayed holds
	// no sample: all younger ones came by this process.
	knownSince int64
	scraped    *scrapeCache
	self       *selfMetrics
	space      *space
	started    time.Time

	closeOnce sync.Once
	closeErr  error
}

// Open opens or creates the store in o.Dir and replays its log. A store whose
// log ends in a torn record loses that record only; a block that cannot be
// read, or a log that cannot be repaired, is put aside under Dir/corrupt and
// named in the log, and the rest opens.
func Open(o Options) (*Store, error) {
	o, err := o.withDefaults()
	if err != nil {
		return nil, err
	}
	s := &Store{
		opts:    o,
		log:     o.Log.With("component", "metrics"),
		parser:  parser.NewParser(parser.Options{}),
		started: time.Now(),
	}
	s.self = newSelfMetrics(o.Metrics)
	s.meta = newMetaStore(s.self.namesLost)
	s.space = &space{dir: o.Dir, minFree: o.MinFreeBytes, log: s.log, refused: s.self.readOnly}
	s.table = newTable(o)
	s.cache = newCache()
	s.scraped = newScrapeCache()

	if err := s.openDB(); err != nil {
		return nil, fmt.Errorf("open metrics store in %s: %w", o.Dir, err)
	}
	s.table.head = s.db.Head()
	if s.db.Head().NumSeries() > 0 {
		s.knownSince = s.db.Head().MaxTime()
	}
	if err := s.meta.load(o.Dir); err != nil {
		s.log.Warn("what metrics are is not known until their senders tell it again", "error", err)
	}
	s.engine = newEngine(o, s.parser, s.reg, s.log)
	s.ranges = histsum.New(s.engine, s.parser, o.Query.Timeout, o.Query.MaxSamples, keptResults(o))
	s.self.watch(s)
	return s, nil
}

// openDB locks the directory and opens the TSDB over what can be read.
func (s *Store) openDB() (err error) {
	if err := os.MkdirAll(s.opts.Dir, 0o700); err != nil {
		return err
	}
	lock, _, err := fileutil.Flock(filepath.Join(s.opts.Dir, "lock"))
	if err != nil {
		return fmt.Errorf("another process uses it: %w", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, lock.Release())
		}
	}()
	s.lock = lock
	n, err := quarantine(s.opts.Dir, s.log)
	if err != nil {
		return err
	}
	s.self.quarantined.Add(n)
	for _, suspects := range suspects {
		if n, err := putAside(s.opts.Dir, suspects, s.log); err != nil {
			return err
		} else if s.self.quarantined.Add(n); n == 0 && len(suspects) > 0 {
			continue
		}
		s.reg = prometheus.NewRegistry()
		s.db, err = tsdb.Open(s.opts.Dir, s.log.With("part", "tsdb"), s.reg, dbOptions(s.opts, s.table), nil)
		if err == nil || environmental(err) {
			return err
		}
		s.log.Error("the metrics store does not open", "dir", s.opts.Dir, "error", err)
	}
	return err
}

// dbOptions turns our options into the TSDB's.
func dbOptions(o Options, t *table) *tsdb.Options {
	d := tsdb.DefaultOptions()
	d.RetentionDuration = o.Retention.Milliseconds()
	d.MaxBytes = o.MaxBytes
	d.WALCompression = compression.Snappy
	d.OutOfOrderTimeWindow = o.OutOfOrder.Milliseconds()
	d.EnableExemplarStorage = true
	d.NoLockfile = true // the store holds its own: the TSDB's stays locked after an Open that failed
	d.MaxExemplars = int64(o.MaxExemplars)
	d.SeriesLifecycleCallback = t

	// Blocks grow to a tenth of the retention, at most 31 days, as Prometheus
	// does it: the price of dropping whole blocks is that much extra.
	d.MinBlockDuration = tsdb.DefaultBlockDuration
	d.MaxBlockDuration = max(d.MinBlockDuration, min(d.RetentionDuration/10, (31*24*time.Hour).Milliseconds()))
	return d
}

// Run syncs the log to disk twice a second, which bounds what a power failure
// can lose, and forgets cached points of series that are gone. It returns nil
// after ctx has ended. Compaction and retention run with or without it.
func (s *Store) Run(ctx context.Context) error {
	syncTick := time.NewTicker(syncInterval)
	defer syncTick.Stop()
	sweepTick := time.NewTicker(sweepInterval)
	defer sweepTick.Stop()
	syncer := newLogSyncer(s.opts.Dir)
	defer syncer.close()
	for {
		select {
		case <-ctx.Done():
			s.syncLogs(syncer)
			return nil
		case now := <-syncTick.C:
			s.syncLogs(syncer)
			s.tellLimits(ctx, now)
		case now := <-sweepTick.C:
			s.sweep(now)
		}
	}
}

// Close flushes and closes the store. Writes and queries must have ended. It
// is safe to call twice.
func (s *Store) Close() error {
	s.closeOnce.Do(func() {
		s.saveMeta()
		s.closeErr = errors.Join(s.engine.Close(), s.db.Close(), s.lock.Release())
		if s.closeErr != nil {
			s.closeErr = fmt.Errorf("close metrics store in %s: %w", s.opts.Dir, s.closeErr)
		}
	})
	return s.closeErr
}

// Unavailable says that the store cannot take data now but may later: the
// disk is full or failing. Senders should keep the data and try again.
type Unavailable struct {
	After time.Duration // when to try again
	Err   error
}

func (e *Unavailable) Error() string { return "metrics store: not writable now: " + e.Err.Error() }

// Unwrap returns the cause.
func (e *Unavailable) Unwrap() error { return e.Err }

// RetryAfter returns when to try again.
func (e *Unavailable) RetryAfter() time.Duration { return e.After }

// retryAfter is long enough for an operator's clean-up or a compaction to make
// a difference, and short against the spool of a node.
const retryAfter = 30 * time.Second

// commitFailed counts and wraps an error of a commit. Nothing of the batch is
// readable then, so the sender may send it again.
func (s *Store) commitFailed(err error) error {
	s.self.commitErrors.Inc()
	if errors.Is(err, syscall.ENOSPC) {
		err = fmt.Errorf("disk of %s is full, free some space or lower the retention: %w", s.opts.Dir, err)
	}
	s.space.tear(err)
	return &Unavailable{After: retryAfter, Err: fmt.Errorf("commit: %w", err)}
}
