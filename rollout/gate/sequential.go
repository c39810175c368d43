package gate

import "math"

// The gate's test compares two shares, such as the errors of canary and
// control, and may look as often as it likes.
//
// Take the requests that came since the last look: n of the canary, m of the
// control, x and y of them bad. If the canary is as good as the control, then,
// given x+y, each bad one is a canary's with probability n/(n+m), whatever the
// share of bad requests is and however it moves in time: a backend that fails
// both sides shifts x+y alone. If the canary is f times as bad, the probability
// is fn/(fn+m). The likelihood ratio of the two, multiplied over all looks and
// averaged over several f, is a martingale of mean one under equal quality, so
// that by Ville's inequality it ever exceeds 1/a with a probability of at most
// a, at any number of looks. Such a number is called an e-value.
//
// The bad requests are drawn without replacement, where the ratio takes them for
// independent. That errs on the side of the canary: the ratio is convex in x, and
// the hypergeometric distribution is below the binomial one of the same mean in
// convex order.
//
// Source: Wald, "Sequential Analysis" (1947); Ville (1939); Hoeffding,
// "Probability inequalities for sums of bounded random variables" (1963),
// theorem 4; Grünwald, de Heide, Koolen, "Safe testing" (2024).

// risks are the f. The smallest is the smallest difference that a gate minds:
// with less, the ratio falls in the long run.
var risks = [...]float64{1.25, 1.5, 2, 3, 5, 10, 30, 100}

// ratios are the logarithms of the likelihood ratios so far, one for each risk.
// The zero value is before the first look.
type ratios [len(risks)]float64

// add takes one look's increase on both sides. An increase with an empty side
// says nothing.
func (r *ratios) add(canary, control Counts) {
	if canary.Requests <= 0 || control.Requests <= 0 {
		return
	}
	for i, f := range risks {
		r[i] += logRatio(f, canary, control)
	}
}

// logRatio is the logarithm of the likelihood ratio of f to 1.
func logRatio(f float64, canary, control Counts) float64 {
	if canary.Bad == 0 && control.Bad == 0 {
		return 0
	}
	all := canary.Requests + control.Requests
	weighted := f*canary.Requests + control.Requests
	return canary.Bad*math.Log(f*all/weighted) + control.Bad*math.Log(all/weighted)
}

// log returns the logarithm of the average ratio.
func (r *ratios) log() float64 {
	top := math.Inf(-1)
	for _, l := range r {
		top = max(top, l)
	}
	sum := 0.0
	for _, l := range r {
		sum += math.Exp(l - top)
	}
	return top + math.Log(sum/float64(len(r)))
}

// once is the logarithm of the e-value of two samples that are looked at as one:
// it holds at a look, and not over all looks together. It is for a control that
// does not grow, such as the minutes before a step.
func once(canary, control Counts) float64 {
	var r ratios
	r.add(canary, control)
	return r.log()
}

// upperZ is the quantile of the bound that a pass needs. One-sided it is 97.5 %,
// for the bound is looked at more than once when a bake is extended.
const upperZ = 1.96

// upperDifference bounds the canary's share of bad requests minus the control's
// from above, by Newcombe's method 10: Wilson's bounds of each, joined.
//
// Source: Newcombe, "Interval estimation for the difference between independent
// proportions" (1998).
func upperDifference(canary, control Counts) float64 {
	pc, pt := canary.Share(), control.Share()
	_, uc := wilson(canary, upperZ)
	lt, _ := wilson(control, upperZ)
	return pc - pt + math.Hypot(uc-pc, pt-lt)
}

// wilson returns the score interval of a share, z deviations to each side. No
// requests bound nothing.
func wilson(c Counts, z float64) (lower, upper float64) {
	n := c.Requests
	if n <= 0 {
		return 0, 1
	}
	p, z2 := c.Share(), z*z
	mid := (p + z2/(2*n)) / (1 + z2/n)
	half := z / (1 + z2/n) * math.Sqrt(p*(1-p)/n+z2/(4*n*n))
	return max(0, mid-half), min(1, mid+half)
}

// Counts are requests and how many of them were bad.
type Counts struct {
	Requests float64 `json:"n"`
	Bad      float64 `json:"x"`
}

// Share is the share of requests that were bad, 0 of none.
func (c Counts) Share() float64 {
	if c.Requests <= 0 {
		return 0
	}
	return c.Bad / c.Requests
}

// since returns what came since an earlier count. A count that fell began anew.
func (c Counts) since(before Counts) Counts {
	d := Counts{c.Requests - before.Requests, c.Bad - before.Bad}
	if d.Requests < 0 || d.Bad < 0 {
		return Counts{}
	}
	d.Bad = min(d.Bad, d.Requests)
	return d
}
