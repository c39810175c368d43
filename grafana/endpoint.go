package grafana

import "github.com/binnacle-project/binnacle"

// endpoint looks at the routes of the gateways.
func endpoint() Dashboard {
	var g grid
	of := `{group=~"$group",http_route=~"$endpoint"}`
	failed := `{group=~"$group",http_route=~"$endpoint",outcome="error"}`
	refused := `{group=~"$group",http_route=~"$endpoint",outcome="client_error"}`
	const by, legend = "http_request_method, http_route", "{{http_request_method}} {{http_route}}"
	g.add(series("Requests", "Requests per second by endpoint.", "reqps", false,
		query(perSecond(binnacle.RollupEndpoint, of, by), legend)), 12, 10)
	g.add(series("Error ratio", "Share of requests that failed, by endpoint.", "percentunit", false,
		query(perSecond(binnacle.RollupEndpoint, failed, by)+" / "+perSecond(binnacle.RollupEndpoint, of, by), legend)).warn(errorLevels()...), 12, 10)
	g.add(series("Client errors", "4xx answers per second by endpoint: a wrong client, or a broken login.", "reqps", false,
		query(perSecond(binnacle.RollupEndpoint, refused, by)+" or "+perSecond(binnacle.RollupEndpoint, of, by)+" * 0", legend)), 12, 10)
	g.add(series("Latency p99", "99 of 100 requests are answered faster.", "s", false,
		query(quantileOf("0.99", binnacle.RollupEndpoint, of, by), legend)), 12, 10)
	g.add(series("Slow requests and their traces", "p99 by endpoint from what the nodes send; each dot is one request with its trace: click it.", "s", false,
		query(quantileOf("0.99", serverDuration, of, by), legend)).logScale().exemplars(), 12, 10)
	g.add(heatmap("Latency as a whole", "How many requests to the chosen endpoints took how long.", "s",
		"sum(rate("+binnacle.RollupEndpoint+of+window+"))", 0.0001, 10), 12, 10)
	d := dashboard("endpoint", "Endpoint", "The routes of the gateways.", g)
	d.Templating.List = []Variable{groupVariable, choice("endpoint", "Endpoint", "label_values("+binnacle.RollupEndpoint+`{group=~"$group"}, http_route)`)}
	return d
}
