package rollout

import (
	"context"
	"fmt"
	"math"
	"time"

	"github.com/binnacle-project/binnacle"
	"github.com/binnacle-project/binnacle/rollout/gate"
)

// spellLengths are the lengths for which spells are looked up. The shortest spans
// three roll-ups of a group that is not in a bake.
var spellLengths = [...]time.Duration{30 * time.Second, time.Minute, 2 * time.Minute, 5 * time.Minute}

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
func (r *reader) spells(ctx context.Context, s side, window time.Duration, at time.Time) ([]gate.Spell, error) {
	var out []gate.Spell
	for _, length := range spellLengths {
		if length > window {
			break
		}
		w := gate.Spell{Seconds: length.Seconds(), Endpoints: map[string]float64{}}
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
