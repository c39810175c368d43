package histsum

import (
	"context"
	"strings"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/chunks"
	"github.com/prometheus/prometheus/util/annotations"
)

// results serves results by their names beside what a store has.
type results struct {
	storage.Queryable
	series map[string][]storage.Series
}

// Querier implements storage.Queryable.
func (r results) Querier(mint, maxt int64) (storage.Querier, error) {
	q, err := r.Queryable.Querier(mint, maxt)
	return resultQuerier{q, r.series}, err
}

type resultQuerier struct {
	storage.Querier
	series map[string][]storage.Series
}

// Select implements storage.Querier.
func (q resultQuerier) Select(ctx context.Context, sorted bool, hints *storage.SelectHints, matchers ...*labels.Matcher) storage.SeriesSet {
	for _, m := range matchers {
		if m.Name == labels.MetricName && m.Type == labels.MatchEqual && strings.HasPrefix(m.Value, resultName) {
			return &resultSet{left: q.series[m.Value]}
		}
	}
	return q.Querier.Select(ctx, sorted, hints, matchers...)
}

// resultSet implements storage.SeriesSet over a list.
type resultSet struct {
	at   storage.Series
	left []storage.Series
}

func (s *resultSet) Next() bool {
	if len(s.left) == 0 {
		return false
	}
	s.at, s.left = s.left[0], s.left[1:]
	return true
}

func (s *resultSet) At() storage.Series                { return s.at }
func (s *resultSet) Err() error                        { return nil }
func (s *resultSet) Warnings() annotations.Annotations { return nil }

// number is a sample of a result.
type number struct {
	t int64
	v float64
}

func (n number) T() int64                      { return n.t }
func (n number) ST() int64                     { return 0 }
func (n number) F() float64                    { return n.v }
func (n number) H() *histogram.Histogram       { return nil }
func (n number) FH() *histogram.FloatHistogram { return nil }
func (n number) Type() chunkenc.ValueType      { return chunkenc.ValFloat }
func (n number) Copy() chunks.Sample           { return n }

// numbers are the samples of one series.
type numbers []number

func (n numbers) Get(i int) chunks.Sample { return n[i] }
func (n numbers) Len() int                { return len(n) }

func (n numbers) series(l labels.Labels) storage.Series {
	return &storage.SeriesEntry{Lset: l, SampleIteratorFn: func(chunkenc.Iterator) chunkenc.Iterator {
		return storage.NewListSeriesIterator(n)
	}}
}
