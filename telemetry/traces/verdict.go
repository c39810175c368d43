package traces

import (
	"math/bits"
	"time"

	"go.opentelemetry.io/collector/pdata/pcommon"
)

// verdict is what became of a trace: the number of the rule that decided, or
// noRule, and whether it is kept.
type verdict struct {
	rule uint8
	kept bool
}

const noRule = maxRules

// judge decides a trace of which the spans so far fulfil the rules in bits.
func (rs Rules) judge(id pcommon.TraceID, matched uint64) verdict {
	if matched == 0 {
		return verdict{noRule, true}
	}
	first := uint8(bits.TrailingZeros64(matched))
	return verdict{first, inShare(id, rs[first].Share)}
}

func (rs Rules) name(v verdict) string {
	if v.rule == noRule {
		return unmatched
	}
	return rs[v.rule].Name
}

// docket knows the traces under decision and the verdicts of the latest. Its
// owner guards it.
type docket struct {
	rules Rules
	// open has the rules that each undecided trace is of so far. It has no more
	// traces than the undecided blocks.
	open map[pcommon.TraceID]uint64
	// done are the latest verdicts, which spans that come late follow, in two
	// generations.
	done, older map[pcommon.TraceID]verdict
	turned      time.Time // when done was begun
}

// Verdicts are remembered until doneTraces newer ones are known or doneAge is
// over, and at least for two windows: about 60 bytes each.
const (
	doneTraces = 250_000
	doneAge    = 10 * time.Minute
)

func newDocket(rules Rules) *docket {
	return &docket{rules: rules, open: map[pcommon.TraceID]uint64{}, done: map[pcommon.TraceID]verdict{}}
}

// known returns the verdict of a trace that has one.
func (d *docket) known(id pcommon.TraceID) (verdict, bool) {
	if v, ok := d.done[id]; ok {
		return v, true
	}
	v, ok := d.older[id]
	return v, ok
}

// hear takes the spans of b from number from on and returns how many of them come
// late, by whether their trace was kept.
func (d *docket) hear(b *block, from int) (lateKept, lateDropped int) {
	for i := range b.spans[from:] {
		s := &b.spans[from+i]
		id := b.traces[s.trace]
		v, ok := d.known(id)
		if !ok {
			d.open[id] |= d.rules.matches(b, s)
			continue
		}
		d.done[id] = v // as young again as the span that will ask for it
		if v.kept {
			lateKept++
		} else {
			lateDropped++
		}
	}
	return lateKept, lateDropped
}

// decide returns the verdict of a trace. fresh says that it was given now.
func (d *docket) decide(id pcommon.TraceID) (v verdict, fresh bool) {
	if v, ok := d.known(id); ok {
		return v, false
	}
	v = d.rules.judge(id, d.open[id])
	delete(d.open, id)
	d.done[id] = v
	return v, true
}

// forget lets old verdicts go.
func (d *docket) forget(now time.Time, window time.Duration) {
	age := now.Sub(d.turned)
	if age < max(2*window, time.Minute) || len(d.done) < doneTraces && age < doneAge {
		return
	}
	d.older, d.done, d.turned = d.done, make(map[pcommon.TraceID]verdict, len(d.done)), now
}
