package metrics

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/storage"
)

// lookback is how long the last sample of a series counts as its value now.
const lookback = 5 * time.Minute

// keptResults is how many bytes of results are kept for queries that come again:
// enough for some panels by node of a large fleet, less where memory is small,
// which lowers the sample limit too.
func keptResults(o Options) int { return min(32<<20, 2*o.Query.MaxSamples) }

func newEngine(o Options, p parser.Parser, reg prometheus.Registerer, log *slog.Logger) *promql.Engine {
	return promql.NewEngine(promql.EngineOpts{
		Logger:               log.With("part", "promql"),
		Reg:                  reg,
		Parser:               p,
		MaxSamples:           o.Query.MaxSamples,
		Timeout:              o.Query.Timeout,
		LookbackDelta:        lookback,
		EnableAtModifier:     true,
		EnableNegativeOffset: true,
		// A subquery without a step takes the nodes' usual export interval
		// times six: fine enough for minutes, cheap enough for days.
		NoStepSubqueryIntervalFn: func(int64) int64 { return time.Minute.Milliseconds() },
	})
}

// Queryable returns the store as PromQL reads it, with classic histogram names
// served from native series. It is safe for concurrent use.
func (s *Store) Queryable() storage.SampleAndChunkQueryable { return s.queryable() }

// Query evaluates expr at one moment and returns its vector; a scalar comes
// back as a vector of one without labels. The caller owns the result. It is
// for the manager's own questions: it takes no place among those of clients
// that Handler counts, but the engine's limits hold.
func (s *Store) Query(ctx context.Context, expr string, at time.Time) (promql.Vector, error) {
	q, err := s.engine.NewInstantQuery(ctx, s.queryable(), nil, expr, at)
	if err != nil {
		return nil, fmt.Errorf("query %q: %w", expr, err)
	}
	res := q.Exec(ctx)
	defer q.Close() // gives back the memory of matrices only
	if res.Err != nil {
		return nil, fmt.Errorf("query %q: %w", expr, res.Err)
	}
	switch v := res.Value.(type) {
	case promql.Vector:
		return v, nil
	case promql.Scalar:
		return promql.Vector{{T: v.T, F: v.V}}, nil
	}
	return nil, fmt.Errorf("query %q: gives a %s: want a vector or a number", expr, res.Value.Type())
}

// QueryRange evaluates expr from start to end, both included, every step. The
// caller owns the result.
func (s *Store) QueryRange(ctx context.Context, expr string, start, end time.Time, step time.Duration) (promql.Matrix, error) {
	q, err := s.ranges.NewRangeQuery(ctx, s.queryable(), nil, expr, start, end, step)
	if err != nil {
		return nil, fmt.Errorf("query %q: %w", expr, err)
	}
	// q is not closed: that would hand the memory of the result to another
	// query. The collector takes it instead.
	m, err := q.Exec(ctx).Matrix()
	if err != nil {
		return nil, fmt.Errorf("query %q: %w", expr, err)
	}
	return m, nil
}
