package traces

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"slices"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"go.opentelemetry.io/collector/pdata/pcommon"
)

// Dependency counts the calls of one service by another.
type Dependency struct {
	Parent    string `json:"parent"`
	Child     string `json:"child"`
	CallCount uint64 `json:"callCount"`
}

// maxDependencySpans bounds the spans that the graph is made of: the newest of
// the time asked for. The counts are of those, not of all.
const maxDependencySpans = 500_000

// Dependencies returns which services call which, as far as spans that started
// between start and end say so: a span whose parent is of another service is
// one call. It reads the newest half million spans at most.
func (s *Store) Dependencies(ctx context.Context, start, end time.Time) ([]Dependency, error) {
	if err := s.enter(); err != nil {
		return nil, err
	}
	defer s.leave()
	g := newGraph(newMatcher(Query{Start: clampTime(start), End: clampTime(end)}))
	s.mu.RLock()
	for _, b := range s.growingLocked() {
		g.add(b)
	}
	frozen := s.frozenLocked()
	s.mu.RUnlock()
	for _, b := range frozen {
		g.add(b)
	}
	for _, p := range s.parts.newestFirst(g.m.start, g.m.end) {
		if err := s.graphPartition(ctx, p, g); err != nil {
			return nil, err
		}
		if len(g.service) >= maxDependencySpans {
			break
		}
	}
	return g.dependencies(), nil
}

func (s *Store) graphPartition(ctx context.Context, p partition, g *graph) (err error) {
	it, err := s.db.NewIter(&pebble.IterOptions{LowerBound: key(p, kindSummary), UpperBound: key(p, kindSummary+1)})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, it.Close()) }()
	for ok := it.Last(); ok && len(g.service) < maxDependencySpans; ok = it.Prev() {
		if err := ctx.Err(); err != nil {
			return err
		}
		v, err := it.ValueAndErr()
		if err != nil {
			return err
		}
		_, _, rest, err := parseKey(it.Key())
		if err != nil || len(rest) != 4 {
			return errors.Join(errBadKey, err)
		}
		if lo, hi := summaryTimes(v); !g.m.times(lo, hi) {
			continue
		}
		id := blockID{p, binary.BigEndian.Uint32(rest)}
		o, err := s.readBlock(id)
		if err != nil {
			return err
		}
		if o == nil {
			continue
		}
		if b, err := o.block(); err != nil {
			s.malformed(id, err)
		} else {
			g.add(b)
		}
	}
	return it.Error()
}

// graph joins spans with their parents, which may lie in other blocks.
type graph struct {
	m       matcher
	numbers map[string]uint32
	names   []string
	service map[spanRef]uint32 // of each span
	calls   map[spanRef]call   // of each span with a parent
}

type spanRef struct {
	trace pcommon.TraceID
	id    pcommon.SpanID
}

type call struct {
	parent spanRef
	child  uint32
}

func newGraph(m matcher) *graph {
	return &graph{m: m, numbers: map[string]uint32{}, service: map[spanRef]uint32{}, calls: map[spanRef]call{}}
}

func (g *graph) add(b *block) {
	for i := range b.spans {
		s := &b.spans[i]
		if s.start < g.m.start || s.start > g.m.end {
			continue
		}
		n := g.number(b.strs.list[b.resources[s.resource].service])
		ref := spanRef{b.traces[s.trace], s.id}
		g.service[ref] = n
		if !s.parent.IsEmpty() {
			g.calls[ref] = call{spanRef{ref.trace, s.parent}, n}
		}
	}
}

func (g *graph) number(service string) uint32 {
	n, ok := g.numbers[service]
	if !ok {
		n = uint32(len(g.names))
		g.numbers[service] = n
		g.names = append(g.names, service)
	}
	return n
}

func (g *graph) dependencies() []Dependency {
	type pair struct{ parent, child uint32 }
	counts := map[pair]uint64{}
	for _, c := range g.calls {
		if p, ok := g.service[c.parent]; ok && p != c.child {
			counts[pair{p, c.child}]++
		}
	}
	var out []Dependency
	for p, n := range counts {
		out = append(out, Dependency{g.names[p.parent], g.names[p.child], n})
	}
	slices.SortFunc(out, func(a, b Dependency) int {
		return cmp.Or(cmp.Compare(a.Parent, b.Parent), cmp.Compare(a.Child, b.Child))
	})
	return out
}
