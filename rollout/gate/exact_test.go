package gate

import (
	"fmt"
	"math"
	"os"
	"testing"

	"github.com/binnacle-project/binnacle/api"
)

// bestPossible bounds the power of any test of x and y from above, randomized
// ones included, that keeps a promise: for any weights w of shares q, and v of
// the average over what was usual, the power is at most
//
//	sum of w*limit + v*alpha + sum over x, y of max(0, P1(x,y) - sum over q of (w+v*usual)*Pq(x,y)).
//
// It looks for weights with a small bound.
func bestPossible(n, m int, usual float64, pr promise) float64 {
	rows, cols := upperCount(m, usual)+4, upperCount(n, usual+exactEffect)+4
	alt := product(binomials(m, usual, rows), binomials(n, usual+exactEffect, cols))
	rest := 1 - sum(alt) // what is outside the table may all be caught
	var nulls [][]float64
	var shares []float64
	for a := 0.01; a < 0.5; a += 0.004 {
		q := math.Pow(math.Sin(a), 2)
		shares = append(shares, q)
		nulls = append(nulls, product(binomials(m, q, rows), binomials(n, q, cols)))
	}
	limits, mix := pr.limits(shares)
	if mix != nil {
		average := make([]float64, len(alt))
		for i, null := range nulls {
			for c, p := range null {
				average[c] += mix[i] * p
			}
		}
		nulls, limits = append(nulls, average), append(limits, pr.alpha)
	}
	logw := make([]float64, len(nulls))
	for i := range logw {
		logw[i] = math.Log(10 / float64(len(logw)))
	}
	best := 1.0
	for round := range 1500 {
		mixed := make([]float64, len(alt))
		bound := rest
		for i, null := range nulls {
			w := math.Exp(logw[i])
			bound += w * limits[i]
			for c, p := range null {
				mixed[c] += w * p
			}
		}
		for c, p := range alt {
			bound += max(0, p-mixed[c])
		}
		best = min(best, bound)
		step := 1 / (1 + float64(round)/100)
		for i, null := range nulls {
			size := 0.0
			for c, p := range null {
				if alt[c] > mixed[c] {
					size += p
				}
			}
			logw[i] += step * max(-1, min(1, size/limits[i]-1))
		}
	}
	return best
}

func product(rows, cols []float64) []float64 {
	out := make([]float64, 0, len(rows)*len(cols))
	for _, a := range rows {
		for _, b := range cols {
			out = append(out, a*b)
		}
	}
	return out
}

// knownShare is the power of the best test where both sides may only have the
// usual share, which is known: Neyman and Pearson's, randomized at its edge. It
// fails many more gates than alpha when the errors of both sides rise.
func knownShare(n int, usual, alpha float64) float64 {
	cols := upperCount(n, usual+exactEffect) + 10
	null, alt := binomials(n, usual, cols), binomials(n, usual+exactEffect, cols)
	size, power := 0.0, 1-sum(alt)
	for x := cols - 1; x >= 0; x-- {
		if size+null[x] > alpha {
			return power + alt[x]*(alpha-size)/null[x]
		}
		size, power = size+null[x], power+alt[x]
	}
	return power
}

// powerOf is the exact power of a test at a point.
func powerOf(from []int, n, m int, canary, control float64) float64 {
	p := 0.0
	tail := tails(n, canary, n)
	for y, k := range from {
		if k <= n {
			p += binomial(m, y, control) * tail[k]
		}
	}
	return p
}

// TestExactPower compares the power of the test at 500 requests, computed, with
// what any test could have, and holds its risk against its share of the budget
// on a fine grid of errors of both sides.
func TestExactPower(t *testing.T) {
	controls, shares := []int{500}, []float64{0, 0.001}
	if os.Getenv("BINNACLE_LOAD") == "full" {
		controls, shares = []int{500, 2000}, []float64{0, 0.0001, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05}
	}
	for _, m := range controls {
		for _, p := range shares {
			alpha := milestones[0].alpha(p)
			if float64(m)*p > maxExactBad || 500*(p+exactEffect) > maxExactBad {
				t.Logf("control %4d, errors %.2f %%: any test that knows the usual errors, %.1f %%; any that fails no rise of both sides, %.1f %%", m, 100*p,
					100*knownShare(500, p, gateBudget), 100*bestPossible(500, m, p, promise{alpha: gateBudget}))
				continue
			}
			from := mostPowerful(500, m, []float64{p}, promise{alpha: alpha}).from
			worst, at := 0.0, 0.0
			for q := 0.00005; q < 0.5; q *= 1.01 {
				if r := powerOf(from, 500, m, q, q); r > worst {
					worst, at = r, q
				}
			}
			ours, best := powerOf(from, 500, m, p+exactEffect, p), bestPossible(500, m, p, promise{alpha: gateBudget})
			t.Logf("control %4d, errors %.2f %%: any test that knows the usual errors, %.1f %%; any that fails no rise of both sides, %.1f %%; ours %.1f %%, which fails falsely %.3f %% at worst (errors of both %.2f %%)", m, 100*p,
				100*knownShare(500, p, gateBudget), 100*best, 100*ours, 100*worst, 100*at)
			if worst > alpha*1.002 {
				t.Errorf("control %d, errors %g: fails falsely %.5f at %g; want at most %g", m, p, worst, at, alpha)
			}
			if ours < best-0.06 {
				t.Errorf("control %d, errors %g: power %.3f; want near the best possible, %.3f", m, p, ours, best)
			}
		}
	}
}

// TestExactThresholds holds what must be true of every test that is made.
func TestExactThresholds(t *testing.T) {
	for _, tc := range []struct {
		n, m  int
		usual float64
	}{{500, 500, 0}, {700, 523, 0.001}, {500, 4000, 0.002}, {2000, 500, -1}} {
		from := mostPowerful(tc.n, tc.m, usualShares(tc.usual), promise{alpha: 0.0082}).from
		for y, k := range from {
			if k <= tc.n && k*tc.m <= y*tc.n {
				t.Errorf("%+v: %d bad of the canary fail with %d of the control: it is no worse", tc, k, y)
			}
			if y > 0 && k < from[y-1] {
				t.Errorf("%+v: threshold %d with %d bad of the control, %d with one less; want none that falls", tc, k, y, from[y-1])
			}
		}
		worst := 0.0
		for q := 0.00005; q < 0.9; q *= 1.05 {
			worst = max(worst, powerOf(from, tc.n, tc.m, q, q))
		}
		if worst > 0.0082*1.002 {
			t.Errorf("%+v: fails falsely %.5f", tc, worst)
		}
	}
}

// TestConditional compares Fisher's test with sums over all tables.
func TestConditional(t *testing.T) {
	for _, tc := range []struct{ n, m, x, y, want int }{
		{10, 10, 0, 0, 7}, // 7 of 7: C(10,7)/C(20,7) = 0.0015; 6: 0.0054; 5: 0.0163
		{10, 10, 7, 0, 7},
		{500, 5000, 0, 50, 13},
	} {
		got := conditionally(tc.n, tc.m, tc.x, tc.y, 0.005)
		p := func(x int) (p float64) {
			for k := x; k <= min(tc.n, x+tc.y); k++ {
				if x+tc.y-k <= tc.m {
					p += math.Exp(logChoose(tc.n, k) + logChoose(tc.m, x+tc.y-k) - logChoose(tc.n+tc.m, x+tc.y))
				}
			}
			return p
		}
		if p(got) > 0.005 || got > tc.x && p(got-1) <= 0.005 {
			t.Errorf("conditionally(%d, %d, %d, %d) = %d with p %.5f, one less has %.5f", tc.n, tc.m, tc.x, tc.y, got, p(got), p(got-1))
		}
		if got != tc.want {
			t.Errorf("conditionally(%d, %d, %d, %d) = %d; want %d", tc.n, tc.m, tc.x, tc.y, got, tc.want)
		}
	}
}

// TestStallsAreNoFailure has a canary that is as fast as the control, but for two
// looks in which nearly all that it serves is slow; and one that is slow for good.
func TestStallsAreNoFailure(t *testing.T) {
	for _, tc := range []struct {
		name   string
		before bool
		slow   func(look int) float64 // share of slow requests on the canary
		fails  bool
	}{
		{"a stall over two looks", false, func(i int) float64 { return map[bool]float64{true: 0.9}[i == 4 || i == 5] }, false},
		{"a stall, no control", true, func(i int) float64 { return map[bool]float64{true: 0.9}[i == 4 || i == 5] }, false},
		{"slow for good", false, func(int) float64 { return 0.9 }, true},
		{"slow for good, no control", true, func(int) float64 { return 0.9 }, true},
	} {
		g := State{Before: tc.before, Slow: map[string][2]float64{"": {0.1, 1}}}
		s := Sides{Baseline: Tally{Requests: 5000, Slow50: 20, Slow99: 20}}
		failed := 0
		for i := 1; i <= 30 && failed == 0; i++ {
			n := math.Round(80 * tc.slow(i))
			s.Canary.Requests, s.Canary.Slow50, s.Canary.Slow99 = s.Canary.Requests+80, s.Canary.Slow50+n, s.Canary.Slow99+n
			s.Control.Requests += 320
			s.Control.Slow50, s.Control.Slow99 = s.Control.Slow50+1, s.Control.Slow99+1
			if g.Judge(Look{All: s}).Result == api.VerdictFail {
				failed = i
			}
		}
		if (failed > 0) != tc.fails || failed > 4 {
			t.Errorf("%s: failed at look %d; want a failure %t, within four looks", tc.name, failed, tc.fails)
		}
	}
}

func BenchmarkMostPowerful(b *testing.B) {
	for _, p := range []float64{0, 0.001, 0.01, 0.05} {
		b.Run(fmt.Sprintf("errors=%g", p), func(b *testing.B) {
			for b.Loop() {
				mostPowerful(500, 500, []float64{p}, promise{alpha: 0.0082})
			}
		})
	}
}
