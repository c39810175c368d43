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
	turn  int // who gets the remainders, so that no step is favored
	part  dense
}

// chartSteps is enough for the longest delay and what comes late.
const chartSteps = 32

// maxDelay bounds the delay. What slower senders tell comes too late for the
// live chart; the roll-ups have it.
const maxDelay = 12

type chartStep struct {
	end int64 // Unix s
	n   [binnacle.NumOutcomes]uint64
	h   []byte
}

// book spreads b over (from, to], both Unix ns.
func (c *chart) book(b *booking, from, to, now int64) {
	first, last := slotOf(from+1, fineStep), slotOf(to, fineStep)
	parts := int(last-first) + 1
	if parts < 1 || parts > chartSteps || int64(first)*fineStep <= now-chartSteps*fineStep {
		return
	}
	c.turn++
	for k := range parts {
		end := int64(first+int32(k)) * fineStep
		s := &c.steps[end/fineStep%chartSteps]
		if s.end > end {
			continue
		}
		if s.end < end {
			*s = chartStep{end: end, h: s.h[:0]}
		}
		turn := (k + c.turn) % parts
		for o, n := range b.n {
			s.n[o] += dealt(n, turn, parts)
		}
		c.part.reset()
		c.part.addPacked(s.h)
		b.h.part(&c.part, turn, parts)
		s.h = c.part.pack(s.h[:0])
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
