package gate

import (
	"fmt"
	"math"

	"github.com/binnacle-project/binnacle/api"
)

// At its milestones a gate asks one question more: are the canary's errors two
// points over the control's? The test is the one that answers it best, among
// all that fail at most a share alpha of gates whose sides are equally good.
//
// The alternative is a point: the control has the share of errors that is usual,
// the canary two points more. What is known of the hours before a rollout (usual.go)
// says which shares both sides are likely to have, equally good as they are. There alpha
// holds; where it never was, at a moment when errors rise on both sides, a test may
// fail more, up to maxCeiling times alpha, if it needs that to find wantedPower
// of bad canaries. Without such hours alpha holds everywhere, and the test takes nothing
// for evidence but the requests of both sides over the same minutes.
//
// A test of x bad requests of the canary and y of the control is a threshold of x
// for each y, which never falls with y. fillIn (powerful.go) lowers thresholds one by
// one where the most power is gained for the least risk, until some share of errors of
// both sides would be failed falsely too often. Risks at different shares are
// weighed as in the least favorable mixture of them, which mostPowerful looks for by
// trying. Whatever the weights, the risk is computed exactly, so they decide about
// power alone.
//
// Source: Neyman, Pearson (1933) on likelihood ratios; Lehmann, Romano, "Testing
// Statistical Hypotheses", section 3.8, on least favorable mixtures; Barnard,
// "Significance tests for 2x2 tables" (1947) on the unconditional test.

const (
	// exactEffect is the difference that the test is the best for.
	exactEffect = 0.02
	// maxExactBad is the number of bad requests to expect, of one side, beyond
	// which the conditional test is as good, and cheaper: without hours before
	// that are known, and with.
	maxExactBad, maxKnownBad = 30, 100
	// wantedPower is the share of canaries with 2 points more errors to be found.
	wantedPower = 0.95
)

// ceilings are how many times alpha a test may fail, at most, of gates whose sides
// rise together to where they never were. The first that suffices is taken.
var ceilings = [...]float64{1, 1.5, 2, 3, maxCeiling}

const maxCeiling = 5

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
	Canary  Counts  `json:"canary"`
	Control Counts  `json:"control"`
	Alpha   float64 `json:"alpha"`
	// Ceiling is the largest share of equally good canaries that the test fails,
	// whatever happens to both sides.
	Ceiling float64 `json:"ceiling,omitempty"`
	// Usual is the share of errors it was made for, Power the share of canaries with
	// 2 points more that it finds. Both are missing for the conditional test.
	Usual float64 `json:"usual,omitempty"`
	Power float64 `json:"power,omitempty"`
	// From is the least number of bad requests of the canary that fails, given
	// those of the control; more than all its requests if none does.
	From   int  `json:"from"`
	Failed bool `json:"failed,omitempty"`
}

// expected is what a test at a milestone goes by, beside the requests of both sides.
type expected struct {
	// share is the share of errors to expect, below 0 if nothing was served before.
	share float64
	// known says what was usual, if the hours before tell.
	known *known
	// before says that the control is no other than what was before: the test is
	// then the conditional one.
	before bool
	// best is bestTest, or gives what it gave.
	best func(n, m int, alpha float64, e expected) test
}

// exactly tests both sides at a milestone.
func exactly(canary, control Counts, alpha float64, e expected) exactResult {
	r := exactResult{Canary: canary, Control: control, Alpha: alpha, Ceiling: alpha}
	n, m, y := int(math.Round(canary.Requests)), int(math.Round(control.Requests)), int(math.Round(control.Bad))
	most, bound := max(float64(m)*max(e.share, 0), float64(n)*(max(e.share, 0)+exactEffect)), float64(maxExactBad)
	if e.known != nil {
		bound = maxKnownBad
	}
	if e.before || most > bound {
		r.From = conditionally(n, m, int(math.Round(canary.Bad)), y, alpha)
	} else {
		t := e.best(n, m, alpha, e)
		r.From, r.Power, r.Usual = thresholdAt(t.from, y, n), t.power, max(e.share, 0)
		r.Ceiling = max(alpha, t.worst)
	}
	r.Failed = int(math.Round(canary.Bad)) >= r.From && canary.Share()-control.Share() >= limitsOf(whatErrors).effect
	return r
}

// bestTest is the test with the lowest ceiling that finds what is wanted, else the one
// that finds the most.
func bestTest(n, m int, alpha float64, e expected) test {
	t := mostPowerful(n, m, usualShares(e.share), promise{alpha: alpha})
	if e.known == nil {
		return t
	}
	for _, c := range ceilings[1:] {
		if t.power >= wantedPower {
			break
		}
		if try := mostPowerful(n, m, usualShares(e.share), promise{alpha, c * alpha, e.known}); try.power > t.power {
			t = try
		}
	}
	return t
}

func thresholdAt(from []int, y, n int) int {
	if y < len(from) {
		return from[y]
	}
	return n + 1
}

func (r exactResult) note() string {
	fails := fmt.Sprintf("%d of the canary fail", r.From)
	if float64(r.From) > r.Canary.Requests {
		fails = "no number of the canary fails"
	}
	return fmt.Sprintf("at %.0f and %.0f requests, with %.0f bad ones of the control, %s: it had %.0f",
		r.Canary.Requests, r.Control.Requests, r.Control.Bad, fails, r.Canary.Bad)
}

func (r exactResult) evidence() *api.ExactTest {
	return &api.ExactTest{Canary: api.Sample(r.Canary), Control: api.Sample(r.Control), FailsFrom: r.From, Failed: r.Failed,
		Alpha: r.Alpha, Ceiling: r.Ceiling, Usual: r.Usual, Power: r.Power}
}

// usualShares are the shares of errors of the control that the test is made for. A
// group that served nothing before may have any.
func usualShares(usual float64) []float64 {
	if usual < 0 {
		return []float64{0, 0.002, 0.01}
	}
	return []float64{usual}
}
