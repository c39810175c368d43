package gate

import (
	"math"
	"slices"
)

// promise is what a test keeps: which share of gates it may fail whose sides are
// equally good, given the share of errors that both have by now.
type promise struct {
	// alpha is the most on average over what was usual, and the most at each
	// share of errors up to high.
	alpha float64
	// ceiling is the most at every other share: whatever happens to both sides.
	ceiling float64
	// known says what was usual. Without it alpha holds at every share.
	known *known
}

// limits returns the most that may fail at each share of errors, and the weights
// of shares over which alpha holds on average, if it does over any.
func (p promise) limits(shares []float64) (limits, usual []float64) {
	limits = make([]float64, len(shares))
	for i := range limits {
		limits[i] = p.alpha
	}
	if p.known == nil {
		return limits, nil
	}
	usual, high := p.known.spread(shares)
	for i, q := range shares {
		if q > high {
			limits[i] = p.ceiling
		}
	}
	return limits, usual
}

// exactRounds are the tries to find good weights.
const exactRounds = 24

// test is, for each number of bad requests of the control, the least number of the
// canary's that fails. Beyond the end of the slice it never fails. power is the share
// of canaries with 2 points more errors that it fails, worst the largest of the shares
// of equally good ones.
type test struct {
	from         []int
	power, worst float64
}

// mostPowerful returns the test with the most power that keeps a promise. n and m
// are the requests of the canary and the control, usual the shares of errors of the
// control that it is made for.
//
// The weights say how dear the risk is at each share, and on average. A risk that
// is nearly used up becomes dearer.
func mostPowerful(n, m int, usual []float64, p promise) test {
	t := newTable(n, m, usual)
	limits, mix := p.limits(t.shares)
	weights := make([]float64, len(t.shares)+1) // the last is the average's
	for i := range t.shares {
		weights[i] = 1 / float64(len(t.shares))
	}
	if mix != nil {
		weights[len(t.shares)] = 1
	}
	best := test{power: -1}
	for range exactRounds {
		try, risks, mean := t.fillIn(weights, limits, mix, p.alpha)
		if try.power > best.power {
			best = try
		}
		sum := 0.0
		for i, r := range risks {
			weights[i] *= math.Exp(2 * (r/limits[i] - 1))
			sum += weights[i]
		}
		if mix != nil {
			weights[len(risks)] *= math.Exp(2 * (mean/p.alpha - 1))
			sum += weights[len(risks)]
		}
		for i := range weights {
			weights[i] /= sum
		}
	}
	for y, k := range best.from {
		if k > t.most {
			best.from[y] = n + 1
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

// fillIn lowers thresholds, best first, while no risk is over its limit, nor the
// average over mix over alpha. It returns the risks at each share and on average.
func (t *table) fillIn(weights, limits, mix []float64, alpha float64) (try test, risks []float64, mean float64) {
	cost := make([][]float64, t.rows) // of x >= k with y
	for y := range cost {
		cost[y] = make([]float64, t.most+2)
		for i := range t.shares {
			w := weights[i]
			if mix != nil {
				w += weights[len(t.shares)] * mix[i]
			}
			if w *= t.row[i][y]; w < 1e-12 {
				continue
			}
			for k, p := range t.tail[i] {
				cost[y][k] += w * p
			}
		}
	}
	from := make([]int, t.rows)
	done := make([]bool, t.rows)
	for y := range from {
		from[y] = t.most + 1
	}
	risks, more := make([]float64, len(t.shares)), make([]float64, len(t.shares))
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
			try.from, try.worst = from, slices.Max(risks)
			return try, risks, mean
		}
		k := from[best]
		fits, average := true, mean
		for i := range risks {
			more[i] = risks[i] + t.row[i][best]*(t.tail[i][k-1]-t.tail[i][k])
			if mix != nil {
				average += mix[i] * (more[i] - risks[i])
			}
			if more[i] > limits[i] {
				fits = false
				break
			}
		}
		if !fits || mix != nil && average > alpha {
			done[best] = true
			continue
		}
		risks, more, mean = more, risks, average
		try.power += t.gain[best][k-1] - t.gain[best][k]
		from[best] = k - 1
	}
}
