package grafana

// stock reads the names that krakend-otel gives, for gateways that only send
// OTLP. It asks for classic buckets, which are served over native storage too.
func stock() Dashboard {
	var g grid
	of := `{instance=~"$instance"}`
	count := func(metric, by string) string {
		return "sum by (" + by + ") (rate(" + metric + "_count" + of + window + "))"
	}
	p := func(q, metric, by string) string {
		return "histogram_quantile(" + q + ", sum by (le, " + by + ") (rate(" + metric + "_bucket" + of + window + ")))"
	}
	g.add(series("Requests by route", "Requests per second that the gateway answered.", "reqps", false,
		query(count("http_server_duration", "http_route"), "{{http_route}}")), 12, 9)
	g.add(series("Answers by status", "Answers per second by status code.", "reqps", true,
		query(count("http_server_duration", "http_response_status_code"), "{{http_response_status_code}}")), 12, 9)
	g.add(series("Latency p99 by route", "99 of 100 requests are answered faster; nothing below 10 ms is told apart.", "s", false,
		query(p("0.99", "http_server_duration", "http_route"), "{{http_route}}")), 12, 9)
	g.add(series("Requests by gateway", "Even load shows as lines that lie on each other.", "reqps", false,
		query(count("http_server_duration", "instance"), "{{instance}}")), 12, 9)
	g.add(heatmap("Latency as a whole", "How many requests took how long, in krakend-otel's fourteen buckets.", "s",
		"sum(rate(http_server_duration"+of+window+"))", 0.005, 10), 24, 8)
	g.row("Backends")
	g.add(series("Calls by backend", "Calls per second that the gateways make.", "reqps", false,
		query(count("http_client_duration", "server_address"), "{{server_address}}")), 8, 9)
	g.add(series("Answers of backends by status", "Status 0 is no answer: refused, timed out, or canceled.", "reqps", true,
		query(count("http_client_duration", "http_response_status_code"), "{{http_response_status_code}}")), 8, 9)
	g.add(series("Latency p99 by backend", "99 of 100 calls are answered faster.", "s", false,
		query(p("0.99", "http_client_duration", "server_address"), "{{server_address}}")), 8, 9)
	g.add(series("Failed backend steps", "Share of the steps of an endpoint that KrakenD counts as failed, the conversion of answers included.", "percentunit", false,
		query(`sum by (krakend_endpoint_route) (rate(krakend_backend_duration_count{instance=~"$instance",error="true"}`+window+`)) / `+count("krakend_backend_duration", "krakend_endpoint_route"), "{{krakend_endpoint_route}}")).warn(errorLevels()...), 12, 9)
	g.add(series("Size of answers p95", "95 of 100 answers are smaller.", "bytes", false,
		query(p("0.95", "http_server_response_size", "http_route"), "{{http_route}}")), 12, 9)
	d := dashboard("stock", "Stock KrakenD", "Gateways that only send OTLP, by krakend-otel's names.", g)
	d.Templating.List = []Variable{choice("instance", "Gateway", "label_values(http_server_duration, instance)")}
	return d
}
