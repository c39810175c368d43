package gate

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"github.com/binnacle-project/binnacle/api"
)

// gateBudget is with which probability a gate fails a canary that is as good as its
// control.
const gateBudget = 0.01

// Shares of the budget. The exact tests have most of it (exact.go), for only
// they are short of evidence: e-values grow with every request, so that a tenth
// of a share costs a gate a quarter more traffic.
const (
	budgetErrors    = 0.0001
	budgetStatus    = 0.00005 // each of four classes of client errors
	budgetSlow      = 0.0001  // each of two quantiles
	budgetEndpoints = 0.0002  // all endpoints together
)

const (
	// EnoughRequests on each side are the least for a pass: without a single
	// error, 190 show that a share is under 2 %.
	EnoughRequests = 200
	// fewRequests are the least that a comparison looks at.
	fewRequests = 20
	// suspicion keeps a gate from passing: a tenth of what a failure needs.
	suspicion = 10
	// forgivenLooks is how many looks a comparison leaves out, those with the most
	// evidence against the canary, for what goes wrong comes in clumps. A node that
	// stalls for a second slows all that it serves just then. And nodes export by
	// clocks of their own, so that of an outage of a backend one side shows more at
	// the look in which it begins, and at the next. What is worse is so at every look.
	forgivenLooks = 2
	// maxGateEndpoints bounds the endpoints that are compared, the busiest
	// first.
	maxGateEndpoints = 100
)

// Sides are both sides of a comparison. Baseline is what the group served
// before the step. Spell is a share of errors that the canary must be worse than,
// whatever the control has: where the baseline is the control, that of the worst spell
// as long as the bake; else what the canary's own nodes had in the hours before.
type Sides struct {
	Canary, Control, Baseline Tally
	Spell                     float64
}

// Look is one look at the evidence.
type Look struct {
	At  time.Time
	All Sides
	// Endpoints by "GET /users/{id}".
	Endpoints map[string]Sides
	// History is of the hours before the rollout, nil if it was not read.
	History *History
}

// State is what a gate remembers between looks. It is stored with the
// rollout, so that a manager that starts anew goes on where it was; a look that
// was lost then only makes the next one wider.
type State struct {
	Looks int `json:"looks"`
	// Before is true when the minutes before the step are the control.
	Before bool `json:"before,omitempty"`
	// Slow has the thresholds of latency in seconds, p50 and p99, by endpoint;
	// "" is all traffic.
	Slow map[string][2]float64 `json:"slow,omitempty"`
	Runs []*run                `json:"runs,omitempty"`
	// Milestones is how many were reached, Due the test that the newest asks for,
	// until it is made, and Exact the tests that were.
	Milestones int           `json:"milestones,omitempty"`
	Due        *due          `json:"due,omitempty"`
	Exact      []exactResult `json:"exact,omitempty"`
	// Endpoints in the order in which they had enough requests to be compared.
	Endpoints []string `json:"endpoints,omitempty"`
	// best is bestTest, where nil: gates that are played by the thousand share what
	// it found.
	best func(n, m int, alpha float64, e expected) test
}

// due is a test to be made at the next look, on what the canary had at this one.
type due struct {
	Milestone int    `json:"milestone"`
	Canary    Counts `json:"canary"`
}

// Clone returns a copy that can be changed.
func (g *State) Clone() *State {
	c := *g
	c.Endpoints = slices.Clone(g.Endpoints)
	c.Runs = make([]*run, len(g.Runs))
	for i, r := range g.Runs {
		cp := *r
		c.Runs[i] = &cp
	}
	return &c
}

// Judge takes one look into the state and gives the verdict on all so far. It is
// a function of its arguments alone; it changes g.
func (g *State) Judge(l Look) api.Verdict {
	g.Looks++
	for _, what := range []string{whatErrors, what401, what403, what404, whatClient} {
		g.take(what, "", l.All)
	}
	g.takeExact(l)
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
	if g.Due != nil && v.Result == api.VerdictPass {
		v.Result, v.Reason = api.VerdictInconclusive, "a test is due at the next look"
	}
	v.History = l.History.Evidence(l.All.Baseline.of(whatErrors))
	v.Comparisons, v.LeftOut = keep(all)
	return v
}

// take adds a look to one comparison, which begins with the first.
func (g *State) take(what, endpoint string, s Sides) {
	g.takeFrom(what, endpoint, s, [2]Counts{})
}

// takeSlow compares latency, once there is a threshold. A threshold that was
// found during the bake was chosen by what had come until then, so that only
// what comes later counts.
func (g *State) takeSlow(endpoint string, s Sides) {
	if _, ok := g.Slow[endpoint]; !ok {
		return
	}
	for _, what := range []string{whatSlow50, whatSlow99} {
		var begin [2]Counts
		if g.find(what, endpoint) == nil && s.Baseline.Requests < EnoughRequests {
			begin = [2]Counts{s.Canary.of(what), s.Control.of(what)}
		}
		g.takeFrom(what, endpoint, s, begin)
	}
}

func (g *State) takeFrom(what, endpoint string, s Sides, begin [2]Counts) {
	r := g.find(what, endpoint)
	if r == nil {
		r = &run{What: what, Endpoint: endpoint, Alpha: g.alpha(what, endpoint), Begin: begin, Canary: begin[0], Control: begin[1]}
		g.Runs = append(g.Runs, r)
	}
	if g.Before {
		canary := s.Canary.of(what)
		r.note(pair{Canary: canary.since(r.Canary)})
		r.Canary = canary
		return
	}
	canary, control := s.Canary.of(what), s.Control.of(what)
	dx, dy := canary.since(r.Canary), control.since(r.Control)
	if dx.Requests == 0 || dy.Requests == 0 {
		return // the next look takes both sides of these minutes together
	}
	r.Ratios.add(dx, dy)
	r.note(pair{dx, dy})
	r.Canary, r.Control = canary, control
}

// takeExact makes the exact test. It is due when a look reaches a new milestone;
// one that was jumped over is not made up for. Nodes export by clocks of their own, so
// the control has a look more: what began to fail on both sides just then shows there
// by then.
func (g *State) takeExact(l Look) {
	s := l.All
	if d := g.Due; d != nil {
		g.Due = nil
		e := expected{share: -1}
		if b := s.Baseline; b.Requests >= EnoughRequests {
			e.share = b.Errors / b.Requests
		}
		if k := (&known{l.History, s.Baseline.of(whatErrors)}); l.History.Enough() && !k.departed() {
			e.known, e.share = k, k.share()
		}
		if e.best = g.best; e.best == nil {
			e.best = bestTest
		}
		g.Exact = append(g.Exact, exactly(d.Canary, spelled(s.Control.of(whatErrors), s.Spell), milestones[d.Milestone-1].alpha(e.share), e))
	}
	control := s.Control
	if g.Before {
		control = s.Baseline
	}
	at := milestoneAt(min(s.Canary.Requests, control.Requests))
	if at <= g.Milestones {
		return
	}
	g.Milestones = at
	if g.Before {
		g.Exact = append(g.Exact, exactly(s.Canary.of(whatErrors), spelled(control.of(whatErrors), s.Spell), milestones[at-1].alpha(-1), expected{before: true}))
		return
	}
	g.Due = &due{at, s.Canary.of(whatErrors)}
}

func (g *State) find(what, endpoint string) *run {
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
func (g *State) alpha(what, endpoint string) float64 {
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
func (g *State) admit(all map[string]Sides) []string {
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
