package wire

import (
	"math"

	"go.opentelemetry.io/collector/pdata/ptrace"
	"go.opentelemetry.io/collector/pdata/ptrace/ptraceotlp"
)

// NormalTraces does for spans what Normal does for metrics.
func NormalTraces(b []byte) ([]byte, error) {
	req := ptraceotlp.NewExportRequest()
	if err := req.UnmarshalProto(b); err != nil {
		return nil, err
	}
	return req.MarshalProto()
}

// TracesFromPdata returns what td holds; it is under no limit.
func TracesFromPdata(td ptrace.Traces) (*Traces, error) {
	b, err := ptraceotlp.NewExportRequestFromTraces(td).MarshalProto()
	if err != nil {
		return nil, err
	}
	t := new(Traces)
	return t, t.Read(b, Limits{Elements: math.MaxInt, Attributes: math.MaxInt, Events: math.MaxInt, Depth: math.MaxInt})
}

// AppendRequest appends t, as it is now, as an ExportTraceServiceRequest.
func (t *Traces) AppendRequest(b []byte) ([]byte, error) {
	for i := range t.Resources {
		res := &t.Resources[i]
		whole := appendResource(nil, res.Attrs, res.desc, res.raw)
		if !res.thinned {
			b = appendMessage(b, 1, whole)
			continue
		}
		thin, err := withoutReservedSpans(appendMessage(nil, 1, whole))
		if err != nil {
			return nil, err
		}
		b = append(b, thin...)
	}
	return b, nil
}

// withoutReservedSpans takes the spans with reserved attributes out of a request.
func withoutReservedSpans(b []byte) ([]byte, error) {
	req := ptraceotlp.NewExportRequest()
	if err := req.UnmarshalProto(b); err != nil {
		return nil, err
	}
	for _, rs := range req.Traces().ResourceSpans().All() {
		for _, ss := range rs.ScopeSpans().All() {
			ss.Spans().RemoveIf(func(s ptrace.Span) bool {
				for k := range s.Attributes().All() {
					if reserved(k) {
						return true
					}
				}
				return false
			})
		}
	}
	return req.MarshalProto()
}
