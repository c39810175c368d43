package agent

import (
	"time"

	"github.com/binnacle-project/binnacle/api"
)

// verdict on a plan that came in.
type verdict int

const (
	planNew   verdict = iota // act on it
	planSame                 // no change
	planOlder                // refused: a manager that is behind, or an attack
)

// judgePlan compares a plan with the one held, nil for none.
func judgePlan(held *api.Plan, got api.Plan) verdict {
	switch {
	case held == nil || got.Newer(*held):
		return planNew
	case held.Newer(got):
		return planOlder
	}
	return planSame
}

// What counts as a configuration that kills its worker.
const (
	crashesAfterApply = 2
	crashAfterApply   = 60 * time.Second
	crashesAnyTime    = 3
	crashWindow       = 10 * time.Minute
)

// killsWorker decides whether a configuration must be left after its worker
// died: crashes are the times at which it did while this configuration ran,
// applied is when it was brought to serve.
//
// Source: DESIGN "Agent and worker".
func killsWorker(crashes []time.Time, applied, now time.Time) bool {
	fresh, recent := 0, 0
	for _, c := range crashes {
		if c.Sub(applied) <= crashAfterApply {
			fresh++
		}
		if now.Sub(c) <= crashWindow {
			recent++
		}
	}
	return fresh >= crashesAfterApply || recent >= crashesAnyTime
}

// restartDelay is the pause before a worker is started again: none after the
// first crash of the window, then doubling from half a second to ten.
func restartDelay(crashes []time.Time, now time.Time) time.Duration {
	recent := 0
	for _, c := range crashes {
		if now.Sub(c) <= crashWindow {
			recent++
		}
	}
	if recent <= 1 {
		return 0
	}
	return min(500*time.Millisecond<<min(recent-2, 10), 10*time.Second)
}

// Periods of retries towards a manager.
const (
	retryBase = 250 * time.Millisecond
	// retryCap bounds both parts of a delay, so that a node is back within some
	// thirty seconds of its manager's return, nearly all within fifteen. With
	// half of it off at most, the nodes of a cluster come back at less than three
	// times the rate of their polls at rest.
	retryCap = 15 * time.Second
)

// retryDelay is the pause before attempt n (0 is the first retry) towards a
// manager that failed. It doubles to retryCap; rnd, from [0, 1), takes up to
// half of it off, after the cap, so that the cap does not line nodes up. The
// first retry also waits for the node's phase: all nodes see a manager go away
// in the same moment, and must not come back in one.
func retryDelay(n int, phase time.Duration, rnd float64) time.Duration {
	d := min(retryBase<<min(n, 20), retryCap)
	d -= time.Duration(rnd * float64(d) / 2)
	if n == 0 && phase > 0 {
		d += phase % retryCap
	}
	return d
}

// served follows whether what runs has served long enough to become last good.
type served struct {
	since time.Time // of the unbroken row of good probes; zero before the first
}

// probe takes the outcome of one probe and reports whether the row has lasted
// for need.
func (s *served) probe(ok bool, now time.Time, need time.Duration) bool {
	if !ok {
		s.since = time.Time{}
		return false
	}
	if s.since.IsZero() {
		s.since = now
	}
	return now.Sub(s.since) >= need
}
