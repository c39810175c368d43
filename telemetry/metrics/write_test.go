package metrics

import (
	"fmt"
	"math"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"go.opentelemetry.io/collector/pdata/pmetric"

	binnacle "github.com/binnacle-project/binnacle"
	"github.com/binnacle-project/binnacle/otlp/wire"
)

func TestNamesAndLabels(t *testing.T) {
	s := openStore(t)
	md, ms := payloadOf("service.name", "shop", "service.namespace", "eu", "service.instance.id", "n-1",
		"binnacle.group", "edge", "binnacle.process", "p-7", "host.name", "h1", "service.version", "1.2")
	counter(ms, "http.requests", now.Add(-time.Minute), now, 7, "http.route", "/users/{id}", "job", "forged", "group", "forged", "__name__", "forged", "a.b", "1", "a/b", "2", "9x", "y", "empty", "")
	g := gauge(ms, "rollup:of:gates", now, 2)
	g.Attributes().PutInt("n", 3)
	g.Attributes().PutBool("b", true)
	g.Attributes().PutDouble("d", 1.5)
	write(t, s, node1, md)

	wantQuery(t, s, `{__name__!=""}`, now,
		`{__name__="http_requests_total", a_b="1;2", exported_group="forged", exported_job="forged", group="edge", http_route="/users/{id}", instance="n-1", job="eu/shop", key_9x="y", key__name__="forged", process="p-7"} 7`,
		`{__name__="rollup_of_gates", b="true", d="1.5", group="edge", instance="n-1", job="eu/shop", n="3", process="p-7"} 2`,
		`{__name__="target_info", group="edge", host_name="h1", instance="n-1", job="eu/shop", process="p-7", service_version="1.2"} 1`,
	)
}

func TestRequestCountIsExact(t *testing.T) {
	s := openStore(t)
	// Three nodes with several routes and two exports each; sums are 2,000.
	for round, share := range []uint64{1, 2} {
		for n, total := range []uint64{600, 700, 700} {
			md, ms := gateway(fmt.Sprintf("n-%d", n+1))
			at := now.Add(time.Duration(round) * 10 * time.Second)
			a, b := total*share/4, total*share/2-total*share/4
			exponential(ms, binnacle.MetricServerDuration, now.Add(-time.Minute), at, 8, -1000, []uint64{a, 0, 0, 0, 0, b}, 1, "http.route", "/a")
			write(t, s, binnacle.Origin{Managed: true, Node: binnacle.NodeID(fmt.Sprintf("n-%d", n+1))}, md)
		}
	}
	wantQuery(t, s, `histogram_count(sum(http_server_request_duration_seconds{job="binnacle-gateway"}))`, now.Add(11*time.Second), `{} 2000`)
	wantQuery(t, s, `histogram_sum(sum(http_server_request_duration_seconds))`, now.Add(11*time.Second), `{} 3`)
}

func TestExponentialHistogram(t *testing.T) {
	s := openStore(t)
	md, ms := payloadOf("service.name", "x")
	start := now.Add(-time.Minute)
	// Gaps of one and of many empty buckets, both signs, a zero bucket.
	dp := exponential(ms, "h", start, now, 3, -4, []uint64{0, 1, 0, 2, 0, 0, 0, 3, 0}, 12.5)
	dp.Negative().SetOffset(2)
	dp.Negative().BucketCounts().FromRaw([]uint64{4})
	dp.SetZeroCount(5)
	dp.SetZeroThreshold(0.25)
	dp.SetCount(15)
	// A scale finer than the store's finest: four buckets become one.
	exponential(ms, "fine", start, now, 10, -4, []uint64{1, 2, 3, 4, 5}, 1)
	write(t, s, node1, md)
	wantQuery(t, s, `h_seconds`, now,
		`{__name__="h_seconds", job="x"} {{schema:3 count:15 sum:12.5 z_bucket:5 z_bucket_w:0.25 offset:-2 buckets:[1 0 2 0 0 0 3] n_offset:3 n_buckets:[4]}}`)
	wantQuery(t, s, `fine_seconds`, now,
		`{__name__="fine_seconds", job="x"} {{schema:8 count:15 sum:1 z_bucket_w:1e-128 buckets:[10 5]}}`)
}

func TestExplicitHistogram(t *testing.T) {
	start := now.Add(-time.Minute)
	build := func() pmetric.Metrics {
		md, ms := payloadOf("service.name", "x")
		explicitHistogram(ms, "h", start, now, []float64{0.1, 1, 5}, []uint64{0, 2, 0, 3}, 20)
		return md
	}
	native := `{__name__="h_seconds", job="x"} {{schema:-53 count:5 sum:20 custom_values:[0.1 1 5] offset:1 buckets:[2 0 3]}}`
	classic := []string{
		`{__name__="h_seconds_count", job="x"} 5`, `{__name__="h_seconds_sum", job="x"} 20`,
		`{__name__="h_seconds_bucket", job="x", le="0.1"} 0`, `{__name__="h_seconds_bucket", job="x", le="1"} 2`,
		`{__name__="h_seconds_bucket", job="x", le="5"} 2`, `{__name__="h_seconds_bucket", job="x", le="+Inf"} 5`,
	}
	for form, want := range map[string][]string{Native: {native}, Classic: classic, Both: append(classic[:len(classic):len(classic)], native)} {
		t.Run(form, func(t *testing.T) {
			s := openStore(t, func(o *Options) { o.Histograms = form })
			write(t, s, node1, build())
			write(t, s, node1, build()) // sent twice: stored once
			got := samples(t, s)
			if len(got) != len(want) {
				t.Errorf("%d series stored, want %d: %v", len(got), len(want), got)
			}
			for _, w := range want {
				series, value, _ := strings.Cut(w, "} ")
				list := got[series+"}"]
				// The zero sample at the start, then the value.
				if len(list) != 2 || !strings.HasPrefix(list[0], "-1m0s ") || list[1] != "0s "+value {
					t.Errorf("%s} holds %q; want a zero at the start and %q", series, list, value)
				}
			}
		})
	}
}

func TestExplicitHistogramOddities(t *testing.T) {
	s := openStore(t)
	start := now.Add(-time.Minute)
	md, ms := payloadOf("service.name", "x")
	explicitHistogram(ms, "inf", start, now, []float64{1, math.Inf(1)}, []uint64{1, 2, 3}, 9)
	explicitHistogram(ms, "bare", start, now, nil, nil, 9).SetCount(4)
	write(t, s, node1, md)
	wantQuery(t, s, `inf_seconds`, now, `{__name__="inf_seconds", job="x"} {{schema:-53 count:6 sum:9 custom_values:[1] buckets:[1 5]}}`)
	wantQuery(t, s, `bare_seconds`, now, `{__name__="bare_seconds", job="x"} {{schema:-53 count:4 sum:9 custom_values:[] buckets:[4]}}`)

	md, ms = payloadOf("service.name", "x")
	explicitHistogram(ms, "short", start, now, []float64{1, 2}, []uint64{1, 2}, 9)
	explicitHistogram(ms, "falling", start, now, []float64{2, 1}, []uint64{1, 2, 3}, 9)
	explicitHistogram(ms, "miscounted", start, now, []float64{1}, []uint64{1, 2}, 9).SetCount(7)
	refused(t, s, node1, md, 3, "2 bounds and 2 buckets")
}

// TestBoundsChange sends other bounds for one series, as a sender does whose
// configuration changed.
func TestBoundsChange(t *testing.T) {
	for _, form := range []string{Native, Both} {
		s := openStore(t, func(o *Options) { o.Histograms = form })
		start := now.Add(-time.Minute)
		for i, bounds := range [][]float64{{1}, {1}, {2}, {1, 2}} {
			md, ms := payloadOf("service.name", "x")
			counts := make([]uint64, len(bounds)+1)
			counts[0] = uint64(i + 1)
			explicitHistogram(ms, "h", start, now.Add(time.Duration(i)*time.Second), bounds, counts, 1)
			write(t, s, node1, md)
		}
		wantQuery(t, s, `h_seconds`, now.Add(3*time.Second), `{__name__="h_seconds", job="x"} {{schema:-53 count:4 sum:1 custom_values:[1 2] buckets:[4]}}`)
	}
}

func TestSummary(t *testing.T) {
	s := openStore(t)
	for i, qs := range [][]float64{{0.5, 0.99}, {0.5, 0.99}, {0.9}} {
		md, ms := payloadOf("service.name", "x")
		m := ms.AppendEmpty()
		m.SetName("lat")
		dp := m.SetEmptySummary().DataPoints().AppendEmpty()
		dp.SetTimestamp(stamp(now.Add(time.Duration(i) * time.Second)))
		dp.SetCount(uint64(i + 1))
		dp.SetSum(3)
		put(dp.Attributes(), "quantile", "mine")
		for _, q := range qs {
			v := dp.QuantileValues().AppendEmpty()
			v.SetQuantile(q)
			v.SetValue(10 * q)
		}
		write(t, s, node1, md)
	}
	wantQuery(t, s, `{__name__=~"lat.*"}`, now.Add(2*time.Second),
		`{__name__="lat_count", exported_quantile="mine", job="x"} 3`,
		`{__name__="lat_sum", exported_quantile="mine", job="x"} 3`,
		`{__name__="lat", exported_quantile="mine", job="x", quantile="0.5"} 5`,
		`{__name__="lat", exported_quantile="mine", job="x", quantile="0.9"} 9`,
		`{__name__="lat", exported_quantile="mine", job="x", quantile="0.99"} 9.9`,
	)
}

func TestNoRecordedValue(t *testing.T) {
	s := openStore(t)
	for i, gone := range []bool{false, true} {
		at := now.Add(time.Duration(i) * time.Second)
		start := now.Add(-time.Minute)
		flags := pmetric.DefaultDataPointFlags.WithNoRecordedValue(gone)
		md, ms := payloadOf("service.name", "x")
		gauge(ms, "g", at, 1).SetFlags(flags)
		exponential(ms, "e", start, at, 0, 0, []uint64{1}, 1).SetFlags(flags)
		explicitHistogram(ms, "h", start, at, []float64{1}, []uint64{1, 0}, 1).SetFlags(flags)
		write(t, s, node1, md)
	}
	wantQuery(t, s, `count({__name__=~"g|e_seconds|h_seconds"})`, now, `{} 3`)
	wantQuery(t, s, `{__name__=~"g|e_seconds|h_seconds"}`, now.Add(time.Second))
}

// TestNoValueAtFirst sends series whose first point has no value: what comes after it
// counts from there on. A series that is known ends, also to a store that was opened
// anew.
func TestNoValueAtFirst(t *testing.T) {
	for _, form := range []string{Native, Classic, Both} {
		s := openStore(t, func(o *Options) { o.Histograms = form })
		start := now.Add(-30 * time.Minute)
		send := func(s *Store, second int, v uint64, gone bool) {
			t.Helper()
			at := now.Add(time.Duration(second) * time.Second)
			flags := pmetric.DefaultDataPointFlags.WithNoRecordedValue(gone)
			md, ms := payloadOf("service.name", "x")
			counter(ms, "c", start, at, int64(v)).SetFlags(flags)
			exponential(ms, "e", start, at, 0, 0, []uint64{v}, float64(v)).SetFlags(flags)
			explicitHistogram(ms, "h", start, at, []float64{1}, []uint64{v, 0}, float64(v)).SetFlags(flags)
			write(t, s, node1, md)
		}
		send(s, 0, 0, true)
		wantQuery(t, s, `{__name__=~"c_total|e_seconds|h_seconds|h_seconds_count"}`, now)
		send(s, 10, 3, false)
		send(s, 20, 5, false)
		at := now.Add(20 * time.Second)
		for _, series := range []string{"c_total", "e_seconds_count", "h_seconds_count", `h_seconds_bucket{le="1"}`, "h_seconds_sum"} {
			base, sel, _ := strings.Cut(series, "{")
			if sel != "" {
				sel = "{" + sel
			}
			wantQuery(t, s, fmt.Sprintf(`max without(instance, job, le) (%[1]s%[2]s - (%[1]s%[2]s offset 20s))`, base, sel), at, `{} 5`)
		}
		dir := s.opts.Dir
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		s = openStore(t, func(o *Options) { o.Dir, o.Histograms = dir, form })
		send(s, 30, 0, true)
		wantQuery(t, s, `{__name__=~"c_total|e_seconds|h_seconds|h_seconds_count|h_seconds_bucket"}`, now.Add(30*time.Second))
	}
}

func TestDelta(t *testing.T) {
	s := openStore(t)
	send := func(from, to int, v int64, counts []uint64, scale int32) pmetric.Metrics {
		md, ms := payloadOf("service.name", "x")
		start, at := now.Add(time.Duration(from)*time.Second), now.Add(time.Duration(to)*time.Second)
		counter(ms, "c", start, at, v)
		ms.At(0).Sum().SetAggregationTemporality(pmetric.AggregationTemporalityDelta)
		exponential(ms, "e", start, at, scale, 0, counts, 1)
		ms.At(1).ExponentialHistogram().SetAggregationTemporality(pmetric.AggregationTemporalityDelta)
		explicitHistogram(ms, "h", start, at, []float64{1}, []uint64{uint64(v), 1}, 1)
		ms.At(2).Histogram().SetAggregationTemporality(pmetric.AggregationTemporalityDelta)
		return md
	}
	write(t, s, node1, send(0, 10, 5, []uint64{1, 1}, 2))
	write(t, s, node1, send(10, 20, 3, []uint64{0, 0, 2, 2}, 3)) // finer: the sum keeps the coarser scale
	refused(t, s, node1, send(10, 20, 3, []uint64{0, 0, 2, 2}, 3), 3, "delta points out of order")
	write(t, s, node1, send(20, 30, 2, []uint64{1}, 1))
	at := now.Add(30 * time.Second)
	wantQuery(t, s, `c_total`, at, `{__name__="c_total", job="x"} 10`)
	wantQuery(t, s, `e_seconds`, at, `{__name__="e_seconds", job="x"} {{schema:1 count:7 sum:3 z_bucket_w:1e-128 offset:1 buckets:[7]}}`)
	wantQuery(t, s, `h_seconds`, at, `{__name__="h_seconds", job="x"} {{schema:-53 count:13 sum:3 custom_values:[1] buckets:[10 3]}}`)
	// The zero at the start of the first delta makes the increase exact.
	wantQuery(t, s, `c_total`, now, `{__name__="c_total", job="x"} 0`)
}

// TestNewSeriesBeginsAtZero checks that the first value of a series that shows
// up later than its metric counts as an increase since the export before.
func TestNewSeriesBeginsAtZero(t *testing.T) {
	s := openStore(t)
	start := now.Add(-30 * time.Minute)
	for i := range 3 {
		md, ms := gateway("n-1")
		at := now.Add(time.Duration(i) * 10 * time.Second)
		counter(ms, "c", start, at, 100, "route", "/old")
		if i == 2 {
			counter(ms, "c", start, at, 4, "route", "/new")
		}
		write(t, s, node1, md)
	}
	got := samples(t, s, labels.MustNewMatcher(labels.MatchEqual, "route", "/new"))
	for series, list := range got {
		if want := []string{"10s 0", "20s 4"}; fmt.Sprint(list) != fmt.Sprint(want) {
			t.Errorf("%s holds %q; want %q", series, list, want)
		}
	}
	if len(got) != 1 {
		t.Errorf("%d series; want 1", len(got))
	}
}

// TestOldStart checks that a counter which began long ago puts no sample there.
func TestOldStart(t *testing.T) {
	s := openStore(t)
	md, ms := gateway("n-1")
	counter(ms, "c", now.Add(-30*24*time.Hour), now, 100)
	write(t, s, node1, md)
	for series, list := range samples(t, s) {
		if len(list) != 1 {
			t.Errorf("%s holds %q; want the value only", series, list)
		}
	}
}

func TestRefusals(t *testing.T) {
	s := openStore(t)
	fresh := func() (pmetric.Metrics, pmetric.MetricSlice) { return payloadOf("service.name", "x") }
	md, ms := fresh()
	gauge(ms, "g", now, 1)
	write(t, s, node1, md)

	for _, c := range []struct {
		name string
		fill func(pmetric.MetricSlice)
		n    int
		want string
	}{
		{"too old", func(ms pmetric.MetricSlice) { gauge(ms, "g", now.Add(-7*time.Hour), 1) }, 1, "older than 6h0m0s behind the newest sample"},
		{"another value", func(ms pmetric.MetricSlice) { gauge(ms, "g", now, 2) }, 1, "another value is stored for the same time"},
		{"ahead", func(ms pmetric.MetricSlice) { gauge(ms, "g", now.Add(time.Hour), 1) }, 1, "check the sender's clock"},
		{"no time", func(ms pmetric.MetricSlice) { gauge(ms, "g", now, 1).SetTimestamp(0) }, 1, "no timestamp"},
		{"no temporality", func(ms pmetric.MetricSlice) {
			counter(ms, "c", now, now, 1)
			ms.At(0).Sum().SetAggregationTemporality(pmetric.AggregationTemporalityUnspecified)
		}, 1, "no aggregation temporality"},
		{"no name", func(ms pmetric.MetricSlice) { gauge(ms, "", now, 1) }, 1, "empty name"},
		{"coarse", func(ms pmetric.MetricSlice) { exponential(ms, "e", now, now, -5, 0, []uint64{1}, 1) }, 1, "scale -5"},
		{"bucket range", func(ms pmetric.MetricSlice) { exponential(ms, "e", now, now, 0, 1<<31-1, []uint64{1}, 1) }, 1, "out of range"},
		{"negative threshold", func(ms pmetric.MetricSlice) {
			exponential(ms, "e", now, now, 0, 0, []uint64{1}, 1).SetZeroThreshold(-1)
		}, 1, "zero threshold -1"},
		{"labels", func(ms pmetric.MetricSlice) {
			dp := gauge(ms, "many", now, 1)
			for i := range 80 {
				dp.Attributes().PutStr(fmt.Sprint("k", i), "v")
			}
		}, 1, "more than 64 labels"},
		{"long key", func(ms pmetric.MetricSlice) { gauge(ms, "k", now, 1, strings.Repeat("k", 300), "v") }, 1, "longer than 256 bytes"},
		{"two reasons, one good", func(ms pmetric.MetricSlice) {
			gauge(ms, "g", now.Add(-7*time.Hour), 1)
			gauge(ms, "good", now, 1)
			gauge(ms, "g", now.Add(time.Hour), 1)
		}, 2, "; 1: more than 5m0s ahead"},
	} {
		t.Run(c.name, func(t *testing.T) {
			md, ms := fresh()
			c.fill(ms)
			refused(t, s, node1, md, c.n, c.want)
		})
	}
	wantQuery(t, s, `good`, now, `{__name__="good", job="x"} 1`)
}

func TestLateSamplesAreStored(t *testing.T) {
	s := openStore(t)
	for _, ago := range []time.Duration{0, 5 * time.Hour, time.Hour, 0} {
		md, ms := gateway("n-1")
		start := now.Add(-24 * time.Hour)
		gauge(ms, "g", now.Add(-ago), ago.Hours())
		exponential(ms, "e", start, now.Add(-ago), 0, 0, []uint64{7}, 1)
		explicitHistogram(ms, "h", start, now.Add(-ago), []float64{1}, []uint64{7, 0}, 1)
		write(t, s, node1, md)
	}
	for _, ago := range []time.Duration{0, 5 * time.Hour, time.Hour} {
		at := now.Add(-ago)
		wantQuery(t, s, `sum(g)`, at, fmt.Sprintf(`{} %g`, ago.Hours()))
		wantQuery(t, s, `histogram_count(sum(e_seconds))`, at, `{} 7`)
		wantQuery(t, s, `histogram_count(sum(h_seconds))`, at, `{} 7`)
	}
}

func TestSeriesLimits(t *testing.T) {
	s := openStore(t, func(o *Options) { o.MaxSeriesPerInstance, o.MaxSeriesUnmanaged, o.MaxSeries = 10, 15, 1000 })
	send := func(o binnacle.Origin, instance string, from, n int) pmetric.Metrics {
		md, ms := payloadOf("service.name", "x", "service.instance.id", instance)
		for i := range n {
			gauge(ms, "g", now, 1, "i", fmt.Sprint(from+i))
		}
		return md
	}
	refused(t, s, node1, send(node1, "n-1", 0, 12), 2, `instance "n-1" has 10 series, at most 10 are allowed`)
	write(t, s, node1, send(node1, "n-1", 0, 10)) // known ones go on

	n2 := binnacle.Origin{Managed: true, Node: "n-2"}
	write(t, s, n2, send(n2, "n-2", 0, 10)) // another node is not touched

	var stranger binnacle.Origin
	write(t, s, stranger, send(stranger, "a", 0, 10))
	refused(t, s, stranger, send(stranger, "b", 0, 10), 5, `all unmanaged senders together has 15 series`)
	refused(t, s, stranger, send(stranger, "c", 0, 10), 10, `all unmanaged senders together`)
	if n := s.cache.resources.Load(); n != 4 {
		t.Errorf("%d resources cached; want 4: a sender without series costs nothing", n)
	}
}

// TestTotalLimit checks the limit over all series in memory.
func TestTotalLimit(t *testing.T) {
	s := openStore(t, func(o *Options) { o.MaxSeries = 5 })
	md, ms := payloadOf("service.name", "x")
	for i := range 8 {
		gauge(ms, "g", now, 1, "i", fmt.Sprint(i))
	}
	refused(t, s, node1, md, 3, "5 series are in memory, at most 5 are allowed")
}

// TestAttributeOrder checks that the order of attributes makes no other
// series, and no other delta sum.
func TestAttributeOrder(t *testing.T) {
	s := openStore(t)
	for i, order := range [][]string{{"a", "1", "b", "2"}, {"b", "2", "a", "1"}} {
		md, ms := payloadOf("service.name", "x")
		counter(ms, "c", now, now.Add(time.Duration(i+1)*time.Second), 5, order...)
		ms.At(0).Sum().SetAggregationTemporality(pmetric.AggregationTemporalityDelta)
		write(t, s, node1, md)
	}
	wantQuery(t, s, `c_total`, now.Add(2*time.Second), `{__name__="c_total", a="1", b="2", job="x"} 10`)
}

// TestOriginIsPartOfTheKey checks that a payload alone cannot reach another
// sender's cache entry, even with equal bytes.
func TestOriginIsPartOfTheKey(t *testing.T) {
	var attrs wire.Attrs
	attrs.Put("service.instance.id", "n-1")
	seen := map[string]binnacle.Origin{}
	for _, o := range []binnacle.Origin{{}, {Managed: true, Node: "n-1"}, {Managed: true, Node: "n-2"}, {Managed: true, Node: "n-1", Group: "g"}} {
		key := string(appendResourceKey(nil, o, attrs))
		if old, ok := seen[key]; ok {
			t.Errorf("origins %v and %v have one key", old, o)
		}
		seen[key] = o
	}
}

// TestHeadTruncation drops all series from memory and writes on: points find
// their series anew, and budgets are given back.
func TestHeadTruncation(t *testing.T) {
	s := openStore(t)
	handle := s.Series(labels.FromStrings(nameLabel, "group:x", "group", "g"))
	send := func(at time.Time) {
		t.Helper()
		md, ms := gateway("n-1")
		counter(ms, "c", now.Add(-12*time.Hour), at, 1, "a", "b")
		exponential(ms, "e", now.Add(-12*time.Hour), at, 0, 0, []uint64{1}, 1)
		write(t, s, node1, md)
		b := s.Batch()
		if err := b.AppendFloat(handle, at.UnixMilli(), 1); err != nil {
			t.Fatal(err)
		}
		if err := b.Commit(); err != nil {
			t.Fatal(err)
		}
	}
	send(now.Add(-5 * time.Hour))
	old := handle.ref.Load()
	owner := s.table.ownerOf(true, "n-1")
	if n := owner.series.Load(); n != 2 {
		t.Fatalf("owner has %d series; want 2", n)
	}
	if err := s.db.Head().Truncate(now.Add(-time.Hour).UnixMilli()); err != nil {
		t.Fatal(err)
	}
	if n := owner.series.Load(); n != 0 {
		t.Errorf("owner has %d series after truncation; want 0", n)
	}
	send(now)
	if n := owner.series.Load(); n != 2 {
		t.Errorf("owner has %d series after writing on; want 2", n)
	}
	if handle.ref.Load() == old {
		t.Error("the handle still has the reference of the dropped series")
	}
	wantQuery(t, s, `count({__name__=~"c_total|e_seconds|group:x"})`, now, `{} 3`)

	if err := s.db.Head().Truncate(now.Add(time.Hour).UnixMilli()); err != nil {
		t.Fatal(err)
	}
	s.sweep(time.Now())
	if r, p := s.cache.resources.Load(), s.cache.points.Load(); r != 0 || p != 0 {
		t.Errorf("after the sweep %d resources and %d points are cached; want none", r, p)
	}
	if n := len(s.table.owners); n != 0 {
		t.Errorf("%d owners left; want none", n)
	}
}

// TestConcurrentWrites has many goroutines write the same and different
// senders while series are dropped and swept.
func TestConcurrentWrites(t *testing.T) {
	s := openStore(t)
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			for i := range 40 {
				md, ms := gateway(fmt.Sprintf("n-%d", g%3))
				at := now.Add(time.Duration(i-40) * time.Second)
				for k := range 10 {
					counter(ms, "c", now.Add(-time.Hour), at, int64(i), "k", fmt.Sprint(k))
					exponential(ms, "e", now.Add(-time.Hour), at, 2, 0, []uint64{uint64(i)}, 1, "k", fmt.Sprint(k))
				}
				o := binnacle.Origin{Managed: true, Node: binnacle.NodeID(fmt.Sprintf("n-%d", g%3))}
				if _, _, err := send(t.Context(), s, o, md); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Go(func() {
		for range 20 {
			s.sweep(time.Now().Add(idleAfter)) // everything counts as idle
		}
	})
	wg.Wait()
	wantQuery(t, s, `count(c_total)`, now, `{} 30`)
	wantQuery(t, s, `sum(c_total)`, now, `{} 1170`)
	wantQuery(t, s, `histogram_count(sum(e_seconds))`, now, `{} 1170`)
}

func TestLongValuesAreCut(t *testing.T) {
	s := openStore(t)
	md, ms := payloadOf("service.name", "x")
	gauge(ms, "g", now, 1, "v", strings.Repeat("é", 2000), "bad", "a\xffb")
	write(t, s, node1, md)
	wantQuery(t, s, `g`, now, `{__name__="g", bad="a�b", job="x", v="`+strings.Repeat("é", 1024)+`"} 1`)
	if n := s.self.truncated.Get(); n != 1 {
		t.Errorf("%d values counted as cut; want 1", n)
	}
}
