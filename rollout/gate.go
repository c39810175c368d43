package rollout

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/binnacle-project/binnacle/api"
)

// A gate fails when one of its comparisons finds the canary worse, passes when
// there are enough requests and the canary is shown to be no worse by much, and
// is inconclusive otherwise. Failing and passing are two tests of their own:
//
//   - A failure needs an e-value over 1/alpha (sequential.go). The alphas of all
//     comparisons add up to gateBudget, so that a gate whose canary is as good
//     as its control fails with at most that probability, at any number of looks.
//   - A pass needs, beside enough requests, that the upper bound of the
//     difference is under a margin: a canary that is worse by the margin passes
//     in 2.5 % of looks, whatever the traffic. Thin traffic is not good health.
const gateBudget = 0.01

// Shares of the budget. What operators ask for first has most of it.
const (
	budgetErrors    = 0.002  // against the same minutes
	budgetBaseline  = 0.004  // against the same minutes and those before the step
	budgetStatus    = 0.0005 // each of four classes of client errors
	budgetSlow      = 0.0005 // each of two quantiles
	budgetEndpoints = 0.001  // all endpoints together
)

const (
	// enoughRequests on each side are the least for a pass: without a single
	// error, 190 show that a share is under 2 %.
	enoughRequests = 200
	// fewRequests are the least that a comparison looks at.
	fewRequests = 20
	// The minutes before the step add to the evidence only while the control of
	// the same minutes has not become worse than they were, by an e-value of
	// changedRatio, and when the same minutes alone reach steadyRatio: if both
	// sides have become worse since, a failure is unlikely all the same.
	changedRatio = 3
	steadyRatio  = 5
	// suspicion keeps a gate from passing: a tenth of what a failure needs.
	suspicion = 10
	// maxGateEndpoints bounds the endpoints that are compared, the busiest
	// first, and keptComparisons those of endpoints that are kept as evidence.
	maxGateEndpoints = 100
	keptComparisons  = 20
)

// The kinds of comparisons.
const (
	whatErrors    = "errors"
	what401       = "client_errors_401"
	what403       = "client_errors_403"
	what404       = "client_errors_404"
	whatClient    = "client_errors_other"
	whatAnyClient = "client_errors"
	whatSlow50    = "slower_than_p50"
	whatSlow99    = "slower_than_p99"
)

// limits are what a difference must be to count: effect is the least that can
// fail a gate, in points of one, margin the most that a pass may leave open.
type limits struct{ effect, margin float64 }

func limitsOf(what string) limits {
	switch what {
	case whatErrors:
		return limits{0.005, 0.02}
	case whatSlow50:
		return limits{0.10, 0.25}
	case whatSlow99:
		return limits{0.02, 0.05}
	}
	return limits{0.01, 0.05}
}

// tally is what one side served, counted from the begin of the window on.
// Requests refused by the fallback rate are in none of the numbers.
type tally struct {
	Requests, Errors, Client float64
	// Status has client errors by status: 401, 403, 404.
	Status map[string]float64
	// Slow50 and Slow99 are requests over the thresholds.
	Slow50, Slow99 float64
}

func (t tally) of(what string) counts {
	c := counts{Requests: t.Requests}
	switch what {
	case whatErrors:
		c.Bad = t.Errors
	case what401, what403, what404:
		c.Bad = t.Status[strings.TrimPrefix(what, "client_errors_")]
	case whatClient:
		c.Bad = t.Client
		for _, n := range t.Status {
			c.Bad -= n
		}
	case whatAnyClient:
		c.Bad = t.Client
	case whatSlow50:
		c.Bad = t.Slow50
	case whatSlow99:
		c.Bad = t.Slow99
	}
	// Statuses come from other series, which may be a moment ahead.
	c.Bad = min(max(c.Bad, 0), c.Requests)
	return c
}

// sides are both sides of a comparison. Baseline is what the group served
// before the step.
type sides struct{ Canary, Control, Baseline tally }

// look is one look at the evidence.
type look struct {
	At  time.Time
	All sides
	// Endpoints by "GET /users/{id}".
	Endpoints map[string]sides
}

// gateState is what a gate remembers between looks. It is stored with the
// rollout, so that a manager that starts anew goes on where it was; a look that
// was lost then only makes the next one wider.
type gateState struct {
	Looks int `json:"looks"`
	// Before is true when the minutes before the step are the control.
	Before bool `json:"before,omitempty"`
	// Slow has the thresholds of latency in seconds, p50 and p99, by endpoint;
	// "" is all traffic.
	Slow map[string][2]float64 `json:"slow,omitempty"`
	Runs []*run                `json:"runs,omitempty"`
	// Endpoints in the order in which they had enough requests to be compared.
	Endpoints []string `json:"endpoints,omitempty"`
}

// run is one comparison through all looks.
type run struct {
	What     string  `json:"what"`
	Endpoint string  `json:"endpoint,omitempty"`
	Alpha    float64 `json:"alpha"`
	Ratios   ratios  `json:"ratios"`
	// Begin is what had come when the comparison began, Canary and Control what
	// had come at its last look that counted.
	Begin   [2]counts `json:"begin"`
	Canary  counts    `json:"canary"`
	Control counts    `json:"control"`
}

// judge takes one look into the state and gives the verdict on all so far. It is
// a function of its arguments alone; it changes g.
func (g *gateState) judge(l look) api.Verdict {
	g.Looks++
	for _, what := range []string{whatErrors, what401, what403, what404, whatClient} {
		g.take(what, "", l.All)
	}
	g.takeSlow("", l.All)
	for _, name := range g.admit(l.Endpoints) {
		s := l.Endpoints[name]
		g.take(whatErrors, name, s)
		g.take(whatAnyClient, name, s)
		g.takeSlow(name, s)
	}

	v := api.Verdict{At: l.At, Looks: g.Looks, Budget: gateBudget, Control: controlNodes, Test: testName}
	if g.Before {
		v.Control, v.Test = controlBefore, testBefore
	}
	all := make([]api.Comparison, 0, len(g.Runs))
	for _, r := range g.Runs {
		s := l.All
		if r.Endpoint != "" {
			s = l.Endpoints[r.Endpoint]
		}
		all = append(all, g.compare(r, s))
	}
	v.Result, v.Reason = conclude(all, l.All, g.Before)
	v.Comparisons, v.LeftOut = keep(all)
	return v
}

const (
	controlNodes  = "nodes"
	controlBefore = "before"
	testName      = "mixture of sequential likelihood ratios over relative risk, given the number of bad requests at each look (e-value, valid at any number of looks)"
	testBefore    = "mixture of likelihood ratios over relative risk, given the number of bad requests, against the same nodes before the step (e-value at each look)"
)

// take adds a look to one comparison, which begins with the first.
func (g *gateState) take(what, endpoint string, s sides) {
	g.takeFrom(what, endpoint, s, [2]counts{})
}

// takeSlow compares latency, once there is a threshold. A threshold that was
// found during the bake was chosen by what had come until then, so that only
// what comes later counts.
func (g *gateState) takeSlow(endpoint string, s sides) {
	if _, ok := g.Slow[endpoint]; !ok {
		return
	}
	for _, what := range []string{whatSlow50, whatSlow99} {
		var begin [2]counts
		if g.find(what, endpoint) == nil && s.Baseline.Requests < enoughRequests {
			begin = [2]counts{s.Canary.of(what), s.Control.of(what)}
		}
		g.takeFrom(what, endpoint, s, begin)
	}
}

func (g *gateState) takeFrom(what, endpoint string, s sides, begin [2]counts) {
	r := g.find(what, endpoint)
	if r == nil {
		r = &run{What: what, Endpoint: endpoint, Alpha: g.alpha(what, endpoint), Begin: begin, Canary: begin[0], Control: begin[1]}
		g.Runs = append(g.Runs, r)
	}
	if g.Before {
		r.Canary = s.Canary.of(what)
		return
	}
	canary, control := s.Canary.of(what), s.Control.of(what)
	dx, dy := canary.since(r.Canary), control.since(r.Control)
	if dx.Requests == 0 || dy.Requests == 0 {
		return // the next look takes both sides of these minutes together
	}
	r.Ratios.add(dx, dy)
	r.Canary, r.Control = canary, control
}

func (g *gateState) find(what, endpoint string) *run {
	for _, r := range g.Runs {
		if r.What == what && r.Endpoint == endpoint {
			return r
		}
	}
	return nil
}

// alpha is a comparison's share of the budget. The i-th endpoint to be compared
// has 1/(i(i+1)) of what is for endpoints, which adds up to all of it however
// many there are.
func (g *gateState) alpha(what, endpoint string) float64 {
	if endpoint != "" {
		i := float64(slices.Index(g.Endpoints, endpoint) + 1)
		share := budgetEndpoints / (i * (i + 1))
		if what == whatErrors {
			return share * 0.4
		}
		return share * 0.2
	}
	switch what {
	case whatErrors:
		return budgetErrors
	case whatSlow50, whatSlow99:
		return budgetSlow
	}
	return budgetStatus
}

// admit returns the endpoints to compare, in their order. The busiest of those
// that have enough requests by now come next; who is in stays in.
func (g *gateState) admit(all map[string]sides) []string {
	var fresh []string
	for name, s := range all {
		control := s.Control.Requests
		if g.Before {
			control = s.Baseline.Requests
		}
		if s.Canary.Requests >= fewRequests && control >= fewRequests && !slices.Contains(g.Endpoints, name) {
			fresh = append(fresh, name)
		}
	}
	slices.SortFunc(fresh, func(a, b string) int {
		return cmp.Or(cmp.Compare(all[b].Canary.Requests, all[a].Canary.Requests), strings.Compare(a, b))
	})
	fresh = fresh[:min(len(fresh), maxGateEndpoints-len(g.Endpoints))]
	g.Endpoints = append(g.Endpoints, fresh...)
	return g.Endpoints
}

// compare is the state of one comparison.
func (g *gateState) compare(r *run, s sides) api.Comparison {
	canary := r.Canary.since(r.Begin[0])
	control := r.Control.since(r.Begin[1])
	baseline := s.Baseline.of(r.What)
	c := api.Comparison{What: r.What, Endpoint: r.Endpoint, Needed: 1 / r.Alpha, Result: api.VerdictPass}
	if strings.HasPrefix(r.What, "slower") {
		c.Threshold = g.Slow[r.Endpoint][0]
		if r.What == whatSlow99 {
			c.Threshold = g.Slow[r.Endpoint][1]
		}
	}
	e := r.Ratios.log()
	if g.Before {
		control = baseline
		e = once(canary, control)
	}
	c.Canary, c.Control = api.Sample(canary), api.Sample(control)
	lim := limitsOf(r.What)
	enough := canary.Requests >= fewRequests && control.Requests >= fewRequests
	worse := enough && canary.share()-control.share() >= lim.effect
	failed := worse && e >= math.Log(c.Needed)
	if r.What == whatErrors && r.Endpoint == "" && !g.Before && baseline.Requests > 0 {
		c.Baseline = (*api.Sample)(&baseline)
		pooled := once(canary, control.plus(baseline))
		c.Note = fmt.Sprintf("with the minutes before the step: evidence %.3g of %.0f", math.Exp(min(pooled, 700)), 1/budgetBaseline)
		if worse && pooled >= math.Log(1/budgetBaseline) && e >= math.Log(steadyRatio) && once(control, baseline) < math.Log(changedRatio) {
			failed = true
		}
	}
	c.Evidence = math.Exp(min(e, 700))
	c.Upper = upperDifference(canary, control)
	switch {
	case failed:
		c.Result = api.VerdictFail
	case r.Endpoint == "" && (canary.Requests < enoughRequests || control.Requests < enoughRequests):
		c.Result = api.VerdictInconclusive
	case worse && c.Evidence*suspicion >= c.Needed:
		c.Result = api.VerdictInconclusive
		c.Note = strings.TrimPrefix(c.Note+"; it looks worse, but not for certain", "; ")
	case canary.Requests >= enoughRequests && control.Requests >= enoughRequests && c.Upper > margin(lim, r.Endpoint, control.share()):
		c.Result = api.VerdictInconclusive
	}
	return c
}

// margin is the most that the upper bound may leave open. Where bad answers are
// common the difference that matters is larger: half of them, but never for the
// errors of all traffic.
func margin(l limits, endpoint string, control float64) float64 {
	if l == limitsOf(whatErrors) && endpoint == "" {
		return l.margin
	}
	return max(l.margin, control/2)
}

// conclude sums the comparisons up.
func conclude(all []api.Comparison, s sides, before bool) (api.VerdictResult, string) {
	control, name := s.Control.Requests, "control"
	if before {
		control, name = s.Baseline.Requests, "the minutes before the step"
	}
	var failed, open []api.Comparison
	for _, c := range all {
		switch c.Result {
		case api.VerdictFail:
			failed = append(failed, c)
		case api.VerdictInconclusive:
			open = append(open, c)
		}
	}
	strongest := func(cs []api.Comparison) api.Comparison {
		return slices.MaxFunc(cs, func(a, b api.Comparison) int { return cmp.Compare(a.Evidence/a.Needed, b.Evidence/b.Needed) })
	}
	switch {
	case len(failed) > 0:
		reason := describe(strongest(failed))
		if len(failed) > 1 {
			reason += fmt.Sprintf("; %d more comparisons fail", len(failed)-1)
		}
		return api.VerdictFail, reason
	case s.Canary.Requests < enoughRequests || control < enoughRequests:
		return api.VerdictInconclusive, fmt.Sprintf("too few requests: %.0f on the canary, %.0f on %s; %d on each side are the least", s.Canary.Requests, control, name, enoughRequests)
	case len(open) > 0:
		return api.VerdictInconclusive, "not shown to be as good: " + describe(strongest(open))
	}
	return api.VerdictPass, fmt.Sprintf("%d comparisons over %.0f requests on the canary and %.0f on %s found nothing worse", len(all), s.Canary.Requests, control, name)
}

// describe says one comparison in words.
func describe(c api.Comparison) string {
	what := map[string]string{
		whatErrors: "errors", what401: "answers 401", what403: "answers 403", what404: "answers 404",
		whatClient: "other client errors", whatAnyClient: "client errors",
		whatSlow50: "slow requests (over the p50)", whatSlow99: "slow requests (over the p99)",
	}[c.What]
	if c.Threshold > 0 {
		what += fmt.Sprintf(", slower than %.0f ms", c.Threshold*1e3)
	}
	where := ""
	if c.Endpoint != "" {
		where = " on " + c.Endpoint
	}
	return fmt.Sprintf("%s%s: %s of %.0f on the canary, %s of %.0f on the control", what, where,
		percent(counts(c.Canary)), c.Canary.Requests, percent(counts(c.Control)), c.Control.Requests)
}

func percent(c counts) string { return fmt.Sprintf("%.3g %%", 100*c.share()) }

// keep returns the comparisons of all traffic and, of those of endpoints, the
// ones with the strongest evidence.
func keep(all []api.Comparison) (kept []api.Comparison, leftOut int) {
	var endpoints []api.Comparison
	for _, c := range all {
		if c.Endpoint == "" {
			kept = append(kept, c)
		} else {
			endpoints = append(endpoints, c)
		}
	}
	slices.SortStableFunc(endpoints, func(a, b api.Comparison) int { return cmp.Compare(b.Evidence/b.Needed, a.Evidence/a.Needed) })
	leftOut = max(0, len(endpoints)-keptComparisons)
	return append(kept, endpoints[:len(endpoints)-leftOut]...), leftOut
}
