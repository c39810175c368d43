package metrics

import (
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/pmetric"
)

// classicQueries are the forms in which dashboards ask for classic histograms.
var classicQueries = []string{
	`d_seconds_count`,
	`d_seconds_sum`,
	`d_seconds_bucket`,
	`d_seconds_bucket{le="0.5"}`,
	`d_seconds_bucket{le=~"0.1|\\+Inf",route="/a"}`,
	`d_seconds_bucket{le!="0.5"}`,
	`d_seconds_bucket{le!~"0.1|1|\\+Inf"}`,
	`d_seconds_bucket{le!="",le!="+Inf",route="/b"}`,
	`d_seconds_bucket{le=~".+"}`,
	`d_seconds_bucket{le=~".*"}`,
	`d_seconds_bucket{le=""}`,
	`d_seconds_bucket{le="0.50"}`,
	`d_seconds_count{le=""}`,
	`d_seconds_count{le=~".*"}`,
	`d_seconds_sum{le!="0.5"}`,
	`{__name__=~"d_sec.+_bucket",le="0.5"}`,
	`{__name__=~"d_seconds_.*",route="/a"}`,
	`{__name__=~".+_count",__name__!="d_seconds_sum"}`,
	`{__name__!="d_seconds_sum",__name__=~"d_seconds_(sum|count)"}`,
	`{__name__=~"d_.+",__name__!="d_seconds"}`,
	`count by (__name__) ({__name__=~".*seconds.*",__name__!="d_seconds"})`,
	`d_seconds_count{le="1"}`,
	`{__name__=~"d_seconds_(count|sum)"}`,
	`{__name__=~"d_seconds_bucket|other",route!="/a"}`,
	`sum by (route) (rate(d_seconds_count[1m]))`,
	`sum(increase(d_seconds_sum[2m])) / sum(increase(d_seconds_count[2m]))`,
	`histogram_quantile(0.99, sum by (le) (rate(d_seconds_bucket[1m])))`,
	`histogram_quantile(0.5, sum by (le, route) (increase(d_seconds_bucket[5m])))`,
	`sum(rate(d_seconds_bucket{le="0.5"}[1m])) / sum(rate(d_seconds_count[1m]))`,
	`max_over_time(d_seconds_count[1m:10s])`,
	`topk(1, d_seconds_count)`,
	`absent(d_seconds_count)`,
	`count(d_seconds_bucket offset 1m)`,
	`resets(d_seconds_count[10m])`,
}

// TestVirtualAgreesWithClassic stores the same explicit-bucket histograms once
// native and once classic, with resets, gaps, stale markers and new bounds, and
// wants the same answers to classic queries.
func TestVirtualAgreesWithClassic(t *testing.T) {
	for seed := range uint64(3) {
		native, classic := openStore(t), openStore(t, func(o *Options) { o.Histograms = Classic })
		r := rand.New(rand.NewPCG(seed, 7))
		start := now.Add(-11 * time.Minute)
		counts := map[string][]uint64{}
		bounds := []float64{0.1, 0.5, 2.5}
		for step := range 60 {
			at := now.Add(time.Duration(step-60) * 10 * time.Second)
			md, ms := gateway("n-1")
			if step == 30 { // the sender restarts with other bounds
				start, counts, bounds = at.Add(-time.Second), map[string][]uint64{}, []float64{0.1, 0.5, 1, 10}
			}
			for _, route := range []string{"/a", "/b", "/c"} {
				if route == "/c" && step > 40 && step < 50 {
					continue
				}
				c := counts[route]
				if c == nil {
					c = make([]uint64, len(bounds)+1)
					counts[route] = c
				}
				for i := range c {
					c[i] += r.Uint64N(4)
				}
				dp := explicitHistogram(ms, "d", start, at, bounds, slices.Clone(c), float64(step), "route", route)
				if route == "/b" && step%20 == 19 {
					dp.SetFlags(pmetric.DefaultDataPointFlags.WithNoRecordedValue(true))
				}
			}
			write(t, native, node1, md)
			write(t, classic, node1, md)
		}
		for _, expr := range classicQueries {
			for _, at := range []time.Time{now.Add(-10 * time.Second), now.Add(-5 * time.Minute), now.Add(-295 * time.Second)} {
				if got, want := query(t, native, expr, at), query(t, classic, expr, at); !slices.Equal(got, want) {
					t.Errorf("seed %d, %s at %s:\n native  %s\n classic %s", seed, expr, at.Sub(now), strings.Join(got, "\n         "), strings.Join(want, "\n         "))
				}
			}
			got, err := native.QueryRange(t.Context(), expr, now.Add(-10*time.Minute), now, 15*time.Second)
			if err != nil {
				t.Fatal(err)
			}
			want, err := classic.QueryRange(t.Context(), expr, now.Add(-10*time.Minute), now, 15*time.Second)
			if err != nil {
				t.Fatal(err)
			}
			if got.String() != want.String() {
				t.Errorf("seed %d, %s over ten minutes:\n native  %s\n classic %s", seed, expr, got, want)
			}
		}
	}
}

func TestVirtualBucketsOfExponential(t *testing.T) {
	s := openStore(t)
	start := now.Add(-time.Minute)
	md, ms := payloadOf("service.name", "x")
	// Scale 2: four buckets to each doubling. Index 0 is (1, 2^(1/4)].
	dp := exponential(ms, "d", start, now, 2, 0, []uint64{1, 2, 4, 8, 16}, 5)
	dp.SetZeroCount(32)
	dp.SetCount(dp.Count() + 32)
	write(t, s, node1, md)
	at := func(le string, want int) {
		t.Helper()
		wantQuery(t, s, fmt.Sprintf(`d_seconds_bucket{le=%q}`, le), now, fmt.Sprintf(`{__name__="d_seconds_bucket", job="x", le=%q} %d`, le, want))
	}
	at("0.000244140625", 32)
	at("1", 32)
	at(formatBound(math.Sqrt2), 35)
	at("2", 47)
	at("4", 63)
	at("128", 63)
	at("+Inf", 63)
	wantQuery(t, s, `count(d_seconds_bucket)`, now, `{} 40`)
	wantQuery(t, s, `d_seconds_count`, now, `{__name__="d_seconds_count", job="x"} 63`)
}

// TestLeSteps checks the steps against the boundaries that Prometheus computes.
func TestLeSteps(t *testing.T) {
	for _, name := range []string{"a_seconds", "a_milliseconds", "a_bytes", "a"} {
		for _, s := range leSteps(name) {
			for schema := int32(-4); schema <= 8; schema++ {
				index, exact := s.index(schema)
				// Upper bound of OTLP's bucket i-1, Prometheus's bucket i.
				bound := math.Exp2(float64(index) * math.Exp2(-float64(schema)))
				if exact != (math.Abs(bound/s.bound-1) < 1e-12) {
					t.Errorf("%s: step %s at schema %d: index %d, bound %g, exact %v", name, s.le, schema, index, bound, exact)
				}
			}
		}
	}
}

// TestScaleChange lowers the scale of a growing histogram, as SDKs do, and
// wants no virtual bucket to fall: that would be read as a reset.
func TestScaleChange(t *testing.T) {
	s := openStore(t)
	start := now.Add(-10 * time.Minute)
	r := rand.New(rand.NewPCG(1, 1))
	sum := &expo{scale: 8, pos: dense{offset: -600}}
	for step := range 40 {
		add := &expo{scale: sum.scale, pos: dense{offset: int32(-2 * (step + 1) * (1 << sum.scale) / 20), counts: []uint64{1 + r.Uint64N(5)}}}
		if step > 0 && step%8 == 0 {
			sum.downscale(1)
			add.downscale(1)
		}
		add.count = add.pos.counts[0]
		if err := sum.add(add); err != nil {
			t.Fatal(err)
		}
		md, ms := payloadOf("service.name", "x")
		at := now.Add(time.Duration(step-40) * 10 * time.Second)
		exponential(ms, "d", start, at, sum.scale, sum.pos.offset, slices.Clone(sum.pos.counts), 1)
		write(t, s, node1, md)
	}
	wantQuery(t, s, `max(resets(d_seconds_bucket[9m]))`, now, `{} 0`)
	wantQuery(t, s, `max(resets(d_seconds_count[9m]))`, now, `{} 0`)
}

func TestVirtualInBothForms(t *testing.T) {
	s := openStore(t, func(o *Options) { o.Histograms = Both })
	md, ms := payloadOf("service.name", "x")
	explicitHistogram(ms, "d", now.Add(-time.Minute), now, []float64{1}, []uint64{1, 2}, 5)
	write(t, s, node1, md)
	wantQuery(t, s, `{__name__=~"d_seconds_(count|sum|bucket)"}`, now,
		`{__name__="d_seconds_count", job="x"} 3`, `{__name__="d_seconds_sum", job="x"} 5`,
		`{__name__="d_seconds_bucket", job="x", le="1"} 1`, `{__name__="d_seconds_bucket", job="x", le="+Inf"} 3`)
	wantQuery(t, s, `count_over_time(d_seconds_count[5m])`, now, `{job="x"} 2`) // the zero and the value, once each
}

func TestVirtualLookups(t *testing.T) {
	s := openStore(t)
	md, ms := payloadOf("service.name", "x")
	dp := explicitHistogram(ms, "d", now.Add(-time.Minute), now, []float64{1}, []uint64{1, 2}, 5, "route", "/a")
	ex := dp.Exemplars().AppendEmpty()
	ex.SetTimestamp(stamp(now))
	ex.SetDoubleValue(0.5)
	ex.SetTraceID(pcommon.TraceID{1})
	gauge(ms, "g", now, 1)
	write(t, s, node1, md)
	base := serve(t, s)
	for _, c := range []struct {
		call string
		form url.Values
		want string
	}{
		{"label/__name__/values", nil, `["d_seconds","d_seconds_bucket","d_seconds_count","d_seconds_sum","g"]`},
		{"label/__name__/values", url.Values{"limit": {"2"}}, `["d_seconds","d_seconds_bucket"]`},
		{"label/le/values", url.Values{"match[]": {"d_seconds_bucket"}}, `["+Inf","1"]`},
		{"label/le/values", nil, `["+Inf","1"]`},
		{"label/le/values", url.Values{"match[]": {`{route="/a"}`}}, `["+Inf","1"]`},
		{"label/le/values", url.Values{"match[]": {`{__name__=~".+",le!="1"}`}}, `["+Inf"]`},
		{"label/le/values", url.Values{"match[]": {`{route="/b"}`}}, `"data":[]`},
		{"label/le/values", url.Values{"match[]": {"d_seconds_count"}}, `"data":[]`},
		{"label/__name__/values", url.Values{"match[]": {`{__name__=~".*econd.*"}`}}, `["d_seconds","d_seconds_bucket","d_seconds_count","d_seconds_sum"]`},
		{"label/__name__/values", url.Values{"match[]": {`{__name__=~".*econd.*",route="/b"}`}}, `"data":[]`},
		{"series", url.Values{"match[]": {`{__name__=~".+"}`}}, `"data":[{"__name__":"d_seconds","job":"x","route":"/a"},{"__name__":"g","job":"x"}]`},
		{"label/route/values", url.Values{"match[]": {"d_seconds_count"}}, `["/a"]`},
		{"label/route/values", url.Values{"match[]": {"d_seconds_bucket"}}, `["/a"]`},
		{"labels", url.Values{"match[]": {"d_seconds_bucket"}}, `["__name__","job","le","route"]`},
		{"labels", url.Values{"match[]": {"d_seconds_sum"}}, `["__name__","job","route"]`},
		{"series", url.Values{"match[]": {"d_seconds_count"}}, `[{"__name__":"d_seconds_count","job":"x","route":"/a"}]`},
		{"series", url.Values{"match[]": {"d_seconds_bucket"}}, `[{"__name__":"d_seconds_bucket","job":"x","le":"+Inf","route":"/a"},{"__name__":"d_seconds_bucket","job":"x","le":"1","route":"/a"}]`},
		{"series", url.Values{"match[]": {"g_count"}}, `"data":[]`},
		{"query_exemplars", url.Values{"query": {`histogram_quantile(0.9, sum by (le) (rate(d_seconds_bucket[5m])))`}, "start": {seconds(now.Add(-time.Hour))}, "end": {seconds(now)}}, `"seriesLabels":{"__name__":"d_seconds_bucket","job":"x","le":"1","route":"/a"},"exemplars":[{"labels":{"trace_id":"01000000000000000000000000000000"}`},
		{"query_exemplars", url.Values{"query": {`d_seconds_bucket{le="+Inf"}`}, "start": {seconds(now.Add(-time.Hour))}, "end": {seconds(now)}}, `"data":[]`},
	} {
		if status, body := call(t, http.MethodGet, base+c.call, c.form); status != http.StatusOK || !strings.Contains(body, c.want) {
			t.Errorf("GET %s %v: %d %s\nwant %s", c.call, c.form, status, body, c.want)
		}
	}
}

// TestVirtualExemplars wants the exemplars of buckets as classic storage has
// them, while the bounds change.
func TestVirtualExemplars(t *testing.T) {
	ask := func(s *Store) string {
		form := url.Values{"query": {`d_seconds_bucket`}, "start": {seconds(now.Add(-time.Hour))}, "end": {seconds(now)}}
		status, body := call(t, http.MethodGet, serve(t, s)+"query_exemplars", form)
		if status != http.StatusOK {
			t.Fatalf("%d %s", status, body)
		}
		var answer struct {
			Data []struct {
				SeriesLabels map[string]string
				Exemplars    []struct{ Value string }
			}
		}
		if err := json.Unmarshal([]byte(body), &answer); err != nil {
			t.Fatal(err)
		}
		var lines []string
		for _, r := range answer.Data {
			for _, e := range r.Exemplars {
				lines = append(lines, fmt.Sprint(r.SeriesLabels, e.Value))
			}
		}
		slices.Sort(lines)
		return strings.Join(lines, "\n")
	}
	native, classic := openStore(t), openStore(t, func(o *Options) { o.Histograms = Classic })
	for i := range 6 {
		bounds, counts := []float64{0.1, 1}, []uint64{uint64(i), uint64(i), uint64(i)}
		if i >= 3 {
			bounds = []float64{0.25, 3}
		}
		at := now.Add(time.Duration(10*(i-6)) * time.Second)
		md, ms := payloadOf("service.name", "x")
		dp := explicitHistogram(ms, "d", now.Add(-time.Hour), at, bounds, counts, 5)
		for j, v := range []float64{0.05, 0.1, 0.2, 2, 9} {
			ex := dp.Exemplars().AppendEmpty()
			ex.SetTimestamp(stamp(at.Add(time.Duration(j-8) * time.Second)))
			ex.SetDoubleValue(v)
		}
		write(t, native, node1, md)
		write(t, classic, node1, md)
	}
	got, want := ask(native), ask(classic)
	if got != want || strings.Count(want, "\n") != 29 {
		t.Errorf("native\n%s\nclassic\n%s", got, want)
	}
}

func TestVirtualBucketBudget(t *testing.T) {
	s := openStore(t, func(o *Options) { o.Query.MaxSamples = 30 })
	for i := range 10 {
		md, ms := payloadOf("service.name", "x")
		explicitHistogram(ms, "d", now.Add(-time.Minute), now.Add(time.Duration(i)*time.Second), []float64{1, 2, 3, 4}, []uint64{1, 2, 3, 4, 5}, 5)
		write(t, s, node1, md)
	}
	if _, err := s.Query(t.Context(), `sum(rate(d_seconds_bucket[1m]))`, now.Add(10*time.Second)); err == nil || !strings.Contains(err.Error(), "too many histogram buckets") {
		t.Errorf("a query over the budget: error %v", err)
	}
}

// TestVirtualOfSummary checks that the quantiles of a summary are not taken for
// a histogram.
func TestVirtualOfSummary(t *testing.T) {
	s := openStore(t)
	md, ms := payloadOf("service.name", "x")
	m := ms.AppendEmpty()
	m.SetName("q")
	dp := m.SetEmptySummary().DataPoints().AppendEmpty()
	dp.SetTimestamp(stamp(now))
	dp.SetCount(4)
	v := dp.QuantileValues().AppendEmpty()
	v.SetQuantile(0.5)
	v.SetValue(7)
	write(t, s, node1, md)
	wantQuery(t, s, `q_count`, now, `{__name__="q_count", job="x"} 4`)
	s.meta = newMetaStore(s.self.namesLost) // as after a restart
	wantQuery(t, s, `q_count`, now, `{__name__="q_count", job="x"} 4`)
	wantQuery(t, s, `q_bucket`, now)
}
