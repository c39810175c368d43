package api

import (
	"time"

	"github.com/binnacle-project/binnacle"
)

// Activity is the one form in which live aggregates are shown, everywhere. A
// nil *Activity means that there are no data; zero requests are an Activity
// with null ratio and latency.
type Activity struct {
	// Window is the length of the sliding window in seconds.
	Window            float64 `json:"window"`
	Requests          uint64  `json:"requests"`
	RequestsPerSecond float64 `json:"requests_per_second"`
	// Errors counts 5xx answers, time-outs and transport failures.
	Errors       uint64   `json:"errors"`
	ErrorRatio   *float64 `json:"error_ratio"`
	ClientErrors uint64   `json:"client_errors"`
	Limited      uint64   `json:"limited"`
	Latency      *Latency `json:"latency"`
	// RequestsTotal counts since enrollment, over restarts.
	RequestsTotal uint64    `json:"requests_total"`
	LastSeen      time.Time `json:"last_seen,omitzero"`
}

// Latency holds quantiles in seconds.
type Latency struct {
	P50 float64 `json:"p50"`
	P95 float64 `json:"p95"`
	P99 float64 `json:"p99"`
}

// ActivityBy names what an activity listing is keyed by.
type ActivityBy string

// The keys of GET /v1/activity?by=.
const (
	ByCluster     ActivityBy = "cluster"
	ByGroup       ActivityBy = "group"
	ByNode        ActivityBy = "node"
	ByBackend     ActivityBy = "backend"
	ByNodeBackend ActivityBy = "node,backend"
	ByEndpoint    ActivityBy = "endpoint"
	ByRevision    ActivityBy = "revision"
)

// ActivityRow is one row of GET /v1/activity. Only the keys that the listing is
// by are set.
type ActivityRow struct {
	Node     binnacle.NodeID    `json:"node,omitempty"`
	Backend  binnacle.BackendID `json:"backend,omitempty"`
	Group    binnacle.Group     `json:"group,omitempty"`
	Method   string             `json:"method,omitempty"`
	Route    string             `json:"route,omitempty"`
	Revision *binnacle.Revision `json:"revision,omitempty"`
	Activity *Activity          `json:"activity"`
}

// ActivityList answers GET /v1/activity.
type ActivityList struct {
	By     ActivityBy `json:"by"`
	Window float64    `json:"window"`
	// Time is where the window ends. It moves on every two seconds; by node and
	// backend every ten over five minutes, and every minute over an hour.
	Time time.Time     `json:"time"`
	Rows []ActivityRow `json:"rows"`
}

// Overview is one event of GET /v1/activity/stream: all that the overview page
// shows live, aggregated once for all viewers.
type Overview struct {
	// Time is the end of the step that Recent covers: some seconds back, so
	// that what is exported late is in it. It is not the manager's clock.
	Time     time.Time `json:"time"`
	Cluster  Cluster   `json:"cluster"`
	Nodes    []Node    `json:"nodes"`
	Backends []Backend `json:"backends"`
	// Recent is the newest step of the charts, per Step seconds.
	Recent *Activity `json:"recent"`
}
