// Package state keeps the control state of a manager: revisions, rollouts,
// nodes, tokens, licenses and events, as keys and values on etcd embedded in the
// process. What a write acknowledged is on disk. A single manager opens no
// socket for it.
//
// It leaves the meaning of keys and values to its callers, keeps no telemetry,
// and hides etcd entirely, so that a manager group or an external etcd cluster
// is a matter of this package alone. The features and the event log import it;
// nodes do not.
package state

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/VictoriaMetrics/metrics"
)

// Errors that callers branch on. They are wrapped with the key and with what to
// do.
var (
	// ErrNotFound is returned by Get for a key that is not there.
	ErrNotFound = errors.New("no such key")
	// ErrConflict is returned when a condition of a write does not hold:
	// somebody else wrote first. Read again and decide again.
	ErrConflict = errors.New("conflicting write")
	// ErrReadOnly is returned by writes while the disk or the quota is nearly
	// full. Reads go on. Nothing was written.
	ErrReadOnly = errors.New("control state is read-only")
	// ErrClosed is returned after Close.
	ErrClosed = errors.New("control state is closed")
	// ErrUnavailable is returned when no answer came for ten seconds, or
	// before the caller's own deadline. A write that ends so may have happened
	// or may still happen, once or not at all.
	ErrUnavailable = errors.New("control state does not answer")
	// ErrDamaged is returned by Open when the log on disk cannot be trusted.
	ErrDamaged = errors.New("control state on disk is damaged")
)

const (
	// MaxValueBytes is the largest value of one key. Raft keeps recent writes
	// in memory and etcd refuses requests over 1.5 MiB: bigger things go in
	// chunks.
	MaxValueBytes = 1 << 20
	// MaxTxnOps is the largest number of operations in one transaction, and
	// maxTxnBytes the largest sum of their keys and values.
	MaxTxnOps   = 512
	maxTxnBytes = MaxValueBytes + 256<<10
	// maxKeyBytes bounds keys; they are paths of a few short names.
	maxKeyBytes = 512

	// defaultQuotaBytes bounds the database file. Control state of thousands
	// of nodes with full history stays under 200 MiB; etcd's own default of
	// 2 GiB would only hide a leak for longer.
	defaultQuotaBytes = 1 << 30
	// defaultMinFreeBytes is two log segments and one step of growth of the
	// database file, twice: a full disk would end the process (see guard.go).
	defaultMinFreeBytes = 128 << 20

	// giveUpAfter bounds every call whose context has no earlier deadline.
	giveUpAfter = 10 * time.Second
)

// Options say where and how control state is kept.
type Options struct {
	// Dir is the directory of this state alone. It is made if missing, mode
	// 0700, and locked while open.
	Dir string
	// Log may be nil. etcd's own messages come through it too, its Info as
	// Debug.
	Log *slog.Logger
	// QuotaBytes bounds the database file; 0 means 1 GiB. At the bound writes
	// answer ErrReadOnly until history was compacted. Higher costs disk (three
	// times as much, with the copy of a defragmentation) and memory.
	QuotaBytes int64
	// MinFreeBytes is the free space on Dir's disk below which writes answer
	// ErrReadOnly; 0 means 128 MiB.
	MinFreeBytes uint64
	// Metrics receives binnacle_state_* metrics; nil means a private set.
	Metrics *metrics.Set
}

// KV is one key with its value.
type KV struct {
	Key   string
	Value []byte
	// Version is the revision of the store at which the key was last written.
	// It rises with each write of the key and is only good for comparing:
	// Update and IfVersion take it. It does not survive a restore.
	Version int64
}

// engine is what a Store runs on: etcd or memory. Keys include the reserved
// ones, which begin with '~'. Both engines keep the order of commits and give
// each commit once to publish, in that order.
type engine interface {
	get(ctx context.Context, key string) (KV, error)
	// scan calls fn for each key in [from, end), in order, as of one moment.
	scan(ctx context.Context, from, end string, fn func(KV) error) error
	commit(ctx context.Context, conds []Cond, ops []Op) (int64, error)
	close() error
}

// Store is open control state. It is safe for concurrent use.
type Store struct {
	log   *slog.Logger
	eng   engine
	hub   *hub
	epoch uint64
	m     storeMetrics

	mu     sync.Mutex // guards what follows
	closed bool
}

type storeMetrics struct {
	writes, conflicts, retries, refused, failed, resyncs *metrics.Counter
}

func newStoreMetrics(set *metrics.Set) storeMetrics {
	return storeMetrics{
		writes:    set.GetOrCreateCounter(`binnacle_state_writes_total`),
		conflicts: set.GetOrCreateCounter(`binnacle_state_conflicts_total`),
		retries:   set.GetOrCreateCounter(`binnacle_state_retries_total`),
		refused:   set.GetOrCreateCounter(`binnacle_state_refused_writes_total`),
		failed:    set.GetOrCreateCounter(`binnacle_state_failed_writes_total`),
		resyncs:   set.GetOrCreateCounter(`binnacle_state_watch_resyncs_total`),
	}
}

func (o *Options) setDefaults() {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	o.Log = o.Log.With("component", "state")
	if o.Metrics == nil {
		o.Metrics = metrics.NewSet()
	}
	if o.QuotaBytes == 0 {
		o.QuotaBytes = defaultQuotaBytes
	}
	if o.MinFreeBytes == 0 {
		o.MinFreeBytes = defaultMinFreeBytes
	}
}

// Open opens the state in o.Dir, or begins a new one there. The Store is ready
// when Open returns, usually within 100 ms. A damaged log gives ErrDamaged and
// says how to go on; nothing is changed then.
func Open(ctx context.Context, o Options) (*Store, error) {
	o.setDefaults()
	m := newStoreMetrics(o.Metrics)
	h := newHub(m.resyncs)
	eng, err := openEtcd(ctx, o, h, m)
	if err != nil {
		return nil, err
	}
	return newStore(ctx, o, eng, h, m)
}

// OpenMemory returns a Store that keeps everything in memory and loses it on
// Close. It behaves as one on disk, without its goroutines, files and latency:
// tests under virtual time and dry runs use it. Only Log and Metrics of o count.
func OpenMemory(ctx context.Context, o Options) (*Store, error) {
	o.setDefaults()
	m := newStoreMetrics(o.Metrics)
	h := newHub(m.resyncs)
	return newStore(ctx, o, newMemory(h), h, m)
}

func newStore(ctx context.Context, o Options, eng engine, h *hub, m storeMetrics) (*Store, error) {
	s := &Store{log: o.Log, eng: eng, hub: h, m: m}
	epoch, err := s.loadEpoch(ctx)
	if err != nil {
		return nil, errors.Join(err, s.Close())
	}
	s.epoch = epoch
	return s, nil
}

// Close ends all watches and closes the state. It may be called twice; calls
// under way end with ErrClosed or another error.
func (s *Store) Close() error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil
	}
	s.closed = true
	s.mu.Unlock()
	s.hub.close()
	if err := s.eng.close(); err != nil {
		return fmt.Errorf("close control state: %w", err)
	}
	return nil
}

func (s *Store) checkOpen() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return ErrClosed
	}
	return nil
}
