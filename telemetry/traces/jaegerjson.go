package traces

import (
	"cmp"
	"encoding/base64"
	"fmt"
	"slices"
	"strings"

	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/ptrace"
)

// The JSON of Jaeger's query service, as its page and Grafana's Jaeger data
// source read it: times and durations in microseconds, ids in hexadecimal.
//
// Source: jaeger: internal/uimodel/model.go, and for tags the collector
// contrib's translator/jaeger.

type jaegerResponse struct {
	Data   any           `json:"data"`
	Total  int           `json:"total"`
	Limit  int           `json:"limit"`
	Offset int           `json:"offset"`
	Errors []jaegerError `json:"errors"`
}

type jaegerError struct {
	Code    int    `json:"code"`
	Message string `json:"msg"`
	TraceID string `json:"traceID,omitempty"`
}

type jaegerTrace struct {
	TraceID   string                   `json:"traceID"`
	Spans     []jaegerSpan             `json:"spans"`
	Processes map[string]jaegerProcess `json:"processes"`
	Warnings  []string                 `json:"warnings"`
}

type jaegerSpan struct {
	TraceID       string            `json:"traceID"`
	SpanID        string            `json:"spanID"`
	Flags         uint32            `json:"flags,omitempty"`
	OperationName string            `json:"operationName"`
	References    []jaegerReference `json:"references"`
	StartTime     uint64            `json:"startTime"`
	Duration      uint64            `json:"duration"`
	Tags          []jaegerTag       `json:"tags"`
	Logs          []jaegerLog       `json:"logs"`
	ProcessID     string            `json:"processID"`
	Warnings      []string          `json:"warnings"`
}

type jaegerReference struct {
	RefType string `json:"refType"` // CHILD_OF or FOLLOWS_FROM
	TraceID string `json:"traceID"`
	SpanID  string `json:"spanID"`
}

type jaegerProcess struct {
	ServiceName string      `json:"serviceName"`
	Tags        []jaegerTag `json:"tags"`
}

type jaegerLog struct {
	Timestamp uint64      `json:"timestamp"`
	Fields    []jaegerTag `json:"fields"`
}

type jaegerTag struct {
	Key   string `json:"key"`
	Type  string `json:"type"` // string, bool, int64, float64, binary
	Value any    `json:"value"`
}

// toJaeger converts one trace.
func toJaeger(td ptrace.Traces) jaegerTrace {
	out := jaegerTrace{Spans: []jaegerSpan{}, Processes: map[string]jaegerProcess{}}
	known := map[pcommon.SpanID]bool{}
	for _, rs := range td.ResourceSpans().All() {
		for _, ss := range rs.ScopeSpans().All() {
			for _, sp := range ss.Spans().All() {
				known[sp.SpanID()] = true
			}
		}
	}
	for i, rs := range td.ResourceSpans().All() {
		pid := fmt.Sprintf("p%d", i+1)
		out.Processes[pid] = toJaegerProcess(rs.Resource())
		for _, ss := range rs.ScopeSpans().All() {
			for _, sp := range ss.Spans().All() {
				js := toJaegerSpan(sp, ss.Scope(), known)
				js.ProcessID = pid
				out.TraceID = js.TraceID
				out.Spans = append(out.Spans, js)
			}
		}
	}
	slices.SortStableFunc(out.Spans, func(a, b jaegerSpan) int { return cmp.Compare(a.StartTime, b.StartTime) })
	return out
}

func toJaegerProcess(r pcommon.Resource) jaegerProcess {
	p := jaegerProcess{ServiceName: serviceName(r), Tags: []jaegerTag{}}
	for k, v := range r.Attributes().All() {
		if k != "service.name" {
			p.Tags = append(p.Tags, toJaegerTag(k, v))
		}
	}
	return p
}

// serviceName is what Jaeger calls the process of a resource.
func serviceName(r pcommon.Resource) string {
	if v, ok := r.Attributes().Get("service.name"); ok {
		return v.AsString()
	}
	return "unknown_service"
}

func toJaegerSpan(sp ptrace.Span, scope pcommon.InstrumentationScope, known map[pcommon.SpanID]bool) jaegerSpan {
	start, end := uint64(sp.StartTimestamp()), uint64(sp.EndTimestamp())
	js := jaegerSpan{
		TraceID:       sp.TraceID().String(),
		SpanID:        sp.SpanID().String(),
		Flags:         sp.Flags() & 0xff,
		OperationName: sp.Name(),
		References:    toJaegerReferences(sp),
		StartTime:     start / 1000,
		Tags:          toJaegerTags(sp, scope),
		Logs:          []jaegerLog{},
	}
	if end >= start {
		js.Duration = (end - start) / 1000
	} else {
		js.Warnings = append(js.Warnings, "the span ends before it starts: the clock of its host was set back")
	}
	if p := sp.ParentSpanID(); !p.IsEmpty() && !known[p] {
		js.Warnings = append(js.Warnings, "the parent span "+p.String()+" is not in the store")
	}
	for _, e := range sp.Events().All() {
		log := jaegerLog{Timestamp: uint64(e.Timestamp()) / 1000, Fields: []jaegerTag{}}
		if e.Name() != "" {
			log.Fields = append(log.Fields, jaegerTag{"event", "string", e.Name()})
		}
		for k, v := range e.Attributes().All() {
			log.Fields = append(log.Fields, toJaegerTag(k, v))
		}
		js.Logs = append(js.Logs, log)
	}
	return js
}

func toJaegerReferences(sp ptrace.Span) []jaegerReference {
	refs := []jaegerReference{}
	if p := sp.ParentSpanID(); !p.IsEmpty() {
		refs = append(refs, jaegerReference{"CHILD_OF", sp.TraceID().String(), p.String()})
	}
	for _, l := range sp.Links().All() {
		refs = append(refs, jaegerReference{"FOLLOWS_FROM", l.TraceID().String(), l.SpanID().String()})
	}
	return refs
}

// toJaegerTags are the attributes, and what OTLP keeps in fields and Jaeger in
// tags.
func toJaegerTags(sp ptrace.Span, scope pcommon.InstrumentationScope) []jaegerTag {
	tags := make([]jaegerTag, 0, sp.Attributes().Len()+4)
	str := func(key, value string) {
		if value != "" {
			tags = append(tags, jaegerTag{key, "string", value})
		}
	}
	for k, v := range sp.Attributes().All() {
		tags = append(tags, toJaegerTag(k, v))
	}
	str("span.kind", kindName(sp.Kind()))
	switch sp.Status().Code() {
	case ptrace.StatusCodeError:
		if _, own := sp.Attributes().Get("error"); !own {
			tags = append(tags, jaegerTag{"error", "bool", true})
		}
		str("otel.status_code", "ERROR")
	case ptrace.StatusCodeOk:
		str("otel.status_code", "OK")
	}
	str("otel.status_description", sp.Status().Message())
	str("otel.scope.name", scope.Name())
	str("otel.scope.version", scope.Version())
	str("w3c.tracestate", sp.TraceState().AsRaw())
	return tags
}

func toJaegerTag(k string, v pcommon.Value) jaegerTag {
	switch v.Type() {
	case pcommon.ValueTypeBool:
		return jaegerTag{k, "bool", v.Bool()}
	case pcommon.ValueTypeInt:
		return jaegerTag{k, "int64", v.Int()}
	case pcommon.ValueTypeDouble:
		if s := v.AsString(); strings.ContainsAny(s, "NI") { // NaN and infinities are no JSON numbers
			return jaegerTag{k, "string", s}
		}
		return jaegerTag{k, "float64", v.Double()}
	case pcommon.ValueTypeBytes:
		return jaegerTag{k, "binary", base64.StdEncoding.EncodeToString(v.Bytes().AsRaw())}
	}
	return jaegerTag{k, "string", v.AsString()}
}
