package traces

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync"
	"time"

	"github.com/cockroachdb/pebble/v2"
)

// ErrNotFound says that no span of a trace is in the store.
var ErrNotFound = errors.New("trace not found")

// ErrReadOnly says that the store takes nothing now: the disk is full, or what
// was taken before could not be written.
var ErrReadOnly = errors.New("trace store is read-only")

var errClosed = errors.New("trace store is closed")

// flushInterval is how long an acknowledged span stays in memory only, but for
// the time it takes to write: half of what is promised.
const flushInterval = 500 * time.Millisecond

// Store keeps spans. Its methods are safe for concurrent use.
type Store struct {
	o      Options
	log    *slog.Logger
	db     *pebble.DB
	lock   *pebble.Lock
	cache  *blockCache
	names  *names
	meters meters

	corruptions corruptions

	closing chan struct{} // closed when Close begins

	sealers sync.WaitGroup // of senders

	life sync.RWMutex // held for reading by queries and writes, for writing by Close

	// mu guards the blocks in memory. Of sealing blocks it guards the list,
	// not the blocks, which no longer change.
	mu      sync.RWMutex
	open    *block
	sealing []*sealingBlock
	closed  bool
	full    bool          // too little space is left
	halted  chan struct{} // closed while full
	// Of sampling: the blocks that wait, the oldest first, and what is known of
	// their traces.
	undecided      []*undecided
	undecidedBytes int64
	docket         *docket
	// gathering has the spans of blocks that were too small to stay alone.
	gathering *gathering

	// deciding lets one round of decisions run at a time; decided is when the
	// last one began.
	deciding sync.Mutex
	decided  time.Time

	// commits orders the commits of blocks, so that a number is taken, written
	// and visible before the next.
	commits       sync.Mutex
	nextSeq       uint32
	nextUndecided uint32
	nextPart      uint32
	parts         partitions
}

// Open opens or makes the store in o.Dir. Spans become durable and old ones go
// while Run runs. A store whose files are corrupt is put aside under another
// name, said in an error of the log, and a new one begins; where only some files
// are, these are put aside.
func Open(o Options) (*Store, error) {
	o = o.withDefaults()
	s := &Store{
		o:     o,
		log:   o.Log.With("component", "traces"),
		cache: newBlockCache(o.CacheBytes),
		names: newNames(),
		open:  newBlock(),

		gathering:   newGathering(&block{}),
		closing:     make(chan struct{}),
		halted:      make(chan struct{}),
		docket:      newDocket(o.Sampling.Rules),
		corruptions: make(corruptions, 64),
	}
	s.meters = newMeters(o.Metrics, s)
	if err := o.fs.MkdirAll(o.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("open trace store: %w", err)
	}
	db, err := s.openDB()
	if err != nil && !errors.Is(err, errInUse) && !environmental(err) {
		aside := fmt.Sprintf("%s.corrupt-%d", filepath.Clean(o.Dir), o.now().Unix())
		s.log.Error("trace store is corrupt; put aside, a new one begins", "dir", o.Dir, "aside", aside, "error", err)
		if err := o.fs.Rename(o.Dir, aside); err != nil {
			return nil, fmt.Errorf("put corrupt trace store %s aside: %w", o.Dir, err)
		}
		if err := o.fs.MkdirAll(o.Dir, 0o700); err != nil {
			return nil, fmt.Errorf("open trace store: %w", err)
		}
		db, err = s.openDB()
	}
	if err != nil {
		return nil, fmt.Errorf("open trace store in %s: %w", o.Dir, err)
	}
	s.db = db
	for {
		err := s.load()
		if err == nil {
			return s, nil
		}
		if s.heal(context.Background()) == 0 {
			return nil, errors.Join(fmt.Errorf("open trace store in %s: %w", o.Dir, err), db.Close(), s.lock.Close())
		}
	}
}

// Run makes what was written durable every half second and applies retention,
// until ctx ends. It returns nil after a last flush.
func (s *Store) Run(ctx context.Context) error {
	flush := time.NewTicker(flushInterval)
	defer flush.Stop()
	retain := time.NewTicker(time.Minute)
	defer retain.Stop()
	s.checkSpace()
	s.retain()
	for {
		select {
		case <-ctx.Done():
			return s.flush()
		case <-flush.C:
			if err := errors.Join(s.flush(), s.decide()); err != nil {
				s.log.Error("spans not written, will try again", "error", err)
			}
			s.checkSpace()
			s.heal(ctx)
		case <-retain.C:
			s.retain()
		}
	}
}

// Close writes what is in memory and closes the files. It is safe to call
// twice.
func (s *Store) Close() error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil
	}
	s.closed = true // no writes and queries from here on
	close(s.closing)
	s.mu.Unlock()
	s.life.Lock()
	defer s.life.Unlock()
	s.sealers.Wait()
	return errors.Join(s.flush(), s.db.Close(), s.lock.Close())
}
