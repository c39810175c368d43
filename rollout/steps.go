package rollout

import (
	"fmt"
	"time"

	"github.com/binnacle-project/binnacle"
	"github.com/binnacle-project/binnacle/api"
)

// maxExtension is by how many times its length a bake is extended, at most,
// before an operator is asked.
const maxExtension = 3

// stepsView is all that the next move of a rollout in steps depends on.
type stepsView struct {
	Now    time.Time
	Paused bool
	// Steps and Step are the rollout's; the current one's verdict is the newest.
	Steps          []api.RolloutStep
	Step           int
	MaxUnavailable int
	// Alive are the group's nodes that are alive.
	Alive []candidate
	// Told have been given the revision, in whichever step: Confirmed and
	// Pending ones and those who refused or crashed, with the reason.
	Told      map[binnacle.NodeID]bool
	Confirmed map[binnacle.NodeID]bool
	Pending   map[binnacle.NodeID]bool
	Failed    map[binnacle.NodeID]string
	// Away are told nodes that have been gone for awayAfter.
	Away map[binnacle.NodeID]bool
}

// moveKind says what to do next.
type moveKind uint8

const (
	moveWait moveKind = iota
	// moveTell gives the revision to the nodes of the move.
	moveTell
	// moveBake begins the bake of the step.
	moveBake
	// moveAsk has the step wait for an operator.
	moveAsk
	// moveOn ends the step: the next one begins.
	moveOn
	moveComplete
	moveRollBack
)

// move is what follows, and why.
type move struct {
	Kind   moveKind
	Nodes  []binnacle.NodeID
	Reason string
}

// nextMove decides the next move of a rollout in steps. A failure comes first,
// also while it is paused; a step advances only over nodes that have confirmed.
func nextMove(v stepsView) move {
	if len(v.Failed) > 0 {
		id := firstKey(v.Failed)
		more := ""
		if n := len(v.Failed) - 1; n > 0 {
			more = fmt.Sprintf(" (and %s)", count(n, "more node"))
		}
		return move{Kind: moveRollBack, Reason: fmt.Sprintf("node %s%s: %s", id, more, v.Failed[id])}
	}
	s := v.Steps[v.Step]
	if s.State == api.StepRolling || s.State == api.StepWaiting {
		return v.rolling(s)
	}
	return v.baking(s)
}

// rolling tells nodes until the step has what it wants and all have answered.
func (v stepsView) rolling(s api.RolloutStep) move {
	var have, free []candidate
	for _, c := range v.Alive {
		if v.Told[c.ID] {
			have = append(have, c)
		} else {
			free = append(free, c)
		}
	}
	waiting := 0
	for id := range v.Pending {
		if !v.Away[id] {
			waiting++
		}
	}
	last := v.Step == len(v.Steps)-1
	if v.Paused {
		return move{}
	}
	// Nodes that have the revision and are gone count, too: what may have killed
	// one does not go on to the next.
	missing := wanted(s.NewStep, last, len(v.Alive)) - len(v.Told)
	if last {
		missing = len(free)
	}
	if n := min(missing, atOnce(v.MaxUnavailable, len(v.Alive))-waiting); n > 0 {
		return move{Kind: moveTell, Nodes: choose(have, free, n)}
	}
	confirmed := 0
	for id := range v.Confirmed {
		if !v.Away[id] {
			confirmed++
		}
	}
	switch {
	case waiting > 0:
		return move{Reason: fmt.Sprintf("%s %s to confirm", count(waiting, "node"), are(waiting))}
	case missing > 0: // more may be told in a moment
		return move{}
	case confirmed == 0:
		// Nobody has shown that the revision works: wait for somebody.
		return move{Reason: "no node that has the revision is alive: waiting for one"}
	case s.Bake == 0 || s.PromotedBy != "":
		return v.passed()
	case len(s.Added) == 0:
		// It wanted no more nodes than the step before had: there is nothing new
		// to watch.
		return v.passed()
	}
	return move{Kind: moveBake}
}

// baking waits for the verdict and the end of the bake.
func (v stepsView) baking(s api.RolloutStep) move {
	bake := seconds(s.Bake)
	verdict := api.Verdict{Result: api.VerdictInconclusive, Reason: "nobody has looked yet"}
	if s.Verdict != nil {
		verdict = *s.Verdict
	}
	switch {
	case verdict.Result == api.VerdictFail:
		return move{Kind: moveRollBack, Reason: "the gate failed: " + verdict.Reason}
	case v.Paused:
		return move{}
	case s.PromotedBy != "":
		return v.passed()
	case v.Now.Sub(s.BakeStarted) < bake:
		return move{}
	case verdict.Result == api.VerdictPass:
		return v.passed()
	case v.Now.Sub(s.BakeStarted) < bake*(1+maxExtension):
		return move{Reason: "the bake goes on: " + verdict.Reason}
	case s.State != api.StepAsking:
		return move{Kind: moveAsk, Reason: "promote or abort? " + verdict.Reason}
	}
	return move{Reason: "promote or abort? " + verdict.Reason}
}

func (v stepsView) passed() move {
	if v.Step == len(v.Steps)-1 {
		return move{Kind: moveComplete}
	}
	return move{Kind: moveOn}
}

func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }
