package state

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
)

// Get returns the newest value of key, or ErrNotFound. The caller owns it.
func (s *Store) Get(ctx context.Context, key string) (KV, error) {
	if err := s.checkCall(key); err != nil {
		return KV{}, fmt.Errorf("get %s: %w", key, err)
	}
	kv, err := s.eng.Get(ctx, key)
	if err != nil {
		return KV{}, fmt.Errorf("get %s: %w", key, err)
	}
	return kv, nil
}

// List returns all keys with the prefix, ordered by key, as of one moment. An
// empty prefix means all. The caller owns the slice.
func (s *Store) List(ctx context.Context, prefix string) ([]KV, error) {
	if err := s.checkOpen(); err != nil {
		return nil, fmt.Errorf("list %s: %w", prefix, err)
	}
	from, end := prefixRange(prefix)
	kvs := []KV{}
	err := s.eng.Scan(ctx, from, end, func(kv KV) error {
		kvs = append(kvs, kv)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list %s: %w", prefix, err)
	}
	return kvs, nil
}

// Put writes key whatever it held, and returns its new version. The value may
// be changed by the caller afterwards.
func (s *Store) Put(ctx context.Context, key string, value []byte) (int64, error) {
	v, err := s.commit(ctx, nil, []Op{OpPut(key, value)})
	if err != nil {
		return 0, fmt.Errorf("put %s: %w", key, err)
	}
	return v, nil
}

// Create writes key if it does not exist, and answers ErrConflict if it does.
func (s *Store) Create(ctx context.Context, key string, value []byte) error {
	if _, err := s.commit(ctx, []Cond{IfAbsent(key)}, []Op{OpPut(key, value)}); err != nil {
		return fmt.Errorf("create %s: %w", key, err)
	}
	return nil
}

// Update writes key if its version is ifVersion still, and answers ErrConflict
// otherwise. It returns the new version.
func (s *Store) Update(ctx context.Context, key string, value []byte, ifVersion int64) (int64, error) {
	v, err := s.commit(ctx, []Cond{IfVersion(key, ifVersion)}, []Op{OpPut(key, value)})
	if err != nil {
		return 0, fmt.Errorf("update %s: %w", key, err)
	}
	return v, nil
}

// Delete removes key. A key that is not there is no error.
func (s *Store) Delete(ctx context.Context, key string) error {
	if _, err := s.commit(ctx, nil, []Op{OpDelete(key)}); err != nil {
		return fmt.Errorf("delete %s: %w", key, err)
	}
	return nil
}

// GetJSON returns the value of key decoded into a T, and the key's version.
func GetJSON[T any](ctx context.Context, s *Store, key string) (T, int64, error) {
	var v T
	kv, err := s.Get(ctx, key)
	if err != nil {
		return v, 0, err
	}
	if err := json.Unmarshal(kv.Value, &v); err != nil {
		return v, 0, fmt.Errorf("decode %s: %w", key, err)
	}
	return v, kv.Version, nil
}

// ListJSON returns the values of all keys with the prefix, ordered by key.
func ListJSON[T any](ctx context.Context, s *Store, prefix string) ([]T, error) {
	kvs, err := s.List(ctx, prefix)
	if err != nil {
		return nil, err
	}
	out := make([]T, len(kvs))
	for i, kv := range kvs {
		if err := json.Unmarshal(kv.Value, &out[i]); err != nil {
			return nil, fmt.Errorf("decode %s: %w", kv.Key, err)
		}
	}
	return out, nil
}

// PutJSON writes v as JSON whatever key held, and returns its new version.
func PutJSON[T any](ctx context.Context, s *Store, key string, v T) (int64, error) {
	b, err := json.Marshal(v)
	if err != nil {
		return 0, fmt.Errorf("encode %s: %w", key, err)
	}
	return s.Put(ctx, key, b)
}

// CreateJSON writes v as JSON if key does not exist, and answers ErrConflict if
// it does.
func CreateJSON[T any](ctx context.Context, s *Store, key string, v T) error {
	b, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encode %s: %w", key, err)
	}
	return s.Create(ctx, key, b)
}

// UpdateJSON writes v as JSON if key's version is ifVersion still, and answers
// ErrConflict otherwise.
func UpdateJSON[T any](ctx context.Context, s *Store, key string, v T, ifVersion int64) (int64, error) {
	b, err := json.Marshal(v)
	if err != nil {
		return 0, fmt.Errorf("encode %s: %w", key, err)
	}
	return s.Update(ctx, key, b, ifVersion)
}

func (s *Store) checkCall(key string) error {
	if err := checkKey(key); err != nil {
		return err
	}
	return s.checkOpen()
}

var errBadKey = errors.New("a key is 1 to 512 bytes of printable ASCII and does not begin with '~'")

func checkKey(key string) error {
	if key == "" || len(key) > maxKeyBytes || strings.HasPrefix(key, Reserved) {
		return errBadKey
	}
	for i := range len(key) {
		if key[i] < 0x20 || key[i] > 0x7e {
			return errBadKey
		}
	}
	return nil
}

// prefixRange returns the half-open range of the callers' keys that begin with
// prefix.
func prefixRange(prefix string) (from, end string) {
	if prefix == "" {
		return FirstKey, Reserved
	}
	b := []byte(prefix)
	for i := len(b) - 1; i >= 0; i-- {
		if b[i] < 0xff {
			b[i]++
			return prefix, min(string(b[:i+1]), Reserved)
		}
	}
	return prefix, Reserved
}
