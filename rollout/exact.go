package rollout

import (
	"fmt"
	"math"
	"slices"
)

// At its milestones a gate asks one question more: are the canary's errors two
// points over the control's? The test is the one that answers it best, among
// all that fail at most a share alpha of gates whose sides are equally good,
// whatever the errors of both are by now.
//
// The alternative is a point: the control has the share of errors that was usual
// before the step, the canary two points more. What was usual only says where to
// look; it is no evidence, so errors that rise on both sides, at the step or
// later, fail no gate.
//
// A test of x bad requests of the canary and y of the control is a threshold of x
// for each y, which never falls with y. fillIn lowers thresholds one by one where
// the most power is gained for the least risk, until some share of errors of
// both sides would be failed falsely too often. Risks at different shares are
// weighed as in the least favorable mixture of them, which mostPowerful looks for by
// trying: a share that is nearly used up becomes dearer. Whatever the weights,
// the risk is computed exactly, so they decide about power alone.
//
// Source: Neyman, Pearson (1933) on likelihood ratios; Lehmann, Romano, "Testing
// Statistical Hypotheses", section 3.8, on least favorable mixtures; Barnard,
// "Significance tests for 2x2 tables" (1947) on the unconditional test.

const (
	// exactEffect is the difference that the test is the best for.
	exactEffect = 0.02
	// maxExactBad is the number of bad requests to expect, of one side, beyond
	// which the conditional test is as good, and cheaper.
	maxExactBad = 30
	// exactRounds are the tries to find good weights.
	exactRounds = 24
)

// milestone is a number of requests on each side at which the exact test is
// made, once, and its share of the gate's budget.
type milestone struct{ requests, clean, share float64 }

// The first milestone has nearly all of the budget, for there requests are few. In
// a group without a single error before the step (clean), five bad requests of the
// canary and none of 500 of the control fail, which takes 0.917 %; and later ones
// need hardly any. Other groups leave more for the second.
var milestones = [...]milestone{{500, 0.0092, 0.0082}, {2000, 0.00005, 0.0008}, {8000, 0.00003, 0.0002}, {32000, 0.00002, 0.0001}}

// alpha is the milestone's share, given the share of errors before the step.
func (m milestone) alpha(usual float64) float64 {
	if usual == 0 {
		return m.clean
	}
	return m.share
}

// milestoneAt returns the number of milestones reached with so many requests on
// the side with fewer.
func milestoneAt(requests float64) int {
	n := 0
	for _, m := range milestones {
		if requests >= m.requests {
			n++
		}
	}
	return n
}

// exactResult is the outcome of the test at one milestone, kept as evidence.
type exactResult struct {
	Canary  counts  `json:"canary"`
	Control counts  `json:"control"`
	Alpha   float64 `json:"alpha"`
	// From is the least number of bad requests of the canary that fails, given
	// those of the control.
	From   int  `json:"from"`
	Failed bool `json:"failed,omitempty"`
}

// exactly tests both sides at a milestone. usual is the share of errors before the
// step, below 0 if nothing was served then. fixed says that the control is no
// other than what was before: the test is then the conditional one.
func exactly(canary, control counts, usual, alpha float64, fixed bool) exactResult {
	r := exactResult{Canary: canary, Control: control, Alpha: alpha}
	n, m, y := int(math.Round(canary.Requests)), int(math.Round(control.Requests)), int(math.Round(control.Bad))
	most := max(float64(m)*max(usual, 0), float64(n)*(max(usual, 0)+exactEffect))
	if fixed || most > maxExactBad {
		r.From = conditionally(n, m, int(math.Round(canary.Bad)), y, alpha)
	} else {
		r.From = thresholdAt(mostPowerful(n, m, usualShares(usual), alpha), y, n)
	}
	r.Failed = int(math.Round(canary.Bad)) >= r.From && canary.share()-control.share() >= limitsOf(whatErrors).effect
	return r
}

func thresholdAt(from []int, y, n int) int {
	if y < len(from) {
		return from[y]
	}
	return n + 1
}

func (r exactResult) note() string {
	return fmt.Sprintf("at %.0f and %.0f requests, with %.0f bad ones of the control, %d of the canary fail: it had %.0f",
		r.Canary.Requests, r.Control.Requests, r.Control.Bad, r.From, r.Canary.Bad)
}

// usualShares are the shares of errors of the control that the test is made for. A
// group that served nothing before may have any.
func usualShares(usual float64) []float64 {
	if usual < 0 {
		return []float64{0, 0.002, 0.01}
	}
	return []float64{usual}
}

// mostPowerful returns, for each number of bad requests of the control, the least
// number of the canary's at which the test fails. n and m are the requests of the
// canary and the control. Beyond the end of the slice it never fails.
func mostPowerful(n, m int, usual []float64, alpha float64) []int {
	t := newTable(n, m, usual)
	weights := make([]float64, len(t.shares))
	for i := range weights {
		weights[i] = 1 / float64(len(weights))
	}
	var best []int
	most := -1.0
	for range exactRounds {
		from, power, risks := t.fillIn(weights, alpha)
		if power > most {
			best, most = from, power
		}
		sum := 0.0
		for i, r := range risks {
			weights[i] *= math.Exp(2 * (r/alpha - 1))
			sum += weights[i]
		}
		for i := range weights {
			weights[i] /= sum
		}
	}
	for y, k := range best {
		if k > t.most {
			best[y] = n + 1
		}
	}
	return best
}

// table has what fillIn needs of the distributions of both sides.
type table struct {
	n, m, rows, most int // rows of y; most is the largest threshold looked at
	// gain[y][k] is the power of y together with x >= k.
	gain [][]float64
	// shares are the shares of errors that both sides may have, and for each,
	// row[y] is the probability of y and tail[k] that of x >= k.
	shares []float64
	row    [][]float64
	tail   [][]float64
}

func newTable(n, m int, usual []float64) *table {
	top := slices.Max(usual)
	t := &table{n: n, m: m}
	t.rows = min(m+1, upperCount(m, top))
	t.most = min(n, upperCount(n, top+exactEffect))
	t.gain = make([][]float64, t.rows)
	for y := range t.gain {
		t.gain[y] = make([]float64, t.most+2)
	}
	for _, p := range usual {
		row, tail := binomials(m, p, t.rows), tails(n, p+exactEffect, t.most)
		for y := range t.gain {
			for k := range tail {
				t.gain[y][k] += row[y] * tail[k] / float64(len(usual))
			}
		}
	}
	// The grid of shares is even in the arcsine of the root, where a deviation is
	// as wide everywhere; a fifth of one apart, risks between are the same.
	step := 0.1 / math.Sqrt(float64(n+m))
	for a := step; a < math.Pi/2; a += step {
		q := math.Pow(math.Sin(a), 2)
		row := binomials(m, q, t.rows)
		t.shares = append(t.shares, q)
		t.row = append(t.row, row)
		t.tail = append(t.tail, tails(n, q, t.most))
		if float64(m)*q > float64(t.rows) && sum(row) < 1e-6 {
			break // with more, y is always beyond the rows
		}
	}
	return t
}

// fillIn lowers thresholds, best first, while no risk is over alpha.
func (t *table) fillIn(weights []float64, alpha float64) (from []int, power float64, risks []float64) {
	cost := make([][]float64, t.rows) // of x >= k with y
	for y := range cost {
		cost[y] = make([]float64, t.most+2)
		for i, w := range weights {
			if w *= t.row[i][y]; w < 1e-12 {
				continue
			}
			for k, p := range t.tail[i] {
				cost[y][k] += w * p
			}
		}
	}
	from = make([]int, t.rows)
	done := make([]bool, t.rows)
	for y := range from {
		from[y] = t.most + 1
	}
	risks = make([]float64, len(t.shares))
	for {
		best, ratio := -1, 0.0
		for y, k := range from {
			// Not under the threshold of the row before, nor where the canary
			// is no worse.
			if done[y] || k == 0 || y > 0 && from[y-1] > k-1 || (k-1)*t.m <= y*t.n {
				continue
			}
			g, c := t.gain[y][k-1]-t.gain[y][k], cost[y][k-1]-cost[y][k]
			if r := g / (c + 1e-15); g > 0 && (best < 0 || r > ratio) {
				best, ratio = y, r
			}
		}
		if best < 0 {
			return from, power, risks
		}
		k := from[best]
		fits := true
		for i := range risks {
			if risks[i]+t.row[i][best]*(t.tail[i][k-1]-t.tail[i][k]) > alpha {
				fits = false
				break
			}
		}
		if !fits {
			done[best] = true
			continue
		}
		for i := range risks {
			risks[i] += t.row[i][best] * (t.tail[i][k-1] - t.tail[i][k])
		}
		power += t.gain[best][k-1] - t.gain[best][k]
		from[best] = k - 1
	}
}

// upperCount is a number of bad requests that is hardly ever exceeded.
func upperCount(n int, p float64) int {
	mean := float64(n) * p
	return int(mean+4*math.Sqrt(mean)) + 8
}

// binomials returns the probabilities of 0 to rows-1 bad ones of n.
func binomials(n int, p float64, rows int) []float64 {
	out := make([]float64, rows)
	for y := range out {
		out[y] = binomial(n, y, p)
	}
	return out
}

// tails returns the probabilities of k bad ones or more, of n, for k up to most,
// and a last one that is 0: what is over most counts with it.
func tails(n int, p float64, most int) []float64 {
	out := make([]float64, most+2)
	below := 0.0
	for k := range most + 1 {
		out[k] = max(0, 1-below)
		below += binomial(n, k, p)
	}
	return out
}

func binomial(n, k int, p float64) float64 {
	switch {
	case k > n:
		return 0
	case p <= 0:
		return indicator(k == 0)
	case p >= 1:
		return indicator(k == n)
	}
	return math.Exp(logChoose(n, k) + float64(k)*math.Log(p) + float64(n-k)*math.Log1p(-p))
}

func indicator(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

func logChoose(n, k int) float64 {
	a, _ := math.Lgamma(float64(n + 1))
	b, _ := math.Lgamma(float64(k + 1))
	c, _ := math.Lgamma(float64(n - k + 1))
	return a - b - c
}

func sum(all []float64) float64 {
	s := 0.0
	for _, v := range all {
		s += v
	}
	return s
}

// conditionally is Fisher's exact test: given x+y, the bad requests are spread
// over both sides as if drawn from an urn. It returns x if that fails, and the
// least that would otherwise.
func conditionally(n, m, x, y int, alpha float64) int {
	fails := func(x int) bool {
		all, p := x+y, 0.0
		whole := logChoose(n+m, all)
		for k := x; k <= min(n, all); k++ {
			if all-k > m {
				continue
			}
			term := math.Exp(logChoose(n, k) + logChoose(m, all-k) - whole)
			p += term
			if p > alpha || term < p*1e-9 {
				break
			}
		}
		return p <= alpha
	}
	if y > m {
		return n + 1
	}
	if fails(x) {
		return x
	}
	for k := x + 1; k <= n; k++ {
		if fails(k) {
			return k
		}
	}
	return n + 1
}
