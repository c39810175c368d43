package traces

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"
)

// queryTimeout bounds one call of the API.
const queryTimeout = 30 * time.Second

// Handler serves Jaeger's query API as JSON, in the form that Grafana and older
// pages of Jaeger ask for, /api/services and so on, and as api_v3, /api/v3/services
// and so on, which newer pages do. Errors are in the form of each.
func (s *Store) Handler() http.Handler {
	mux := http.NewServeMux()
	places := newPlaces(s.o.Queries)
	s.o.Metrics.GetOrCreateGauge("binnacle_traces_query_requests_running", func() float64 { return float64(len(places.running)) })
	s.o.Metrics.GetOrCreateGauge("binnacle_traces_query_requests_waiting", func() float64 { return float64(max(len(places.all)-len(places.running), 0)) })
	for path, f := range map[string]apiCall{
		"GET /api/services":                      s.getServices,
		"GET /api/services/{service}/operations": s.getOperationNames,
		"GET /api/operations":                    s.getOperations,
		"GET /api/traces":                        s.getTraces,
		"GET /api/traces/{id}":                   s.getTrace,
		"GET /api/dependencies":                  s.getDependencies,
		"/":                                      unknownCall,
	} {
		mux.HandleFunc(path, s.adapt(places, jaegerFailure, f))
	}
	for path, f := range map[string]apiCall{
		"GET /api/v3/services":        s.getServicesV3,
		"GET /api/v3/operations":      s.getOperationsV3,
		"GET /api/v3/traces":          s.getTracesV3,
		"GET /api/v3/traces/{id}":     s.getTraceV3,
		"GET /api/v3/trace-summaries": s.getTraceSummariesV3,
		"GET /api/v3/dependencies":    s.getDependenciesV3,
		"/api/v3/":                    unknownCall,
	} {
		mux.HandleFunc(path, s.adapt(places, failureV3, f))
	}
	return mux
}

// apiCall answers a request with what becomes the JSON of its body.
type apiCall func(*http.Request) (any, error)

func unknownCall(r *http.Request) (any, error) {
	return nil, &queryError{http.StatusNotFound, fmt.Errorf("%s %s is not part of the Jaeger query API served here", r.Method, r.URL.Path)}
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

// adapt turns f into a handler: it bounds, answers and logs. failure gives an error the
// form of its API.
func (s *Store) adapt(p places, failure func(status int, message string) any, f apiCall) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithTimeout(r.Context(), queryTimeout)
		defer cancel()
		var body any
		var err error
		if p.enter(ctx) {
			body, err = f(r.WithContext(ctx))
			p.leave()
		} else {
			s.meters.queriesFull.Inc()
			w.Header().Set("Retry-After", "1")
			err = &queryError{http.StatusServiceUnavailable, fmt.Errorf("%d queries are running and as many waiting: try again later", cap(p.running))}
		}
		status := http.StatusOK
		if err != nil {
			if r.Context().Err() != nil {
				return // the client has left
			}
			var message string
			status, message = s.verdictOn(r, err)
			body = failure(status, message)
		}
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("X-Content-Type-Options", "nosniff")
		w.WriteHeader(status)
		json.NewEncoder(w).Encode(body) // a client that has left is no error
	}
}

// verdictOn says what the client is told of an error; causes that are ours go to the log.
func (s *Store) verdictOn(r *http.Request, err error) (status int, message string) {
	qe, known := errors.AsType[*queryError](err)
	switch {
	case known:
		return qe.status, qe.Error()
	case errors.Is(err, ErrNotFound):
		return http.StatusNotFound, err.Error()
	case errors.Is(err, context.DeadlineExceeded):
		return http.StatusServiceUnavailable, fmt.Sprintf("the query took longer than %v: ask for less time or fewer traces", queryTimeout)
	}
	s.log.Error("query failed", "path", r.URL.Path, "error", err)
	return http.StatusInternalServerError, "the trace store failed; the manager's log says why"
}
