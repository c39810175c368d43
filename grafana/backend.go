package grafana

import "github.com/binnacle-project/binnacle"

// backend looks at the services that nodes call, and from which nodes they fail.
func backend() Dashboard {
	var g grid
	of := `{group=~"$group",server_address=~"$backend"}`
	failed := `{group=~"$group",server_address=~"$backend",outcome="error"}`
	const by, legend = "server_address, server_port", "{{server_address}}:{{server_port}}"
	g.add(series("Calls", "Calls per second that the nodes make, by backend.", "reqps", false,
		query(perSecond(binnacle.RollupBackend, of, by), legend)), 8, 9)
	g.add(series("Error ratio", "Share of calls that failed, seen from all nodes.", "percentunit", false,
		query(perSecond(binnacle.RollupBackend, failed, by)+" / "+perSecond(binnacle.RollupBackend, of, by), legend)).warn(errorLevels()...), 8, 9)
	g.add(series("Latency p99", "99 of 100 calls are answered faster.", "s", false,
		query(quantileOf("0.99", binnacle.RollupBackend, of, by), legend)), 8, 9)
	g.add(heatmap("Latency as a whole", "How many calls to the chosen backends took how long.", "s",
		"sum(rate("+binnacle.RollupBackend+of+window+"))", 0.0001, 10), 24, 8)
	g.row("Node x backend: who fails from where")
	const pair = "instance, server_address, server_port"
	const pairLegend = "{{instance}} → {{server_address}}:{{server_port}}"
	g.add(table("Node x backend now", "One row for each pair. A backend that is red from every node is broken; red from one node only, that node is cut off from it.",
		[]column{{"instance", "Node", ""}, {"server_address", "Backend", ""}, {"server_port", "Port", ""}, {"Value #A", "Calls/s", "reqps"}, {"Value #B", "Errors", "percentunit"}, {"Value #C", "p99", "s"}},
		query(perSecond(binnacle.RollupNodeBackend, of, pair), ""),
		query(perSecond(binnacle.RollupNodeBackend, failed, pair)+" / "+perSecond(binnacle.RollupNodeBackend, of, pair), ""),
		query(quantileOf("0.99", binnacle.RollupNodeBackend, of, pair), "")), 24, 10)
	g.add(series("Error ratio by node", "All lines of a backend high: it is broken. One alone: that node is cut off.", "percentunit", false,
		query(perSecond(binnacle.RollupNodeBackend, failed, pair)+" / "+perSecond(binnacle.RollupNodeBackend, of, pair), pairLegend)).warn(errorLevels()...), 12, 10)
	g.add(series("Latency p99 by node", "A node far from its backend shows here.", "s", false,
		query(quantileOf("0.99", binnacle.RollupNodeBackend, of, pair), pairLegend)), 12, 10)
	d := dashboard("backend", "Backend", "The services that the gateways call, and from which nodes they fail.", g)
	d.Templating.List = []Variable{groupVariable, choice("backend", "Backend", "label_values("+binnacle.RollupBackend+`{group=~"$group"}, server_address)`)}
	return d
}
