package grafana

import "github.com/binnacle-project/binnacle"

// Parts of queries. All of them read roll-ups: a few series for a whole fleet,
// and the only ones in which exponential and explicit buckets add up.
const (
	inGroup = `{group=~"$group"}`
	errorsI = `{group=~"$group",outcome="error"}`
	window  = `[$__rate_interval]`
)

// perSecond counts the observations of a roll-up per second.
func perSecond(metric, matchers, by string) string {
	if by != "" {
		by = " by (" + by + ") "
	}
	return "histogram_count(sum" + by + "(rate(" + metric + matchers + window + ")))"
}

// share is the part of the requests that failed.
func share(metric, by string) string {
	return perSecond(metric, errorsI, by) + " / " + perSecond(metric, inGroup, by)
}

func quantile(q, metric, by string) string {
	if by != "" {
		by = " by (" + by + ") "
	}
	return "histogram_quantile(" + q + ", sum" + by + "(rate(" + metric + inGroup + window + ")))"
}

func above(v float64, color string) Threshold { return Threshold{Color: color, Value: &v} }

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
		query(share(binnacle.RollupGroup, "group"), "{{group}}")), 8, 9)
	g.add(series("Latency", "Quantiles of the time from request to answer, over all nodes.", "s", false,
		query(quantile("0.5", binnacle.RollupGroup, ""), "p50"),
		query(quantile("0.95", binnacle.RollupGroup, ""), "p95"),
		query(quantile("0.99", binnacle.RollupGroup, ""), "p99")), 8, 9)

	g.row("Nodes")
	g.add(series("Requests by node", "Even load shows as lines that lie on each other.", "reqps", false,
		query(perSecond(binnacle.RollupNode, inGroup, "instance"), "{{instance}}")), 8, 9)
	g.add(series("Error ratio by node", "One node alone that fails is cut off from something.", "percentunit", false,
		query(share(binnacle.RollupNode, "instance"), "{{instance}}")), 8, 9)
	g.add(series("Latency p99 by node", "99 of 100 requests of the node are answered faster.", "s", false,
		query(quantile("0.99", binnacle.RollupNode, "instance"), "{{instance}}")), 8, 9)

	g.row("Backends")
	const backend = "server_address, server_port"
	g.add(series("Calls by backend", "Calls per second that the nodes make.", "reqps", false,
		query(perSecond(binnacle.RollupBackend, inGroup, backend), "{{server_address}}:{{server_port}}")), 8, 9)
	g.add(series("Error ratio by backend", "Share of calls that failed, seen from all nodes.", "percentunit", false,
		query(share(binnacle.RollupBackend, backend), "{{server_address}}:{{server_port}}")), 8, 9)
	g.add(series("Latency p99 by backend", "99 of 100 calls are answered faster.", "s", false,
		query(quantile("0.99", binnacle.RollupBackend, backend), "{{server_address}}:{{server_port}}")), 8, 9)

	return Dashboard{
		UID: "binnacle-fleet", Title: "Binnacle / Fleet", Tags: []string{"binnacle"}, Timezone: "browser",
		Description:   "All gateways of the cluster, from the roll-ups that the manager writes.",
		SchemaVersion: 39, Version: 1, Refresh: "10s", Editable: true, GraphTooltip: 1,
		Time: TimeRange{From: "now-1h", To: "now"},
		Templating: Templating{List: []Variable{{
			Name: "group", Label: "Group", Type: "query", Datasource: metricsSource,
			Query: "label_values(" + binnacle.RollupGroup + ", group)", Refresh: 2, Multi: true, IncludeAll: true, AllValue: ".*", Sort: 1,
			Current: map[string]any{"text": "All", "value": "$__all"},
		}}},
		Annotations: Annotations{List: []Annotation{{
			Name: "Events", Datasource: metricsSource, Enable: true, IconColor: "blue", Step: "15s",
			Expr:      `changes(binnacle_events_total{kind=~"rollout.*|node.*|license.*"}[$__interval]) > 0`,
			TitleText: "{{kind}}", TextFormat: "{{group}}", TagKeys: "kind,group",
		}}},
		Panels: g.panels,
	}
}
