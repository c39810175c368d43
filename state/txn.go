package state

import (
	"context"
	"errors"
	"fmt"
)

// Cond is a condition of a transaction. Make it with IfVersion or IfAbsent.
type Cond struct {
	key     string
	version int64 // 0: the key does not exist
}

// IfVersion holds while key has this version, which KV.Version gave. Version 0
// means that the key does not exist.
func IfVersion(key string, version int64) Cond { return Cond{key, version} }

// IfAbsent holds while key does not exist.
func IfAbsent(key string) Cond { return Cond{key, 0} }

// Key and Version are for engines: version 0 wants the key to be absent.
func (c Cond) Key() string    { return c.key }
func (c Cond) Version() int64 { return c.version }

// Op is one write of a transaction. Make it with OpPut or OpDelete.
type Op struct {
	key    string
	value  []byte
	delete bool
}

// OpPut writes value at key.
func OpPut(key string, value []byte) Op { return Op{key: key, value: value} }

// OpDelete removes key, if it is there.
func OpDelete(key string) Op { return Op{key: key, delete: true} }

// Key, Value and Deletes are for engines. Value is nil where Deletes is true.
func (o Op) Key() string   { return o.key }
func (o Op) Value() []byte { return o.value }
func (o Op) Deletes() bool { return o.delete }

// Txn does all of ops if all of conds hold, and otherwise nothing and answers
// ErrConflict. A key may be written once in a transaction; at most MaxTxnOps
// writes fit into one, and about 1 MiB.
//
// Txn is exactly once: when an answer is lost, it asks again, without the danger
// of taking its own write for somebody else's or of writing twice.
func (s *Store) Txn(ctx context.Context, conds []Cond, ops []Op) error {
	_, err := s.TxnVersion(ctx, conds, ops)
	return err
}

// TxnVersion is Txn and returns the version that all keys written now have. It
// is higher than every version in the store before.
func (s *Store) TxnVersion(ctx context.Context, conds []Cond, ops []Op) (int64, error) {
	v, err := s.commit(ctx, conds, ops)
	if err != nil {
		return 0, fmt.Errorf("transaction on %s: %w", describeOps(ops), err)
	}
	return v, nil
}

func (s *Store) commit(ctx context.Context, conds []Cond, ops []Op) (int64, error) {
	if err := checkTxn(conds, ops); err != nil {
		return 0, err
	}
	if err := s.checkOpen(); err != nil {
		return 0, err
	}
	v, err := s.eng.Commit(ctx, conds, ops)
	switch {
	case err == nil:
		s.m.writes.Inc()
	case errors.Is(err, ErrConflict):
		s.m.conflicts.Inc()
	case errors.Is(err, ErrReadOnly):
		s.m.refused.Inc()
	default:
		s.m.failed.Inc()
	}
	return v, err
}

func checkTxn(conds []Cond, ops []Op) error {
	if len(ops) == 0 || len(ops) > MaxTxnOps || len(conds) > MaxTxnOps {
		return fmt.Errorf("a transaction takes 1 to %d writes and at most %d conditions: have %d and %d", MaxTxnOps, MaxTxnOps, len(ops), len(conds))
	}
	for _, c := range conds {
		if err := checkKey(c.key); err != nil {
			return fmt.Errorf("key %q: %w", c.key, err)
		}
	}
	total := 0
	seen := make(map[string]bool, len(ops))
	for _, op := range ops {
		if err := checkKey(op.key); err != nil {
			return fmt.Errorf("key %q: %w", op.key, err)
		}
		if seen[op.key] {
			return fmt.Errorf("key %q is written twice in one transaction", op.key)
		}
		seen[op.key] = true
		if len(op.value) > MaxValueBytes {
			return fmt.Errorf("value of %q has %d bytes, at most %d fit: store it in chunks", op.key, len(op.value), MaxValueBytes)
		}
		total += len(op.key) + len(op.value)
	}
	if total > maxTxnBytes {
		return fmt.Errorf("transaction has %d bytes, at most %d fit", total, maxTxnBytes)
	}
	return nil
}

func describeOps(ops []Op) string {
	switch len(ops) {
	case 0:
		return "nothing"
	case 1:
		return ops[0].key
	}
	return fmt.Sprintf("%s and %d more", ops[0].key, len(ops)-1)
}
