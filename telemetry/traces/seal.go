package traces

import (
	"encoding/binary"
	"fmt"
	"slices"
	"time"

	"github.com/cockroachdb/pebble/v2"
)

// seal writes a block that its caller has marked busy: encoded outside of all
// locks, committed and synced, and only then taken off the list of blocks in
// memory, so that its spans are readable at every moment. After an error it
// waits on the list for the next flush.
func (s *Store) seal(sb *sealingBlock) (err error) {
	start := time.Now()
	defer func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		sb.busy = false
		if err == nil {
			s.sealing = slices.DeleteFunc(s.sealing, func(o *sealingBlock) bool { return o == sb })
		}
	}()
	data := encodeBlock(nil, sb.block)
	sum := summarize(sb.block)
	filter := makeFilter(sb.block)
	if err := s.commit(sb.block, data, sum.encode(), filter); err != nil {
		s.meters.failed.Inc()
		return fmt.Errorf("write %d spans: %w", len(sb.spans), err)
	}
	s.meters.blocks.Inc()
	s.meters.blockBytes.Add(len(data))
	s.meters.seal.UpdateDuration(start)
	return nil
}

// commit writes one block with its indexes in one synced batch.
func (s *Store) commit(b *block, data, sum, filter []byte) (err error) {
	s.commits.Lock()
	defer s.commits.Unlock()
	defer func() {
		// Pebble cannot go on after a failed write of its log; its logger
		// panics with that, and the store stays, read-only.
		if p := recover(); p != nil {
			err = fmt.Errorf("%w: %v", ErrReadOnly, p)
		}
	}()
	p, seq := partitionOf(s.o.now()), s.nextSeq
	batch := s.db.NewBatchWithSize(len(data) + len(sum) + len(filter) + 40*len(b.traces))
	defer batch.Close()
	if err := s.fill(batch, p, seq, b, data, sum, filter); err != nil {
		return err
	}
	if err := batch.Commit(pebble.Sync); err != nil {
		return err
	}
	s.nextSeq = seq + 1
	s.parts.widen(p, b.minStart, b.maxStart)
	for k := range b.ops {
		service, op := b.operation(k)
		s.names.add(service, op, p)
	}
	return nil
}

// fill puts everything that a block leaves on disk into batch.
func (s *Store) fill(batch *pebble.Batch, p partition, seq uint32, b *block, data, sum, filter []byte) error {
	for _, kv := range []struct {
		kind  byte
		value []byte
	}{{kindBlock, data}, {kindSummary, sum}, {kindFilter, filter}} {
		if err := batch.Set(seqKey(p, kv.kind, seq), kv.value, nil); err != nil {
			return err
		}
	}
	number := binary.BigEndian.AppendUint32(nil, seq)
	for _, id := range b.traces {
		if err := batch.Merge(traceKey(p, id), number, nil); err != nil {
			return err
		}
	}
	if bo, changed := s.parts.widened(p, b.minStart, b.maxStart); changed {
		v := binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(nil, bo.min), bo.max)
		if err := batch.Set(key(p, kindBounds), v, nil); err != nil {
			return err
		}
	}
	for k := range b.ops {
		service, op := b.operation(k)
		if !s.names.news(service, op, p) {
			continue
		}
		if err := batch.Set(opsKey(p, service, op), nil, nil); err != nil {
			return err
		}
	}
	return nil
}
