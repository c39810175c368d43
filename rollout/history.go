package rollout

import (
	"context"
	"fmt"
	"maps"
	"math"
	"slices"
	"time"

	"github.com/binnacle-project/binnacle"
	"github.com/binnacle-project/binnacle/rollout/gate"
)

// servedQuery is PromQL for the requests of a window, by outcome.
func servedQuery(selector string, window time.Duration) string {
	return fmt.Sprintf(`sum by (%s) (histogram_count(increase(%s,%s!=%q}[%s])))`, binnacle.LabelOutcome,
		selector[:len(selector)-1], binnacle.LabelOutcome, binnacle.Limited.String(), promDuration(window))
}

// history reads the hours before a rollout, which began at the moment to: what the
// whole group served with the revision of a side. Revisions that others had by then
// are not in it, such as one that was rolled back.
func (r *reader) history(ctx context.Context, s side, to time.Time) (*gate.History, error) {
	s.nodes = nil
	h := &gate.History{From: to.Add(-gate.HistoryFor), To: to, Query: servedQuery(s.all(), gate.SpellFor)}
	m, err := r.t.QueryRange(ctx, h.Query, h.From.Add(gate.SpellFor), to, gate.SpellFor)
	if err != nil {
		return nil, err
	}
	spells := make(map[int64]gate.Counts)
	for _, series := range m {
		bad := series.Metric.Get(binnacle.LabelOutcome) == binnacle.Error.String()
		for _, p := range series.Floats {
			c, n := spells[p.T], math.Round(p.F) // increase() makes up for the edges
			if c.Requests += n; bad {
				c.Bad += n
			}
			spells[p.T] = c
		}
	}
	for _, at := range slices.Sorted(maps.Keys(spells)) {
		if c := spells[at]; c.Requests >= 1 {
			h.Spells = append(h.Spells, c)
		}
	}
	return h, nil
}

// parts reads what a side served in the hours before, part by part.
func (r *reader) parts(ctx context.Context, s side, to time.Time) ([]gate.Counts, error) {
	const part = gate.HistoryFor / gate.OwnParts
	m, err := r.t.QueryRange(ctx, servedQuery(s.all(), part), to.Add(part-gate.HistoryFor), to, part)
	if err != nil {
		return nil, err
	}
	parts := make([]gate.Counts, gate.OwnParts)
	for _, series := range m {
		bad := series.Metric.Get(binnacle.LabelOutcome) == binnacle.Error.String()
		for _, p := range series.Floats {
			i := gate.OwnParts - 1 - int(to.Sub(time.UnixMilli(p.T))/part)
			if i < 0 || i >= gate.OwnParts {
				continue
			}
			if parts[i].Requests += p.F; bad {
				parts[i].Bad += p.F
			}
		}
	}
	return parts, nil
}

// own reads the share of errors that a side's nodes alone had before, if they are named:
// ownShare of them and of the whole group.
func (r *reader) own(ctx context.Context, s side, to time.Time) (float64, error) {
	if !s.named() {
		return 0, nil
	}
	own, err := r.parts(ctx, s, to)
	if err != nil {
		return 0, err
	}
	s.nodes = nil
	group, err := r.parts(ctx, s, to)
	return gate.OwnShare(own, group), err
}
