package gate

import "math"

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
