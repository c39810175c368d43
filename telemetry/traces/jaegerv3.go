package traces

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"

	"go.opentelemetry.io/collector/pdata/ptrace"
)

// The JSON of Jaeger's api_v3, as jaeger-ui reads it: spans are OTLP's JSON in an
// envelope, 64-bit numbers are strings.
//
// Source: jaeger-idl: proto/api_v3/query_service.proto; jaeger:
// cmd/jaeger/internal/extension/jaegerquery/internal/apiv3.

// failureV3 is the form of an error: that of the gRPC gateway that Jaeger once had.
func failureV3(status int, message string) any {
	type details struct {
		HTTPCode   int    `json:"httpCode"`
		Message    string `json:"message"`
		HTTPStatus string `json:"httpStatus"`
	}
	return struct {
		Error details `json:"error"`
	}{details{status, message, http.StatusText(status)}}
}

func (s *Store) getServicesV3(r *http.Request) (any, error) {
	all, err := s.Services(r.Context())
	if all == nil {
		all = []string{}
	}
	return struct {
		Services []string `json:"services"`
	}{all}, err
}

func (s *Store) getOperationsV3(r *http.Request) (any, error) {
	p := paramsV3{r.URL.Query()}
	service, _ := p.get("service")
	if service == "" {
		return nil, badQuery("parameter service is required")
	}
	want, _ := p.get("spanKind")
	ops, err := s.Operations(r.Context(), service)
	out := []Operation{}
	for _, op := range ops {
		if op.Kind == "" {
			op.Kind = "internal" // as Jaeger calls a kind that is not said
		}
		if want == "" || want == op.Kind {
			out = append(out, op)
		}
	}
	return struct {
		Operations []Operation `json:"operations"`
	}{out}, err
}

func (s *Store) getTraceV3(r *http.Request) (any, error) {
	id, err := parseTraceID(r.PathValue("id"))
	if err != nil {
		return nil, err
	}
	p := paramsV3{r.URL.Query()}
	w, err := p.window()
	if err != nil {
		return nil, err
	}
	if err := p.bool("rawTraces"); err != nil {
		return nil, err
	}
	td, err := s.traceWithin(r.Context(), id, w)
	if err != nil {
		return nil, err
	}
	return otlpV3(td)
}

func (s *Store) getTracesV3(r *http.Request) (any, error) {
	found, err := s.searchV3(r)
	if err != nil {
		return nil, err
	}
	if len(found) == 0 {
		return nil, &queryError{http.StatusNotFound, fmt.Errorf("no traces found")} // so does Jaeger
	}
	all := ptrace.NewTraces()
	for _, td := range found {
		td.ResourceSpans().MoveAndAppendTo(all.ResourceSpans())
	}
	return otlpV3(all)
}

func (s *Store) getTraceSummariesV3(r *http.Request) (any, error) {
	found, err := s.searchV3(r)
	if err != nil {
		return nil, err
	}
	out := make([]traceSummary, 0, len(found))
	for _, td := range found {
		out = append(out, summarizeTrace(td))
	}
	return struct {
		Summaries []traceSummary `json:"summaries"`
	}{out}, nil
}

func (s *Store) searchV3(r *http.Request) ([]ptrace.Traces, error) {
	q, err := paramsV3{r.URL.Query()}.query()
	if err != nil {
		return nil, err
	}
	found, left, err := s.search(r.Context(), q)
	if err == nil && left.scan && len(found) == 0 {
		err = errTooMuch
	}
	return found, err
}

// otlpV3 is the envelope of spans.
func otlpV3(td ptrace.Traces) (any, error) {
	soften(td)
	b, err := (&ptrace.JSONMarshaler{}).MarshalTraces(td)
	return struct {
		Result json.RawMessage `json:"result"`
	}{b}, err
}

func (s *Store) getDependenciesV3(r *http.Request) (any, error) {
	start, end, err := paramsV3{r.URL.Query()}.span("", "startTime", "endTime")
	if err != nil {
		return nil, err
	}
	deps, err := s.Dependencies(r.Context(), start, end)
	type dependency struct {
		Parent    string `json:"parent"`
		Child     string `json:"child"`
		CallCount string `json:"callCount"`
	}
	out := make([]dependency, 0, len(deps))
	for _, d := range deps {
		out = append(out, dependency{d.Parent, d.Child, strconv.FormatUint(d.CallCount, 10)})
	}
	return struct {
		Dependencies []dependency `json:"dependencies"`
	}{out}, err
}
