package gate

import (
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/binnacle-project/binnacle/api"
)

// What was usual in the hours before a rollout says more of the share of errors
// that both sides have during a bake than the requests of the control can, as long
// as that bake is like the hours before. They are cut into spells as long as
// a bake. Each spell's share of errors is a draw from what the fleet does: the same
// always, or drifting over the day, or in bursts. So is the bake's, if nobody chose its
// moment for what it would meet.
//
// spread estimates where the bake's share may be. Spells are small, so their
// shares scatter by chance too: how much of the scatter is real is estimated by moments
// (the beta-binomial's correlation), and each spell is drawn in toward the mean by
// what is not. A mixture of the spells so drawn keeps the shape of bursts, where one
// beta distribution would not.
//
// Source: Williams, "Extra-binomial variation in logistic linear models" (1982), for
// the moments; Efron, Morris (1973) on drawing in; Laird, "Nonparametric maximum
// likelihood estimation of a mixing distribution" (1978), for mixtures of posteriors.

const (
	// HistoryFor is how far back the hours before a rollout reach, SpellFor how
	// long a spell is: as long as a bake is by default.
	HistoryFor = 6 * time.Hour
	SpellFor   = 2 * time.Minute
	// fewSpells and fewBefore are the least spells and requests that say what is
	// usual: an hour of them, and ten times what a first milestone has.
	fewSpells = 30
	fewBefore = 5000
	// usualQuantile is up to where shares of errors are held for usual: alpha holds
	// at each of them, so also in a bake that is all like the worse spells.
	usualQuantile = 0.9
	// newestSpells are those just before a rollout. upperUsualZ is the deviation that
	// bounds their shares of errors from above: they may have risen over the hours, or
	// just now. With departedZ they have risen for certain.
	newestSpells = 5
	upperUsualZ  = 1.28
	departedZ    = 2.33
)

// History is what a group served in the hours before a rollout. It is read once and
// stored.
type History struct {
	From  time.Time `json:"from"`
	To    time.Time `json:"to"`
	Query string    `json:"query"`
	// Spells are those with requests, in their order; spellFor each.
	Spells []Counts `json:"spells,omitempty"`
}

// Sum adds all spells up; nil is a history without any.
func (h *History) Sum() Counts {
	var all Counts
	if h != nil {
		for _, s := range h.Spells {
			all.Requests, all.Bad = all.Requests+s.Requests, all.Bad+s.Bad
		}
	}
	return all
}

// Enough reports whether the history says what is usual.
func (h *History) Enough() bool {
	return h != nil && len(h.Spells) >= fewSpells && h.Sum().Requests >= fewBefore
}

// lacks says why a history is not enough.
func (h *History) lacks() string {
	return fmt.Sprintf("the revision before served %.0f requests in %d spells of two minutes: at least %d in %d are needed, so only the requests of the bake count",
		h.Sum().Requests, len(h.Spells), fewBefore, fewSpells)
}

// worst is the highest share of errors of a spell.
func (h *History) worst() float64 {
	most := 0.0
	for _, s := range h.Spells {
		most = max(most, s.Share())
	}
	return most
}

// size is how many requests the scatter between spells is worth: the share of errors
// of the next one is as uncertain as that found by so many. It never exceeds all the
// requests there were.
func (h *History) size() float64 {
	all := h.Sum()
	mean := all.Share()
	if mean <= 0 || mean >= 1 {
		return all.Requests
	}
	scatter, squares := 0.0, 0.0
	for _, s := range h.Spells {
		scatter += math.Pow(s.Bad-mean*s.Requests, 2) / (s.Requests * mean * (1 - mean))
		squares += s.Requests * s.Requests
	}
	free := float64(len(h.Spells) - 1)
	correlation := max(0, (scatter-free)/(all.Requests-squares/all.Requests-free))
	return 1 / (min(1, correlation) + 1/all.Requests)
}

// known is what is known of the share of errors before a gate looks: by the hours
// before, and just before.
type known struct {
	history *History
	recent  Counts
}

// drawnIn is a sample together with the hours before, which count for as much as their
// scatter is worth: much in a fleet that is always the same, and hardly anything in
// one that drifts.
func (k *known) drawnIn(c Counts) Counts {
	all, size := k.history.Sum(), k.history.size()
	return Counts{size + c.Requests, all.Share()*size + c.Bad}
}

// newest are the spells just before the rollout.
func (h *History) newest() []Counts { return h.Spells[max(0, len(h.Spells)-newestSpells):] }

// Share is the share of errors to expect: that of the newest spells, but for a burst
// in some of them.
func (k *known) share() float64 {
	var shares []float64
	for _, s := range k.history.newest() {
		shares = append(shares, k.drawnIn(s).Share())
	}
	slices.Sort(shares)
	return shares[len(shares)/2]
}

// departed reports whether the minutes just before a rollout are unlike the hours
// before: what is going on then was not usual.
func (k *known) departed() bool {
	all, size := k.history.Sum(), k.history.size()
	lower, _ := wilson(k.recent, departedZ)
	_, upper := wilson(Counts{size, all.Share() * size}, departedZ)
	return lower > upper
}

// spread returns weights of the shares, which add up to 1, and the highest share that
// is usual. The shares are even in the arcsine of the root.
func (k *known) spread(shares []float64) (weights []float64, high float64) {
	all, size := k.history.Sum(), k.history.size()
	mean := all.Share()
	// No narrower than the shares are apart, which is on the safe side.
	narrowest := math.Inf(1)
	if n := len(shares); n > 1 {
		step := math.Asin(math.Sqrt(shares[1])) - math.Asin(math.Sqrt(shares[0]))
		narrowest = 1 / (2 * step * step)
	}
	weights = make([]float64, len(shares))
	logs, logs1 := make([]float64, len(shares)), make([]float64, len(shares))
	for i, q := range shares {
		logs[i], logs1[i] = math.Log(q), math.Log1p(-q)
	}
	one := make([]float64, len(shares))
	for _, s := range k.history.Spells {
		a, b := mean*size+s.Bad, (1-mean)*size+max(0, s.Requests-s.Bad)
		if f := narrowest / (a + b); f < 1 {
			a, b = a*f, b*f
		}
		// A beta distribution with half a request more of each kind, after
		// Jeffreys, as a density of the arcsine of the root.
		top := math.Inf(-1)
		for i := range one {
			one[i] = a*logs[i] + b*logs1[i]
			top = max(top, one[i])
		}
		total := 0.0
		for i := range one {
			one[i] = math.Exp(one[i] - top)
			total += one[i]
		}
		for i := range one {
			weights[i] += one[i] / total / float64(len(k.history.Spells))
		}
	}
	below := 0.0
	for i, w := range weights {
		if below += w; below >= usualQuantile {
			high = shares[i]
			break
		}
	}
	for _, s := range k.history.newest() {
		_, upper := wilson(k.drawnIn(s), upperUsualZ)
		high = max(high, upper)
	}
	return weights, high
}

// Evidence is the history as it is told of; recent is what was served just before the
// rollout.
func (h *History) Evidence(recent Counts) *api.History {
	if h == nil {
		return nil
	}
	k := &known{h, recent}
	e := &api.History{From: h.From, To: h.To, Query: h.Query, Spells: len(h.Spells), SpellSeconds: SpellFor.Seconds(),
		Sum: api.Sample(h.Sum()), Worst: h.worst(), Used: h.Enough() && !k.departed()}
	switch {
	case e.Used:
	case !h.Enough():
		e.Note = h.lacks()
	default:
		e.Note = fmt.Sprintf("the ten minutes before the rollout had %s of errors, more than was usual, so only the requests of the bake count", percent(recent))
	}
	return e
}
