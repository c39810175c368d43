package metrics

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/binnacle-project/binnacle/telemetry/metrics/promapi"
)

// servedRoutes are the calls of the Prometheus HTTP API that are answered,
// below the prefix; a name in braces stands for one path element. The API
// registers more, among them remote read, writes and deletion, and panics in
// those whose parts do not exist here; all that is refused before it.
var servedRoutes = []string{
	"GET query", "POST query",
	"GET query_range", "POST query_range",
	"GET query_exemplars", "POST query_exemplars",
	"GET format_query", "POST format_query",
	"GET parse_query", "POST parse_query",
	"GET labels", "POST labels",
	"GET label/{name}/values",
	"GET series", "POST series",
	"GET metadata",
	"GET rules", "GET alerts",
	"GET status/buildinfo", "GET status/runtimeinfo", "GET status/flags", "GET status/config",
	"GET status/tsdb", "GET status/tsdb/blocks", "GET status/walreplay",
}

// maxForm bounds the body of a POST: queries are long at times, but not so.
const maxForm = 1 << 20

// Handler serves the Prometheus HTTP API below prefix, for instance
// "/prometheus/api/v1". Who may ask is up to the caller. The limits of
// Options.Query hold for all clients together.
func (s *Store) Handler(prefix string) http.Handler {
	prefix = "/" + strings.Trim(prefix, "/")
	api := promapi.Handler(prefix, promapi.Options{
		Engine: s.ranges, Parser: s.parser, Lookback: lookback, Queryable: s.queryable(), Exemplars: s.exemplarQueryable(),
		DB: s.db, Registry: s.reg, Started: s.started, Retention: s.opts.Retention, Log: s.log,
	})
	h := &handler{s: s, prefix: prefix + "/", api: api, slots: make(chan struct{}, s.opts.Query.Concurrency), queue: make(chan struct{}, 2*s.opts.Query.Concurrency)}
	set := s.self.set
	set.GetOrCreateGauge("binnacle_metrics_query_requests_running", func() float64 { return float64(len(h.slots)) })
	set.GetOrCreateGauge("binnacle_metrics_query_requests_waiting", func() float64 { return float64(max(len(h.queue)-len(h.slots), 0)) })
	return h
}

// handler stands before Prometheus's API: what may be called, how many at
// once, and how much an answer may hold.
type handler struct {
	s      *Store
	prefix string
	api    http.Handler
	slots  chan struct{} // being worked on
	queue  chan struct{} // being worked on or waiting
}

func (h *handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	sw := &statusWriter{ResponseWriter: w}
	defer func() { h.s.self.queryFailed(sw.status) }()
	w = sw
	call, below := strings.CutPrefix(r.URL.Path, h.prefix)
	if !below || !served(r.Method, call) {
		writeError(w, http.StatusNotFound, "not_found", fmt.Sprintf("%s %s is not served: this is a Prometheus query API without scraping, rules, alerts or writes", r.Method, r.URL.Path))
		return
	}
	h.s.self.queries.Inc()
	start := time.Now()
	defer h.s.self.querySeconds.UpdateDuration(start)

	r.Body = http.MaxBytesReader(w, r.Body, maxForm)
	if err := r.ParseForm(); err != nil {
		writeError(w, http.StatusBadRequest, "bad_data", "form: "+err.Error())
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), h.s.opts.Query.Timeout)
	defer cancel()
	leave, err := h.enter(ctx)
	if err != nil {
		h.s.self.queriesFull.Inc()
		w.Header().Set("Retry-After", "1")
		writeError(w, http.StatusServiceUnavailable, "unavailable", err.Error())
		return
	}
	defer leave()

	if call == "metadata" {
		h.metadata(w, r)
		return
	}
	if slices.Contains([]string{"labels", "series"}, call) || strings.HasPrefix(call, "label/") {
		h.bound(r.Form)
	}
	h.api.ServeHTTP(w, r.WithContext(ctx))
}

// statusWriter notes the status of an answer.
type statusWriter struct {
	http.ResponseWriter
	status int
}

func (w *statusWriter) WriteHeader(status int) {
	w.status = status
	w.ResponseWriter.WriteHeader(status)
}

// Unwrap is for http.ResponseController.
func (w *statusWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// enter waits for a place among the requests being worked on; the caller must
// call leave.
func (h *handler) enter(ctx context.Context) (leave func(), _ error) {
	select {
	case h.queue <- struct{}{}:
	default:
		return nil, fmt.Errorf("%d queries are running and as many waiting: try again later", cap(h.slots))
	}
	select {
	case h.slots <- struct{}{}:
		return func() { <-h.slots; <-h.queue }, nil
	case <-ctx.Done():
		<-h.queue
		return nil, fmt.Errorf("%d other queries were running for %s: try again later", cap(h.slots), h.s.opts.Query.Timeout)
	}
}

// bound lowers the limit of an answer to ours. The API then cuts the answer
// off and says so in a warning.
func (h *handler) bound(form url.Values) {
	limit := h.s.opts.Query.MaxSeries
	if asked, err := strconv.Atoi(form.Get("limit")); err != nil && form.Get("limit") != "" || err == nil && asked > 0 && asked <= limit {
		return // the API tells of a bad one
	}
	form.Set("limit", strconv.Itoa(limit))
}

// served reports whether a call is in servedRoutes.
func served(method, call string) bool {
	if method == http.MethodHead {
		method = http.MethodGet
	}
	if name, ok := strings.CutPrefix(call, "label/"); ok {
		if name, ok = strings.CutSuffix(name, "/values"); ok && name != "" && !strings.Contains(name, "/") {
			call = "label/{name}/values"
		}
	}
	return slices.Contains(servedRoutes, method+" "+call)
}

// metadata answers from what senders said of their metrics. Prometheus's own
// answer knows scraped targets only.
func (h *handler) metadata(w http.ResponseWriter, r *http.Request) {
	number := func(name string) (int, bool) {
		v := r.Form.Get(name)
		if v == "" {
			return -1, true
		}
		n, err := strconv.Atoi(v)
		return n, err == nil
	}
	limit, ok := number("limit")
	if !ok {
		writeError(w, http.StatusBadRequest, "bad_data", "limit must be a number")
		return
	}
	perName, ok := number("limit_per_metric")
	if !ok {
		writeError(w, http.StatusBadRequest, "bad_data", "limit_per_metric must be a number")
		return
	}
	writeJSON(w, http.StatusOK, map[string]any{"status": "success", "data": h.s.meta.list(r.Form.Get("metric"), limit, perName)})
}

// writeError answers as the Prometheus API does.
func writeError(w http.ResponseWriter, status int, kind, message string) {
	writeJSON(w, status, map[string]any{"status": "error", "errorType": kind, "error": message})
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v) // the client has left
}
