package grafana

import "github.com/binnacle-project/binnacle"

// Parts of queries. All of them read roll-ups: a few series for a whole fleet,
// and the only ones in which exponential and explicit buckets add up.
const (
	inGroup = `{group=~"$group"}`
	errorsI = `{group=~"$group",outcome="error"}`
	window  = `[$__rate_interval]`

	// serverDuration is what managed nodes send: many series, and exemplars.
	serverDuration = "http_server_request_duration_seconds"
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

func quantile(q, metric, by string) string { return quantileOf(q, metric, inGroup, by) }

// quantileOf is quantile over chosen series.
func quantileOf(q, metric, matchers, by string) string {
	if by != "" {
		by = " by (" + by + ") "
	}
	return "histogram_quantile(" + q + ", sum" + by + "(rate(" + metric + matchers + window + ")))"
}

func above(v float64, color string) Threshold { return Threshold{Color: color, Value: &v} }

// errorLevels mark an error ratio that needs a look, and one that needs it now.
func errorLevels() []Threshold { return []Threshold{above(0.01, "orange"), above(0.05, "red")} }

// groupVariable chooses groups; every dashboard over roll-ups has it.
var groupVariable = choice("group", "Group", "label_values("+binnacle.RollupGroup+", group)")

// choice is a variable that allows several values and all.
func choice(name, label, query string) Variable {
	return Variable{
		Name: name, Label: label, Type: "query", Datasource: metricsSource, Query: query,
		Refresh: 2, Multi: true, IncludeAll: true, AllValue: ".*", Sort: 1,
		Current: map[string]any{"text": "All", "value": "$__all"},
	}
}

// changes marks events of some kinds as vertical lines.
func changes(name, kinds, color string) Annotation {
	return Annotation{
		Name: name, Datasource: metricsSource, Enable: true, IconColor: color, Step: "15s",
		Expr:      `changes(binnacle_events_total{kind=~"` + kinds + `"}[$__interval]) > 0`,
		TitleText: "{{kind}}", TextFormat: "{{group}}", TagKeys: "kind,group",
	}
}

// dashboard frames panels with what all dashboards share: the crosshair, the
// refresh, and lines where something changed.
func dashboard(name, title, description string, g grid) Dashboard {
	return Dashboard{
		UID: "binnacle-" + name, Title: "Binnacle / " + title, Tags: []string{"binnacle"}, Timezone: "browser",
		Description: description, SchemaVersion: 39, Version: 1, Refresh: "10s", Editable: true, GraphTooltip: 1,
		Time:       TimeRange{From: "now-1h", To: "now"},
		Templating: Templating{List: []Variable{}},
		Links:      []Link{{Title: "Binnacle", Type: "dashboards", Tags: []string{"binnacle"}, AsDropdown: true, KeepTime: true, IncludeVars: true}},
		Annotations: Annotations{List: []Annotation{
			changes("Rollouts", "rollout.*|revision.*", "purple"),
			changes("Membership", "node.*", "blue"),
			changes("License", "license.*", "orange"),
			changes("Manager", "manager.*|state.*", "green"),
		}},
		Panels: g.panels,
	}
}
