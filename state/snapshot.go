package state

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"io"
	"time"
)

// A snapshot is all keys of one moment, in a form of our own: it is small, can
// be checked without an etcd, and can be restored into any engine.
//
//	+----------------------+
//	| "BNSTATE1"           |  8 bytes
//	| epoch                |  8 bytes, big endian
//	| taken                |  8 bytes, Unix seconds, big endian
//	+----------------------+
//	| key length > 0       |  uvarint  \
//	| key                  |            |  once per key,
//	| value length         |  uvarint   |  ordered by key
//	| value                |           /
//	+----------------------+
//	| 0                    |  uvarint
//	| SHA-256              |  32 bytes, of all before
//	+----------------------+
const snapshotMagic = "BNSTATE1"

// ErrBadSnapshot is returned for a snapshot that is cut, damaged or none at all.
var ErrBadSnapshot = errors.New("not a whole snapshot of control state")

// SnapshotInfo describes a snapshot.
type SnapshotInfo struct {
	Epoch uint64
	Taken time.Time
	Keys  int
}

// Snapshot writes all keys, as of one moment, to w. Writers go on meanwhile.
// What it writes is as secret as the state itself.
func (s *Store) Snapshot(ctx context.Context, w io.Writer) error {
	if err := s.checkOpen(); err != nil {
		return fmt.Errorf("snapshot: %w", err)
	}
	sum := sha256.New()
	buf := bufio.NewWriterSize(io.MultiWriter(w, sum), 64<<10)
	head := binary.BigEndian.AppendUint64([]byte(snapshotMagic), s.epoch)
	head = binary.BigEndian.AppendUint64(head, uint64(time.Now().Unix()))
	if _, err := buf.Write(head); err != nil {
		return fmt.Errorf("write snapshot: %w", err)
	}
	from, end := prefixRange("")
	err := s.eng.Scan(ctx, from, end, func(kv KV) error {
		b := binary.AppendUvarint(nil, uint64(len(kv.Key)))
		b = append(b, kv.Key...)
		b = binary.AppendUvarint(b, uint64(len(kv.Value)))
		if _, err := buf.Write(b); err != nil {
			return err
		}
		_, err := buf.Write(kv.Value)
		return err
	})
	if err == nil {
		err = errors.Join(buf.WriteByte(0), buf.Flush())
	}
	if err == nil {
		_, err = w.Write(sum.Sum(nil))
	}
	if err != nil {
		return fmt.Errorf("write snapshot: %w", err)
	}
	return nil
}

// ReadSnapshot reads a snapshot and calls fn with each key, which owns the
// value. An error of fn ends the reading and is returned. Keys may have been
// given to fn before the snapshot turns out to be damaged: trust none of them
// before ReadSnapshot returned nil.
func ReadSnapshot(r io.Reader, fn func(KV) error) (SnapshotInfo, error) {
	d := snapshotReader{r: bufio.NewReaderSize(r, 64<<10), sum: sha256.New()}
	info, err := d.read(fn)
	if d.bad != nil {
		return info, fmt.Errorf("%w: after %d keys: %w", ErrBadSnapshot, info.Keys, d.bad)
	}
	return info, err
}

type snapshotReader struct {
	r   *bufio.Reader
	sum hash.Hash
	bad error // set when the input is at fault
}

func (d *snapshotReader) read(fn func(KV) error) (SnapshotInfo, error) {
	var info SnapshotInfo
	head := d.bytes(uint64(len(snapshotMagic) + 16))
	if d.bad != nil {
		return info, nil
	}
	if !bytes.HasPrefix(head, []byte(snapshotMagic)) {
		d.bad = fmt.Errorf("begins with %q, not %q", head[:len(snapshotMagic)], snapshotMagic)
		return info, nil
	}
	info.Epoch = binary.BigEndian.Uint64(head[8:])
	info.Taken = time.Unix(int64(binary.BigEndian.Uint64(head[16:])), 0).UTC()
	last := ""
	for {
		n := d.uvarint(maxKeyBytes, "key")
		if d.bad != nil {
			return info, nil
		}
		if n == 0 {
			break
		}
		key := string(d.bytes(n))
		value := d.bytes(d.uvarint(MaxValueBytes, "value"))
		if d.bad != nil {
			return info, nil
		}
		if err := checkKey(key); err != nil || key <= last {
			d.bad = fmt.Errorf("key %q follows %q", key, last)
			return info, nil
		}
		last = key
		if err := fn(KV{Key: key, Value: value}); err != nil {
			return info, err
		}
		info.Keys++
	}
	want := d.sum.Sum(nil)
	if have := d.bytes(uint64(len(want))); d.bad == nil && !bytes.Equal(have, want) {
		d.bad = errors.New("the checksum is wrong")
	}
	return info, nil
}

// bytes reads n bytes; after a fault it gives nil. n is bounded by the callers.
func (d *snapshotReader) bytes(n uint64) []byte {
	if d.bad != nil {
		return nil
	}
	b := make([]byte, n)
	if _, err := io.ReadFull(d.r, b); err != nil {
		d.bad = fmt.Errorf("it is cut: %w", err)
		return nil
	}
	d.sum.Write(b)
	return b
}

func (d *snapshotReader) uvarint(limit uint64, what string) uint64 {
	var n uint64
	for shift := 0; d.bad == nil; shift += 7 {
		b := d.bytes(1)
		if d.bad != nil {
			break
		}
		n |= uint64(b[0]&0x7f) << shift
		if n > limit || shift > 21 {
			d.bad = fmt.Errorf("a %s is longer than %d bytes", what, limit)
			break
		}
		if b[0] < 0x80 {
			return n
		}
	}
	return 0
}

// Restored tells of a restore.
type Restored struct {
	// Snapshot is what was restored, Epoch that of the state made from it.
	Snapshot SnapshotInfo
	Epoch    uint64
}

// LoadSnapshot writes a snapshot into a Store that is new and empty, many keys
// at a time. The new epoch is above that of the snapshot and of every earlier
// restore of it, and counts from the next opening on. After an error the Store
// is good for nothing.
func (s *Store) LoadSnapshot(ctx context.Context, r io.Reader) (Restored, error) {
	var ops []Op
	size := 0
	flush := func() error {
		if len(ops) == 0 {
			return nil
		}
		_, err := s.commit(ctx, nil, ops)
		ops, size = nil, 0
		return err
	}
	info, err := ReadSnapshot(r, func(kv KV) error {
		if len(ops) == MaxTxnOps || size+len(kv.Key)+len(kv.Value) > maxTxnBytes {
			if err := flush(); err != nil {
				return err
			}
		}
		ops = append(ops, OpPut(kv.Key, kv.Value))
		size += len(kv.Key) + len(kv.Value)
		return nil
	})
	if err == nil {
		err = flush()
	}
	out := Restored{Snapshot: info, Epoch: nextEpoch(info.Epoch, time.Now())}
	if err == nil {
		err = s.storeEpoch(ctx, out.Epoch)
	}
	return out, err
}
