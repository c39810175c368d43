package traces

import (
	"math"
	"strings"
	"time"

	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/ptrace"
)

// matcher is a Query in the units of blocks.
type matcher struct {
	service, operation       string
	tags                     map[string]string
	terms                    []uint64 // of the index, that a matching row has all of
	start, end               uint64   // Unix nanoseconds, inclusive
	minDuration, maxDuration uint64   // nanoseconds, inclusive
}

func newMatcher(q Query) matcher {
	m := matcher{
		service: q.Service, operation: q.Operation, tags: q.Tags,
		end: math.MaxUint64, maxDuration: math.MaxUint64,
	}
	if !q.Start.IsZero() {
		m.start = uint64(max(q.Start.UnixNano(), 0))
	}
	if !q.End.IsZero() {
		m.end = uint64(max(q.End.UnixNano(), 0))
	}
	if q.MinDuration > 0 {
		m.minDuration = uint64(q.MinDuration)
	}
	if q.MaxDuration > 0 {
		m.maxDuration = uint64(q.MaxDuration)
	}
	if q.Service != "" {
		if q.Operation != "" {
			m.terms = append(m.terms, operationTerm(q.Service, q.Operation))
		} else {
			m.terms = append(m.terms, serviceTerm(q.Service))
		}
	}
	for k, v := range q.Tags {
		// What is derived of an empty field is not in the index.
		if _, derived := derivedTags[k]; !derived || v != "" {
			m.terms = append(m.terms, tagHashOf(k, v))
		}
	}
	return m
}

// derivedTags are what Jaeger shows as tags and OTLP keeps in fields of the
// span.
var derivedTags = map[string]func(*block, *span) string{
	"error": func(_ *block, s *span) string {
		if ptrace.StatusCode(s.status) == ptrace.StatusCodeError {
			return "true"
		}
		return "false"
	},
	"span.kind":               func(_ *block, s *span) string { return kindName(ptrace.SpanKind(s.kind)) },
	"otel.status_code":        func(_ *block, s *span) string { return strings.ToUpper(ptrace.StatusCode(s.status).String()) },
	"otel.status_description": func(b *block, s *span) string { return b.strs.list[s.message] },
	"otel.scope.name":         func(b *block, s *span) string { return b.strs.list[b.scopes[s.scope].name] },
	"otel.scope.version":      func(b *block, s *span) string { return b.strs.list[b.scopes[s.scope].version] },
}

// kindName is Jaeger's name of a span kind, "" for an unspecified one.
func kindName(k ptrace.SpanKind) string {
	if k == ptrace.SpanKindUnspecified {
		return ""
	}
	return strings.ToLower(k.String())
}

// times reports whether spans between the two starts may match.
func (m *matcher) times(minStart, maxStart uint64) bool {
	return minStart <= m.end && maxStart >= m.start
}

// summary reports whether a block may have a match, by its operations.
func (m *matcher) summary(s *summaryReader) bool {
	if !s.complete {
		return true
	}
	for s.next() {
		if (m.service == "" || m.service == string(s.service)) &&
			(m.operation == "" || m.operation == string(s.name)) &&
			s.op.maxDuration >= m.minDuration && s.op.minDuration <= m.maxDuration {
			return true
		}
	}
	return s.r.err != nil // then the block itself must say
}

// block calls found with every trace that has a matching span in b, and the
// start of that span; a trace may come more than once.
func (m *matcher) block(b *block, found func(id pcommon.TraceID, start uint64)) {
	bm := blockMatcher{matcher: m, b: b}
	if !bm.resolve() {
		return
	}
	for i := range b.spans {
		if s := &b.spans[i]; bm.span(s) {
			found(b.traces[s.trace], s.start)
		}
	}
}

// blockMatcher is a matcher with its strings resolved to a block's numbers.
type blockMatcher struct {
	*matcher
	b         *block
	resources []bool // of the service
	name      uint32
}

// resolve reports false where a string that every match needs is not in the
// block at all.
func (m *blockMatcher) resolve() bool {
	if m.operation != "" {
		n, ok := m.b.strs.find(m.operation)
		if !ok {
			return false
		}
		m.name = n
	}
	if m.service != "" {
		any := false
		m.resources = make([]bool, len(m.b.resources))
		for i, r := range m.b.resources {
			m.resources[i] = m.b.strs.list[r.service] == m.service
			any = any || m.resources[i]
		}
		return any
	}
	return true
}

func (m *blockMatcher) span(s *span) bool { return m.fields(s) && m.allTags(s) }

// fields reports whether a span fulfils all but the tags.
func (m *blockMatcher) fields(s *span) bool {
	d := s.duration()
	return s.start >= m.start && s.start <= m.end &&
		d >= m.minDuration && d <= m.maxDuration &&
		(m.operation == "" || s.name == m.name) &&
		(m.resources == nil || m.resources[s.resource])
}

func (m *blockMatcher) allTags(s *span) bool {
	for k, v := range m.tags {
		if derived, ok := derivedTags[k]; ok {
			if derived(m.b, s) == v {
				continue
			}
		}
		if !m.b.hasTag(s.attrs, k, v) && !m.b.hasTag(m.b.resources[s.resource].attrs, k, v) {
			return false
		}
	}
	return true
}

// get returns the first attribute of a key.
func (b *block) get(l attrList, key string) (attr, bool) {
	for _, a := range b.list(l) {
		if b.strs.list[a.key] == key {
			return a, true
		}
	}
	return attr{}, false
}

func (b *block) hasTag(l attrList, key, value string) bool {
	for _, a := range b.list(l) {
		if b.strs.list[a.key] == key && b.valueString(a) == value {
			return true
		}
	}
	return false
}

// valueString is the value as pcommon.Value.AsString has it.
func (b *block) valueString(a attr) string {
	if a.typ == typeString {
		return b.strs.list[a.n]
	}
	v := pcommon.NewValueEmpty()
	b.setValue(v, a)
	return v.AsString()
}

// clampTime keeps a time in what Unix nanoseconds can hold.
func clampTime(t time.Time) time.Time {
	switch lo, hi := time.Unix(0, 0), time.Unix(0, math.MaxInt64); {
	case t.IsZero():
		return t
	case t.Before(lo):
		return lo
	case t.After(hi):
		return hi
	}
	return t
}
