package histsum

import (
	"context"
	"fmt"
	"math"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser/posrange"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
)

// evaluator evaluates parts at the steps of one query. Times are Unix
// milliseconds.
type evaluator struct {
	from             storage.Queryable
	cells            int
	start, end, step int64

	rows  rows
	group group
	it    chunkenc.Iterator
	sum   histogram.FloatHistogram
}

// members are the series of one group, in the order of the store.
type members struct {
	labels labels.Labels
	series []storage.Series
}

// eval returns the result of a part: a series for each group, in the order in
// which the store has the first of each, with a stale marker at each step at
// which there is nothing.
func (ev *evaluator) eval(ctx context.Context, p part) ([]storage.Series, error) {
	window := p.window.Milliseconds()
	q, err := ev.from.Querier(ev.start-window+1, ev.end)
	if err != nil {
		return nil, err
	}
	defer q.Close()
	ev.rows.spare = [2]*histogram.FloatHistogram{{}, {}}
	groups, err := ev.groups(ctx, q, p, window)
	if err != nil {
		return nil, err
	}
	steps := int((ev.end-ev.start)/ev.step) + 1
	if len(groups) > 0 && steps > ev.cells/len(groups) {
		return nil, errIrregular
	}
	// One after the other: a querier's series must not be read side by side.
	var out []storage.Series
	for _, m := range groups {
		n, err := ev.one(ctx, p, m, steps)
		if err != nil {
			return nil, err
		}
		if n != nil {
			out = append(out, n.series(m.labels))
		}
	}
	return out, nil
}

// one returns what is asked of one group at each step.
func (ev *evaluator) one(ctx context.Context, p part, m *members, steps int) (numbers, error) {
	ev.group.reset(steps)
	schema := int32(math.MaxInt32)
	for _, s := range m.series {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if err := ev.add(s, p.window.Milliseconds(), p.rate, &schema); err != nil {
			return nil, err
		}
	}
	return ev.numbers(p, schema)
}

// groups lists the series by the labels that are kept.
func (ev *evaluator) groups(ctx context.Context, q storage.Querier, p part, window int64) ([]*members, error) {
	hints := &storage.SelectHints{
		Start: ev.start - window + 1, End: ev.end, Step: ev.step, Range: window,
		Func: p.call, Grouping: p.by, By: true,
	}
	set := q.Select(ctx, false, hints, p.matchers...)
	var out []*members
	byLabels := map[string]*members{}
	lb := labels.NewBuilder(labels.EmptyLabels())
	for set.Next() {
		s := set.At()
		lb.Reset(s.Labels())
		lb.Keep(p.by...)
		l := lb.Labels()
		m := byLabels[l.String()]
		if m == nil {
			m = &members{labels: l}
			byLabels[l.String()] = m
			out = append(out, m)
		}
		m.series = append(m.series, s)
	}
	if err := set.Err(); err != nil {
		return nil, err
	}
	if len(set.Warnings()) > 0 {
		return nil, errIrregular
	}
	return out, nil
}

// add adds a series to the group. schema is that of the series before.
func (ev *evaluator) add(s storage.Series, window int64, perSecond bool, schema *int32) error {
	r, g := &ev.rows, &ev.group
	ev.it = s.Iterator(ev.it)
	if err := r.read(ev.it, ev.start-window+1, ev.end, ev.cells); err != nil {
		return err
	}
	if len(r.t) == 0 {
		return nil
	}
	if *schema != math.MaxInt32 && *schema != r.schema {
		return errIrregular
	}
	*schema = r.schema
	if err := g.cover(r, ev.cells); err != nil {
		return err
	}
	divisor := 1.0
	if perSecond {
		divisor = float64(window) / 1000
	}
	from, to := 0, -1 // the rows in the window
	for step := range g.steps {
		end := ev.start + int64(step)*ev.step
		begin := end - window
		for to+1 < len(r.t) && r.t[to+1] <= end {
			to++
		}
		for from < len(r.t) && r.t[from] <= begin {
			from++
		}
		if to > from {
			g.add(step, r, from, to, begin, end, divisor)
		}
	}
	return nil
}

// numbers turns the group's histograms into what is asked of them; nil where
// there are none.
func (ev *evaluator) numbers(p part, schema int32) (numbers, error) {
	g, any := &ev.group, false
	out := make(numbers, g.steps)
	ev.sum.Schema = schema
	for step := range out {
		n := &out[step]
		n.t = ev.start + int64(step)*ev.step
		if !g.seen[step] {
			n.v = math.Float64frombits(value.StaleNaN)
			continue
		}
		any = true
		switch p.what {
		case "histogram_count":
			n.v = g.count[step] + g.countC[step]
		case "histogram_sum":
			n.v = g.sum[step] + g.sumC[step]
		case "histogram_quantile":
			g.histogram(step, &ev.sum)
			v, notes := promql.HistogramQuantile(p.quantile, &ev.sum, "", posrange.PositionRange{})
			if len(notes) > 0 {
				return nil, errIrregular // the engine knows where in the query it is
			}
			n.v = v
		default:
			return nil, fmt.Errorf("BUG: histsum evaluates %s", p.what)
		}
	}
	if !any {
		return nil, nil
	}
	return out, nil
}
