package grafana

import "github.com/binnacle-project/binnacle"

// rollout compares revisions with each other: the canary against the rest.
func rollout() Dashboard {
	var g grid
	const by, legend = "group, revision", "{{group}} revision {{revision}}"
	g.add(series("Requests by revision", "How much of the traffic each revision serves.", "reqps", true,
		query(perSecond(binnacle.RollupGroup, inGroup, by), legend)), 8, 10)
	g.add(series("Error ratio by revision", "A new revision above the old one, under the same traffic, is the one to stop.", "percentunit", false,
		query(share(binnacle.RollupGroup, by), legend)).warn(errorLevels()...), 8, 10)
	g.add(series("Latency p99 by revision", "99 of 100 requests are answered faster.", "s", false,
		query(quantile("0.99", binnacle.RollupGroup, by), legend)), 8, 10)
	g.row("Canary against control, endpoint by endpoint")
	const route = "group, revision, http_request_method, http_route"
	endpoints := `{group=~"$group",http_route=~"$endpoint"}`
	failed := `{group=~"$group",http_route=~"$endpoint",outcome="error"}`
	g.add(table("Side by side now", "One row for each endpoint and revision, over the last minutes. Sort by endpoint: the higher revision is the canary.",
		[]column{{"http_request_method", "Method", ""}, {"http_route", "Endpoint", ""}, {"group", "Group", ""}, {"revision", "Revision", ""},
			{"Value #A", "Requests/s", "reqps"}, {"Value #B", "Errors", "percentunit"}, {"Value #C", "p50", "s"}, {"Value #D", "p99", "s"}},
		query(perSecond(binnacle.RollupEndpoint, endpoints, route), ""),
		query(perSecond(binnacle.RollupEndpoint, failed, route)+" / "+perSecond(binnacle.RollupEndpoint, endpoints, route), ""),
		query(quantileOf("0.5", binnacle.RollupEndpoint, endpoints, route), ""),
		query(quantileOf("0.99", binnacle.RollupEndpoint, endpoints, route), "")), 24, 10)
	g.add(series("Error ratio by endpoint and revision", "The lines of one endpoint part where a revision is worse.", "percentunit", false,
		query(perSecond(binnacle.RollupEndpoint, failed, route)+" / "+perSecond(binnacle.RollupEndpoint, endpoints, route), "{{http_request_method}} {{http_route}} revision {{revision}}")).warn(errorLevels()...), 12, 10)
	g.add(series("Latency p99 by endpoint and revision", "The lines of one endpoint part where a revision is slower.", "s", false,
		query(quantileOf("0.99", binnacle.RollupEndpoint, endpoints, route), "{{http_request_method}} {{http_route}} revision {{revision}}")).logScale(), 12, 10)
	g.row("Where it stands")
	g.add(series("Nodes by revision", "Nodes whose requests a revision answered.", "none", false,
		query("count by (revision) (count by (instance, revision) (rate("+binnacle.RollupNode+inGroup+window+")))", "revision {{revision}}")), 12, 9)
	g.add(series("Rollouts under way", "Rollouts that run now.", "none", false,
		query("binnacle_rollouts_running", "running")), 12, 9)
	d := dashboard("rollout", "Rollout", "Revisions side by side, with a line where each rollout began and ended.", g)
	d.Templating.List = []Variable{groupVariable, choice("endpoint", "Endpoint", "label_values("+binnacle.RollupEndpoint+`{group=~"$group"}, http_route)`)}
	return d
}
