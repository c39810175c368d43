package rollout

import (
	"fmt"
	"math"
	"math/rand/v2"
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
	rnd      *rand.Rand
	state    gateState
	all      sides
	ends     map[string]*sides
	baseline bool
}

func newSimGate(seed uint64, base quality, baseline float64, before bool) *simGate {
	g := &simGate{rnd: rand.New(rand.NewPCG(seed, 7)), ends: map[string]*sides{}}
	g.state.Before = before
	g.state.Slow = map[string][2]float64{"": {0.1, 1}}
	for _, n := range endpointNames {
		g.ends[n] = &sides{}
		g.state.Slow[n] = [2]float64{0.1, 1}
	}
	if baseline > 0 {
		g.add(base, baseline, func(s *sides) *tally { return &s.Baseline })
	}
	return g
}

// add serves about n requests of a quality on one side.
func (g *simGate) add(q quality, n float64, side func(*sides) *tally) {
	for i, name := range endpointNames {
		requests := g.poisson(n * endpointShare[i])
		t := tally{Requests: float64(requests)}
		t.Errors = g.binomial(requests, q.errors)
		t.Status = map[string]float64{"401": g.binomial(requests, q.s401), "404": g.binomial(requests, q.s404)}
		t.Client = g.binomial(requests, q.client) + t.Status["401"] + t.Status["404"]
		t.Slow50, t.Slow99 = g.binomial(requests, q.slow50), g.binomial(requests, q.slow99)
		for _, to := range []*tally{side(&g.all), side(g.ends[name])} {
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

func (g *simGate) poisson(mean float64) int {
	if mean > 200 {
		return max(0, int(math.Round(mean+math.Sqrt(mean)*g.rnd.NormFloat64())))
	}
	n, p, limit := -1, 1.0, math.Exp(-mean)
	for p > limit || n < 0 {
		n++
		p *= g.rnd.Float64()
	}
	return n
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

// look serves n requests on each side and has the gate look.
func (g *simGate) look(canary, control quality, n float64) api.Verdict {
	g.add(canary, n, func(s *sides) *tally { return &s.Canary })
	if !g.state.Before {
		g.add(control, n, func(s *sides) *tally { return &s.Control })
	}
	ends := make(map[string]sides, len(g.ends))
	for name, s := range g.ends {
		ends[name] = *s
	}
	return g.state.judge(look{At: time.Unix(0, 0), All: g.all, Endpoints: ends})
}

// usual is traffic as a fleet has it, with errors as given.
func usual(errors float64) quality {
	return quality{errors: errors, s401: 0.02, s404: 0.05, client: 0.01, slow50: 0.15, slow99: 0.004}
}

// outcome of one simulated gate.
type outcome struct{ failed, passed bool }

// bakeLooks is how often a simulated gate looks during its bake, at the end of
// which each side has 500 requests.
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

// TestFalseFailures plays 10,000 gates whose canary is as good as the control,
// each looked at up to 100 times until 2,000 requests on each side: whatever
// the share of errors, at most 1 % may fail.
func TestFalseFailures(t *testing.T) {
	gates := 10_000
	if testing.Short() {
		gates = 1000
	}
	kinds := []struct {
		name            string
		before, during  float64
		baseline        float64
		noControl       bool
		sustained       bool // play on after a pass
		allowed         float64
		wantPassAtLeast float64
	}{
		{"no errors", 0, 0, 5000, false, false, gateBudget, 0.9},
		{"0.1 % errors", 0.001, 0.001, 5000, false, false, gateBudget, 0.9},
		{"1 % errors", 0.01, 0.01, 5000, false, false, gateBudget, 0.9},
		{"10 % errors", 0.1, 0.1, 5000, false, false, gateBudget, 0},
		{"no baseline, 1 % errors", 0.01, 0.01, 0, false, false, gateBudget, 0.9},
		{"no control, 0.1 % errors", 0.001, 0.001, 5000, true, false, gateBudget, 0.9},
		{"no control, 1 % errors", 0.01, 0.01, 5000, true, false, gateBudget, 0.9},
	}
	total, totalFailed := 0, 0
	for k, kind := range kinds {
		n, failed, passed := gates/len(kinds)+1, 0, 0
		for i := range n {
			o, _ := play(uint64(k*1_000_000+i), usual(kind.during), usual(kind.during), usual(kind.before), kind.baseline, kind.noControl, 4*bakeLooks)
			if o.failed {
				failed++
			}
			if o.passed {
				passed++
			}
		}
		total, totalFailed = total+n, totalFailed+failed
		t.Logf("%-26s %5d gates: %2d failed (%.2f %%), %.1f %% passed, the rest inconclusive", kind.name, n, failed, 100*float64(failed)/float64(n), 100*float64(passed)/float64(n))
		// Three standard deviations of what is allowed, for so few gates.
		if most := kind.allowed*float64(n) + 3*math.Sqrt(kind.allowed*float64(n)); float64(failed) > most {
			t.Errorf("%s: %d of %d failed; want at most %.0f", kind.name, failed, n, most)
		}
		if float64(passed) < kind.wantPassAtLeast*float64(n) {
			t.Errorf("%s: %d of %d passed; want %.0f %%", kind.name, passed, n, 100*kind.wantPassAtLeast)
		}
	}
	t.Logf("together %d gates: %d failed (%.2f %%)", total, totalFailed, 100*float64(totalFailed)/float64(total))
	if float64(totalFailed) > gateBudget*float64(total) {
		t.Errorf("%d of %d gates failed falsely; want at most 1 %%", totalFailed, total)
	}
}

// TestDrift is the case that the budget does not cover: errors of both sides
// rise between the minutes before the step and the bake.
func TestDrift(t *testing.T) {
	if testing.Short() {
		t.Skip("takes half a minute")
	}
	n := 500
	for k, during := range []float64{0.005, 0.01, 0.02, 0.1} {
		failed := 0
		for i := range n {
			if o, _ := play(uint64(k*1_000_000+i), usual(during), usual(during), usual(0), 5000, false, 4*bakeLooks); o.failed {
				failed++
			}
		}
		t.Logf("errors rise from 0 to %.1f %% on both sides: %.2f %% of gates fail", 100*during, 100*float64(failed)/float64(n))
		if failed > n/12 {
			t.Errorf("drift to %g: %d of %d gates failed; want under 8 %%", during, failed, n)
		}
	}
}

// TestPower adds two percentage points of errors to the canary: at 500 requests
// on each side at least 95 % of gates are caught, which is to say not passed;
// where errors are rare they are failed outright.
func TestPower(t *testing.T) {
	if testing.Short() {
		t.Skip("takes half a minute")
	}
	n := 1000
	for k, tc := range []struct {
		base, baseline float64
		noControl      bool
		failed         float64
	}{
		{0, 5000, false, 0.95},
		{0.0005, 5000, false, 0.9},
		{0.001, 5000, false, 0},
		{0.005, 5000, false, 0},
		{0.01, 5000, false, 0},
		{0.05, 5000, false, 0},
		{0, 0, false, 0},
		{0, 5000, true, 0.95},
		{0.01, 5000, true, 0},
	} {
		name := fmt.Sprintf("%.2f %% and 2 more, baseline %.0f, control %t", 100*tc.base, tc.baseline, !tc.noControl)
		failed, passed, later := 0, 0, 0
		for i := range n {
			seed := uint64((k+100)*1_000_000 + i)
			o, _ := play(seed, usual(tc.base+0.02), usual(tc.base), usual(tc.base), tc.baseline, tc.noControl, bakeLooks)
			if o.failed {
				failed++
			}
			if o.passed {
				passed++
			}
			if i < 500 && !o.failed && !o.passed {
				if o, _ := play(seed, usual(tc.base+0.02), usual(tc.base), usual(tc.base), tc.baseline, tc.noControl, 4*bakeLooks); o.passed {
					later++
				}
			}
		}
		t.Logf("errors %s: failed %.1f %%, held %.1f %%, passed %.2f %% at 500 requests on each side (of those held, passed by 2,000: %d of 500)", name,
			100*float64(failed)/float64(n), 100*float64(n-failed-passed)/float64(n), 100*float64(passed)/float64(n), later)
		if float64(passed) > 0.05*float64(n) {
			t.Errorf("%s: %d of %d passed; want at most 5 %%", name, passed, n)
		}
		if float64(failed) < tc.failed*float64(n) {
			t.Errorf("%s: %d of %d failed; want %.0f %%", name, failed, n, 100*tc.failed)
		}
	}
}
