package traces

import (
	"context"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/ptrace"
)

// jaegerAnswer puts data into the envelope of Jaeger's answers.
func jaegerAnswer(data any, total int, err error) (any, error) {
	return jaegerResponse{Data: data, Total: total}, err
}

// jaegerFailure is the envelope of an error.
func jaegerFailure(status int, message string) any {
	return jaegerResponse{Errors: []jaegerError{{Code: status, Message: message}}}
}

// errTooMuch answers a search that gave up before it found anything.
var errTooMuch = &queryError{http.StatusUnprocessableEntity, fmt.Errorf("nothing found in the newest %d spans; ask for less time or name the service", maxScan)}

func (s *Store) getServices(r *http.Request) (any, error) {
	all, err := s.Services(r.Context())
	if all == nil {
		all = []string{}
	}
	return jaegerAnswer(all, len(all), err)
}

func (s *Store) getOperationNames(r *http.Request) (any, error) {
	ops, err := s.Operations(r.Context(), r.PathValue("service"))
	names := []string{}
	for _, op := range ops { // sorted by name, one name may have several kinds
		if len(names) == 0 || names[len(names)-1] != op.Name {
			names = append(names, op.Name)
		}
	}
	return jaegerAnswer(names, len(names), err)
}

func (s *Store) getOperations(r *http.Request) (any, error) {
	service, kind := r.FormValue("service"), r.FormValue("spanKind")
	if service == "" {
		return nil, badQuery("parameter 'service' is required")
	}
	ops, err := s.Operations(r.Context(), service)
	out := []Operation{}
	for _, op := range ops {
		if kind == "" || kind == op.Kind {
			out = append(out, op)
		}
	}
	return jaegerAnswer(out, len(out), err)
}

func (s *Store) getTrace(r *http.Request) (any, error) {
	id, err := parseTraceID(r.PathValue("id"))
	if err != nil {
		return nil, err
	}
	w, err := parseWindow(r.URL.Query())
	if err != nil {
		return nil, err
	}
	td, err := s.traceWithin(r.Context(), id, w)
	if err != nil {
		return nil, err
	}
	return jaegerAnswer([]jaegerTrace{toJaeger(td)}, 1, nil)
}

func (s *Store) getTraces(r *http.Request) (any, error) {
	if err := r.ParseForm(); err != nil {
		return nil, badQuery("query: %w", err)
	}
	if ids := r.Form["traceID"]; len(ids) > 0 {
		w, err := parseWindow(r.Form)
		if err != nil {
			return nil, err
		}
		return s.getTracesByID(r.Context(), ids, w)
	}
	q, err := parseQuery(r.Form, s.o.now())
	if err != nil {
		return nil, err
	}
	found, left, err := s.search(r.Context(), q)
	if err != nil {
		return nil, err
	}
	if left.scan && len(found) == 0 {
		return nil, errTooMuch
	}
	out := toJaegerAll(found, left.warnings(s.o))
	return jaegerAnswer(out, len(out), nil)
}

func (s *Store) getTracesByID(ctx context.Context, texts []string, w window) (any, error) {
	if len(texts) > maxLimit {
		return nil, badQuery("at most %d traces at once", maxLimit)
	}
	var ids []pcommon.TraceID
	for _, text := range texts {
		id, err := parseTraceID(text)
		if err != nil {
			return nil, err
		}
		ids = append(ids, id)
	}
	if err := s.enter(); err != nil {
		return nil, err
	}
	defer s.leave()
	found, full, err := s.traceAll(ctx, ids, w)
	if err != nil {
		return nil, err
	}
	out := toJaegerAll(found, cut{spans: full}.warnings(s.o))
	return jaegerAnswer(out, len(out), nil)
}

// toJaegerAll converts traces; each carries the warnings about the whole answer,
// for which Jaeger's form has no place of its own.
func toJaegerAll(found []ptrace.Traces, warnings []string) []jaegerTrace {
	out := make([]jaegerTrace, 0, len(found))
	for _, td := range found {
		jt := toJaeger(td)
		jt.Warnings = append(jt.Warnings, warnings...)
		out = append(out, jt)
	}
	return out
}

func (s *Store) getDependencies(r *http.Request) (any, error) {
	end, lookback := s.o.now(), 24*time.Hour
	if text := r.FormValue("endTs"); text != "" {
		ms, err := strconv.ParseInt(text, 10, 64)
		if err != nil {
			return nil, badQuery("endTs %q is not a time in Unix milliseconds", text)
		}
		end = time.UnixMilli(ms)
	}
	if text := r.FormValue("lookback"); text != "" {
		ms, err := strconv.ParseInt(text, 10, 64)
		if err != nil || ms < 0 {
			return nil, badQuery("lookback %q is not a time in milliseconds", text)
		}
		lookback = time.Duration(ms) * time.Millisecond
	}
	deps, err := s.Dependencies(r.Context(), end.Add(-lookback), end)
	if deps == nil {
		deps = []Dependency{}
	}
	return jaegerAnswer(deps, len(deps), err)
}
