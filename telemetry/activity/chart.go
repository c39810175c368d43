package activity

import (
	"time"

	"github.com/binnacle-project/binnacle"
)

// chart holds the cluster's newest steps for live charts. Nodes export every
// ten seconds, each at its own time: booked at the time of the export, a chart of
// two-second steps would be spikes. Here an increase is spread evenly over the
// time it covers, and a step is shown once the slowest node has told of it.
type chart struct {
	steps [chartSteps]chartStep
	// delay is how far behind now the newest step is, in seconds: the slowest
	// live export interval, and a step for the way.
	delay int64
	turn  uint64 // who gets the remainders, so that no step is favored
}

// chartSteps is enough for the longest delay and for what comes late.
const chartSteps = 32

// maxDelay bounds the delay. What slower senders tell comes too late for the
// live chart; the roll-ups have it.
const maxDelay = 12

type chartStep struct {
	end int64 // Unix s
	n   [binnacle.NumOutcomes]uint64
	h   dense
}

// unit is the grain in which an increase is spread: an export rarely begins
// and ends where a step does.
const unit = int64(time.Second) / 4

// book spreads b over (from, to], both Unix ns.
func (c *chart) book(b *booking, from, to, now int64) {
	const perStep = fineStep * int64(time.Second) / unit
	u0 := from / unit
	u1 := max((to+unit-1)/unit, u0+1)
	if u1-u0 > chartSteps*perStep || u0*unit/int64(time.Second) <= now-(chartSteps-1)*fineStep {
		return
	}
	c.turn += 7
	by := deal{n: uint64(u1 - u0), first: c.turn % uint64(u1-u0)}
	for u := u0; u < u1; {
		step := u/perStep + 1 // its end is step*fineStep
		next := min(step*perStep, u1)
		s := &c.steps[step%chartSteps]
		if end := step * fineStep; s.end < end {
			s.end, s.n = end, [binnacle.NumOutcomes]uint64{}
			s.h.reset()
		}
		lo, hi := uint64(u-u0), uint64(next-u0)
		for o, n := range b.n {
			s.n[o] += by.to(n, lo, hi)
		}
		b.h.part(&s.h, by, lo, hi)
		u = next
	}
}

// newest returns the end of the newest step to show, in Unix seconds.
func (c *chart) newest(now time.Time) int64 {
	delay := c.delay
	if delay == 0 {
		delay = maxDelay
	}
	return now.Unix()/fineStep*fineStep - delay
}

// setDelay follows the slowest live gateway.
func (c *chart) setDelay(slowest time.Duration) {
	steps := (int64(slowest/time.Second) + fineStep - 1) / fineStep
	c.delay = min(max(steps*fineStep, fineStep)+fineStep, maxDelay)
}
