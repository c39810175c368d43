package gate

import (
	"fmt"
	"time"
)

// Errors come in clumps: a backend goes away for ten seconds and fails all that
// is sent to it. Where the control is the same nodes before the step, such a
// clump meets the canary alone, and a share of errors taken over ten minutes says
// nothing of ten seconds. So a canary without a control must be worse than the
// worst spell before the step that was as long as its bake is by now.

// Spell is the worst that happened before a step within one length of time: the
// highest share of errors, of all traffic and by endpoint. What is missing is 0.
type Spell struct {
	Seconds   float64            `json:"seconds"`
	All       float64            `json:"all,omitempty"`
	Endpoints map[string]float64 `json:"endpoints,omitempty"`
}

// WorstSpell returns the highest share of errors of a spell as long as a bake, of
// all traffic for the endpoint "". It takes the longest that is no longer than the
// bake. A bake that is shorter than all of them may have met all the errors of the
// shortest.
func WorstSpell(all []Spell, endpoint string, bake time.Duration) float64 {
	share := 0.0
	for i, s := range all {
		if s.Seconds > bake.Seconds() && i > 0 {
			break
		}
		share = s.All
		if endpoint != "" {
			share = s.Endpoints[endpoint]
		}
		if s.Seconds > bake.Seconds() {
			return min(1, share*s.Seconds/max(bake.Seconds(), 1))
		}
	}
	return share
}

// spelled is a control with the share of errors of its worst spell.
func spelled(control Counts, share float64) Counts {
	control.Bad = max(control.Bad, share*control.Requests)
	return control
}

// spellNote says why a comparison does not fail.
func spellNote(share float64, control Counts, before bool) string {
	if !before {
		return fmt.Sprintf("in the hours before the canary's own nodes had %s of errors, too, more than the control has", percent(Counts{1, share}))
	}
	return fmt.Sprintf("before the step a spell as long as the bake had up to %s of errors, too: the %s of ten minutes says little of it",
		percent(Counts{1, share}), percent(control))
}
