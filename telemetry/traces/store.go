package traces

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"path/filepath"
	"sync"
	"time"

	"github.com/VictoriaMetrics/metrics"
	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/binnacle-project/binnacle"
	"github.com/binnacle-project/binnacle/otlp/wire"
)

// ErrNotFound says that no span of a trace is in the store.
var ErrNotFound = errors.New("trace not found")

// ErrReadOnly says that the store takes nothing now: the disk is full, or what
// was taken before could not be written.
var ErrReadOnly = errors.New("trace store is read-only")

var errClosed = errors.New("trace store is closed")

// Options configures a Store. Zero values take the defaults named here.
type Options struct {
	// Dir is the store's own directory; it is made if it is missing. Required.
	Dir string
	// Retention is how long spans are kept after they came, up to an hour
	// longer. Default 7 days.
	Retention time.Duration
	// MaxBytes bounds the size on disk; beyond it the oldest hours go. 0 is
	// no bound.
	MaxBytes int64
	// MinFreeBytes is the space left on the disk below which writes are
	// refused as retryable. Default 64 MiB; negative turns the check off.
	MinFreeBytes int64
	// CacheBytes bounds the blocks kept in memory for reading. Default 64 MiB.
	CacheBytes int64
	// Queries is how many calls of Handler are worked on at once; as many again
	// wait, the rest are refused as retryable. Default 4.
	Queries int
	// Sampling decides which traces are kept. Default all.
	Sampling Sampling

	Log     *slog.Logger
	Metrics *metrics.Set

	fs             vfs.FS           // for tests; nil is the disk
	now            func() time.Time // for tests; nil is time.Now
	maxAnswerSpans int              // for tests; 0 is maxAnswerSpans
}

func (o Options) withDefaults() Options {
	if o.Retention <= 0 {
		o.Retention = 7 * 24 * time.Hour
	}
	if o.MinFreeBytes == 0 {
		o.MinFreeBytes = 64 << 20
	}
	if o.CacheBytes <= 0 {
		o.CacheBytes = 64 << 20
	}
	if o.Queries <= 0 {
		o.Queries = 4
	}
	o.Sampling = o.Sampling.withDefaults()
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Metrics == nil {
		o.Metrics = metrics.NewSet()
	}
	if o.fs == nil {
		o.fs = vfs.Default
	}
	if o.now == nil {
		o.now = time.Now
	}
	if o.maxAnswerSpans == 0 {
		o.maxAnswerSpans = maxAnswerSpans
	}
	return o
}

// Limits of the block that is being filled. Larger blocks compress better and
// are read slower; at less than 30,000 spans a second the flush every half
// second closes them first.
const (
	maxBlockSpans = 16 << 10
	maxBlockBytes = 8 << 20
)

// flushInterval is how long an acknowledged span stays in memory only, but for
// the time it takes to write: half of what is promised.
const flushInterval = 500 * time.Millisecond

// maxSealing bounds the blocks that wait to be written when the disk does not
// keep up.
const maxSealing = 8

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

	// deciding lets one round of decisions run at a time; decided is when the
	// last one began.
	deciding sync.Mutex
	decided  time.Time

	// commits orders the commits of blocks, so that a number is taken, written
	// and visible before the next.
	commits       sync.Mutex
	nextSeq       uint32
	nextUndecided uint32
	parts         partitions
}

// sealingBlock is a block on its way to the disk.
type sealingBlock struct {
	*block
	busy bool // someone is writing it; guarded by Store.mu
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

// errInUse says that another process has the store open.
var errInUse = errors.New("another process uses it")

func (s *Store) openDB() (*pebble.DB, error) {
	opts := pebbleOptions(s.o, s.log, s.corruptions)
	opts.FS = vfs.OnDiskFull(s.o.fs, s.awaitSpace)
	lock, err := pebble.LockDirectory(s.o.Dir, s.o.fs)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errInUse, err)
	}
	opts.Lock = lock
	db, err := pebble.Open(s.o.Dir, opts)
	if err != nil {
		return nil, errors.Join(err, lock.Close())
	}
	s.lock = lock
	return db, nil
}

// load reads what is kept in memory: the bounds of the partitions, the names
// of services and operations, the last block's number, the undecided blocks.
func (s *Store) load() error {
	if err := s.restoreUndecided(); err != nil {
		return err
	}
	it, err := s.db.NewIter(nil)
	if err != nil {
		return err
	}
	defer it.Close()
	for ok := it.SeekGE(key(undecidedHour+1, 0)); ok; {
		p, _, _, err := parseKey(it.Key())
		if err != nil {
			return err
		}
		if err := s.loadPartition(it, p); err != nil {
			return err
		}
		ok = it.SeekGE(key(p+1, 0))
	}
	return it.Error()
}

func (s *Store) loadPartition(it *pebble.Iterator, p partition) error {
	b := bounds{0, math.MaxUint64} // where a damaged file took them with it
	if it.SeekGE(key(p, kindBounds)) && string(it.Key()) == string(key(p, kindBounds)) {
		v, err := it.ValueAndErr()
		if err != nil {
			return err
		}
		b.min, b.max = summaryTimes(v)
	}
	s.parts.set(p, b)
	for ok := it.SeekGE(key(p, kindOp)); ok; ok = it.Next() {
		kp, kind, rest, err := parseKey(it.Key())
		if err != nil {
			return err
		}
		if kp != p || kind != kindOp {
			break
		}
		service, op, err := parseOp(rest)
		if err != nil {
			return fmt.Errorf("operation %q: %w", rest, err)
		}
		s.names.add(service, op, p)
	}
	if it.SeekLT(key(p, kindBlock+1)) {
		if kp, kind, rest, err := parseKey(it.Key()); err == nil && kp == p && kind == kindBlock && len(rest) == 4 {
			s.nextSeq = max(s.nextSeq, binary.BigEndian.Uint32(rest)+1)
		}
	}
	return it.Error()
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

// WriteTraces keeps the spans of t, which are readable at once and durable
// within one second. Spans without a trace id or span id are rejected and
// counted; message says so. It reads t during the call and keeps nothing of it.
//
// An error with a method RetryAfter says that nothing was kept and that the
// same batch may be sent again: the disk is full or the store overloaded.
func (s *Store) WriteTraces(ctx context.Context, _ binnacle.Origin, t *wire.Traces) (rejected int, message string, err error) {
	if err := ctx.Err(); err != nil {
		return 0, "", err
	}
	s.life.RLock() // a block that it fills is written before Close goes on
	defer s.life.RUnlock()
	full, invalid, err := s.append(t)
	if err != nil {
		s.meters.refused.Add(t.Spans())
		return 0, "", err
	}
	s.meters.written.Add(t.Spans() - invalid)
	if invalid > 0 {
		s.meters.invalid.Add(invalid)
		message = "spans without trace id or span id are not kept"
	}
	if full != nil {
		s.sealFor(ctx, full)
	}
	return invalid, message, nil
}

// sealFor writes the block that a sender has filled. The sender waits for it, so
// that a fast one waits for the disk, but not for a full disk or longer than it
// wants: what it sent is in memory like what others did, so an error is theirs,
// too, and the next flush tries again.
func (s *Store) sealFor(ctx context.Context, full *sealingBlock) {
	s.mu.RLock()
	halted := s.halted
	s.mu.RUnlock()
	defer s.meters.sealWait.UpdateDuration(time.Now())
	done := make(chan struct{})
	s.sealers.Go(func() {
		defer close(done)
		if err := s.seal(full); err != nil {
			s.log.Error("spans not written, will try again", "error", err)
		}
	})
	select {
	case <-done:
	case <-halted:
	case <-ctx.Done():
	}
}

// append adds t to the open block and, if that is full, starts another and
// returns the full one, marked busy.
func (s *Store) append(t *wire.Traces) (full *sealingBlock, invalid int, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.closed:
		return nil, 0, retryable{errClosed}
	case s.full:
		return nil, 0, retryable{fmt.Errorf("%w: less than %d bytes are free in %s", ErrReadOnly, s.o.MinFreeBytes, s.o.Dir)}
	case len(s.sealing) >= maxSealing:
		return nil, 0, retryable{fmt.Errorf("%w: %d blocks wait for the disk", ErrReadOnly, len(s.sealing))}
	case s.undecidedBytes > 2*s.o.Sampling.MaxBytes:
		return nil, 0, retryable{fmt.Errorf("%w: %d bytes of spans wait for the disk to take their verdict", ErrReadOnly, s.undecidedBytes)}
	}
	from := len(s.open.spans)
	invalid = s.open.append(t)
	if len(s.o.Sampling.Rules) > 0 {
		kept, dropped := s.docket.hear(s.open, from)
		s.meters.sampling.late[true].Add(kept)
		s.meters.sampling.late[false].Add(dropped)
	}
	if len(s.open.spans) >= maxBlockSpans || s.open.size() >= maxBlockBytes {
		full = s.turnLocked()
		full.busy = true
	}
	return full, invalid, nil
}

// turnLocked starts a new block and returns the one before, which now waits to
// be written, or nil where it is empty.
func (s *Store) turnLocked() *sealingBlock {
	if len(s.open.spans) == 0 {
		return nil
	}
	sb := &sealingBlock{block: s.open}
	s.sealing = append(s.sealing, sb)
	s.open = newBlockAfter(s.open)
	return sb
}

// flush writes all blocks in memory that nobody else is writing.
func (s *Store) flush() error {
	s.mu.Lock()
	s.turnLocked()
	var mine []*sealingBlock
	for _, sb := range s.sealing {
		if !sb.busy {
			sb.busy = true
			mine = append(mine, sb)
		}
	}
	s.mu.Unlock()
	var errs []error
	for _, sb := range mine {
		errs = append(errs, s.seal(sb))
	}
	return errors.Join(errs...)
}

// retryable marks an error as one that will pass.
type retryable struct{ error }

func (e retryable) Unwrap() error { return e.error }

// RetryAfter says when to try again.
func (retryable) RetryAfter() time.Duration { return 5 * time.Second }
