package traces

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"

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
