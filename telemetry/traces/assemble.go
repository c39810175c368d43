package traces

import (
	"cmp"
	"slices"
	"strconv"

	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/ptrace"
)

// assembly puts the spans of one trace together from several blocks. A span
// that was sent twice, which a retried batch does, stands there once.
type assembly struct {
	td    ptrace.Traces
	found []place
	seen  map[spanIdentity]bool
}

// place is where a span is.
type place struct {
	b   *block
	row int
}

// spanIdentity tells spans of a trace apart. The id alone does not: client and
// server of old tracers share one.
type spanIdentity struct {
	id    pcommon.SpanID
	start uint64
	kind  uint8
}

func newAssembly(td ptrace.Traces) *assembly {
	return &assembly{td: td, seen: map[spanIdentity]bool{}}
}

// assemble returns the spans of a trace by start time, grouped by resource and
// scope.
func assemble(blocks []*block, id pcommon.TraceID) (ptrace.Traces, error) {
	a := newAssembly(ptrace.NewTraces())
	for _, b := range blocks {
		a.add(b, id)
	}
	if len(a.found) == 0 {
		return ptrace.Traces{}, ErrNotFound
	}
	a.finish()
	return a.td, nil
}

// add notes the spans of the trace in b.
func (a *assembly) add(b *block, id pcommon.TraceID) {
	t, ok := b.traceIdx[id]
	if b.traceIdx == nil {
		i := slices.Index(b.traces, id)
		t, ok = uint32(i), i >= 0
	}
	if !ok {
		return
	}
	for i := range b.spans {
		s := &b.spans[i]
		if s.trace != t {
			continue
		}
		k := spanIdentity{s.id, s.start, s.kind}
		if !a.seen[k] && len(a.found) < maxTraceSpans {
			a.seen[k] = true
			a.found = append(a.found, place{b, i})
		}
	}
}

// finish copies what was found.
func (a *assembly) finish() {
	slices.SortStableFunc(a.found, func(x, y place) int {
		return cmp.Compare(x.b.spans[x.row].start, y.b.spans[y.row].start)
	})
	resources := map[string]ptrace.ResourceSpans{}
	scopes := map[string]ptrace.ScopeSpans{}
	keys := map[*block]*groupKeys{}
	for _, p := range a.found {
		k := keys[p.b]
		if k == nil {
			k = &groupKeys{b: p.b, resources: map[uint32]string{}, scopes: map[uint32]string{}}
			keys[p.b] = k
		}
		s := &p.b.spans[p.row]
		rk := k.resource(s.resource)
		rs, ok := resources[rk]
		if !ok {
			rs = a.td.ResourceSpans().AppendEmpty()
			p.b.fillResource(rs, s.resource)
			resources[rk] = rs
		}
		sk := rk + k.scope(s.scope)
		ss, ok := scopes[sk]
		if !ok {
			ss = rs.ScopeSpans().AppendEmpty()
			p.b.fillScope(ss, s.scope)
			scopes[sk] = ss
		}
		p.b.fill(ss.Spans().AppendEmpty(), p.row)
	}
}

// groupKeys spells out the resources and scopes of a block, whose numbers mean
// nothing in another.
type groupKeys struct {
	b                 *block
	resources, scopes map[uint32]string
}

func (g *groupKeys) resource(i uint32) string {
	k, ok := g.resources[i]
	if !ok {
		r := &g.b.resources[i]
		k = g.spell(r.attrs, r.schema)
		g.resources[i] = k
	}
	return k
}

func (g *groupKeys) scope(i uint32) string {
	k, ok := g.scopes[i]
	if !ok {
		s := &g.b.scopes[i]
		k = g.spell(s.attrs, s.schema, s.name, s.version)
		g.scopes[i] = k
	}
	return k
}

func (g *groupKeys) spell(l attrList, more ...uint32) string {
	var k []byte
	for _, m := range more {
		k = appendString(k, g.b.strs.list[m])
	}
	for _, a := range g.b.list(l) {
		k = appendString(k, g.b.strs.list[a.key])
		k = append(k, byte(a.typ))
		if a.typ == typeString || a.typ == typeOther {
			k = appendString(k, g.b.strs.list[a.n])
		} else {
			k = strconv.AppendUint(append(k, ' '), a.n, 16)
		}
	}
	return string(append(k, 0))
}
