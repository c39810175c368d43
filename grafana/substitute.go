package grafana

import "strings"

// Substitute fills Grafana's variables in a query, so that it can be run
// outside of Grafana.
func Substitute(expr string) string {
	return strings.NewReplacer(
		"$__rate_interval", "2m", "$__interval", "2m", "$__range", "1h",
		"$group", ".*", "$node", ".*", "$backend", ".*", "$endpoint", ".*", "$instance", ".*",
	).Replace(expr)
}
