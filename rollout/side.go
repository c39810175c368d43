package rollout

import (
	"fmt"
	"strings"
	"time"

	"github.com/binnacle-project/binnacle"
	"github.com/binnacle-project/binnacle/api"
	"github.com/binnacle-project/binnacle/rollout/gate"
)

const (
	// maxNamedNodes bounds the nodes that a query names. Larger sides are told
	// apart by revision alone, and their client errors by status on the first
	// of their nodes.
	maxNamedNodes = 64
	// lookBehind is how far back a series may have rested before a window and
	// still be known at its begin.
	lookBehind = time.Hour

	labelMethod = "http_request_method"
	labelRoute  = "http_route"
	// rawServer has the status of each answer, which roll-ups have not. Under
	// this name it is a counter, however histograms are stored.
	rawServer   = "http_server_request_duration_seconds_count"
	labelStatus = "http_response_status_code"
)

// side is one side of a gate: nodes of a group that run a revision.
type side struct {
	group    binnacle.Group
	revision binnacle.Revision
	nodes    []binnacle.NodeID // all of the revision if there are too many, or none
}

func (s side) named() bool { return len(s.nodes) > 0 && len(s.nodes) <= maxNamedNodes }

// all selects the roll-up of everything the side serves.
func (s side) all() string {
	if s.named() {
		return fmt.Sprintf(`%s{group=%q,revision="%d",instance=~%q}`, binnacle.RollupNode, s.group, s.revision, alternatives(s.nodes))
	}
	return fmt.Sprintf(`%s{group=%q,revision="%d"}`, binnacle.RollupGroup, s.group, s.revision)
}

// endpoints selects the roll-up by endpoint, which knows no nodes.
func (s side) endpoints(more string) string {
	return fmt.Sprintf(`%s{group=%q,revision="%d"%s}`, binnacle.RollupEndpoint, s.group, s.revision, more)
}

// statuses selects the raw series that tell client errors apart.
func (s side) statuses() string {
	return fmt.Sprintf(`%s{group=%q,instance=~%q,job!=%q,%s=~"401|403|404"}`, rawServer, s.group,
		alternatives(s.nodes[:min(len(s.nodes), maxNamedNodes)]), binnacle.ServiceAgent, labelStatus)
}

// alternatives is a regular expression for ids, which hold no special character
// but the dot.
func alternatives(ids []binnacle.NodeID) string {
	parts := make([]string, len(ids))
	for i, id := range ids {
		parts[i] = strings.ReplaceAll(string(id), ".", `\.`)
	}
	return strings.Join(parts, "|")
}

// increaseQuery is PromQL for what a cumulative series gained from a moment to
// the time of the query, exactly, where increase() would extrapolate.
func increaseQuery(by, selector string, from time.Time) string {
	return fmt.Sprintf("sum by (%s) (%[2]s - (last_over_time(%[2]s[%[3]s] @ %[4]s) or %[2]s * 0))", by, selector, promDuration(lookBehind), promTime(from))
}

func promDuration(d time.Duration) string { return fmt.Sprintf("%ds", int64(d.Seconds())) }
func promTime(t time.Time) string         { return fmt.Sprintf("%.3f", float64(t.UnixMilli())/1e3) }

// query is PromQL for one side of a comparison; to, if set, fixes the end.
func (s side) query(c *api.Comparison, from, to time.Time) string {
	selector := s.all()
	switch {
	case c.Endpoint != "":
		method, route, _ := strings.Cut(c.Endpoint, " ")
		selector = s.endpoints(fmt.Sprintf(`,%s=%q,%s=%q`, labelMethod, method, labelRoute, route))
	case gate.OfStatus(c.What) && len(s.nodes) > 0:
		return fixed(increaseQuery(labelStatus, s.statuses(), from), s.statuses(), to)
	}
	return fixed(increaseQuery(binnacle.LabelOutcome, selector, from), selector, to)
}

// fixed has the ends of a query read at a moment.
func fixed(query, selector string, to time.Time) string {
	if to.IsZero() {
		return query
	}
	at := selector + " @ " + promTime(to)
	return strings.NewReplacer("("+selector+" - (", "("+at+" - (", "or "+selector+" * 0", "or "+at+" * 0").Replace(query)
}
