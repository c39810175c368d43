// Package state keeps the control state of a manager: revisions, rollouts,
// nodes, tokens, licenses and events, as keys and values. What a write
// acknowledged is on disk.
//
// A Store runs on an Engine: state/etcd, which the manager opens, or memory, for
// tests and dry runs. Nothing of etcd is in this package, so that programs that
// share a feature with the manager do not link it. The meaning of keys and
// values is left to the callers, the features and the event log; no telemetry
// is kept here.
package state

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"

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
)

// Options of a Store.
type Options struct {
	// Log may be nil.
	Log *slog.Logger
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

// Store is open control state. It is safe for concurrent use.
type Store struct {
	log   *slog.Logger
	eng   Engine
	hub   *hub
	epoch uint64
	m     storeMetrics

	mu     sync.Mutex // guards what follows
	closed bool
}

type storeMetrics struct {
	writes, conflicts, refused, failed, resyncs *metrics.Counter
}

func newStoreMetrics(set *metrics.Set) storeMetrics {
	return storeMetrics{
		writes:    set.GetOrCreateCounter(`binnacle_state_writes_total`),
		conflicts: set.GetOrCreateCounter(`binnacle_state_conflicts_total`),
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
}

// OpenOn returns a Store on the engine that open returns. Only engines call it.
func OpenOn(ctx context.Context, o Options, open func(Feed) (Engine, error)) (*Store, error) {
	o.setDefaults()
	s := &Store{log: o.Log, m: newStoreMetrics(o.Metrics)}
	s.hub = newHub(s.m.resyncs)
	var err error
	if s.eng, err = open(s.hub); err != nil {
		return nil, err
	}
	if s.epoch, err = s.loadEpoch(ctx); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

// OpenMemory returns a Store that keeps everything in memory and loses it on
// Close. It behaves as one on disk, without its goroutines, files and latency:
// tests under virtual time and dry runs use it.
func OpenMemory(ctx context.Context, o Options) (*Store, error) {
	return OpenOn(ctx, o, func(f Feed) (Engine, error) { return newMemory(f), nil })
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
	if err := s.eng.Close(); err != nil {
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
