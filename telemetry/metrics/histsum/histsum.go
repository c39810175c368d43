// Package histsum evaluates the expressions that dashboards ask of native
// histograms, in range queries, several times faster than PromQL's own engine,
// and to the same bits:
//
//	histogram_quantile(φ, sum by (…) (rate(x[range])))
//	histogram_count(sum by (…) (rate(x[range])))
//	histogram_sum(sum by (…) (rate(x[range])))
//
// Where they stand within larger expressions, these are evaluated here and
// handed to the engine as series. The engine decodes every sample once for each
// query too, but copies, aligns and allocates a histogram for each series and
// step; here a series is decoded into rows of numbers (decode.go), which
// differences and sums go over, several groups at a time (helpers.go), and
// what came of chunks that did not change since is not computed again (kept.go).
//
// Whatever is out of the ordinary (numbers among histograms, custom buckets,
// negative ones, mixed resolutions, gauges) leaves the whole query to the engine:
// this package has no opinion of its own on any of it.
//
// It is imported by package metrics only.
package histsum

import (
	"context"
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/storage"
)

// Engine is a query engine in front of another.
type Engine struct {
	promql.QueryEngine
	parser  parser.Parser
	timeout time.Duration
	cells   int
	helpers helpers
	kept    *kept
	taken   atomic.Uint64 // queries answered here
}

// New returns an engine that leaves to next what it does not know. timeout
// bounds a query; cells the numbers it holds in memory at once, beyond which the
// query is left to next and to its limits; keep the bytes of results that are
// kept for the next time.
func New(next promql.QueryEngine, p parser.Parser, timeout time.Duration, cells, keep int) *Engine {
	return &Engine{QueryEngine: next, parser: p, timeout: timeout, cells: cells, helpers: newHelpers(), kept: newKept(keep)}
}

// Kept returns the bytes of results that are kept, and for how many steps of
// groups a result was taken from there, and was computed, so far.
func (e *Engine) Kept() (bytes int64, reused, computed uint64) {
	return e.kept.bytes.Load(), e.kept.reused.Load(), e.kept.computed.Load()
}

// NewRangeQuery implements promql.QueryEngine.
func (e *Engine) NewRangeQuery(ctx context.Context, q storage.Queryable, opts promql.QueryOpts, qs string, start, end time.Time, interval time.Duration) (promql.Query, error) {
	whole, err := e.QueryEngine.NewRangeQuery(ctx, q, opts, qs, start, end, interval)
	if err != nil || strings.Contains(qs, resultName) || interval <= 0 {
		return whole, err
	}
	expr, err := e.parser.ParseExpr(qs)
	if err != nil {
		return whole, nil
	}
	expr, parts := takeOut(expr)
	if len(parts) == 0 {
		return whole, nil
	}
	return &query{
		Query: whole, e: e, from: q, opts: opts, rest: expr, parts: parts,
		start: start, end: end, interval: interval,
	}, nil
}

// query is a range query of which parts are evaluated here. The Query in it is
// the whole one, for the engine.
type query struct {
	promql.Query
	e          *Engine
	from       storage.Queryable
	opts       promql.QueryOpts
	rest       parser.Expr // with names of results in place of parts
	parts      []part
	start, end time.Time
	interval   time.Duration

	mu     sync.Mutex
	cancel context.CancelFunc
	second promql.Query // over the results
}

// errIrregular says that the data are not what is evaluated here.
var errIrregular = errors.New("left to the engine")

// Exec implements promql.Query.
func (q *query) Exec(ctx context.Context) *promql.Result {
	ctx, cancel := context.WithTimeout(ctx, q.e.timeout)
	defer cancel()
	q.mu.Lock()
	q.cancel = cancel
	q.mu.Unlock()
	res, err := q.exec(ctx)
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return &promql.Result{Err: promql.ErrQueryTimeout("expression evaluation")}
	case errors.Is(err, context.Canceled):
		return &promql.Result{Err: promql.ErrQueryCanceled("expression evaluation")}
	case err != nil: // the engine says it in its own words, if it is one
		return q.Query.Exec(ctx)
	}
	return res
}

func (q *query) exec(ctx context.Context) (*promql.Result, error) {
	from, ok := q.from.(storage.ChunkQueryable)
	ev := evaluator{e: q.e, from: from, start: q.start.UnixMilli(), end: q.end.UnixMilli(), step: q.interval.Milliseconds()}
	if !ok || ev.step <= 0 || ev.end < ev.start {
		return nil, errIrregular
	}
	over := results{Queryable: q.from, series: map[string][]result{}}
	for _, p := range q.parts {
		series, err := ev.eval(ctx, p)
		if err != nil {
			return nil, err
		}
		over.series[p.name] = series
	}
	q.e.taken.Add(1)
	if _, alone := bare(q.rest).(*parser.VectorSelector); alone {
		if m, ok := matrix(over.series[q.parts[0].name], q.e.cells); ok {
			return &promql.Result{Value: m}, nil
		}
	}
	second, err := q.e.QueryEngine.NewRangeQuery(ctx, over, q.opts, q.rest.String(), q.start, q.end, q.interval)
	if err != nil {
		return nil, err
	}
	q.mu.Lock()
	q.second = second
	q.mu.Unlock()
	return second.Exec(ctx), nil
}

// Close implements promql.Query.
func (q *query) Close() {
	q.Query.Close()
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.second != nil {
		q.second.Close()
	}
}

// Cancel implements promql.Query.
func (q *query) Cancel() {
	q.Query.Cancel()
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.cancel != nil {
		q.cancel()
	}
}
