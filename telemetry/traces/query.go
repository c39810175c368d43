package traces

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

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
	for _, b := range s.growingLocked() {
		m.block(b, best.add)
	}
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
	found, left.spans, err = s.traceAll(ctx, best.ids(), always)
	if left != (cut{}) {
		s.meters.truncated.Inc()
	}
	return found, left, err
}

// traceAll returns those of the traces that are in the store, until the answer
// is full; the first is always whole.
func (s *Store) traceAll(ctx context.Context, ids []pcommon.TraceID, w window) (found []ptrace.Traces, full bool, err error) {
	spans := 0
	for ids := range slices.Chunk(ids, tracesAtOnce) {
		blocks, ok, err := s.blocksOf(ctx, ids, w, s.o.maxAnswerSpans)
		if err != nil {
			return nil, false, err
		}
		for i, id := range ids {
			var td ptrace.Traces
			if ok {
				td, err = assemble(blocks[i], id)
			} else { // there are long ones among them
				td, err = s.trace(ctx, id, w)
			}
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
	}
	return found, false, nil
}

// tracesAtOnce is the number of traces whose blocks are read in one go.
const tracesAtOnce = 20
