package histsum

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb"
)

func newEngines(t testing.TB) (*promql.Engine, *Engine) {
	p := parser.NewParser(parser.Options{})
	plain := promql.NewEngine(promql.EngineOpts{Parser: p, MaxSamples: 50e6, Timeout: time.Minute, LookbackDelta: 5 * time.Minute, EnableAtModifier: true})
	t.Cleanup(func() { plain.Close() })
	return plain, New(plain, p, time.Minute, 50e6, 1<<20)
}

var begin = time.Unix(1_700_000_000, 0).Truncate(time.Hour)

// fill makes series of histograms with all that happens to them: gaps, stale
// markers, resets seen and hidden, buckets that come late, late samples, series
// that begin and end, and, where odd, what is left to the engine.
func fill(t testing.TB, db *tsdb.DB, r *rand.Rand, odd, custom bool) {
	t.Helper()
	for i := range 14 {
		l := labels.FromStrings("__name__", "x", "a", fmt.Sprint(i%3), "b", fmt.Sprint(i%4), "n", fmt.Sprint(i))
		counts := make([]int64, 30)
		lo, width := int32(r.IntN(6)), 1+r.IntN(8)
		sum, zero := 0.0, uint64(0)
		at := begin.Add(time.Duration(r.IntN(20)) * time.Minute)
		for at.Before(begin.Add(time.Duration(25+r.IntN(40)) * time.Minute)) {
			switch r.IntN(60) {
			case 0:
				at = at.Add(time.Duration(r.IntN(8)) * time.Minute)
			case 1: // a restart
				clear(counts)
				sum, zero = 0, 0
			case 2:
				width = min(width+1+r.IntN(6), len(counts))
			case 3:
				app := db.Appender(t.Context())
				if _, err := app.AppendHistogram(0, l, at.UnixMilli(), &histogram.Histogram{Sum: math.Float64frombits(value.StaleNaN)}, nil); err != nil {
					t.Fatal(err)
				}
				if err := app.Commit(); err != nil {
					t.Fatal(err)
				}
				at = at.Add(10 * time.Second)
			}
			h := &histogram.Histogram{Schema: 3, ZeroCount: zero, Count: zero}
			if custom {
				h.Schema, h.ZeroCount, h.Count = histogram.CustomBucketsSchema, 0, 0
				for j := range 40 {
					h.CustomValues = append(h.CustomValues, float64(j)/3)
				}
			}
			prev, next := int64(0), int32(0)
			for j := range counts[:width] {
				counts[j] += int64(r.IntN(3) * r.IntN(2) * r.IntN(40))
				if counts[j] == 0 && r.IntN(2) == 0 {
					continue // a hole in the spans
				}
				k := lo + int32(j)
				if n := len(h.PositiveSpans); n > 0 && k == next {
					h.PositiveSpans[n-1].Length++
				} else {
					offset := k - next
					if n == 0 {
						offset = k
					}
					h.PositiveSpans = append(h.PositiveSpans, histogram.Span{Offset: offset, Length: 1})
				}
				next = k + 1
				h.PositiveBuckets = append(h.PositiveBuckets, counts[j]-prev)
				prev = counts[j]
				h.Count += uint64(counts[j])
			}
			sum += r.Float64()
			zero += uint64(r.IntN(2))
			h.Sum = sum
			if odd && i == 5 {
				switch r.IntN(12) {
				case 0:
					h.CounterResetHint = histogram.GaugeType
				case 1:
					h.Schema = 2
				case 2:
					h.ZeroThreshold = 0.01
				}
			}
			app := db.Appender(t.Context())
			var err error
			if odd && i == 7 && r.IntN(4) == 0 {
				_, err = app.Append(0, l, at.UnixMilli(), 5)
			} else {
				_, err = app.AppendHistogram(0, l, at.UnixMilli(), h, nil)
			}
			if err != nil {
				t.Fatal(err)
			}
			if err := app.Commit(); err != nil {
				t.Fatal(err)
			}
			at = at.Add([]time.Duration{10 * time.Second, 10 * time.Second, 10 * time.Second, 2 * time.Second, 10001 * time.Millisecond}[r.IntN(5)])
		}
	}
}

// ask returns the answer of an engine as text, down to the last bit.
func ask(t testing.TB, e promql.QueryEngine, db storage.Queryable, expr string, start, end time.Time, step time.Duration) string {
	t.Helper()
	q, err := e.NewRangeQuery(t.Context(), db, nil, expr, start, end, step)
	if err != nil {
		t.Fatalf("%s: %v", expr, err)
	}
	defer q.Close()
	res := q.Exec(t.Context())
	warnings, infos := res.Warnings.AsStrings(expr, 0, 0)
	slices.Sort(warnings)
	slices.Sort(infos)
	out := fmt.Sprint(res.Err, warnings, infos, "\n")
	m, err := res.Matrix()
	if err != nil {
		return out
	}
	for _, s := range m {
		out += s.Metric.String()
		for _, p := range s.Floats {
			bits := math.Float64bits(p.F)
			if math.IsNaN(p.F) {
				bits = math.Float64bits(math.NaN())
			}
			out += fmt.Sprintf(" %d:%x(%v)", p.T, bits, p.F)
		}
		for _, p := range s.Histograms {
			out += fmt.Sprintf(" %d:%v", p.T, p.H)
		}
		out += "\n"
	}
	return out
}

// TestSameAsTheEngine asks both of all kinds of data and compares every bit.
func TestSameAsTheEngine(t *testing.T) {
	plain, ours := newEngines(t)
	for seed := range uint64(5) {
		odd, custom := seed == 3, seed == 4
		r := rand.New(rand.NewPCG(seed, 9))
		o := tsdb.DefaultOptions()
		o.OutOfOrderTimeWindow = time.Hour.Milliseconds()
		db, err := tsdb.Open(t.TempDir(), nil, nil, o, nil)
		if err != nil {
			t.Fatal(err)
		}
		fill(t, db, r, odd, custom)
		for range 4 { // late ones
			app := db.Appender(t.Context())
			l := labels.FromStrings("__name__", "x", "a", "1", "b", "1", "n", "1")
			h := &histogram.Histogram{Schema: 3, Count: 2, PositiveSpans: []histogram.Span{{Offset: 3, Length: 1}}, PositiveBuckets: []int64{2}}
			if custom {
				h.Schema = histogram.CustomBucketsSchema
				for j := range 40 {
					h.CustomValues = append(h.CustomValues, float64(j)/3)
				}
			}
			if _, err := app.AppendHistogram(0, l, begin.Add(time.Duration(r.IntN(1800))*time.Second).UnixMilli()+1, h, nil); err != nil {
				t.Fatal(err)
			}
			if err := app.Commit(); err != nil {
				t.Fatal(err)
			}
		}
		before, asked := ours.taken.Load(), uint64(0)
		for _, by := range []string{"", "by (a)", "by (b, a)", "by (n)", "by (nothing)"} {
			for _, window := range []string{"25s", "1m", "1h"} {
				for _, expr := range []string{
					"histogram_quantile(0.99, sum %s (rate(x[%s])))",
					"histogram_quantile(0.5, (sum %s (increase(x{a!=\"2\"}[%s]))))",
					"histogram_count(sum %s (rate(x[%s])))",
					"histogram_sum(sum %s (rate(x[%s])))",
					"sum(histogram_count(sum %s (rate(x{b=~\"1|2\"}[%s])))) > 0.1",
				} {
					step := []time.Duration{time.Second * 7, 15 * time.Second, time.Minute}[r.IntN(3)]
					start := begin.Add(time.Duration(r.IntN(600)) * time.Second)
					expr := fmt.Sprintf(expr, by, window)
					want := ask(t, plain, db, expr, start, start.Add(20*time.Minute), step)
					if got := ask(t, ours, db, expr, start, start.Add(20*time.Minute), step); got != want {
						t.Fatalf("seed %d, %s\n got %.3000s\nwant %.3000s", seed, expr, got, want)
					}
					if asked++; !odd && ours.taken.Load()-before != asked {
						t.Fatalf("seed %d: %s was left to the engine", seed, expr)
					}
				}
			}
		}
		if taken := ours.taken.Load() - before; odd && taken > asked/2 {
			t.Errorf("seed %d: %d of %d answered here", seed, taken, asked)
		}
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// TestWithin asks for larger expressions, and for what is not evaluated here.
func TestWithin(t *testing.T) {
	plain, ours := newEngines(t)
	db, err := tsdb.Open(t.TempDir(), nil, nil, tsdb.DefaultOptions(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	fill(t, db, rand.New(rand.NewPCG(5, 9)), false, false)
	for expr, here := range map[string]uint64{
		`histogram_count(sum by (a) (rate(x{b="1"}[1m]))) / histogram_count(sum by (a) (rate(x[1m])))`: 1,
		`topk(2, histogram_quantile(0.9, sum by (n) (rate(x[1m]))))`:                                   1,
		`-(histogram_sum(sum(rate(x[1m]))) / histogram_count(sum(rate(x[1m]))) or vector(0))`:          1,
		`label_replace(histogram_count(sum by (a) (rate(x[1m]))), "c", "$1", "a", "(.*)")`:             1,
		`timestamp(histogram_count(sum by (a) (rate(x[1m]))))`:                                         1,
		`histogram_count(sum by (a) (rate(x[1m]))) and on (a) sum by (a) (rate(x{n="3"}[5m]))`:         1,
		`max_over_time(histogram_count(sum(rate(x[1m])))[5m:1m])`:                                      0,
		`histogram_count(sum(rate(x[1m] offset 5m)))`:                                                  0,
		`histogram_count(sum(rate(x[1m] @ 1700000000)))`:                                               0,
		`histogram_count(sum without (n) (rate(x[1m])))`:                                               0,
		`histogram_count(sum by (__name__) (rate(x[1m])))`:                                             0,
		`histogram_count(sum(rate({n="1"}[1m])))`:                                                      0,
		`histogram_count(avg(rate(x[1m])))`:                                                            0,
		`histogram_count(rate(x[1m]))`:                                                                 0,
		`histogram_quantile(scalar(vector(0.9)), sum(rate(x[1m])))`:                                    0,
		`sum by (a) (rate(x[1m]))`:                                                                     0,
		`histogram_quantile(7, sum(rate(x[1m])))`:                                                      0,
		`histogram_quantile(-1, sum(rate(x[1m])))`:                                                     0,
		`histogram_quantile(NaN, sum(rate(x[1m])))`:                                                    0,
		`histogram_count(sum(rate(nothing[1m])))`:                                                      1,
	} {
		before := ours.taken.Load()
		start := begin.Add(5 * time.Minute)
		want := ask(t, plain, db, expr, start, start.Add(40*time.Minute), 15*time.Second)
		got := ask(t, ours, db, expr, start, start.Add(40*time.Minute), 15*time.Second)
		if got != want {
			t.Errorf("%s\n got %.2000s\nwant %.2000s", expr, got, want)
		}
		if taken := ours.taken.Load() - before; taken != here {
			t.Errorf("%s: answered here %d times; want %d", expr, taken, here)
		}
	}
}

func TestLimits(t *testing.T) {
	plain, _ := newEngines(t)
	db, err := tsdb.Open(t.TempDir(), nil, nil, tsdb.DefaultOptions(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	fill(t, db, rand.New(rand.NewPCG(5, 9)), false, false)
	const expr = `histogram_count(sum by (n) (rate(x[1m])))`
	p := parser.NewParser(parser.Options{})

	// Too much to hold in memory: the engine's limits hold.
	small := New(plain, p, time.Minute, 100, 0)
	if got, want := ask(t, small, db, expr, begin, begin.Add(time.Hour), 15*time.Second), ask(t, plain, db, expr, begin, begin.Add(time.Hour), 15*time.Second); got != want || small.taken.Load() != 0 {
		t.Errorf("got %.300s, %d answered here\nwant %.300s", got, small.taken.Load(), want)
	}
	q, err := New(plain, p, time.Nanosecond, 50e6, 0).NewRangeQuery(t.Context(), db, nil, expr, begin, begin.Add(time.Hour), 15*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	if res := q.Exec(t.Context()); res.Err != promql.ErrQueryTimeout("expression evaluation") {
		t.Errorf("after its time: got %v", res.Err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	q, err = New(plain, p, time.Minute, 50e6, 0).NewRangeQuery(ctx, db, nil, expr, begin, begin.Add(time.Hour), 15*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	if res := q.Exec(ctx); res.Err != promql.ErrQueryCanceled("expression evaluation") {
		t.Errorf("nobody waits any more: got %v", res.Err)
	}
}
