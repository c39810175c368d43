package gate

import (
	"math"
	"testing"
	"time"

	"github.com/binnacle-project/binnacle/api"
)

func TestWorstSpell(t *testing.T) {
	all := []Spell{
		{Seconds: 30, All: 0.3, Endpoints: map[string]float64{"GET /a": 0.6}},
		{Seconds: 60, All: 0.2},
		{Seconds: 120, All: 0.1},
	}
	f := func(all []Spell, endpoint string, bake time.Duration, want float64) {
		t.Helper()
		if got := WorstSpell(all, endpoint, bake); math.Abs(got-want) > 1e-9 {
			t.Errorf("worstSpell(%q, %v): got %g; want %g", endpoint, bake, got, want)
		}
	}
	f(nil, "", time.Minute, 0)
	f(all, "", 0, 1)
	f(all, "", 15*time.Second, 0.6)
	f(all, "", 30*time.Second, 0.3)
	f(all, "", 59*time.Second, 0.3)
	f(all, "", time.Minute, 0.2)
	f(all, "", time.Hour, 0.1)
	f(all, "GET /a", 20*time.Second, 0.9)
	f(all, "GET /a", time.Minute, 0)
	f(all, "GET /b", time.Second, 0)
}

// TestClumps has a backend that goes away for ten seconds of each minute, as it did
// before the step, and revisions that are as good as the one before or are not.
// The nodes are looked at every two seconds.
func TestClumps(t *testing.T) {
	away := func(second int) bool { return second%60 < 10 }
	spells := []Spell{{Seconds: 30, All: 0.05}, {Seconds: 60, All: 0.03}, {Seconds: 120, All: 0.027}}
	for i := range spells {
		spells[i].Endpoints = map[string]float64{"GET /stock": min(1, 10*spells[i].All)}
	}
	spells[0].Endpoints["GET /stock"] = 0.5
	for _, tc := range []struct {
		name   string
		before bool
		begin  int     // second of the minute at which the bake begins
		lag    int     // seconds by which the control is behind
		rate   float64 // requests/s of one node to /stock
		broken float64 // share of those that fails for good
		want   api.VerdictResult
	}{
		{"good, no control, the backend goes away at once", true, 0, 0, 2.5, 0, api.VerdictPass},
		{"good, no control, the backend goes away later", true, 30, 0, 2.5, 0, api.VerdictPass},
		{"good, the control shows it two seconds later", false, 52, 2, 2.5, 0, api.VerdictPass},
		{"good, busy, the control shows it two seconds later", false, 52, 2, 50, 0, api.VerdictPass},
		{"bad, no control", true, 0, 0, 2.5, 1, api.VerdictFail},
		{"bad", false, 20, 2, 2.5, 1, api.VerdictFail},
	} {
		g := State{Before: tc.before}
		var all, stock Sides
		if tc.before {
			all.Baseline = Tally{Requests: 30_000, Errors: 600}
			stock.Baseline = Tally{Requests: 3000, Errors: 500}
		}
		// Ten nodes, one of them the canary; a tenth of all goes to /stock.
		serve := func(t *Tally, e *Tally, nodes, second int, broken float64) {
			n := tc.rate * float64(nodes)
			bad := n * broken
			if away(second) {
				bad = n
			}
			t.Requests, t.Errors = t.Requests+10*n, t.Errors+bad
			e.Requests, e.Errors = e.Requests+n, e.Errors+bad
		}
		var last api.Verdict
		for second := 1; second <= 120 && last.Result != api.VerdictFail; second++ {
			serve(&all.Canary, &stock.Canary, 1, tc.begin+second, tc.broken)
			if !tc.before && second > tc.lag {
				serve(&all.Control, &stock.Control, 9, tc.begin+second-tc.lag, 0)
			}
			if second%2 == 0 {
				bake := time.Duration(second) * time.Second
				if tc.before {
					all.Spell, stock.Spell = WorstSpell(spells, "", bake), WorstSpell(spells, "GET /stock", bake)
				}
				last = g.Judge(Look{All: all, Endpoints: map[string]Sides{"GET /stock": stock}})
			}
		}
		if last.Result != tc.want {
			t.Errorf("%s: got %s after %d looks: %s; want %s", tc.name, last.Result, last.Looks, last.Reason, tc.want)
		}
		if tc.want == api.VerdictFail && last.Looks > 20 {
			t.Errorf("%s: failed after %d looks; want within 20", tc.name, last.Looks)
		}
	}
}
