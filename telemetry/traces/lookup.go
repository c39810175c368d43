package traces

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/ptrace"
)

// Trace returns all spans of one trace, from all processes and batches, by
// start time, each once. ErrNotFound says that there are none.
func (s *Store) Trace(ctx context.Context, id pcommon.TraceID) (ptrace.Traces, error) {
	return s.traceWithin(ctx, id, always)
}

// traceWithin is Trace with a hint of when it was.
func (s *Store) traceWithin(ctx context.Context, id pcommon.TraceID, w window) (ptrace.Traces, error) {
	if err := s.enter(); err != nil {
		return ptrace.Traces{}, err
	}
	defer s.leave()
	defer s.meters.query.UpdateDuration(time.Now())
	return s.trace(ctx, id, w)
}

func (s *Store) trace(ctx context.Context, id pcommon.TraceID, w window) (ptrace.Traces, error) {
	blocks, _, err := s.blocksOf(ctx, []pcommon.TraceID{id}, w, math.MaxInt)
	if err != nil {
		return ptrace.Traces{}, err
	}
	return assemble(blocks[0], id)
}

// enter begins a query, which Close waits for; leave ends it.
func (s *Store) enter() error {
	s.life.RLock()
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.closed {
		s.life.RUnlock()
		return errClosed
	}
	return nil
}

func (s *Store) leave() { s.life.RUnlock() }

// blocksOf returns for each of some traces every block that has spans of it: all
// blocks are read once, side by side. Blocks may have spans of the other traces,
// too. It gives up where there are more than maxSpans on disk.
func (s *Store) blocksOf(ctx context.Context, ids []pcommon.TraceID, w window, maxSpans int) (blocks [][]*block, ok bool, err error) {
	// Memory first: a block that is being written is then found in memory or,
	// later, on disk, or in both.
	blocks = make([][]*block, len(ids))
	for i, id := range ids {
		blocks[i] = s.fromMemory(func(b *block) bool { return w.meets(b.minStart, b.maxStart) && b.hasTrace(id) }, func(b *block) *block { return b.pick(id) })
	}
	places, err := s.placesOf(ctx, ids, w)
	if err != nil {
		return nil, false, err
	}
	var spans atomic.Int64
	read := make([]*block, len(places))
	err = side(ctx, len(places), func(i int) error {
		if spans.Load() > int64(maxSpans) {
			return nil
		}
		place := &places[i]
		o, err := s.readBlock(place.id)
		if err != nil || o == nil {
			return err
		}
		want := make([]pcommon.TraceID, len(place.of))
		for j, n := range place.of {
			want[j] = ids[n]
		}
		b, err := o.pick(want...)
		if err != nil {
			s.malformed(place.id, err)
		} else if b != nil {
			read[i] = b
			spans.Add(int64(len(b.spans)))
		}
		return nil
	})
	for i, b := range read {
		if b != nil {
			for _, n := range places[i].of {
				blocks[n] = append(blocks[n], b)
			}
		}
	}
	return blocks, spans.Load() <= int64(maxSpans), err
}

// blockPlace is a block on disk and which of some traces it has.
type blockPlace struct {
	id blockID
	of []int
}

func (s *Store) placesOf(ctx context.Context, ids []pcommon.TraceID, w window) (places []blockPlace, err error) {
	at := map[blockID]int{}
	for _, p := range s.parts.newestFirst(w.from, w.to) {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		for i, id := range ids {
			seqs, err := s.get(traceKey(p, traceHash(id)))
			if err != nil {
				return nil, fmt.Errorf("look up trace %s: %w", id, err)
			}
			for ; len(seqs) >= 4; seqs = seqs[4:] {
				bid := blockID{p, binary.BigEndian.Uint32(seqs)}
				n, ok := at[bid]
				if !ok {
					n = len(places)
					at[bid] = n
					places = append(places, blockPlace{id: bid})
				}
				places[n].of = append(places[n].of, i)
			}
		}
	}
	return places, nil
}

// fromMemory returns the blocks in memory that want wants: those that no longer
// change as they are, of those that others go on filling what pick copies.
func (s *Store) fromMemory(want func(*block) bool, pick func(*block) *block) []*block {
	s.mu.RLock()
	defer s.mu.RUnlock()
	var out []*block
	for _, b := range s.growingLocked() {
		if want(b) {
			out = append(out, pick(b))
		}
	}
	for _, b := range s.frozenLocked() {
		if want(b) {
			out = append(out, b)
		}
	}
	return out
}

// growingLocked lists the blocks in memory that change: they are read under the lock.
func (s *Store) growingLocked() []*block { return []*block{s.open, s.gathering.block} }

// frozenLocked lists the blocks in memory that no longer change: they may be
// read without the lock.
func (s *Store) frozenLocked() []*block {
	out := make([]*block, 0, len(s.sealing)+len(s.undecided))
	for _, sb := range s.sealing {
		out = append(out, sb.block)
	}
	for _, u := range s.undecided {
		out = append(out, u.block)
	}
	return out
}

func (b *block) hasTrace(id pcommon.TraceID) bool {
	if b.traceIdx != nil {
		_, ok := b.traceIdx[id]
		return ok
	}
	return slices.Contains(b.traces, id)
}

// pick copies the spans of one trace into a block of their own.
func (b *block) pick(id pcommon.TraceID) *block {
	keep := make([]bool, len(b.traces))
	keep[b.traceIdx[id]] = true
	out := newBlock()
	out.copyTraces(b, keep)
	return out
}

// get returns a copy of a value, nil where there is none.
func (s *Store) get(key []byte) ([]byte, error) {
	v, closer, err := s.db.Get(key)
	if errors.Is(err, pebble.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer closer.Close()
	return slices.Clone(v), nil
}

// readBlock returns a block from the cache or the disk, nil where it was
// dropped or is malformed: one bad block does not spoil a query.
func (s *Store) readBlock(id blockID) (*opened, error) {
	if o := s.cache.get(id); o != nil {
		return o, nil
	}
	v, closer, err := s.db.Get(seqKey(id.p, kindBlock, id.seq))
	if errors.Is(err, pebble.ErrNotFound) {
		return nil, nil // its hour was dropped meanwhile
	}
	if err != nil {
		return nil, fmt.Errorf("read block %d of hour %s: %w", id.seq, id.p.time(), err)
	}
	defer closer.Close()
	o, err := openBlock(v)
	if err != nil {
		s.malformed(id, err)
		return nil, nil
	}
	s.cache.put(id, o)
	return o, nil
}

// malformed counts and tells of a block that cannot be read.
func (s *Store) malformed(id blockID, err error) {
	s.meters.corrupt.Inc()
	s.log.Error("block left out of a query", "block", id.seq, "hour", id.p.time(), "error", err)
}
