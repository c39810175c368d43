package membership

import (
	"strings"

	"github.com/binnacle-project/binnacle/api"
)

// HTTPSD lists nodes in the form of Prometheus HTTP service discovery, a target
// group for each node, so that each has its labels. Give it the nodes that are
// ready. The answer is never nil: an empty list is a list.
//
// Source: Prometheus, "Writing HTTP Service Discovery".
func HTTPSD(nodes []api.Node) []api.TargetGroup {
	out := make([]api.TargetGroup, 0, len(nodes))
	for _, n := range nodes {
		labels := map[string]string{
			"__meta_binnacle_node":    string(n.ID),
			"__meta_binnacle_name":    n.Name,
			"__meta_binnacle_group":   string(n.Group),
			"__meta_binnacle_version": n.Version,
		}
		for k, v := range n.Labels {
			labels["__meta_binnacle_label_"+labelName(k)] = v
		}
		out = append(out, api.TargetGroup{Targets: []string{n.Address}, Labels: labels})
	}
	return out
}

// labelName makes a key fit for the name of a Prometheus label.
func labelName(s string) string {
	return strings.Map(func(r rune) rune {
		if 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' || r == '_' {
			return r
		}
		return '_'
	}, s)
}
