package rollout

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"

	"github.com/binnacle-project/binnacle"
	"github.com/binnacle-project/binnacle/api"
)

// Telemetry answers PromQL at one moment. Gates, diffs and reports read the
// roll-ups through it.
type Telemetry interface {
	Query(ctx context.Context, expr string, at time.Time) (promql.Vector, error)
}

const (
	// baselineFor is how long before a rollout its baseline begins.
	baselineFor = 10 * time.Minute
	// maxNamedNodes bounds the nodes that a query names. Larger sides are told
	// apart by revision alone, and their client errors by status on the first
	// of their nodes.
	maxNamedNodes = 64
	// slowFactor, slow50Plus and slow99Plus make a threshold of a quantile: a
	// node that is somewhat slower than its neighbors is no failure.
	slowFactor = 1.5
	slow50Plus = 0.005
	slow99Plus = 0.010
	// lookBehind is how far back a series may have rested before a window and
	// still be known at its begin.
	lookBehind = time.Hour

	labelMethod = "http_request_method"
	labelRoute  = "http_route"
	// rawServer has the status of each answer, which roll-ups have not. Under
	// this name it is a counter, however histograms are stored.
	rawServer   = "http_server_request_duration_seconds_count"
	labelStatus = "http_response_status_code"
)

// side is one side of a gate: nodes of a group that run a revision.
type side struct {
	group    binnacle.Group
	revision binnacle.Revision
	nodes    []binnacle.NodeID // all of the revision if there are too many, or none
}

func (s side) named() bool { return len(s.nodes) > 0 && len(s.nodes) <= maxNamedNodes }

// all selects the roll-up of everything the side serves.
func (s side) all() string {
	if s.named() {
		return fmt.Sprintf(`%s{group=%q,revision="%d",instance=~%q}`, binnacle.RollupNode, s.group, s.revision, alternatives(s.nodes))
	}
	return fmt.Sprintf(`%s{group=%q,revision="%d"}`, binnacle.RollupGroup, s.group, s.revision)
}

// endpoints selects the roll-up by endpoint, which knows no nodes.
func (s side) endpoints(more string) string {
	return fmt.Sprintf(`%s{group=%q,revision="%d"%s}`, binnacle.RollupEndpoint, s.group, s.revision, more)
}

// statuses selects the raw series that tell client errors apart.
func (s side) statuses() string {
	return fmt.Sprintf(`%s{group=%q,instance=~%q,job!=%q,%s=~"401|403|404"}`, rawServer, s.group,
		alternatives(s.nodes[:min(len(s.nodes), maxNamedNodes)]), binnacle.ServiceAgent, labelStatus)
}

// alternatives is a regular expression for ids, which hold no special character
// but the dot.
func alternatives(ids []binnacle.NodeID) string {
	parts := make([]string, len(ids))
	for i, id := range ids {
		parts[i] = strings.ReplaceAll(string(id), ".", `\.`)
	}
	return strings.Join(parts, "|")
}

// increaseQuery is PromQL for what a cumulative series gained from a moment to
// the time of the query, exactly, where increase() would extrapolate.
func increaseQuery(by, selector string, from time.Time) string {
	return fmt.Sprintf("sum by (%s) (%[2]s - (last_over_time(%[2]s[%[3]s] @ %[4]s) or %[2]s * 0))", by, selector, promDuration(lookBehind), promTime(from))
}

func promDuration(d time.Duration) string { return fmt.Sprintf("%ds", int64(d.Seconds())) }
func promTime(t time.Time) string         { return fmt.Sprintf("%.3f", float64(t.UnixMilli())/1e3) }

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

// slowerThan counts the requests over a threshold, which is a bound of buckets.
func slowerThan(threshold float64) func(promql.Sample) float64 {
	return func(s promql.Sample) float64 {
		if s.H == nil {
			return 0
		}
		return countAbove(s.H, threshold)
	}
}

func countAbove(h *histogram.FloatHistogram, threshold float64) float64 {
	n := 0.0
	for it := h.PositiveBucketIterator(); it.Next(); {
		if b := it.At(); b.Lower >= threshold*(1-1e-9) {
			n += b.Count
		}
	}
	return n
}

// snap returns the smallest bound of the roll-ups' buckets that is not under v:
// powers of two, each cut into eight.
func snap(v float64) float64 { return math.Exp2(math.Ceil(8*math.Log2(v)-1e-6) / 8) }

// book adds a roll-up series to a tally.
func (t *tally) book(g *gained, slow [2]float64) {
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
func (r *reader) all(ctx context.Context, s side, from, at time.Time, slow [2]float64) (tally, error) {
	t := tally{}
	series, err := r.since(ctx, s.all(), from, at)
	if err != nil {
		return t, err
	}
	for _, g := range series {
		t.book(g, slow)
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
func (r *reader) endpoints(ctx context.Context, s side, from, at time.Time, slow map[string][2]float64) (map[string]tally, error) {
	series, err := r.since(ctx, s.endpoints(""), from, at)
	if err != nil {
		return nil, err
	}
	out := make(map[string]tally)
	for _, g := range series {
		name := endpointName(g.labels)
		if name == "" {
			continue
		}
		t := out[name]
		t.book(g, slow[name])
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

// thresholds returns what slow means: over the quantiles of a window that ends
// at the moment at, by endpoint, and "" for all traffic.
func (r *reader) thresholds(ctx context.Context, s side, window time.Duration, at time.Time) (map[string][2]float64, error) {
	out := make(map[string][2]float64)
	for i, q := range []struct{ quantile, plus float64 }{{0.5, slow50Plus}, {0.99, slow99Plus}} {
		for _, expr := range []string{
			fmt.Sprintf(`histogram_quantile(%g, sum(increase(%s[%s])))`, q.quantile, s.all(), promDuration(window)),
			fmt.Sprintf(`histogram_quantile(%g, sum by (%s, %s) (increase(%s[%s])))`, q.quantile, labelMethod, labelRoute, s.endpoints(""), promDuration(window)),
		} {
			v, err := r.t.Query(ctx, expr, at)
			if err != nil {
				return nil, err
			}
			for _, x := range v {
				name := endpointName(x.Metric)
				if math.IsNaN(x.F) || x.F <= 0 || name == "" && !x.Metric.IsEmpty() {
					continue
				}
				slow := out[name]
				slow[i] = snap(x.F*slowFactor + q.plus)
				out[name] = slow
			}
		}
	}
	for name, slow := range out { // both or none
		if slow[0] == 0 || slow[1] == 0 {
			delete(out, name)
		}
	}
	return out, nil
}

// question is what a gate asks the telemetry.
type question struct {
	Canary, Control side
	// From is the begin of the bake, At the time of the look.
	From, At time.Time
	// Baseline is who served before the step, and from when on, up to
	// BaselineTo.
	Baseline     side
	BaselineFrom time.Time
	BaselineTo   time.Time
	// Before says that the baseline is the control.
	Before bool
	// ByNode says that both sides run the same revision: roll-ups by endpoint,
	// which know no nodes, do not tell them apart.
	ByNode bool
}

// baseline is what the group served before the step. It is read once and
// stored.
type baseline struct {
	All       tally            `json:"all"`
	Endpoints map[string]tally `json:"endpoints,omitempty"`
	// Spells are the worst ones, the shortest first; only where the baseline is
	// the control.
	Spells []spell `json:"spells,omitempty"`
}

// readBaseline reads what served before the step, and the thresholds of latency
// from it.
func readBaseline(ctx context.Context, r *reader, q question) (baseline, map[string][2]float64, error) {
	var b baseline
	slow, err := r.thresholds(ctx, q.Baseline, q.BaselineTo.Sub(q.BaselineFrom), q.BaselineTo)
	if err != nil {
		return b, nil, err
	}
	once := newReader(r.t)
	if b.All, err = once.all(ctx, q.Baseline, q.BaselineFrom, q.BaselineTo, slow[""]); err != nil {
		return b, nil, err
	}
	b.Endpoints, err = once.endpoints(ctx, q.Baseline, q.BaselineFrom, q.BaselineTo, slow)
	if q.Before && err == nil {
		b.Spells, err = r.spells(ctx, q.Baseline, q.BaselineTo.Sub(q.BaselineFrom), q.BaselineTo)
	}
	if b.All.Requests < enoughRequests {
		delete(slow, "") // a quantile of a handful says little
	}
	for name := range slow {
		if name != "" && b.Endpoints[name].Requests < enoughRequests {
			delete(slow, name)
		}
	}
	return b, slow, err
}

// readLook reads both sides as of q.At.
func readLook(ctx context.Context, r *reader, q question, b baseline, slow map[string][2]float64) (look, error) {
	l := look{At: q.At, Endpoints: make(map[string]sides)}
	var errs []error
	read := func(s side, all func(*sides) *tally) {
		t, err := r.all(ctx, s, q.From, q.At, slow[""])
		errs = append(errs, err)
		*all(&l.All) = t
		if q.ByNode {
			return
		}
		ends, err := r.endpoints(ctx, s, q.From, q.At, slow)
		errs = append(errs, err)
		for name, t := range ends {
			e := l.Endpoints[name]
			*all(&e) = t
			l.Endpoints[name] = e
		}
	}
	read(q.Canary, func(s *sides) *tally { return &s.Canary })
	if !q.Before {
		read(q.Control, func(s *sides) *tally { return &s.Control })
	}
	bake := q.At.Sub(q.From)
	l.All.Baseline, l.All.Spell = b.All, worstSpell(b.Spells, "", bake)
	for name, e := range l.Endpoints {
		e.Baseline, e.Spell = b.Endpoints[name], worstSpell(b.Spells, name, bake)
		l.Endpoints[name] = e
	}
	return l, errors.Join(errs...)
}

// sign puts nodes, windows and queries beside what a verdict found.
func (q question) sign(v *api.Verdict) {
	v.From = q.From
	v.Canaries, v.Controls = first(q.Canary.nodes), first(q.Control.nodes)
	control, from, at := q.Control, q.From, time.Time{}
	if q.BaselineFrom.Before(q.BaselineTo) {
		v.BaselineFrom = q.BaselineFrom
	}
	if q.Before {
		v.Controls = first(q.Baseline.nodes)
		control, from, at = q.Baseline, q.BaselineFrom, q.BaselineTo
	}
	for i := range v.Comparisons {
		c := &v.Comparisons[i]
		c.CanaryQuery = q.Canary.query(c, q.From, time.Time{})
		c.ControlQuery = control.query(c, from, at)
	}
}

// query is PromQL for one side of a comparison; to, if set, fixes the end.
func (s side) query(c *api.Comparison, from, to time.Time) string {
	selector := s.all()
	switch {
	case c.Endpoint != "":
		method, route, _ := strings.Cut(c.Endpoint, " ")
		selector = s.endpoints(fmt.Sprintf(`,%s=%q,%s=%q`, labelMethod, method, labelRoute, route))
	case strings.HasPrefix(c.What, whatAnyClient+"_4") && len(s.nodes) > 0:
		return fixed(increaseQuery(labelStatus, s.statuses(), from), s.statuses(), to)
	}
	return fixed(increaseQuery(binnacle.LabelOutcome, selector, from), selector, to)
}

// fixed has the ends of a query read at a moment.
func fixed(query, selector string, to time.Time) string {
	if to.IsZero() {
		return query
	}
	at := selector + " @ " + promTime(to)
	return strings.NewReplacer("("+selector+" - (", "("+at+" - (", "or "+selector+" * 0", "or "+at+" * 0").Replace(query)
}

func first(ids []binnacle.NodeID) []binnacle.NodeID { return ids[:min(len(ids), maxNamedNodes)] }
