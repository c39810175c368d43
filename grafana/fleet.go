package grafana

import "github.com/binnacle-project/binnacle"

// fleet is the dashboard of the whole cluster: the golden signals, then nodes,
// then backends.
func fleet() Dashboard {
	var g grid
	base := Threshold{Color: "text"}

	g.add(stat("Requests", "Requests per second that the gateways answer.", "reqps", perSecond(binnacle.RollupGroup, inGroup, "")), 6, 4)
	g.add(stat("Errors", "Share of requests that ended in a 5xx answer, a time-out or a transport failure. 4xx are not errors.", "percentunit",
		share(binnacle.RollupGroup, "")+" or vector(0)", base, above(0.01, "orange"), above(0.05, "red")), 6, 4)
	g.add(stat("Latency p99", "99 of 100 requests are answered faster.", "s", quantile("0.99", binnacle.RollupGroup, "")), 6, 4)
	g.add(stat("Nodes that serve", "Nodes whose telemetry shows traffic in the last minutes.", "none",
		"count(count by (instance) (rate("+binnacle.RollupNode+inGroup+window+")))"), 6, 4)

	g.row("Traffic")
	g.add(series("Requests by outcome", "ok, client errors (4xx), errors (5xx, time-outs, transport failures) and requests over the fallback rate.", "reqps", true,
		query(perSecond(binnacle.RollupGroup, inGroup, "outcome"), "{{outcome}}")), 8, 9)
	g.add(series("Error ratio", "Share of requests that failed.", "percentunit", false,
		query(share(binnacle.RollupGroup, "group"), "{{group}}")).warn(errorLevels()...), 8, 9)
	g.add(series("Latency", "Quantiles of the time from request to answer, over all nodes.", "s", false,
		query(quantile("0.5", binnacle.RollupGroup, ""), "p50"),
		query(quantile("0.95", binnacle.RollupGroup, ""), "p95"),
		query(quantile("0.99", binnacle.RollupGroup, ""), "p99")).logScale(), 8, 9)
	g.add(heatmap("Latency as a whole", "How many requests took how long: two bands are two kinds of requests, or one slow backend.", "s",
		"sum(rate("+binnacle.RollupGroup+inGroup+window+"))", 0.0001, 10), 24, 9)

	g.row("Nodes")
	g.add(series("Requests by node", "Even load shows as lines that lie on each other.", "reqps", false,
		query(perSecond(binnacle.RollupNode, inGroup, "instance"), "{{instance}}")), 8, 9)
	g.add(series("Error ratio by node", "One node alone that fails is cut off from something.", "percentunit", false,
		query(share(binnacle.RollupNode, "instance"), "{{instance}}")).warn(errorLevels()...), 8, 9)
	g.add(series("Latency p99 by node", "99 of 100 requests of the node are answered faster.", "s", false,
		query(quantile("0.99", binnacle.RollupNode, "instance"), "{{instance}}")), 8, 9)

	g.row("Backends")
	const backend = "server_address, server_port"
	g.add(series("Calls by backend", "Calls per second that the nodes make.", "reqps", false,
		query(perSecond(binnacle.RollupBackend, inGroup, backend), "{{server_address}}:{{server_port}}")), 8, 9)
	g.add(series("Error ratio by backend", "Share of calls that failed, seen from all nodes.", "percentunit", false,
		query(share(binnacle.RollupBackend, backend), "{{server_address}}:{{server_port}}")).warn(errorLevels()...), 8, 9)
	g.add(series("Latency p99 by backend", "99 of 100 calls are answered faster.", "s", false,
		query(quantile("0.99", binnacle.RollupBackend, backend), "{{server_address}}:{{server_port}}")), 8, 9)

	d := dashboard("fleet", "Fleet", "All gateways of the cluster, from the roll-ups that the manager writes.", g)
	d.Templating.List = []Variable{groupVariable}
	return d
}
