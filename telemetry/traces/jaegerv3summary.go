package traces

import (
	"cmp"
	"slices"
	"strconv"

	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/ptrace"
)

// traceSummary is a line in a list of traces. The root is the earliest span without a
// parent; its names are missing where the trace has none. Orphans have a parent that is
// not there.
type traceSummary struct {
	TraceID           string           `json:"traceId"`
	RootServiceName   string           `json:"rootServiceName,omitempty"`
	RootOperationName string           `json:"rootOperationName,omitempty"`
	MinStart          string           `json:"minStartTimeUnixNano"`
	MaxEnd            string           `json:"maxEndTimeUnixNano"`
	Spans             int              `json:"spanCount"`
	Errors            int              `json:"errorSpanCount"`
	Orphans           int              `json:"orphanSpanCount"`
	Services          []serviceSummary `json:"services"` // by name
}

type serviceSummary struct {
	Name   string `json:"name"`
	Spans  int    `json:"spanCount"`
	Errors int    `json:"errorSpanCount"`
}

// summarizeTrace makes the line of a trace that has spans.
func summarizeTrace(td ptrace.Traces) traceSummary {
	var out traceSummary
	var first, last, rootStart pcommon.Timestamp
	known := map[pcommon.SpanID]bool{}
	for sp := range spansOf(td) {
		known[sp.SpanID()] = true
	}
	services := map[string]*serviceSummary{}
	rooted := false
	for sp, service := range spansOf(td) {
		of := services[service]
		if of == nil {
			of = &serviceSummary{Name: service}
			services[service] = of
		}
		if out.Spans == 0 || sp.StartTimestamp() < first {
			first = sp.StartTimestamp()
		}
		last = max(last, sp.StartTimestamp(), sp.EndTimestamp())
		out.TraceID = sp.TraceID().String()
		out.Spans++
		of.Spans++
		if sp.Status().Code() == ptrace.StatusCodeError {
			out.Errors++
			of.Errors++
		}
		switch parent := sp.ParentSpanID(); {
		case !parent.IsEmpty():
			if !known[parent] {
				out.Orphans++
			}
		case !rooted || sp.StartTimestamp() < rootStart:
			rooted, rootStart = true, sp.StartTimestamp()
			out.RootServiceName, out.RootOperationName = service, sp.Name()
		}
	}
	out.MinStart, out.MaxEnd = strconv.FormatUint(uint64(first), 10), strconv.FormatUint(uint64(last), 10)
	out.Services = make([]serviceSummary, 0, len(services))
	for _, of := range services {
		out.Services = append(out.Services, *of)
	}
	slices.SortFunc(out.Services, func(a, b serviceSummary) int { return cmp.Compare(a.Name, b.Name) })
	return out
}

// spansOf goes through the spans of td, each with the name of its service.
func spansOf(td ptrace.Traces) func(yield func(ptrace.Span, string) bool) {
	return func(yield func(ptrace.Span, string) bool) {
		for _, rs := range td.ResourceSpans().All() {
			service := serviceName(rs.Resource())
			for _, ss := range rs.ScopeSpans().All() {
				for _, sp := range ss.Spans().All() {
					if !yield(sp, service) {
						return
					}
				}
			}
		}
	}
}
