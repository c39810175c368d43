package rollout

import (
	"context"
	"fmt"
	"math"
	"time"

	"github.com/binnacle-project/binnacle"
)

// Errors come in clumps: a backend goes away for ten seconds and fails all that
// is sent to it. Where the control is the same nodes before the step, such a
// clump meets the canary alone, and a share of errors taken over ten minutes says
// nothing of ten seconds. So a canary without a control must be worse than the
// worst spell before the step that was as long as its bake is by now.

// spellLengths are the lengths for which spells are looked up. The shortest spans
// three roll-ups of a group that is not in a bake.
var spellLengths = [...]time.Duration{30 * time.Second, time.Minute, 2 * time.Minute, 5 * time.Minute}

// spell is the worst that happened before a step within one length of time: the
// highest share of errors, of all traffic and by endpoint. What is missing is 0.
type spell struct {
	Seconds   float64            `json:"seconds"`
	All       float64            `json:"all,omitempty"`
	Endpoints map[string]float64 `json:"endpoints,omitempty"`
}

// spellQuery is PromQL for the highest share of errors in any window as long as
// length, over the time before the query, by the labels in by, if any.
func spellQuery(by, selector string, length, over time.Duration) string {
	served := func(more string) string {
		return fmt.Sprintf(`sum %s(histogram_count(increase(%s,%s[%s])))`, by, selector[:len(selector)-1], more+"}", promDuration(length))
	}
	return fmt.Sprintf(`max_over_time((%s / %s)[%s:10s])`,
		served(fmt.Sprintf(`%s=%q`, binnacle.LabelOutcome, binnacle.Error.String())),
		served(fmt.Sprintf(`%s!=%q`, binnacle.LabelOutcome, binnacle.Limited.String())), promDuration(over))
}

// spells reads the worst spells of a side over a window that ends at the moment
// at.
func (r *reader) spells(ctx context.Context, s side, window time.Duration, at time.Time) ([]spell, error) {
	var out []spell
	for _, length := range spellLengths {
		if length > window {
			break
		}
		w := spell{Seconds: length.Seconds(), Endpoints: map[string]float64{}}
		for _, expr := range []string{
			spellQuery("", s.all(), length, window),
			spellQuery(fmt.Sprintf("by (%s, %s) ", labelMethod, labelRoute), s.endpoints(""), length, window),
		} {
			v, err := r.t.Query(ctx, expr, at)
			if err != nil {
				return nil, err
			}
			for _, x := range v {
				share := min(x.F, 1)
				switch name := endpointName(x.Metric); {
				case math.IsNaN(share) || share <= 0:
				case name != "":
					w.Endpoints[name] = share
				case x.Metric.IsEmpty():
					w.All = share
				}
			}
		}
		out = append(out, w)
	}
	return out, nil
}

// worstSpell returns the highest share of errors of a spell as long as a bake, of
// all traffic for the endpoint "". It takes the longest that is no longer than the
// bake. A bake that is shorter than all of them may have met all the errors of the
// shortest.
func worstSpell(all []spell, endpoint string, bake time.Duration) float64 {
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
func spelled(control counts, share float64) counts {
	control.Bad = max(control.Bad, share*control.Requests)
	return control
}

// spellNote says why a comparison does not fail.
func spellNote(share float64, control counts, before bool) string {
	if !before {
		return fmt.Sprintf("in the hours before the canary's own nodes had %s of errors, too, more than the control has", percent(counts{1, share}))
	}
	return fmt.Sprintf("before the step a spell as long as the bake had up to %s of errors, too: the %s of ten minutes says little of it",
		percent(counts{1, share}), percent(control))
}
