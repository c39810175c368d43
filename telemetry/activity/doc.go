// Package activity keeps live aggregates of the fleet's work: requests, errors
// and latency per node, backend, node and backend, endpoint, revision, group
// and for the cluster, over sliding windows of 30 s, 1 min, 5 min and 1 h. It is
// fed from the OTLP stream, next to the metrics store and not through it, so
// that a page or an API call reads memory and never runs a query.
//
// It reads two dialects, the OpenTelemetry HTTP semantic conventions and
// krakend-otel's names, turns each cumulative point into the increase since
// the one before, once, whatever comes late, twice or out of order, and books
// the increase on the revision that was running. From the same increases it
// writes the roll-up series, cumulative exponential histograms that screens,
// gates and fleet dashboards read by PromQL.
//
// What it keeps must survive the manager: requests_total and the last point of
// each stream are checkpointed together every ten seconds, so that a total is
// exact after a crash, too, and windows are refilled from the roll-ups.
//
// It leaves to others who may send (otlp), what raw series look like
// (telemetry/metrics) and what the numbers mean for a rollout (rollout). Only
// manager imports it.
package activity
