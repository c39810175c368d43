package gate

import (
	"math"
	"math/rand/v2"
	"os"
	"testing"

	"github.com/binnacle-project/binnacle/api"
)

// steady is a history of spells with equal requests, whose shares of errors are as
// given, one after the other.
func steady(rnd *rand.Rand, spells int, requests float64, share func(spell int) float64) *History {
	h := &History{}
	g := simGate{rnd: rnd}
	for i := range spells {
		h.Spells = append(h.Spells, Counts{requests, g.binomial(int(requests), share(i))})
	}
	return h
}

// TestKnownPower computes what the test at 500 requests reaches by six hours at 10
// requests/s of the group, and what it risks: over the shares that were usual, and
// at worst. For comparison, the test without a history.
func TestKnownPower(t *testing.T) {
	shares := []float64{0, 0.001, 0.005}
	if os.Getenv("BINNACLE_LOAD") == "full" {
		shares = []float64{0, 0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.02}
	}
	rnd := rand.New(rand.NewPCG(1, 2))
	for _, p := range shares {
		h := steady(rnd, 180, 1200, func(int) float64 { return p })
		k := &known{h, Counts{6000, math.Round(6000 * p)}}
		alpha := milestones[0].alpha(k.share())
		for _, m := range []int{500, 2000} {
			got, without := bestTest(500, m, alpha, expected{share: k.share(), known: k}), mostPowerful(500, m, []float64{p}, promise{alpha: alpha})
			usual := powerOf(got.from, 500, m, p, p)
			worst := 0.0
			for q := 0.00005; q < 0.5; q *= 1.01 {
				worst = max(worst, powerOf(got.from, 500, m, q, q))
			}
			power, before := powerOf(got.from, 500, m, p+exactEffect, p), powerOf(without.from, 500, m, p+exactEffect, p)
			bound := 1.0
			if m == 500 {
				bound = bestPossible(500, m, p, promise{gateBudget, maxCeiling * gateBudget, k})
			}
			t.Logf("control %4d, errors %.2f %%: finds %.1f %% (any test with 1 and 5 %% at most %.1f %%), without a history %.1f %%; fails falsely %.3f %%, at worst %.2f %%", m, 100*p, 100*power, 100*bound, 100*before, 100*usual, 100*worst)
			if power > bound+1e-6 {
				t.Errorf("control %d, errors %g: power %.4f is over the bound %.4f", m, p, power, bound)
			}
			if usual > alpha*1.01 || worst > maxCeiling*alpha*1.002 {
				t.Errorf("control %d, errors %g: fails falsely %.5f, at worst %.5f; want at most %g and %g", m, p, usual, worst, alpha, maxCeiling*alpha)
			}
			if power < before-0.02 {
				t.Errorf("control %d, errors %g: power %.3f; want no less than without a history, %.3f", m, p, power, before)
			}
		}
	}
}

// TestUsual holds what must be true of every history: the spread is a distribution, and
// the test that goes by it keeps its promise, computed from its thresholds alone.
func TestUsual(t *testing.T) {
	rnd := rand.New(rand.NewPCG(3, 4))
	for i := range 40 {
		base, burst := math.Pow(10, -4*rnd.Float64()-1.5), rnd.Float64()*rnd.Float64()
		often, trend := rnd.Float64()*rnd.Float64(), rnd.Float64()
		h := steady(rnd, fewSpells+rnd.IntN(150), math.Round(200+3000*rnd.Float64()), func(spell int) float64 {
			if rnd.Float64() < often {
				return burst
			}
			return base * (1 + trend*float64(spell)/30)
		})
		k := &known{h, Counts{5000, math.Round(5000 * base)}}
		if size := h.size(); !(size > 0) || size > h.Sum().Requests+1e-6 {
			t.Errorf("history %d: worth %g requests; want at most the %g there were", i, size, h.Sum().Requests)
		}
		if e := h.Evidence(k.recent); e.Used && e.Note != "" || !e.Used && e.Note == "" || e.Worst < h.Sum().Share() {
			t.Errorf("history %d: evidence %+v", i, e)
		}
		share := k.share()
		if math.IsNaN(share) || share < 0 || share > 1 || 500*(share+exactEffect) > maxKnownBad {
			if !(share >= 0 && share <= 1) {
				t.Errorf("history %d: %g of errors to expect", i, share)
			}
			continue
		}
		alpha := milestones[0].alpha(share)
		table := newTable(500, 520, []float64{share})
		weights, high := k.spread(table.shares)
		got := bestTest(500, 520, alpha, expected{share: share, known: k})
		all, mean, worst, worstUsual := 0.0, 0.0, 0.0, 0.0
		for i, q := range table.shares {
			risk := powerOf(got.from, 500, 520, q, q)
			all, mean, worst = all+weights[i], mean+weights[i]*risk, max(worst, risk)
			if q <= high {
				worstUsual = max(worstUsual, risk)
			}
		}
		if math.Abs(all-1) > 1e-9 || mean > alpha*1.001 || worstUsual > alpha*1.001 || worst > maxCeiling*alpha*1.001 || worst > got.worst*1.001 {
			t.Errorf("history %d: weights %g, fails falsely %.5f on average, %.5f at usual shares and %.5f at worst, told %.5f; want 1, %g, %g, %g", i, all, mean, worstUsual, worst, got.worst, alpha, alpha, maxCeiling*alpha)
		}
		for y, k := range got.from {
			if k <= 500 && k*520 <= y*500 || y > 0 && k < got.from[y-1] {
				t.Errorf("history %d: %d bad of the canary fail with %d of the control, %v", i, k, y, got.from)
			}
		}
	}
}

// TestDispersion finds how far spells are apart, and what was going on just before.
func TestDispersion(t *testing.T) {
	rnd := rand.New(rand.NewPCG(5, 6))
	same := steady(rnd, 180, 1000, func(int) float64 { return 0.01 })
	if size := same.size(); size < 20_000 {
		t.Errorf("spells that are the same are worth %.0f requests; want most of 180,000", size)
	}
	apart := steady(rnd, 180, 1000, func(spell int) float64 { return 0.01 + 0.009*math.Sin(float64(spell)/20) })
	// Shares of mean 0.01 and deviation 0.0064: 0.01*0.99/0.0064^2 = 242.
	if size := apart.size(); size < 150 || size > 400 {
		t.Errorf("spells apart are worth %.0f requests; want some 242", size)
	}
	for _, tc := range []struct {
		h      *History
		recent Counts
		want   bool
	}{{same, Counts{6000, 60}, false}, {same, Counts{6000, 95}, true}, {apart, Counts{6000, 95}, false}, {same, Counts{}, false}} {
		if got := (&known{tc.h, tc.recent}).departed(); got != tc.want {
			t.Errorf("departed(worth %.0f, %v) = %t; want %t", tc.h.size(), tc.recent, got, tc.want)
		}
	}
	if one := (&History{Spells: []Counts{{10, 10}}}); one.Enough() || one.worst() != 1 {
		t.Errorf("one spell of ten requests is enough: %t, worst %g", one.Enough(), one.worst())
	}
}

// TestMilestoneWaits has a backend fail both sides from the look at which the canary
// reaches 500 requests, which the control shows a look later; and a canary that fails
// alone.
func TestMilestoneWaits(t *testing.T) {
	for _, tc := range []struct {
		name  string
		later float64 // errors of the control at the next look
		want  api.VerdictResult
	}{{"both", 18, api.VerdictInconclusive}, {"the canary alone", 0, api.VerdictFail}} {
		g := State{}
		all := Sides{Baseline: Tally{Requests: 5000, Errors: 5}}
		look1 := func(canary, canaryBad, control, controlBad float64) api.Verdict {
			all.Canary.Requests, all.Canary.Errors = canary, canaryBad
			all.Control.Requests, all.Control.Errors = control, controlBad
			return g.Judge(Look{All: all})
		}
		look1(480, 0, 480, 0)
		if v := look1(500, 18, 500, 0); v.Result == api.VerdictFail {
			t.Errorf("%s: fails at the milestone: %s", tc.name, v.Reason)
		}
		v := look1(520, 36, 520, tc.later)
		if v.Result != tc.want {
			t.Errorf("%s: %s: %s; want %s", tc.name, v.Result, v.Reason, tc.want)
		}
		if x := v.Comparisons[0].Exact; x == nil || x.Canary.Requests != 500 || x.Control.Requests != 520 {
			t.Errorf("%s: the test has %+v; want 500 requests of the canary, and 520 of the control", tc.name, x)
		}
	}
}
