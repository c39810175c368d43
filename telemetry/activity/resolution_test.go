package activity

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser/posrange"
	"pgregory.net/rapid"

	"github.com/binnacle-project/binnacle/telemetry/metrics"
)

var (
	// The advice of the OpenTelemetry conventions for durations in seconds, and
	// the default of its SDKs, which is in milliseconds.
	adviceBounds = []float64{.005, .01, .025, .05, .075, .1, .25, .5, .75, 1, 2.5, 5, 7.5, 10}
	sdkBounds    = []float64{0, .005, .01, .025, .05, .075, .1, .25, .5, .75, 1, 2.5, 5, 7.5, 10}
)

func TestFit(t *testing.T) {
	for _, tc := range []struct {
		name  string
		upper []float64
		want  uint8
	}{
		{"OpenTelemetry's advice", adviceBounds, 2},
		{"SDK default", sdkBounds, 2},
		{"krakend-otel", fakeBounds, 1},
		{"nothing", nil, 0},
		{"one bound", []float64{1}, 0},
		{"decades", []float64{0.01, 0.1, 1, 10}, 2},
		{"finer than ours", []float64{1, 1.05, 1.1, 1.15, 1.2}, 0},
	} {
		if got := fit(tc.upper); got != tc.want {
			t.Errorf("fit(%s): got %d; want %d", tc.name, got, tc.want)
		}
	}
}

// TestRollupsAreAsGoodAsTheirSenders draws latencies from many distributions,
// counts them into a sender's explicit buckets, and compares the quantiles that
// PromQL finds in the roll-up with the true ones, beside what it finds in the
// sender's own buckets and in the finest conversion. The mean error (of the
// logarithm) must be no more than a tenth above that of the sender's own buckets, and
// each quantile lie in its bucket of the sender, or within one of the roll-up's
// of it.
func TestRollupsAreAsGoodAsTheirSenders(t *testing.T) {
	for name, upper := range map[string][]float64{"advice": adviceBounds, "sdk": sdkBounds, "krakend": fakeBounds} {
		b, _ := newBounds(upper)
		var mean [3]struct{ classic, finest, rollup float64 }
		n := 0
		for _, center := range []float64{0.012, 0.03, 0.08, 0.15, 0.3, 0.7, 1.4} {
			for _, shape := range []float64{0.2, 0.5, 1, -1, -2} {
				n++
				r := rand.New(rand.NewPCG(uint64(n), 7))
				values := make([]float64, 20_000)
				counts := make([]uint64, len(upper)+1)
				for i := range values {
					switch {
					case shape > 0: // log-normal
						values[i] = center * math.Exp(shape*r.NormFloat64())
					case shape == -1:
						values[i] = center * (0.05 + r.ExpFloat64())
					default: // one in ten takes six times as long
						values[i] = center * math.Exp(0.15*r.NormFloat64())
						if i%10 == 0 {
							values[i] *= 6
						}
					}
					at, _ := slices.BinarySearch(upper, values[i])
					counts[at]++
				}
				slices.Sort(values)
				inc := increase{coarser: b.coarser}
				for i, c := range counts {
					b.spread[i].tell(c, &inc)
				}
				fine := newDense()
				fine.addIncrease(&inc)
				var finest [3]float64
				fine.quantiles(quantilesShown, finest[:])
				var c cumulative
				c.add(&inc)
				for i, q := range quantilesShown {
					truth := values[int(q*float64(len(values)))]
					if truth > upper[len(upper)-1] {
						continue
					}
					got, _ := promql.HistogramQuantile(q, c.native(&c).ToFloat(nil), "", posrange.PositionRange{})
					off := func(x float64) float64 { return math.Abs(math.Log(x / truth)) }
					mean[i].classic += off(interpolated(q, upper, counts, false))
					mean[i].finest += off(finest[i])
					mean[i].rollup += off(got)
					at, _ := slices.BinarySearch(upper, truth)
					width := lowerBound(1 << b.coarser)
					if at > 0 && got < upper[at-1]/width*0.999 || got > upper[at]*width*1.001 {
						t.Errorf("%s, center %g, shape %g: p%g is %g by the roll-up and truly %g: not of its bucket nor the next", name, center, shape, 100*q, got, truth)
					}
				}
			}
		}
		for i, q := range quantilesShown {
			m := mean[i]
			t.Logf("%s, p%g: mean error %.1f %% by the sender's buckets, %.1f %% by the finest conversion, %.1f %% by the roll-up", name, 100*q,
				100*m.classic/float64(n), 100*m.finest/float64(n), 100*m.rollup/float64(n))
			if m.rollup > 1.1*m.classic {
				t.Errorf("%s, p%g: the roll-up errs by %.4f, the sender's buckets by %.4f", name, 100*q, m.rollup/float64(n), m.classic/float64(n))
			}
		}
	}
}

// TestCoarserKeepsCounts mixes increases of all resolutions: counts are exact,
// and a value that gets coarser between two samples is no reset to PromQL.
func TestCoarserKeepsCounts(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var c cumulative
		var count uint64
		for range rapid.IntRange(1, 12).Draw(t, "increases") {
			d := drawDense(t)
			inc := increase{count: d.count(), zero: d.zero, buckets: d.list(nil), coarser: uint8(rapid.IntRange(0, maxCoarser).Draw(t, "coarser"))}
			before := c.clone()
			c.add(&inc)
			if count += inc.count; c.count != count {
				t.Fatalf("got %d; want %d", c.count, count)
			}
			h := c.native(&c)
			if err := h.Validate(); err != nil {
				t.Fatal(err)
			}
			if h.ToFloat(nil).DetectReset(before.native(before).ToFloat(nil)) {
				t.Fatalf("an increase by %d is a reset", inc.count)
			}
			if !c.covers(before) {
				t.Fatal("what has grown does not cover what it was")
			}
			got, ok := fromNative(h)
			if !ok || !got.covers(&c) || !c.covers(got) || got.count != count {
				t.Fatalf("fromNative(native(c)): got %+v, %v; want %+v", got, ok, c)
			}
			more := c.since(before)
			if more.count != inc.count {
				t.Fatalf("since: got %d; want %d", more.count, inc.count)
			}
			again := before.clone()
			again.add(&more)
			if !again.covers(&c) || !c.covers(again) {
				t.Fatal("before and since do not add up")
			}
		}
	})
}

// TestSeriesGetsCoarser has a sender of explicit buckets join one of exponential
// ones in a group, with a restart in between: the group's series is coarser from
// there on, and no query sees a reset.
func TestSeriesGetsCoarser(t *testing.T) {
	store, err := metrics.Open(metrics.Options{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := store.Close(); err != nil {
			t.Error(err)
		}
	})
	now := time.Now().Add(-5 * time.Minute).Truncate(rollupStep)
	dir := t.TempDir()
	start := func() *Aggregator {
		a := open(t, Options{Dir: dir, Rollups: OnStore(store, nil)})
		a.started = now
		a.in.now = func() time.Time { return now }
		return a
	}
	a := start()
	fine, coarse := newFakeNode("fine"), newFakeNode("coarse")
	fine.start, coarse.start, coarse.form = now, now, "explicit"
	sent := 0
	for round := range 18 {
		now = now.Add(10 * time.Second)
		nodes := []*fakeNode{fine}
		if round >= 6 {
			nodes = append(nodes, coarse)
		}
		for _, n := range nodes {
			for i := range 40 {
				n.serve("/a", 200, 1, 0.003*float64(1+i))
				sent++
			}
			feed(t, a, managed(n.id, "default", 1), n.export(now))
		}
		b := a.tick(now, writes{all: true, news: true, checkpoint: true}, nil)
		if round == 12 {
			if err := a.save(b); err != nil {
				t.Fatal(err)
			}
			a = start()
			if err := a.refill(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
	}
	ask := func(expr string, want float64) {
		t.Helper()
		got, err := store.Query(t.Context(), expr, now)
		if err != nil || len(got) != 1 || got[0].F != want {
			t.Errorf("%s: got %v, %v; want %g", expr, got, err, want)
		}
	}
	ask(`histogram_count(group:http_server_request_duration_seconds)`, float64(sent))
	ask(`resets(group:http_server_request_duration_seconds[10m])`, 0)
	ask(`histogram_count(endpoint:http_server_request_duration_seconds)`, float64(sent))
	for metric, schema := range map[string]int32{
		"group:http_server_request_duration_seconds":                   2, // krakend's bounds
		`node:http_server_request_duration_seconds{instance="fine"}`:   3,
		`node:http_server_request_duration_seconds{instance="coarse"}`: 2,
	} {
		got, err := store.Query(t.Context(), metric, now)
		if err != nil || len(got) != 1 || got[0].H == nil || got[0].H.Schema != schema {
			t.Errorf("%s: got %v, %v; want schema %d", metric, got, err, schema)
		}
	}
}
