package grafana

// internals looks at the manager itself: what comes in, what is kept, what is
// refused.
func internals() Dashboard {
	var g grid
	perS := func(metric, by string) string {
		return "sum by (" + by + ") (rate(" + metric + window + "))"
	}
	g.row("What comes in")
	g.add(series("OTLP items", "Data points and spans per second that were received.", "cps", false,
		query(perS("binnacle_otlp_received_items_total", "signal"), "{{signal}}")), 8, 8)
	g.add(series("OTLP requests by result", "Anything but ok needs a look.", "reqps", false,
		query(perS("binnacle_otlp_requests_total", "signal, result")+" > 0", "{{signal}} {{result}}")), 8, 8)
	g.add(series("Points refused", "Data points that the store refused, by reason.", "cps", false,
		query(perS("binnacle_metrics_points_rejected_total", "reason"), "{{reason}}")).warn(above(0.001, "red")), 8, 8)
	g.add(series("Time to take an OTLP request", "Mean time to answer, decoding, attributing and writing included.", "s", false,
		query(perS("binnacle_otlp_request_duration_seconds_sum", "signal")+" / "+perS("binnacle_otlp_request_duration_seconds_count", "signal"), "{{signal}}")), 8, 8)
	g.add(series("Requests in flight", "OTLP requests that are worked on now.", "none", false,
		query("binnacle_otlp_requests_in_flight", "requests")), 8, 8)
	g.add(series("Queries", "PromQL requests per second, and those refused because too many ran at once.", "reqps", false,
		query("rate(binnacle_metrics_query_requests_total"+window+")", "asked"),
		query("rate(binnacle_metrics_query_requests_refused_total"+window+")", "refused")), 8, 8)
	g.row("What is kept")
	g.add(series("Series", "Series in the head of the metrics store.", "none", false,
		query("binnacle_metrics_series", "series")), 6, 8)
	g.add(series("Series cache", "Points whose series was known, and those that were new.", "cps", false,
		query("rate(binnacle_metrics_cache_hits_total"+window+")", "hits"),
		query("rate(binnacle_metrics_cache_misses_total"+window+")", "misses")), 6, 8)
	g.add(series("Traces on disk", "Bytes of the trace store.", "bytes", false,
		query("binnacle_traces_disk_bytes", "traces")), 6, 8)
	g.add(series("Control state", "The database of etcd, and the free space beside it.", "bytes", false,
		query("binnacle_state_db_bytes", "database"),
		query("binnacle_state_disk_free_bytes", "free")), 6, 8)
	g.add(series("Writing stopped", "1 while a store is read-only, because its disk is nearly full or fails. Free space ends it.", "none", false,
		query("binnacle_metrics_read_only", "metrics"),
		query("binnacle_traces_read_only", "traces"),
		query("binnacle_state_read_only", "control state")).warn(above(1, "red")), 8, 8)
	g.add(series("Age of the last sync", "Telemetry is on disk within a second of being acknowledged: higher is a slow disk.", "s", false,
		query("time() - binnacle_metrics_log_last_sync_timestamp_seconds", "metrics log")).warn(above(5, "red")), 8, 8)
	g.add(series("Damage found", "Files that were set aside because they were damaged. The manager goes on without them.", "none", false,
		query("binnacle_metrics_blocks_quarantined_total", "metrics"),
		query("binnacle_traces_files_quarantined_total", "traces")).warn(above(1, "red")), 8, 8)
	g.row("Nodes and plans")
	g.add(series("Polls held", "Long polls that wait for a change.", "none", false,
		query("binnacle_plan_waiters", "waiting")), 8, 8)
	g.add(series("Plans built", "Plans made, per second: rises with rollouts.", "cps", false,
		query("rate(binnacle_plan_builds_total"+window+")", "built")), 8, 8)
	g.add(series("Gossip members", "Members by state, as this manager's gossip sees them.", "none", true,
		query("binnacle_gossip_members", "{{state}}")), 8, 8)
	g.add(series("Gossip health", "0 is well; higher means that this manager itself is slow to answer, and doubts others less for it.", "none", false,
		query("binnacle_gossip_health_score", "{{instance}}")), 8, 8)
	g.add(series("Gossip refused", "Packets per second that carried no valid key or membership certificate.", "cps", false,
		query("rate(binnacle_gossip_refused_packets_total"+window+")", "{{instance}}")), 8, 8)
	g.add(series("State writes", "Writes per second to the control state, and those that failed.", "cps", false,
		query("rate(binnacle_state_writes_total"+window+")", "writes"),
		query("rate(binnacle_state_failed_writes_total"+window+")", "failed")), 8, 8)
	g.row("Process")
	g.add(series("CPU", "Cores that the manager uses.", "none", false,
		query(`rate(process_cpu_seconds_total{job="binnacle-manager"}`+window+")", "{{instance}}")), 8, 8)
	g.add(series("Memory", "Resident memory of the manager.", "bytes", false,
		query(`process_resident_memory_bytes{job="binnacle-manager"}`, "{{instance}}")), 8, 8)
	g.add(series("Goroutines", "Goroutines of the manager; a line that only rises is a leak.", "none", false,
		query(`go_goroutines{job="binnacle-manager"}`, "{{instance}}")), 8, 8)
	return dashboard("manager", "Manager", "The manager itself: what comes in, what is kept, what is refused.", g)
}
