package histsum

import (
	"context"
	"slices"
	"sort"
	"strings"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/chunks"
	"github.com/prometheus/prometheus/util/annotations"
)

// result is what came of a group.
type result struct {
	labels  labels.Labels
	numbers numbers
}

// matrix returns results as the engine would return those of a query for
// nothing else, or false if they are more samples than that.
func matrix(all []result, samples int) (promql.Matrix, bool) {
	out := make(promql.Matrix, 0, len(all))
	for _, r := range all {
		if samples -= len(r.numbers); samples < 0 {
			return nil, false
		}
		out = append(out, promql.Series{Metric: r.labels, Floats: r.numbers.points()})
	}
	sort.Sort(out)
	return out, true
}

// results serves results by their names beside what a store has.
type results struct {
	storage.Queryable
	series map[string][]result
}

// Querier implements storage.Queryable.
func (r results) Querier(mint, maxt int64) (storage.Querier, error) {
	q, err := r.Queryable.Querier(mint, maxt)
	return resultQuerier{q, r.series}, err
}

type resultQuerier struct {
	storage.Querier
	series map[string][]result
}

// Select implements storage.Querier.
func (q resultQuerier) Select(ctx context.Context, sorted bool, hints *storage.SelectHints, matchers ...*labels.Matcher) storage.SeriesSet {
	for _, m := range matchers {
		if m.Name == model.MetricNameLabel && m.Type == labels.MatchEqual && strings.HasPrefix(m.Value, resultName) {
			return &resultSet{left: q.series[m.Value]}
		}
	}
	return q.Querier.Select(ctx, sorted, hints, matchers...)
}

// resultSet implements storage.SeriesSet over a list.
type resultSet struct {
	at   result
	left []result
}

func (s *resultSet) Next() bool {
	if len(s.left) == 0 {
		return false
	}
	s.at, s.left = s.left[0], s.left[1:]
	return true
}

func (s *resultSet) At() storage.Series                { return s.at.numbers.series(s.at.labels) }
func (s *resultSet) Err() error                        { return nil }
func (s *resultSet) Warnings() annotations.Annotations { return nil }

// number is a sample of a result.
type number struct {
	t int64
	v float64
}

func (n *number) T() int64                      { return n.t }
func (n *number) ST() int64                     { return 0 }
func (n *number) F() float64                    { return n.v }
func (n *number) H() *histogram.Histogram       { return nil }
func (n *number) FH() *histogram.FloatHistogram { return nil }
func (n *number) Type() chunkenc.ValueType      { return chunkenc.ValFloat }
func (n *number) Copy() chunks.Sample           { c := *n; return &c }

// numbers are the samples of one series.
type numbers []number

func (n numbers) Get(i int) chunks.Sample { return &n[i] }
func (n numbers) Len() int                { return len(n) }

// any reports whether there is something at any step.
func (n numbers) any() bool {
	return slices.ContainsFunc(n, func(n number) bool { return !value.IsStaleNaN(n.v) })
}

// points returns what there is, as the engine has it.
func (n numbers) points() []promql.FPoint {
	out := make([]promql.FPoint, 0, len(n))
	for _, n := range n {
		if !value.IsStaleNaN(n.v) {
			out = append(out, promql.FPoint{T: n.t, F: n.v})
		}
	}
	return out
}

func (n numbers) series(l labels.Labels) storage.Series {
	return &storage.SeriesEntry{Lset: l, SampleIteratorFn: func(chunkenc.Iterator) chunkenc.Iterator {
		return storage.NewListSeriesIterator(n)
	}}
}
