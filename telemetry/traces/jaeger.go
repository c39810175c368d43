package traces

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/ptrace"
)

// queryTimeout bounds one call of the API.
const queryTimeout = 30 * time.Second

// Handler serves Jaeger's query API as JSON: /api/services,
// /api/services/{service}/operations, /api/operations, /api/traces,
// /api/traces/{id} and /api/dependencies. Errors are Jaeger's, too: a list in
// the field errors.
func (s *Store) Handler() http.Handler {
	mux := http.NewServeMux()
	places := newPlaces(s.o.Queries)
	s.o.Metrics.GetOrCreateGauge("binnacle_traces_query_requests_running", func() float64 { return float64(len(places.running)) })
	s.o.Metrics.GetOrCreateGauge("binnacle_traces_query_requests_waiting", func() float64 { return float64(max(len(places.all)-len(places.running), 0)) })
	for path, f := range map[string]func(*http.Request) (any, int, error){
		"GET /api/services":                      s.getServices,
		"GET /api/services/{service}/operations": s.getOperationNames,
		"GET /api/operations":                    s.getOperations,
		"GET /api/traces":                        s.getTraces,
		"GET /api/traces/{id}":                   s.getTrace,
		"GET /api/dependencies":                  s.getDependencies,
	} {
		mux.HandleFunc(path, s.adapt(places, f))
	}
	mux.HandleFunc("/", s.adapt(places, func(r *http.Request) (any, int, error) {
		return nil, 0, &queryError{http.StatusNotFound, fmt.Errorf("%s %s is not part of the Jaeger query API served here", r.Method, r.URL.Path)}
	}))
	return mux
}

// queryError is an error with its status.
type queryError struct {
	status int
	err    error
}

func (e *queryError) Error() string { return e.err.Error() }
func (e *queryError) Unwrap() error { return e.err }

func badQuery(format string, args ...any) error {
	return &queryError{http.StatusBadRequest, fmt.Errorf(format, args...)}
}

// places bound the calls that are worked on at once, so that ingest and polls
// keep their share of the machine. As many again wait.
type places struct{ all, running chan struct{} }

func newPlaces(n int) places {
	return places{all: make(chan struct{}, 2*n), running: make(chan struct{}, n)}
}

// enter waits for a place; the caller leaves it. false means that there is none.
func (p places) enter(ctx context.Context) bool {
	select {
	case p.all <- struct{}{}:
	default:
		return false
	}
	select {
	case p.running <- struct{}{}:
		return true
	case <-ctx.Done():
		<-p.all
		return false
	}
}

func (p places) leave() { <-p.running; <-p.all }

// adapt turns f into a handler: it bounds, answers and logs. f returns the
// data and its count.
func (s *Store) adapt(p places, f func(*http.Request) (any, int, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithTimeout(r.Context(), queryTimeout)
		defer cancel()
		var (
			data  any
			total int
			err   error
		)
		if p.enter(ctx) {
			data, total, err = f(r.WithContext(ctx))
			p.leave()
		} else {
			s.meters.queriesFull.Inc()
			w.Header().Set("Retry-After", "1")
			err = &queryError{http.StatusServiceUnavailable, fmt.Errorf("%d queries are running and as many waiting: try again later", cap(p.running))}
		}
		status, body := http.StatusOK, jaegerResponse{Data: data, Total: total}
		if err != nil {
			if r.Context().Err() != nil {
				return // the client has left
			}
			status, body = s.errorAnswer(r, err)
		}
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("X-Content-Type-Options", "nosniff")
		w.WriteHeader(status)
		json.NewEncoder(w).Encode(body) // a client that has left is no error
	}
}

func (s *Store) errorAnswer(r *http.Request, err error) (int, jaegerResponse) {
	status, message := http.StatusInternalServerError, "the trace store failed; the manager's log says why"
	qe, known := errors.AsType[*queryError](err)
	switch {
	case known:
		status, message = qe.status, qe.Error()
	case errors.Is(err, ErrNotFound):
		status, message = http.StatusNotFound, err.Error()
	case errors.Is(err, context.DeadlineExceeded):
		status, message = http.StatusServiceUnavailable, fmt.Sprintf("the query took longer than %v: ask for less time or fewer traces", queryTimeout)
	default:
		s.log.Error("query failed", "path", r.URL.Path, "error", err)
	}
	return status, jaegerResponse{Errors: []jaegerError{{Code: status, Message: message}}}
}

func (s *Store) getServices(r *http.Request) (any, int, error) {
	all, err := s.Services(r.Context())
	if all == nil {
		all = []string{}
	}
	return all, len(all), err
}

func (s *Store) getOperationNames(r *http.Request) (any, int, error) {
	ops, err := s.Operations(r.Context(), r.PathValue("service"))
	names := []string{}
	for _, op := range ops { // sorted by name, one name may have several kinds
		if len(names) == 0 || names[len(names)-1] != op.Name {
			names = append(names, op.Name)
		}
	}
	return names, len(names), err
}

func (s *Store) getOperations(r *http.Request) (any, int, error) {
	service, kind := r.FormValue("service"), r.FormValue("spanKind")
	if service == "" {
		return nil, 0, badQuery("parameter 'service' is required")
	}
	ops, err := s.Operations(r.Context(), service)
	out := []Operation{}
	for _, op := range ops {
		if kind == "" || kind == op.Kind {
			out = append(out, op)
		}
	}
	return out, len(out), err
}

func (s *Store) getTrace(r *http.Request) (any, int, error) {
	id, err := parseTraceID(r.PathValue("id"))
	if err != nil {
		return nil, 0, err
	}
	td, err := s.Trace(r.Context(), id)
	if err != nil {
		return nil, 0, err
	}
	return []jaegerTrace{toJaeger(td)}, 1, nil
}

func (s *Store) getTraces(r *http.Request) (any, int, error) {
	if err := r.ParseForm(); err != nil {
		return nil, 0, badQuery("query: %w", err)
	}
	if ids := r.Form["traceID"]; len(ids) > 0 {
		return s.getTracesByID(r.Context(), ids)
	}
	q, err := parseQuery(r.Form, s.o.now())
	if err != nil {
		return nil, 0, err
	}
	found, left, err := s.search(r.Context(), q)
	if err != nil {
		return nil, 0, err
	}
	if left.scan && len(found) == 0 {
		return nil, 0, &queryError{http.StatusUnprocessableEntity, fmt.Errorf("nothing found in the newest %d spans; ask for less time or name the service", maxScan)}
	}
	out := toJaegerAll(found, left.warnings(s.o))
	return out, len(out), nil
}

func (s *Store) getTracesByID(ctx context.Context, texts []string) (any, int, error) {
	if len(texts) > maxLimit {
		return nil, 0, badQuery("at most %d traces at once", maxLimit)
	}
	var ids []pcommon.TraceID
	for _, text := range texts {
		id, err := parseTraceID(text)
		if err != nil {
			return nil, 0, err
		}
		ids = append(ids, id)
	}
	if err := s.enter(); err != nil {
		return nil, 0, err
	}
	defer s.leave()
	found, full, err := s.traceAll(ctx, ids)
	if err != nil {
		return nil, 0, err
	}
	out := toJaegerAll(found, cut{spans: full}.warnings(s.o))
	return out, len(out), nil
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

// parseTraceID takes up to 32 hexadecimal digits; leading zeros may be missing.
func parseTraceID(text string) (id pcommon.TraceID, err error) {
	if len(text) == 0 || len(text) > 32 {
		return id, badQuery("trace id %q must have 1 to 32 hexadecimal digits", text)
	}
	b, err := hex.DecodeString(strings.Repeat("0", 32-len(text)) + text)
	if err != nil {
		return id, badQuery("trace id %q must have 1 to 32 hexadecimal digits", text)
	}
	copy(id[:], b)
	return id, nil
}

// parseQuery reads the parameters of GET /api/traces: service, operation,
// start and end (Unix microseconds) or lookback ("1h", "2d"), minDuration and
// maxDuration ("1.2s", "100ms", "500us"), limit, tags (a JSON object) and tag
// ("key:value", repeated).
func parseQuery(f url.Values, now time.Time) (q Query, err error) {
	q = Query{Service: f.Get("service"), Operation: f.Get("operation"), Tags: map[string]string{}}
	if q.Start, err = parseMicros(f, "start"); err != nil {
		return q, err
	}
	if q.End, err = parseMicros(f, "end"); err != nil {
		return q, err
	}
	if lb := f.Get("lookback"); q.Start.IsZero() && lb != "" && lb != "custom" {
		d, err := parseLookback(lb)
		if err != nil {
			return q, err
		}
		q.Start = now.Add(-d)
	}
	for name, p := range map[string]*time.Duration{"minDuration": &q.MinDuration, "maxDuration": &q.MaxDuration} {
		text := f.Get(name)
		if text == "" {
			continue
		}
		if *p, err = time.ParseDuration(text); err != nil || *p < 0 {
			return q, badQuery("%s %q is not a duration such as 1.2s, 100ms or 500us", name, text)
		}
	}
	if q.MaxDuration > 0 && q.MinDuration > q.MaxDuration {
		return q, badQuery("minDuration %v is more than maxDuration %v", q.MinDuration, q.MaxDuration)
	}
	if text := f.Get("limit"); text != "" {
		if q.Limit, err = strconv.Atoi(text); err != nil || q.Limit < 0 {
			return q, badQuery("limit %q is not a number of traces", text)
		}
	}
	return q, parseTags(f, q.Tags)
}

func parseMicros(f url.Values, name string) (time.Time, error) {
	text := f.Get(name)
	if text == "" {
		return time.Time{}, nil
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n < 0 {
		return time.Time{}, badQuery("%s %q is not a time in Unix microseconds", name, text)
	}
	return time.UnixMicro(n), nil
}

// parseLookback also takes days, which Jaeger's page sends.
func parseLookback(text string) (time.Duration, error) {
	if days, ok := strings.CutSuffix(text, "d"); ok {
		if n, err := strconv.ParseUint(days, 10, 16); err == nil {
			return time.Duration(n) * 24 * time.Hour, nil
		}
	}
	d, err := time.ParseDuration(text)
	if err != nil || d < 0 {
		return 0, badQuery("lookback %q is not a duration such as 30m, 1h or 2d", text)
	}
	return d, nil
}

// maxTags bounds the tags of one search.
const maxTags = 32

func parseTags(f url.Values, into map[string]string) error {
	if text := f.Get("tags"); text != "" {
		var values map[string]any
		d := json.NewDecoder(strings.NewReader(text))
		d.UseNumber()
		if err := d.Decode(&values); err != nil {
			return badQuery("tags %q is not a JSON object: %w", text, err)
		}
		for k, v := range values {
			into[k] = fmt.Sprint(v) // the page sends strings; people send true and 500
		}
	}
	for _, text := range f["tag"] {
		k, v, ok := strings.Cut(text, ":")
		if !ok {
			return badQuery("tag %q is not key:value", text)
		}
		into[k] = v
	}
	if len(into) > maxTags {
		return badQuery("at most %d tags at once", maxTags)
	}
	return nil
}

func (s *Store) getDependencies(r *http.Request) (any, int, error) {
	end, lookback := s.o.now(), 24*time.Hour
	if text := r.FormValue("endTs"); text != "" {
		ms, err := strconv.ParseInt(text, 10, 64)
		if err != nil {
			return nil, 0, badQuery("endTs %q is not a time in Unix milliseconds", text)
		}
		end = time.UnixMilli(ms)
	}
	if text := r.FormValue("lookback"); text != "" {
		ms, err := strconv.ParseInt(text, 10, 64)
		if err != nil || ms < 0 {
			return nil, 0, badQuery("lookback %q is not a time in milliseconds", text)
		}
		lookback = time.Duration(ms) * time.Millisecond
	}
	deps, err := s.Dependencies(r.Context(), end.Add(-lookback), end)
	if deps == nil {
		deps = []Dependency{}
	}
	return deps, len(deps), err
}
