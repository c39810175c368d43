package rollout

import (
	"math"
	"slices"
	"strings"

	"github.com/binnacle-project/binnacle"
	"github.com/binnacle-project/binnacle/api"
)

// candidate is a node that a step may choose.
type candidate struct {
	ID   binnacle.NodeID
	Zone string
}

// zoneLabels name the labels that say where a node stands, the first that a node
// has counts.
var zoneLabels = []string{"zone", "topology.kubernetes.io/zone", "availability_zone", "region", "rack", "host"}

// zoneOf returns where labels say that a node stands, empty for unknown.
func zoneOf(labels map[string]string) string {
	for _, name := range zoneLabels {
		if v := labels[name]; v != "" {
			return name + "=" + v
		}
	}
	return ""
}

// choose returns the next n of free, in the order in which they are to be told.
// It spreads over zones: each choice is of a zone that has the smallest share of
// its nodes in have and among those chosen, and of the larger zone among equals,
// so that the first canary stands where most nodes are. Within a zone the
// smallest id is first: the choice is the same each time.
func choose(have, free []candidate, n int) []binnacle.NodeID {
	type zone struct {
		name       string
		free       []binnacle.NodeID
		taken, all int
	}
	zones := map[string]*zone{}
	at := func(name string) *zone {
		z := zones[name]
		if z == nil {
			z = &zone{name: name}
			zones[name] = z
		}
		z.all++
		return z
	}
	for _, c := range have {
		at(c.Zone).taken++
	}
	for _, c := range free {
		z := at(c.Zone)
		z.free = append(z.free, c.ID)
	}
	var order []*zone
	for _, name := range sortedKeys(zones) {
		slices.Sort(zones[name].free)
		order = append(order, zones[name])
	}
	var out []binnacle.NodeID
	for len(out) < n {
		var best *zone
		for _, z := range order {
			if len(z.free) == 0 {
				continue
			}
			// taken/all compared without dividing
			if best == nil || z.taken*best.all < best.taken*z.all ||
				z.taken*best.all == best.taken*z.all && (z.all > best.all || z.all == best.all && strings.Compare(z.name, best.name) < 0) {
				best = z
			}
		}
		if best == nil {
			break
		}
		out = append(out, best.free[0])
		best.free = best.free[1:]
		best.taken++
	}
	return out
}

// wanted is how many of group's nodes have the revision at the end of a step: at
// least one, and all in the last.
func wanted(s api.NewStep, last bool, group int) int {
	switch {
	case last:
		return group
	case s.Nodes > 0:
		return min(s.Nodes, group)
	}
	// 10 % of 30 is 3, also in floating point.
	return min(max(1, int(math.Ceil(s.Percent*float64(group)/100-1e-9))), group)
}

// atOnce is how many nodes of a group may be without an answer together.
func atOnce(maxUnavailable, group int) int {
	if maxUnavailable > 0 {
		return maxUnavailable
	}
	return max(1, (group+3)/4)
}

// defaultBake is the bake of each default step, in seconds: at 500 requests per
// second 60,000 of them.
const defaultBake = 120

// defaultSteps are one canary, then 10 %, half and all.
func defaultSteps() []api.NewStep {
	return []api.NewStep{
		{Nodes: 1, Bake: defaultBake}, {Percent: 10, Bake: defaultBake},
		{Percent: 50, Bake: defaultBake}, {Percent: 100, Bake: defaultBake},
	}
}

// maxSteps and maxBake bound what can be asked for.
const (
	maxSteps = 20
	maxBake  = 7 * 24 * 3600
)

// checkSteps completes and checks the steps of a new rollout. Those that reach
// no further than the one before, as 10 % of five nodes after one node, stay in
// the list; nextStep passes over them.
func checkSteps(steps []api.NewStep) ([]api.NewStep, error) {
	if len(steps) == 0 {
		return defaultSteps(), nil
	}
	if len(steps) > maxSteps {
		return nil, invalid("%d steps are too many: at most %d", len(steps), maxSteps)
	}
	steps = slices.Clone(steps)
	for i, s := range steps {
		switch {
		case (s.Nodes > 0) == (s.Percent > 0):
			return nil, invalid("step %d: give it either nodes or percent", i+1)
		case s.Nodes < 0 || s.Percent < 0 || s.Percent > 100 || s.Percent != s.Percent:
			return nil, invalid("step %d: nodes is a number from 1, percent one up to 100", i+1)
		case !(s.Bake >= 0 && s.Bake <= maxBake):
			return nil, invalid("step %d: bake is in seconds, from 0 to %d", i+1, maxBake)
		case i > 0 && s.Percent > 0 && steps[i-1].Percent >= s.Percent, i > 0 && s.Nodes > 0 && steps[i-1].Nodes >= s.Nodes:
			return nil, invalid("step %d: it reaches no further than the one before", i+1)
		}
	}
	if last := steps[len(steps)-1]; last.Percent != 100 {
		steps = append(steps, api.NewStep{Percent: 100, Bake: last.Bake})
	}
	return steps, nil
}
