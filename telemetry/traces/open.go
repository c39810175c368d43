package traces

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
)

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
// of services and operations, the last block's number, the blocks that wait.
func (s *Store) load() error {
	if err := errors.Join(s.restoreUndecided(), s.restoreParts()); err != nil {
		return err
	}
	return s.eachPartition(s.loadPartition)
}

// eachPartition calls f with every hour on disk, the oldest first, and an iterator that
// it may move.
func (s *Store) eachPartition(f func(*pebble.Iterator, partition) error) error {
	it, err := s.db.NewIter(nil)
	if err != nil {
		return err
	}
	defer it.Close()
	for ok := it.First(); ok; {
		p, _, _, err := parseKey(it.Key())
		if err != nil {
			return err
		}
		if err := f(it, p); err != nil {
			return err
		}
		ok = it.SeekGE(key(p+1, 0))
	}
	return it.Error()
}

// restore reads the blocks of a kind that wait, hour by hour. One that cannot be read is
// given up.
func (s *Store) restore(kind byte, found func(hour partition, seq uint32, b *block)) error {
	var bad [][]byte
	err := s.eachPartition(func(it *pebble.Iterator, p partition) error {
		for ok := it.SeekGE(key(p, kind)); ok; ok = it.Next() {
			kp, k, rest, err := parseKey(it.Key())
			if err == nil && (kp != p || k != kind) {
				break
			}
			if err != nil || len(rest) != 4 {
				return errors.Join(errBadKey, err)
			}
			v, err := it.ValueAndErr()
			if err != nil {
				return err
			}
			seq := binary.BigEndian.Uint32(rest)
			b, err := decodeBlock(v)
			if err != nil {
				s.meters.corrupt.Inc()
				s.log.Error("a block that waits cannot be read and is given up", "kind", string(kind), "block", seq, "hour", p.time(), "error", err)
				bad = append(bad, slices.Clone(it.Key()))
				continue
			}
			b.index()
			found(p, seq, b)
		}
		return it.Error()
	})
	for _, k := range bad {
		err = errors.Join(err, s.db.Delete(k, pebble.NoSync))
	}
	return err
}

func (s *Store) loadPartition(it *pebble.Iterator, p partition) error {
	if !holdsSpans(it, p) {
		return nil
	}
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

// holdsSpans reports whether an hour has more than blocks that wait.
func holdsSpans(it *pebble.Iterator, p partition) bool {
	for _, from := range []byte{0, kindPart + 1} { // before and between those
		if !it.SeekGE(key(p, from)) {
			continue
		}
		if kp, kind, _, err := parseKey(it.Key()); err == nil && kp == p && kind != kindPart && kind != kindUndecided {
			return true
		}
	}
	return false
}
