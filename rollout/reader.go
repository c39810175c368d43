package rollout

import (
	"context"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"

	"github.com/binnacle-project/binnacle"
	"github.com/binnacle-project/binnacle/rollout/gate"
)

// Telemetry answers PromQL at one moment, and for every step of a window, both
// ends included. Gates, diffs and reports read the roll-ups through it.
type Telemetry interface {
	Query(ctx context.Context, expr string, at time.Time) (promql.Vector, error)
	QueryRange(ctx context.Context, expr string, start, end time.Time, step time.Duration) (promql.Matrix, error)
}

// reader reads what series gained since a moment. It keeps what they were then,
// which no longer changes, and their newest value, for a series that ends still
// counts. It is for one gate and one goroutine.
type reader struct {
	t      Telemetry
	series map[string]map[string]*gained // by selector and moment, then by labels
}

type gained struct {
	labels     labels.Labels
	begin, end promql.Sample
}

func newReader(t Telemetry) *reader {
	return &reader{t: t, series: make(map[string]map[string]*gained)}
}

// since returns what each series of the selector had at from, and has at the
// moment at. The first read looks back for series that have ended since from.
func (r *reader) since(ctx context.Context, selector string, from, at time.Time) (map[string]*gained, error) {
	key := promTime(from) + selector
	all := r.series[key]
	expr := selector
	if all == nil {
		begin, err := r.t.Query(ctx, "last_over_time("+selector+"["+promDuration(lookBehind)+"])", from)
		if err != nil {
			return nil, err
		}
		all = make(map[string]*gained)
		for _, s := range begin {
			all[s.Metric.String()] = &gained{labels: s.Metric, begin: s, end: s}
		}
		expr = "last_over_time(" + selector + "[" + promDuration(max(at.Sub(from), time.Second)+10*time.Second) + "])"
	}
	end, err := r.t.Query(ctx, expr, at)
	if err != nil {
		return nil, err
	}
	for _, s := range end {
		k := s.Metric.String()
		if g := all[k]; g != nil {
			g.end = s
		} else {
			all[k] = &gained{labels: s.Metric, end: s}
		}
	}
	r.series[key] = all
	return all, nil
}

// of returns the increase of one measure of a series. A series that fell began
// anew.
func (g *gained) of(measure func(promql.Sample) float64) float64 {
	before, after := measure(g.begin), measure(g.end)
	if after < before {
		return after
	}
	return after - before
}

func requestsOf(s promql.Sample) float64 {
	if s.H == nil {
		return s.F
	}
	return s.H.Count
}

// book adds a roll-up series to a tally.
func book(t *gate.Tally, g *gained, slow [2]float64) {
	outcome := g.labels.Get(binnacle.LabelOutcome)
	if outcome == binnacle.Limited.String() {
		return
	}
	n := g.of(requestsOf)
	t.Requests += n
	switch outcome {
	case binnacle.Error.String():
		t.Errors += n
	case binnacle.ClientError.String():
		t.Client += n
	}
	if slow[0] > 0 {
		t.Slow50 += g.of(slowerThan(slow[0]))
		t.Slow99 += g.of(slowerThan(slow[1]))
	}
}

// all reads the tally of a side.
func (r *reader) all(ctx context.Context, s side, from, at time.Time, slow [2]float64) (gate.Tally, error) {
	t := gate.Tally{}
	series, err := r.since(ctx, s.all(), from, at)
	if err != nil {
		return t, err
	}
	for _, g := range series {
		book(&t, g, slow)
	}
	if len(s.nodes) == 0 {
		return t, nil
	}
	raw, err := r.since(ctx, s.statuses(), from, at)
	if err != nil {
		return t, err
	}
	t.Status = make(map[string]float64)
	for _, g := range raw {
		t.Status[g.labels.Get(labelStatus)] += g.of(requestsOf)
	}
	return t, nil
}

// endpoints reads the tallies of a side by endpoint.
func (r *reader) endpoints(ctx context.Context, s side, from, at time.Time, slow map[string][2]float64) (map[string]gate.Tally, error) {
	series, err := r.since(ctx, s.endpoints(""), from, at)
	if err != nil {
		return nil, err
	}
	out := make(map[string]gate.Tally)
	for _, g := range series {
		name := endpointName(g.labels)
		if name == "" {
			continue
		}
		t := out[name]
		book(&t, g, slow[name])
		out[name] = t
	}
	return out, nil
}

// endpointName is "GET /users/{id}"; empty for requests that matched no route.
func endpointName(l labels.Labels) string {
	if l.Get(labelRoute) == "" {
		return ""
	}
	return l.Get(labelMethod) + " " + l.Get(labelRoute)
}
