package grafana

import "github.com/binnacle-project/binnacle"

// rollout compares revisions with each other: the canary against the rest.
func rollout() Dashboard {
	var g grid
	const by, legend = "group, revision", "{{group}} revision {{revision}}"
	g.add(series("Requests by revision", "How much of the traffic each revision serves.", "reqps", true,
		query(perSecond(binnacle.RollupGroup, inGroup, by), legend)), 8, 10)
	g.add(series("Error ratio by revision", "A new revision above the old one, under the same traffic, is the one to stop.", "percentunit", false,
		query(share(binnacle.RollupGroup, by), legend)), 8, 10)
	g.add(series("Latency p99 by revision", "99 of 100 requests are answered faster.", "s", false,
		query(quantile("0.99", binnacle.RollupGroup, by), legend)), 8, 10)
	g.add(series("Nodes by revision", "Nodes whose requests a revision answered.", "none", false,
		query("count by (revision) (count by (instance, revision) (rate("+binnacle.RollupNode+inGroup+window+")))", "revision {{revision}}")), 12, 9)
	g.add(series("Rollouts under way", "Rollouts that run now.", "none", false,
		query("binnacle_rollouts_running", "running")), 12, 9)
	d := dashboard("rollout", "Rollout", "Revisions side by side, with a line where each rollout began and ended.", g)
	d.Templating.List = []Variable{groupVariable}
	return d
}
