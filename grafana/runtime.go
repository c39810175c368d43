package grafana

// runtime looks at the processes of the nodes: what the gateway and the agent
// beside it cost, and what waits in them.
func runtime() Dashboard {
	var g grid
	const gateway = `{job="binnacle-gateway",group=~"$group",instance=~"$node"}`
	const agent = `{job="binnacle-agent",instance=~"$node"}`
	by := func(metric, of string) string { return "sum by (instance) (" + metric + of + ")" }
	rate := func(metric, of string) string { return "sum by (instance) (rate(" + metric + of + window + "))" }
	g.row("The gateway process (worker)")
	g.add(series("CPU", "Cores that the gateway uses, by node. At the number of cores of the machine it is saturated.", "none", false,
		query(rate("process_cpu_time_seconds_total", gateway), "{{instance}}")), 8, 9)
	g.add(series("CPU per request", "CPU seconds that one request costs. It rises with larger answers, more backends, or a costly script.", "s", false,
		query(rate("process_cpu_time_seconds_total", gateway)+" / "+perSecond("node:http_server_request_duration_seconds", ofNode, "instance"), "{{instance}}")), 8, 9)
	g.add(series("Memory", "Resident memory of the gateway. A line that only rises over days is a leak.", "bytes", false,
		query(by("process_memory_usage_bytes", gateway), "{{instance}}")), 8, 9)
	g.add(series("Goroutines", "About three for each open connection. A line that rises while traffic does not is a leak, or a backend that hangs.", "none", false,
		query(by("go_goroutine_count", gateway), "{{instance}}")), 8, 9)
	g.add(series("Heap and its goal", "Memory that Go uses, and the heap size at which the next collection ends.", "bytes", false,
		query(by("go_memory_used_bytes", gateway), "{{instance}} used"),
		query(by("go_memory_gc_goal_bytes", gateway), "{{instance}} goal")), 8, 9)
	g.add(series("Allocated", "Bytes per second that the garbage collector has to clean up after.", "Bps", false,
		query(rate("go_memory_allocated_bytes_total", gateway), "{{instance}}")), 8, 9)
	g.row("The agent beside it")
	g.add(series("CPU", "Cores that the agent uses, by node.", "none", false,
		query(rate("process_cpu_seconds_total", agent), "{{instance}}")), 6, 8)
	g.add(series("Memory", "Resident memory of the agent.", "bytes", false,
		query(by("process_resident_memory_bytes", agent), "{{instance}}")), 6, 8)
	g.add(series("Workers started", "Starts of the gateway process. One at the start and at each restart order is right; more are crashes.", "none", false,
		query("sum by (instance) (binnacle_agent_worker_starts_total"+agent+")", "{{instance}}")), 6, 8)
	g.add(series("Worker crashes", "Crashes of the gateway process since the agent's start. Twice after a new revision brings the last good one back.", "none", false,
		query("sum by (instance) (binnacle_agent_worker_crashes_total"+agent+")", "{{instance}}")).warn(above(1, "red")), 6, 8)
	g.row("Telemetry on its way")
	g.add(series("Waiting in memory", "Bytes of telemetry that the agent has not sent yet.", "bytes", false,
		query(by("binnacle_agent_relay_queue_bytes", agent), "{{instance}}")), 8, 8)
	g.add(series("Waiting on disk", "Bytes in the spool: more than nothing while the manager is away.", "bytes", false,
		query(by("binnacle_agent_spool_bytes", agent), "{{instance}}")), 8, 8)
	g.add(series("Lost", "Exports per second that were dropped because memory or spool were full, or that the manager refused. Anything but zero is missing from the charts.", "cps", false,
		query(rate("binnacle_agent_relay_dropped_total", agent)+" + "+rate("binnacle_agent_spool_dropped_total", agent)+" + "+rate("binnacle_agent_relay_refused_total", agent), "{{instance}}")).warn(above(0.01, "red")), 8, 8)
	g.row("Membership of the node")
	g.add(series("Lease left", "Time until the node's lease ends. It is renewed long before: a line that falls further than its neighbors is a node that cannot poll.", "s", false,
		query("min by (instance) (binnacle_agent_lease_left_seconds"+agent+")", "{{instance}}")), 12, 8)
	g.add(series("Polls", "Polls per second by result. Only errors, for one node: it cannot reach the manager.", "reqps", false,
		query("sum by (instance, result) (rate(binnacle_agent_polls_total"+agent+window+"))", "{{instance}} {{result}}")), 12, 8)
	d := dashboard("runtime", "Gateway runtime", "What the processes of the nodes cost: CPU, memory, goroutines, and telemetry on its way.", g)
	d.Templating.List = []Variable{groupVariable, choice("node", "Node", `label_values(node:http_server_request_duration_seconds{group=~"$group"}, instance)`)}
	return d
}
