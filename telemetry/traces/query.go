package traces

import (
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/ptrace"
)

// Query selects traces of which one span at least fulfils all of it.
type Query struct {
	// Service is the service.name; empty means any.
	Service string
	// Operation is the span's name; empty means any.
	Operation string
	// Tags are attributes, of the span or its resource, that must have the
	// value in its string form. "error" is "true" for spans of status error.
	Tags map[string]string
	// Start and End bound the span's start time; zero is no bound.
	Start, End time.Time
	// MinDuration and MaxDuration bound the span's duration; zero is no bound.
	MinDuration, MaxDuration time.Duration
	// Limit is the number of traces; default 20, at most 1,500.
	Limit int
}

// Operation is a span name with its kind ("server", "client" …).
type Operation struct {
	Name string `json:"name"`
	Kind string `json:"spanKind"`
}

const (
	defaultLimit = 20
	maxLimit     = 1500
	// maxScan bounds the spans that one search reads, about three seconds of
	// a core: enough for every search that the summaries and filters narrow
	// down.
	maxScan = 32 << 20
	// maxTraceSpans bounds the spans of one trace that are returned.
	maxTraceSpans = 200_000
	// maxAnswerSpans bounds the spans of all traces of an answer, at about a
	// kilobyte of JSON each: what a browser still draws.
	maxAnswerSpans = 200_000
)

// Trace returns all spans of one trace, from all processes and batches, by
// start time, each once. ErrNotFound says that there are none.
func (s *Store) Trace(ctx context.Context, id pcommon.TraceID) (ptrace.Traces, error) {
	if err := s.enter(); err != nil {
		return ptrace.Traces{}, err
	}
	defer s.leave()
	defer s.meters.query.UpdateDuration(time.Now())
	return s.trace(ctx, id)
}

func (s *Store) trace(ctx context.Context, id pcommon.TraceID) (ptrace.Traces, error) {
	blocks, err := s.blocksOf(ctx, id)
	if err != nil {
		return ptrace.Traces{}, err
	}
	return assemble(blocks, id)
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

// blocksOf returns every block that has spans of a trace.
func (s *Store) blocksOf(ctx context.Context, id pcommon.TraceID) ([]*block, error) {
	// Memory first: a block that is being written is then found in memory or,
	// later, on disk, or in both.
	blocks := s.fromMemory(func(b *block) bool { return b.hasTrace(id) }, func(b *block) *block { return b.pick(id) })
	for _, p := range s.parts.newestFirst(0, math.MaxUint64) {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		seqs, err := s.get(traceKey(p, id))
		if err != nil {
			return nil, fmt.Errorf("look up trace %s: %w", id, err)
		}
		for ; len(seqs) >= 4; seqs = seqs[4:] {
			bid := blockID{p, binary.BigEndian.Uint32(seqs)}
			o, err := s.readBlock(bid)
			if err != nil {
				return nil, err
			}
			if o == nil {
				continue
			}
			if b, err := o.pick(id); err != nil {
				s.malformed(bid, err)
			} else if b != nil {
				blocks = append(blocks, b)
			}
		}
	}
	return blocks, nil
}

// fromMemory returns the blocks in memory that want wants: those that no longer
// change as they are, of the open one, which others go on filling, what pick
// copies.
func (s *Store) fromMemory(want func(*block) bool, pick func(*block) *block) []*block {
	s.mu.RLock()
	defer s.mu.RUnlock()
	var out []*block
	if want(s.open) {
		out = append(out, pick(s.open))
	}
	for _, b := range s.frozenLocked() {
		if want(b) {
			out = append(out, b)
		}
	}
	return out
}

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
	td := ptrace.NewTraces()
	a := newAssembly(td)
	a.add(b, id)
	a.finish()
	out := newBlock()
	out.append(td)
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

// Search returns whole traces, the newest first by their newest matching span.
func (s *Store) Search(ctx context.Context, q Query) ([]ptrace.Traces, error) {
	found, _, err := s.search(ctx, q)
	return found, err
}

// cut says what an answer leaves out.
type cut struct {
	scan  bool // spans older than the newest maxScan
	spans bool // traces that would make it more than maxAnswerSpans
}

// warnings are what to tell the person who asked.
func (c cut) warnings(o Options) (out []string) {
	if c.scan {
		out = append(out, fmt.Sprintf("the search stopped after %d spans: older traces may be missing; ask for less time", maxScan))
	}
	if c.spans {
		out = append(out, fmt.Sprintf("the answer is full with %d spans: older traces are missing; ask for fewer", o.maxAnswerSpans))
	}
	return out
}

// search also says what it left out.
func (s *Store) search(ctx context.Context, q Query) (found []ptrace.Traces, left cut, err error) {
	if err := s.enter(); err != nil {
		return nil, left, err
	}
	defer s.leave()
	defer s.meters.query.UpdateDuration(time.Now())
	if q.Limit <= 0 {
		q.Limit = defaultLimit
	}
	q.Limit = min(q.Limit, maxLimit)
	q.Start, q.End = clampTime(q.Start), clampTime(q.End)
	m := newMatcher(q)
	best := newNewest(q.Limit)

	s.mu.RLock()
	m.block(s.open, best.add)
	frozen := s.frozenLocked()
	s.mu.RUnlock()
	for _, b := range frozen {
		if m.times(b.minStart, b.maxStart) && best.wants(b.maxStart) {
			m.block(b, best.add)
		}
	}
	best.trim()
	left.scan, err = s.searchDisk(ctx, &m, best)
	if err != nil {
		return nil, left, fmt.Errorf("search traces: %w", err)
	}
	found, left.spans, err = s.traceAll(ctx, best.ids())
	if left != (cut{}) {
		s.meters.truncated.Inc()
	}
	return found, left, err
}

// traceAll returns those of the traces that are in the store, until the answer
// is full; the first is always whole.
func (s *Store) traceAll(ctx context.Context, ids []pcommon.TraceID) (found []ptrace.Traces, full bool, err error) {
	spans := 0
	for _, id := range ids {
		td, err := s.trace(ctx, id)
		if errors.Is(err, ErrNotFound) {
			continue
		}
		if err != nil {
			return nil, false, err
		}
		if spans += td.SpanCount(); spans > s.o.maxAnswerSpans && len(found) > 0 {
			return found, true, nil
		}
		found = append(found, td)
	}
	return found, false, nil
}

// searchDisk goes through the summaries from the newest block to the oldest
// and reads the blocks that may improve on what is found.
func (s *Store) searchDisk(ctx context.Context, m *matcher, best *newest) (truncated bool, err error) {
	scanned := 0
	for _, p := range s.parts.newestFirst(m.start, m.end) {
		it, err := s.db.NewIter(&pebble.IterOptions{LowerBound: key(p, kindSummary), UpperBound: key(p, kindSummary+1)})
		if err != nil {
			return false, err
		}
		truncated, err = s.searchPartition(ctx, it, p, m, best, &scanned)
		if err = errors.Join(err, it.Error(), it.Close()); err != nil || truncated {
			return truncated, err
		}
	}
	return false, nil
}

func (s *Store) searchPartition(ctx context.Context, it *pebble.Iterator, p partition, m *matcher, best *newest, scanned *int) (truncated bool, err error) {
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
		may, err := s.mayMatch(blockID{p, seq}, v, m, best)
		if err != nil {
			return false, err
		}
		if !may {
			continue
		}
		o, err := s.readBlock(blockID{p, seq})
		if err != nil {
			return false, err
		}
		if o == nil {
			continue
		}
		if *scanned += o.spans; *scanned > maxScan {
			return true, nil
		}
		if err := o.search(m, func(t int, start uint64) { best.add(o.traceID(t), start) }); err != nil {
			s.malformed(blockID{p, seq}, err)
		}
		best.trim() // what is known now decides which blocks are read next
	}
	return false, nil
}

// mayMatch decides by summary and filter whether a block is worth reading.
func (s *Store) mayMatch(id blockID, v []byte, m *matcher, best *newest) (bool, error) {
	lo, hi := summaryTimes(v)
	if !m.times(lo, hi) || !best.wants(hi) {
		return false, nil
	}
	sum, err := decodeSummary(v)
	if err != nil {
		s.meters.corrupt.Inc()
		return true, nil // the block itself decides
	}
	if !m.summary(&sum) {
		return false, nil
	}
	if len(m.hashes) == 0 {
		return true, nil
	}
	f, closer, err := s.db.Get(seqKey(id.p, kindFilter, id.seq))
	if errors.Is(err, pebble.ErrNotFound) {
		return true, nil
	}
	if err != nil {
		return false, err
	}
	defer closer.Close()
	return m.filter(f), nil
}

// newest keeps the limit traces with the newest matching spans.
type newest struct {
	limit  int
	starts map[pcommon.TraceID]uint64
	floor  uint64 // below it nothing is wanted, once limit traces are known
	grown  bool   // since floor was found
}

func newNewest(limit int) *newest {
	return &newest{limit: limit, starts: map[pcommon.TraceID]uint64{}}
}

// wants reports whether a span that starts at t could come among the newest.
func (n *newest) wants(t uint64) bool {
	return len(n.starts) < n.limit || t > n.floor
}

func (n *newest) add(id pcommon.TraceID, start uint64) {
	if !n.wants(start) {
		return
	}
	if old, ok := n.starts[id]; ok && old >= start {
		return
	}
	n.starts[id] = start
	n.grown = true
	// Cut down in bulk: a pass over twice the limit for each limit added.
	if len(n.starts) >= 2*n.limit {
		n.trim()
	}
}

// trim forgets all but the newest.
func (n *newest) trim() {
	if !n.grown {
		return
	}
	n.grown = false
	ids := n.sorted()
	for _, id := range ids[min(n.limit, len(ids)):] {
		delete(n.starts, id)
	}
	if len(ids) >= n.limit {
		n.floor = n.starts[ids[n.limit-1]]
	}
}

func (n *newest) sorted() []pcommon.TraceID {
	return slices.SortedFunc(maps.Keys(n.starts), func(a, b pcommon.TraceID) int {
		return cmp.Or(cmp.Compare(n.starts[b], n.starts[a]), bytes.Compare(a[:], b[:]))
	})
}

func (n *newest) ids() []pcommon.TraceID {
	n.trim()
	return n.sorted()
}

// Services returns the names of all services with spans in the store, sorted.
func (s *Store) Services(ctx context.Context) ([]string, error) {
	all := s.names.services()
	for service := range s.memoryOps() {
		if !slices.Contains(all, service) {
			all = append(all, service)
		}
	}
	slices.Sort(all)
	return all, nil
}

// Operations returns the operations of a service by name and kind, sorted.
func (s *Store) Operations(ctx context.Context, service string) ([]Operation, error) {
	all := append(s.names.operations(service), s.memoryOps()[service]...)
	slices.SortFunc(all, compareOperations)
	return slices.Compact(all), nil
}

// memoryOps lists the operations of blocks that are not written yet.
func (s *Store) memoryOps() map[string][]Operation {
	s.mu.RLock()
	defer s.mu.RUnlock()
	out := map[string][]Operation{}
	add := func(b *block) {
		for k := range b.ops {
			service, op := b.operation(k)
			out[service] = append(out[service], op)
		}
	}
	add(s.open)
	for _, b := range s.frozenLocked() {
		add(b)
	}
	return out
}
