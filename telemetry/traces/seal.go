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
// waits on the list for the next flush. Under sampling it is written to wait for
// its verdict; a small one, to be merged.
func (s *Store) seal(sb *sealingBlock) (err error) {
	start := time.Now()
	var held *undecided
	var small []part
	defer func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		sb.busy = false
		if err != nil {
			return
		}
		s.sealing = slices.DeleteFunc(s.sealing, func(o *sealingBlock) bool { return o == sb })
		if held != nil {
			s.undecided = append(s.undecided, held)
			s.undecidedBytes += held.bytes
		}
		s.gatherLocked(small)
	}()
	switch {
	case sb.merged != nil:
		err = s.commitMerged(sb.merged)
	case len(s.o.Sampling.Rules) > 0:
		held, err = s.hold(sb)
	default:
		small, err = s.commit([]*block{sb.block}, nil)
	}
	if err != nil {
		s.meters.failed.Inc()
		return fmt.Errorf("write %d spans: %w", len(sb.spans), err)
	}
	s.meters.seal.UpdateDuration(start)
	return nil
}

// recoverPebble turns a panic into an error. Pebble cannot go on after a failed
// write of its log; its logger panics with that, and the store stays, read-only.
func recoverPebble(err *error) {
	if p := recover(); p != nil {
		*err = fmt.Errorf("%w: %v", ErrReadOnly, p)
	}
}

// encoded is a block as it goes to disk.
type encoded struct {
	*block
	data, sum []byte
	index     blockIndex
	hashes    []uint64 // of trace ids, sorted: Pebble takes keys in order for half
}

// traceHashes returns the hashes of the block's trace ids, sorted.
func (b *block) traceHashes() []uint64 {
	out := make([]uint64, len(b.traces))
	for i, id := range b.traces {
		out[i] = traceHash(id)
	}
	slices.Sort(out)
	return out
}

// commit writes blocks, and deletes what they were decided from, in one synced
// batch: large ones with their indexes, small ones as parts, which the caller
// hands to gatherLocked once they are found nowhere else.
func (s *Store) commit(blocks []*block, from []*undecided) (small []part, err error) {
	c := commit{partition: partitionOf(s.o.now())}
	for _, b := range blocks {
		if b.small() {
			c.parts = append(c.parts, part{block: b})
		} else {
			c.blocks = append(c.blocks, b)
		}
	}
	for _, u := range from {
		c.gone = append(c.gone, u.key)
	}
	return c.parts, s.write(&c)
}

// commitMerged writes a block that was gathered in place of its parts.
func (s *Store) commitMerged(g *gathering) error {
	return s.write(&commit{partition: g.hour, blocks: []*block{g.block}, gone: g.parts})
}

// commit is what one synced batch does.
type commit struct {
	partition partition
	blocks    []*block
	parts     []part // get their keys when they are written
	gone      [][]byte
}

func (s *Store) write(c *commit) (err error) {
	ready := make([]encoded, len(c.blocks))
	size := 64
	for i, b := range c.blocks {
		sum := summarize(b)
		e := encoded{b, encodeBlock(nil, b), sum.encode(), makeIndex(b), b.traceHashes()}
		ready[i] = e
		size += len(e.data) + len(e.sum) + e.index.size() + 40*len(b.traces)
	}
	small := make([][]byte, len(c.parts))
	for i, p := range c.parts {
		small[i] = encodeBlock(nil, p.block)
		size += len(small[i]) + 32
	}
	s.commits.Lock()
	defer s.commits.Unlock()
	defer recoverPebble(&err)
	p := c.partition
	batch := s.db.NewBatchWithSize(size + 16*len(c.gone))
	defer batch.Close()
	for i, e := range ready {
		if err := s.fill(batch, p, s.nextSeq+uint32(i), e); err != nil {
			return err
		}
	}
	for i, data := range small {
		k := seqKey(p, kindPart, s.nextPart+uint32(i))
		c.parts[i].key, c.parts[i].hour = k, p
		if err := batch.Set(k, data, nil); err != nil {
			return err
		}
	}
	for _, k := range c.gone {
		if err := batch.Delete(k, nil); err != nil {
			return err
		}
	}
	if err := batch.Commit(pebble.Sync); err != nil {
		return err
	}
	s.nextSeq += uint32(len(ready))
	s.nextPart += uint32(len(small))
	for _, e := range ready {
		s.parts.widen(p, e.minStart, e.maxStart)
		for k := range e.ops {
			service, op := e.operation(k)
			s.names.add(service, op, p)
		}
		s.meters.blocks.Inc()
		s.meters.blockBytes.Add(len(e.data))
	}
	return nil
}

// fill puts everything that a block leaves on disk into batch.
func (s *Store) fill(batch *pebble.Batch, p partition, seq uint32, b encoded) error {
	for _, kv := range []struct {
		kind  byte
		value []byte
	}{{kindBlock, b.data}, {kindSummary, b.sum}, {kindDurations, b.index.durations}} {
		if err := batch.Set(seqKey(p, kv.kind, seq), kv.value, nil); err != nil {
			return err
		}
	}
	for i, page := range b.index.pages {
		if err := batch.Set(indexKey(p, b.index.number(i), seq), page, nil); err != nil {
			return err
		}
	}
	number := binary.BigEndian.AppendUint32(nil, seq)
	for _, h := range b.hashes {
		if err := batch.Merge(traceKey(p, h), number, nil); err != nil {
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
