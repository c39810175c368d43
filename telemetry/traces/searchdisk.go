package traces

import (
	"context"
	"encoding/binary"
	"errors"

	"github.com/cockroachdb/pebble/v2"
)

// searchDisk goes through the summaries from the newest block to the oldest
// and reads the blocks that may improve on what is found.
func (s *Store) searchDisk(ctx context.Context, m *matcher, best *newest) (truncated bool, err error) {
	scanned := 0
	for _, p := range s.parts.newestFirst(m.start, m.end) {
		truncated, err = s.searchPartition(ctx, p, m, best, &scanned)
		if err != nil || truncated {
			return truncated, err
		}
	}
	return false, nil
}

func (s *Store) searchPartition(ctx context.Context, p partition, m *matcher, best *newest, scanned *int) (truncated bool, err error) {
	it, err := s.db.NewIter(&pebble.IterOptions{LowerBound: key(p, kindSummary), UpperBound: key(p, kindSummary+1)})
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, it.Error(), it.Close()) }()
	index, err := s.openIndex(p, m)
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, index.close()) }()
	round := &searchRound{s: s, p: p, m: m, best: best, scanned: scanned}
	for ok := it.Last(); ok; ok = it.Prev() {
		if err := ctx.Err(); err != nil {
			return false, err
		}
		_, _, rest, err := parseKey(it.Key())
		if err != nil || len(rest) != 4 {
			return false, errors.Join(errBadKey, err)
		}
		seq := binary.BigEndian.Uint32(rest)
		v, err := it.ValueAndErr()
		if err != nil {
			return false, err
		}
		may, err := index.mayMatch(seq, v, best)
		if err != nil {
			return false, err
		}
		if may.empty() {
			continue
		}
		round.blocks = append(round.blocks, searchBlock{seq: seq, may: may})
		if len(round.blocks) < sideBySide() {
			continue
		}
		if truncated, err := round.run(ctx); err != nil || truncated {
			return truncated, err
		}
	}
	return round.run(ctx)
}

// searchRound is some blocks that are searched side by side. The next round is
// chosen by what this one found.
type searchRound struct {
	s       *Store
	p       partition
	m       *matcher
	best    *newest
	scanned *int
	blocks  []searchBlock
}

type searchBlock struct {
	seq   uint32
	may   rowSet
	spans int
	found *newest
}

// run searches the blocks of the round and empties it.
func (r *searchRound) run(ctx context.Context) (truncated bool, err error) {
	err = side(ctx, len(r.blocks), func(i int) error {
		b := &r.blocks[i]
		id := blockID{r.p, b.seq}
		o, err := r.s.readBlock(id)
		if err != nil || o == nil {
			return err
		}
		b.spans, b.found = o.spans, newNewest(r.best.limit)
		if err := o.search(r.m, b.may, func(t int, start uint64) { b.found.add(o.traceID(t), start) }); err != nil {
			r.s.malformed(id, err)
		}
		return nil
	})
	if err != nil {
		return false, err
	}
	for _, b := range r.blocks {
		if *r.scanned += b.spans; *r.scanned > maxScan {
			return true, nil
		}
		if b.found != nil {
			for id, start := range b.found.starts {
				r.best.add(id, start)
			}
		}
	}
	r.best.trim() // what is known now decides which blocks are read next
	r.blocks = r.blocks[:0]
	return false, nil
}

// mayMatch returns the rows of a block that are worth reading, by its summary
// and the index.
func (x *hourIndex) mayMatch(seq uint32, v []byte, best *newest) (rowSet, error) {
	if lo, hi := summaryTimes(v); !x.m.times(lo, hi) || !best.wants(hi) {
		return rowSet{}, nil
	}
	sum := readSummary(v)
	if sum.r.err != nil {
		x.s.meters.corrupt.Inc()
		return rowSet{n: maxPacked}, nil // the block itself decides
	}
	spans := sum.spans
	if !x.m.summary(&sum) {
		return rowSet{}, nil
	}
	return x.rows(seq, spans)
}
