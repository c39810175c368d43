package state

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
)

// memory is the engine without a disk.
type memory struct {
	feed Feed

	mu  sync.Mutex // guards what follows; held while publishing, for the order
	rev int64
	kvs []KV // ordered by key; values are never changed in place
	// mortal memory takes so many more writes (KillAfter).
	mortal, kept bool
	writes       int
}

func newMemory(f Feed) *memory { return &memory{feed: f, rev: 1} }

func (m *memory) find(key string) (int, bool) {
	return slices.BinarySearchFunc(m.kvs, key, func(kv KV, k string) int { return strings.Compare(kv.Key, k) })
}

func (m *memory) Get(ctx context.Context, key string) (KV, error) {
	if err := ctx.Err(); err != nil {
		return KV{}, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.dead() {
		return KV{}, ErrClosed
	}
	i, ok := m.find(key)
	if !ok {
		return KV{}, ErrNotFound
	}
	return cloneKV(m.kvs[i]), nil
}

func (m *memory) Scan(ctx context.Context, from, end string, fn func(KV) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	m.mu.Lock()
	if m.dead() {
		m.mu.Unlock()
		return ErrClosed
	}
	i, _ := m.find(from)
	j, _ := m.find(end)
	var kvs []KV
	if i < j {
		kvs = slices.Clone(m.kvs[i:j])
	}
	m.mu.Unlock()
	for _, kv := range kvs {
		if err := fn(cloneKV(kv)); err != nil {
			return err
		}
	}
	return nil
}

func (m *memory) Commit(ctx context.Context, conds []Cond, ops []Op) (int64, error) {
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.dead() {
		return 0, ErrClosed
	}
	for _, c := range conds {
		var have int64
		if i, ok := m.find(c.key); ok {
			have = m.kvs[i].Version
		}
		if have != c.version {
			return 0, fmt.Errorf("%w on %s", ErrConflict, c.key)
		}
	}
	if m.mortal {
		if m.writes--; m.writes == 0 && !m.kept {
			return 0, ErrClosed
		}
	}
	m.rev++
	changes := make([]Change, 0, len(ops))
	for _, op := range ops {
		i, ok := m.find(op.key)
		kv := KV{Key: op.key, Version: m.rev}
		switch {
		case op.delete && !ok:
			continue
		case op.delete:
			m.kvs = slices.Delete(m.kvs, i, i+1)
			changes = append(changes, Change{KV: kv, Deleted: true})
			continue
		}
		kv.Value = bytes.Clone(op.value)
		if ok {
			m.kvs[i] = kv
		} else {
			m.kvs = slices.Insert(m.kvs, i, kv)
		}
		changes = append(changes, Change{KV: kv})
	}
	m.feed.Publish(changes)
	if m.dead() {
		return 0, ErrClosed
	}
	return m.rev, nil
}

func (m *memory) Close() error { return nil }

func cloneKV(kv KV) KV {
	kv.Value = bytes.Clone(kv.Value)
	return kv
}

// dead says that the store over this memory was killed.
func (m *memory) dead() bool { return m.mortal && m.writes == 0 }

// KillAfter has a store in memory behave, from its n-th write on, as one whose
// process was killed: nothing is written any more, and every call ends with
// ErrClosed. If kept is true, that write itself happens and only its answer is
// lost. It is for tests of what a process finds that starts anew, which open it
// with OpenMemoryAgain; n is at least 1.
func (s *Store) KillAfter(n int, kept bool) {
	m := s.eng.(*memory)
	m.mu.Lock()
	defer m.mu.Unlock()
	m.mortal, m.writes, m.kept = true, n, kept
}

// OpenMemoryAgain returns a new Store over what a killed one held.
func OpenMemoryAgain(ctx context.Context, o Options, killed *Store) (*Store, error) {
	return OpenOn(ctx, o, func(f Feed) (Engine, error) {
		old := killed.eng.(*memory)
		old.mu.Lock()
		defer old.mu.Unlock()
		old.mortal, old.writes = true, 0
		return &memory{feed: f, rev: old.rev, kvs: slices.Clone(old.kvs)}, nil
	})
}
