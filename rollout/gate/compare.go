package gate

import (
	"math"
	"strings"

	"github.com/binnacle-project/binnacle/api"
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

// OfStatus reports whether a kind of comparison is of one status of client errors.
func OfStatus(what string) bool { return strings.HasPrefix(what, whatAnyClient+"_4") }

// Tally is what one side served, counted from the begin of the window on.
// Requests refused by the fallback rate are in none of the numbers.
type Tally struct {
	Requests, Errors, Client float64
	// Status has client errors by status: 401, 403, 404.
	Status map[string]float64
	// Slow50 and Slow99 are requests over the thresholds.
	Slow50, Slow99 float64
}

func (t Tally) of(what string) Counts {
	c := Counts{Requests: t.Requests}
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

// compare is the state of one comparison.
func (g *State) compare(r *run, s Sides) api.Comparison {
	canary := r.Canary.since(r.Begin[0])
	control := r.Control.since(r.Begin[1])
	baseline := s.Baseline.of(r.What)
	c := api.Comparison{What: r.What, Endpoint: r.Endpoint, Needed: 1 / r.Alpha, Result: api.VerdictPass}
	latency := strings.HasPrefix(r.What, "slower")
	if latency {
		c.Threshold = g.Slow[r.Endpoint][0]
		if r.What == whatSlow99 {
			c.Threshold = g.Slow[r.Endpoint][1]
		}
	}
	e := r.calm()
	against := control
	if g.Before {
		control, against = baseline, baseline
	}
	if r.What == whatErrors {
		against = spelled(against, s.Spell)
	}
	if g.Before {
		e = once(canary, against)
		if latency {
			e = min(e, once(r.calmly(canary), control))
		}
	} else if against.Bad > control.Bad {
		e = min(e, once(canary, against))
	}
	c.Canary, c.Control = api.Sample(canary), api.Sample(control)
	lim := limitsOf(r.What)
	enough := canary.Requests >= fewRequests && control.Requests >= fewRequests
	worse := enough && canary.Share()-against.Share() >= lim.effect
	failed := worse && e >= math.Log(c.Needed)
	if !failed && against.Bad > control.Bad && once(canary, control) >= math.Log(c.Needed) {
		c.Note = spellNote(s.Spell, control, g.Before)
	}
	if r.What == whatErrors && r.Endpoint == "" {
		if baseline.Requests > 0 && !g.Before {
			c.Baseline = (*api.Sample)(&baseline)
		}
		if n := len(g.Exact); n > 0 {
			x := g.Exact[n-1]
			c.Note = strings.TrimPrefix(c.Note+"; "+x.note(), "; ")
			c.Exact = x.evidence()
			failed = failed || x.Failed
		}
	}
	c.Evidence = math.Exp(min(e, 700))
	c.Upper = upperDifference(canary, control)
	switch {
	case failed:
		c.Result = api.VerdictFail
	case r.Endpoint == "" && (canary.Requests < EnoughRequests || control.Requests < EnoughRequests):
		c.Result = api.VerdictInconclusive
	case worse && c.Evidence*suspicion >= c.Needed:
		c.Result = api.VerdictInconclusive
		c.Note = strings.TrimPrefix(c.Note+"; it looks worse, but not for certain", "; ")
	case canary.Requests >= EnoughRequests && control.Requests >= EnoughRequests && c.Upper > margin(lim, r.Endpoint, control.Share()):
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
