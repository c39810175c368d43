package gate

import (
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/binnacle-project/binnacle/api"
)

// quality is how the requests of a simulated side turn out, as shares.
type quality struct {
	errors, s401, s404, client, slow50, slow99 float64
}

var endpointNames = []string{"GET /a", "GET /b", "POST /c", "GET /d/{id}"}

// endpointShare is how the traffic is spread.
var endpointShare = []float64{0.6, 0.25, 0.1, 0.05}

// simGate plays one gate: looks at traffic that reaches perLook requests on
// each side between two looks.
type simGate struct {
	rnd     *rand.Rand
	state   State
	all     Sides
	ends    map[string]*Sides
	history *History
}

func newSimGate(seed uint64, base quality, baseline float64, before bool) *simGate {
	g := &simGate{rnd: rand.New(rand.NewPCG(seed, 7)), ends: map[string]*Sides{}}
	g.state.Before = before
	g.state.Slow = map[string][2]float64{"": {0.1, 1}}
	for _, n := range endpointNames {
		g.ends[n] = &Sides{}
		g.state.Slow[n] = [2]float64{0.1, 1}
	}
	if baseline > 0 {
		g.add(base, baseline, func(s *Sides) *Tally { return &s.Baseline })
	}
	return g
}

// add serves n requests of a quality on one side.
func (g *simGate) add(q quality, n float64, side func(*Sides) *Tally) {
	left, share := int(n), 1.0
	for i, name := range endpointNames {
		requests := left
		if i < len(endpointNames)-1 {
			requests = int(g.binomial(left, endpointShare[i]/share))
		}
		left, share = left-requests, share-endpointShare[i]
		t := Tally{Requests: float64(requests)}
		t.Errors = g.binomial(requests, q.errors)
		t.Status = map[string]float64{"401": g.binomial(requests, q.s401), "404": g.binomial(requests, q.s404)}
		t.Client = g.binomial(requests, q.client) + t.Status["401"] + t.Status["404"]
		t.Slow50, t.Slow99 = g.binomial(requests, q.slow50), g.binomial(requests, q.slow99)
		for _, to := range []*Tally{side(&g.all), side(g.ends[name])} {
			to.Requests += t.Requests
			to.Errors += t.Errors
			to.Client += t.Client
			to.Slow50 += t.Slow50
			to.Slow99 += t.Slow99
			if to.Status == nil {
				to.Status = map[string]float64{}
			}
			for s, c := range t.Status {
				to.Status[s] += c
			}
		}
	}
}

func (g *simGate) binomial(n int, p float64) float64 {
	if p <= 0 {
		return 0
	}
	if mean := float64(n) * p; n > 5000 {
		return math.Min(float64(n), math.Max(0, math.Round(mean+math.Sqrt(mean*(1-p))*g.rnd.NormFloat64())))
	}
	x := 0
	for i := skip(g.rnd, p); i < n; i += 1 + skip(g.rnd, p) {
		x++
	}
	return float64(x)
}

// skip is the number of failures before a success.
func skip(r *rand.Rand, p float64) int {
	if p >= 1 {
		return 0
	}
	return int(math.Log(1-r.Float64()) / math.Log1p(-p))
}

// Look serves n requests on each side and has the gate look.
func (g *simGate) look(canary, control quality, n float64) api.Verdict {
	g.add(canary, n, func(s *Sides) *Tally { return &s.Canary })
	if !g.state.Before {
		g.add(control, n, func(s *Sides) *Tally { return &s.Control })
	}
	ends := make(map[string]Sides, len(g.ends))
	for name, s := range g.ends {
		ends[name] = *s
	}
	return g.state.Judge(Look{At: time.Unix(0, 0), All: g.all, Endpoints: ends, History: g.history})
}

// usual is traffic as a fleet has it, with errors as given.
func usual(errors float64) quality {
	return quality{errors: errors, s401: 0.02, s404: 0.05, client: 0.01, slow50: 0.15, slow99: 0.004}
}

// outcome of one simulated gate.
type outcome struct{ failed, passed bool }

// bakeLooks is how often a simulated gate looks until each side has 500 requests. The
// test that is then due is made a look later.
const bakeLooks = 25

// play looks up to looks times. A gate ends when it fails, or when it passes at
// the end of the bake or later.
func play(seed uint64, canary, control, before quality, baseline float64, noControl bool, looks int) (outcome, string) {
	g := newSimGate(seed, before, baseline, noControl)
	for i := 1; i <= looks; i++ {
		v := g.look(canary, control, 500/bakeLooks)
		if v.Result == api.VerdictFail {
			return outcome{failed: true}, v.Reason
		}
		if i >= bakeLooks && v.Result == api.VerdictPass {
			return outcome{passed: true}, ""
		}
	}
	return outcome{}, ""
}

// simulation is how many gates to play, and with which seeds: with
// BINNACLE_LOAD=full all of them with fresh seeds, which it prints.
func simulation(t *testing.T, full, reduced int) (gates int, seed uint64) {
	if os.Getenv("BINNACLE_LOAD") != "full" {
		return reduced, 7
	}
	seed = uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	return full, seed
}

// TestFalseFailures plays gates whose canary is as good as the control, each
// looked at up to 100 times until 2,000 requests on each side, pass or not:
// whatever the share of errors, and whatever happens to both sides at the step,
// at most 1 % may fail.
func TestFalseFailures(t *testing.T) {
	gates, seed := simulation(t, 10_000, 600)
	kinds := []struct {
		name           string
		before, during float64
		baseline       float64
		noControl      bool
		passAtLeast    float64
	}{
		{"no errors", 0, 0, 5000, false, 0.9},
		{"0.1 % errors", 0.001, 0.001, 5000, false, 0.9},
		{"0.5 % errors", 0.005, 0.005, 5000, false, 0.9},
		{"1 % errors", 0.01, 0.01, 5000, false, 0.9},
		{"10 % errors", 0.1, 0.1, 5000, false, 0},
		{"1 % errors, nothing before", 0.01, 0.01, 0, false, 0.9},
		{"0.1 % errors, no control", 0.001, 0.001, 5000, true, 0.9},
		{"1 % errors, no control", 0.01, 0.01, 5000, true, 0.9},
		{"both rise from 0 to 0.57 %", 0, 0.0057, 5000, false, 0.9},
		{"both rise from 0 to 2 %", 0, 0.02, 5000, false, 0},
		{"both rise from 0.1 to 1 %", 0.001, 0.01, 5000, false, 0.9},
		{"both rise from 1 to 10 %", 0.01, 0.1, 5000, false, 0},
	}
	total, totalFailed := 0, 0
	for k, kind := range kinds {
		n, failed, passed := gates/len(kinds)+1, 0, 0
		if os.Getenv("BINNACLE_LOAD") == "full" && strings.HasPrefix(kind.name, "both rise from 0 to 0.57") {
			n = gates // the worst case of the exact test: 0.917 % of its own
		}
		for i := range n {
			o, _ := play(seed+uint64(k*1_000_000+i), usual(kind.during), usual(kind.during), usual(kind.before), kind.baseline, kind.noControl, 4*bakeLooks)
			if o.failed {
				failed++
			}
			if o.passed {
				passed++
			}
		}
		total, totalFailed = total+n, totalFailed+failed
		t.Logf("%-27s %5d gates: %2d failed (%.2f %%), %.1f %% passed, the rest inconclusive", kind.name, n, failed, 100*float64(failed)/float64(n), 100*float64(passed)/float64(n))
		// Three standard deviations and a half of what is allowed.
		if most := gateBudget*float64(n) + 3.5*math.Sqrt(gateBudget*float64(n)); float64(failed) > most {
			t.Errorf("%s: %d of %d failed; want at most %.0f", kind.name, failed, n, most)
		}
		if least := kind.passAtLeast * float64(n); float64(passed) < least-3*math.Sqrt(least*(1-kind.passAtLeast)) {
			t.Errorf("%s: %d of %d passed; want %.0f %%", kind.name, passed, n, 100*kind.passAtLeast)
		}
	}
	t.Logf("together %d gates: %d failed (%.2f %%)", total, totalFailed, 100*float64(totalFailed)/float64(total))
	if most := gateBudget * float64(total); float64(totalFailed) > most+3.5*math.Sqrt(most) {
		t.Errorf("%d of %d gates failed falsely; want at most 1 %%", totalFailed, total)
	}
}

// TestPower adds two percentage points of errors to the canary. Whatever the
// usual errors, at most 5 % of gates pass; how many fail at 500 requests on each
// side is what the exact test reaches (TestExactPower), less what the baseline
// of 5,000 requests tells falsely about the usual share.
func TestPower(t *testing.T) {
	n, seed := simulation(t, 2000, 60)
	for k, tc := range []struct {
		base, baseline float64
		noControl      bool
		failed         float64
	}{
		{0, 5000, false, 0.95},
		{0.0001, 5000, false, 0.92},
		{0.0005, 5000, false, 0.85},
		{0.001, 5000, false, 0.82},
		{0.002, 5000, false, 0.75},
		{0.005, 5000, false, 0.58},
		{0.01, 5000, false, 0.40},
		{0.02, 5000, false, 0.22},
		{0.05, 5000, false, 0.05},
		{0, 0, false, 0.85},
		{0, 5000, true, 0.95},
		{0.01, 5000, true, 0.70},
	} {
		name := fmt.Sprintf("%.2f %% and 2 more, baseline %.0f, control %t", 100*tc.base, tc.baseline, !tc.noControl)
		failed, passed, later, laterPassed := 0, 0, 0, 0
		for i := range n {
			s := seed + uint64((k+100)*1_000_000+i)
			o, _ := play(s, usual(tc.base+0.02), usual(tc.base), usual(tc.base), tc.baseline, tc.noControl, bakeLooks+1)
			if o.failed {
				failed++
			}
			if o.passed {
				passed++
			}
			if i < n/4 {
				o, _ := play(s, usual(tc.base+0.02), usual(tc.base), usual(tc.base), tc.baseline, tc.noControl, 4*bakeLooks)
				if o.failed {
					later++
				}
				if o.passed {
					laterPassed++
				}
			}
		}
		share := func(k, n int) float64 { return 100 * float64(k) / float64(n) }
		t.Logf("errors %s: at 500 requests failed %.1f %%, held %.1f %%, passed %.2f %%; at 2,000 failed %.1f %%, passed %.1f %%", name,
			share(failed, n), share(n-failed-passed, n), share(passed, n), share(later, n/4), share(laterPassed, n/4))
		if most := 0.05 * float64(n); float64(passed) > most+3*math.Sqrt(most) {
			t.Errorf("%s: %d of %d passed; want at most 5 %%", name, passed, n)
		}
		if least := tc.failed * float64(n); float64(failed) < least-3*math.Sqrt(least*(1-tc.failed)) {
			t.Errorf("%s: %d of %d failed; want %.0f %%", name, failed, n, 100*tc.failed)
		}
	}
}
