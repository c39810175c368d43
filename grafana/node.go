package grafana

import "github.com/binnacle-project/binnacle"

const ofNode = `{group=~"$group",instance=~"$node"}`

// node looks at single gateways: what they answer, and what they call.
func node() Dashboard {
	var g grid
	failed := `{group=~"$group",instance=~"$node",outcome="error"}`
	g.add(series("Requests", "Requests per second of the chosen nodes, by outcome.", "reqps", true,
		query(perSecond(binnacle.RollupNode, ofNode, "outcome"), "{{outcome}}")), 8, 9)
	g.add(series("Error ratio", "Share of requests that failed, by node.", "percentunit", false,
		query(perSecond(binnacle.RollupNode, failed, "instance")+" / "+perSecond(binnacle.RollupNode, ofNode, "instance"), "{{instance}}")).warn(errorLevels()...), 8, 9)
	g.add(series("Latency", "Quantiles of the time to answer, over the chosen nodes.", "s", false,
		query(quantileOf("0.5", binnacle.RollupNode, ofNode, ""), "p50"),
		query(quantileOf("0.95", binnacle.RollupNode, ofNode, ""), "p95"),
		query(quantileOf("0.99", binnacle.RollupNode, ofNode, ""), "p99")).logScale(), 8, 9)
	g.add(series("Slow requests and their traces", "p99 by node from what the nodes send; each dot is one request with its trace: click it.", "s", false,
		query(quantileOf("0.99", serverDuration, ofNode, "instance"), "{{instance}}")).logScale().exemplars(), 12, 9)
	g.add(heatmap("Latency as a whole", "How many requests of the chosen nodes took how long.", "s",
		"sum(rate("+binnacle.RollupNode+ofNode+window+"))", 0.0001, 10), 12, 9)
	g.row("Backends that these nodes call")
	const pair = "instance, server_address, server_port"
	const legend = "{{instance}} → {{server_address}}:{{server_port}}"
	g.add(series("Calls", "Calls per second by node and backend.", "reqps", false,
		query(perSecond(binnacle.RollupNodeBackend, ofNode, pair), legend)), 8, 9)
	g.add(series("Error ratio of calls", "A line that is high for one node alone is a cut network; high for all, a broken backend.", "percentunit", false,
		query(perSecond(binnacle.RollupNodeBackend, failed, pair)+" / "+perSecond(binnacle.RollupNodeBackend, ofNode, pair), legend)).warn(errorLevels()...), 8, 9)
	g.add(series("Latency p99 of calls", "99 of 100 calls are answered faster.", "s", false,
		query(quantileOf("0.99", binnacle.RollupNodeBackend, ofNode, pair), legend)), 8, 9)
	d := dashboard("node", "Node", "Single gateways: their answers, and their calls.", g)
	d.Templating.List = []Variable{groupVariable, choice("node", "Node", "label_values("+binnacle.RollupNode+`{group=~"$group"}, instance)`)}
	return d
}
