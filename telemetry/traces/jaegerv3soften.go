package traces

import (
	"math"

	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/ptrace"
)

// soften says as text what OTLP's JSON can say and Jaeger's page does not take: values
// that are none, and numbers that are none. It refuses the whole trace for one of
// them. Links without ids, which it does not take either, are left out.
//
// Source: jaeger-ui: packages/jaeger-ui/src/api/v3/schemas.ts, refinedAnyValue and
// refinedSpanLink.
func soften(td ptrace.Traces) {
	for _, rs := range td.ResourceSpans().All() {
		softenMap(rs.Resource().Attributes())
		for _, ss := range rs.ScopeSpans().All() {
			softenMap(ss.Scope().Attributes())
			for _, sp := range ss.Spans().All() {
				softenMap(sp.Attributes())
				for _, e := range sp.Events().All() {
					softenMap(e.Attributes())
				}
				sp.Links().RemoveIf(func(l ptrace.SpanLink) bool { return l.TraceID().IsEmpty() || l.SpanID().IsEmpty() })
				for _, l := range sp.Links().All() {
					softenMap(l.Attributes())
				}
			}
		}
	}
}

func softenMap(m pcommon.Map) {
	for _, v := range m.All() {
		softenValue(v)
	}
}

func softenValue(v pcommon.Value) {
	switch v.Type() {
	case pcommon.ValueTypeEmpty:
		v.SetStr("")
	case pcommon.ValueTypeDouble:
		if f := v.Double(); math.IsNaN(f) || math.IsInf(f, 0) {
			v.SetStr(v.AsString())
		}
	case pcommon.ValueTypeMap:
		softenMap(v.Map())
	case pcommon.ValueTypeSlice:
		for _, e := range v.Slice().All() {
			softenValue(e)
		}
	}
}
