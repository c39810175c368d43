package metrics

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	vm "github.com/VictoriaMetrics/metrics"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/pmetric"
	"go.opentelemetry.io/collector/pdata/pmetric/pmetricotlp"

	binnacle "github.com/binnacle-project/binnacle"
	"github.com/binnacle-project/binnacle/otlp/wire"
)

// openStore opens a store in a fresh directory, closed at the end of the test.
func openStore(t testing.TB, change ...func(*Options)) *Store {
	t.Helper()
	o := Options{Dir: t.TempDir(), Log: slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn})), Metrics: vm.NewSet()}
	for _, f := range change {
		f(&o)
	}
	s, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

var node1 = binnacle.Origin{Managed: true, Node: "n-1", Group: "default"}

// now is the time of a test's samples: whole seconds, so that stored
// milliseconds are equal.
var now = time.Now().Truncate(time.Second)

// payloadOf begins a payload of one resource with the given attributes, and
// returns the slice to which metrics are added.
func payloadOf(attrs ...string) (pmetric.Metrics, pmetric.MetricSlice) {
	md := pmetric.NewMetrics()
	rm := md.ResourceMetrics().AppendEmpty()
	put(rm.Resource().Attributes(), attrs...)
	return md, rm.ScopeMetrics().AppendEmpty().Metrics()
}

// gateway begins a payload as a managed node's arrives here.
func gateway(node string) (pmetric.Metrics, pmetric.MetricSlice) {
	return payloadOf("service.name", "binnacle-gateway", "service.instance.id", node, "binnacle.group", "default", "binnacle.process", "p-1")
}

func put(m pcommon.Map, kv ...string) {
	for i := 0; i+1 < len(kv); i += 2 {
		m.PutStr(kv[i], kv[i+1])
	}
}

func stamp(t time.Time) pcommon.Timestamp { return pcommon.NewTimestampFromTime(t) }

// counter adds a cumulative counter of one point.
func counter(ms pmetric.MetricSlice, name string, start, at time.Time, v int64, attrs ...string) pmetric.NumberDataPoint {
	m := ms.AppendEmpty()
	m.SetName(name)
	sum := m.SetEmptySum()
	sum.SetIsMonotonic(true)
	sum.SetAggregationTemporality(pmetric.AggregationTemporalityCumulative)
	dp := sum.DataPoints().AppendEmpty()
	dp.SetStartTimestamp(stamp(start))
	dp.SetTimestamp(stamp(at))
	dp.SetIntValue(v)
	put(dp.Attributes(), attrs...)
	return dp
}

// gauge adds a gauge of one point.
func gauge(ms pmetric.MetricSlice, name string, at time.Time, v float64, attrs ...string) pmetric.NumberDataPoint {
	m := ms.AppendEmpty()
	m.SetName(name)
	dp := m.SetEmptyGauge().DataPoints().AppendEmpty()
	dp.SetTimestamp(stamp(at))
	dp.SetDoubleValue(v)
	put(dp.Attributes(), attrs...)
	return dp
}

// exponential adds an exponential histogram of one point.
func exponential(ms pmetric.MetricSlice, name string, start, at time.Time, scale, offset int32, counts []uint64, sum float64, attrs ...string) pmetric.ExponentialHistogramDataPoint {
	m := ms.AppendEmpty()
	m.SetName(name)
	m.SetUnit("s")
	h := m.SetEmptyExponentialHistogram()
	h.SetAggregationTemporality(pmetric.AggregationTemporalityCumulative)
	dp := h.DataPoints().AppendEmpty()
	dp.SetStartTimestamp(stamp(start))
	dp.SetTimestamp(stamp(at))
	dp.SetScale(scale)
	dp.Positive().SetOffset(offset)
	dp.Positive().BucketCounts().FromRaw(counts)
	var n uint64
	for _, c := range counts {
		n += c
	}
	dp.SetCount(n)
	dp.SetSum(sum)
	put(dp.Attributes(), attrs...)
	return dp
}

// explicitHistogram adds an explicit-bucket histogram of one point.
func explicitHistogram(ms pmetric.MetricSlice, name string, start, at time.Time, bounds []float64, counts []uint64, sum float64, attrs ...string) pmetric.HistogramDataPoint {
	m := ms.AppendEmpty()
	m.SetName(name)
	m.SetUnit("s")
	h := m.SetEmptyHistogram()
	h.SetAggregationTemporality(pmetric.AggregationTemporalityCumulative)
	dp := h.DataPoints().AppendEmpty()
	dp.SetStartTimestamp(stamp(start))
	dp.SetTimestamp(stamp(at))
	dp.ExplicitBounds().FromRaw(bounds)
	dp.BucketCounts().FromRaw(counts)
	var n uint64
	for _, c := range counts {
		n += c
	}
	dp.SetCount(n)
	dp.SetSum(sum)
	put(dp.Attributes(), attrs...)
	return dp
}

// noLimits lets any request be read.
var noLimits = wire.Limits{Elements: 1 << 30, Attributes: 1 << 30, Depth: 100}

// encode returns md as a request.
func encode(md pmetric.Metrics) []byte {
	b, err := pmetricotlp.NewExportRequestFromMetrics(md).MarshalProto()
	if err != nil {
		panic(err)
	}
	return b
}

// send stores md as it would come off the wire. Its bytes are overwritten
// afterwards, as those of a request are: the store must have kept nothing.
func send(ctx context.Context, s *Store, o binnacle.Origin, md pmetric.Metrics) (rejected int, message string, err error) {
	return sendBytes(ctx, s, o, encode(md))
}

func sendBytes(ctx context.Context, s *Store, o binnacle.Origin, body []byte) (rejected int, message string, err error) {
	var m wire.Metrics
	if err := m.Read(body, noLimits); err != nil {
		return 0, "", err
	}
	defer func() {
		for i := range body {
			body[i] = 0xff
		}
	}()
	return s.WriteMetrics(ctx, o, &m)
}

// write stores md and fails the test if anything of it was refused.
func write(t testing.TB, s *Store, o binnacle.Origin, md pmetric.Metrics) {
	t.Helper()
	n, msg, err := send(t.Context(), s, o, md)
	if err != nil || n != 0 {
		t.Fatalf("WriteMetrics: rejected %d (%s), error %v; want none", n, msg, err)
	}
}

// refused stores md and checks that n points were refused with a message that
// holds want.
func refused(t testing.TB, s *Store, o binnacle.Origin, md pmetric.Metrics, n int, want string) {
	t.Helper()
	got, msg, err := send(t.Context(), s, o, md)
	if err != nil || got != n || !strings.Contains(msg, want) {
		t.Errorf("WriteMetrics: rejected %d (%q), error %v; want %d and %q", got, msg, err, n, want)
	}
}

// query returns what expr gives at time at, one line for each series, sorted.
func query(t testing.TB, s *Store, expr string, at time.Time) []string {
	t.Helper()
	vec, err := s.Query(t.Context(), expr, at)
	if err != nil {
		t.Fatal(err)
	}
	out := make([]string, 0, len(vec))
	for _, v := range vec {
		if v.H != nil {
			out = append(out, fmt.Sprintf("%s %s", v.Metric, histogramText(v.H)))
		} else {
			out = append(out, fmt.Sprintf("%s %g", v.Metric, v.F))
		}
	}
	slices.Sort(out)
	return out
}

// histogramText leaves out the reset hint, which is the engine's business.
func histogramText(h *histogram.FloatHistogram) string {
	return strings.ReplaceAll(h.TestExpression(), " counter_reset_hint:not_reset", "")
}

// wantQuery checks what expr gives at time at.
func wantQuery(t testing.TB, s *Store, expr string, at time.Time, want ...string) {
	t.Helper()
	slices.Sort(want)
	if got := query(t, s, expr, at); !slices.Equal(got, want) {
		t.Errorf("query %s:\n got %s\nwant %s", expr, strings.Join(got, "\n     "), strings.Join(want, "\n     "))
	}
}

// samples returns all stored samples of the matching series as text, by series.
func samples(t testing.TB, s *Store, matchers ...*labels.Matcher) map[string][]string {
	t.Helper()
	q, err := s.db.Querier(0, now.Add(24*time.Hour).UnixMilli())
	if err != nil {
		t.Fatal(err)
	}
	defer q.Close()
	if len(matchers) == 0 {
		matchers = []*labels.Matcher{labels.MustNewMatcher(labels.MatchRegexp, nameLabel, ".+")}
	}
	out := map[string][]string{}
	set := q.Select(context.Background(), true, nil, matchers...)
	for set.Next() {
		it := set.At().Iterator(nil)
		for vt := it.Next(); vt != 0; vt = it.Next() {
			at := time.UnixMilli(it.AtT()).Sub(now)
			var text string
			if vt.String() == "float" {
				_, v := it.At()
				text = fmt.Sprintf("%s %g", at, v)
			} else {
				_, h := it.AtFloatHistogram(nil)
				text = fmt.Sprintf("%s %s", at, histogramText(h))
			}
			out[set.At().Labels().String()] = append(out[set.At().Labels().String()], text)
		}
	}
	if err := set.Err(); err != nil {
		t.Fatal(err)
	}
	return out
}

func textLog(w io.Writer) *slog.Logger { return slog.New(slog.NewTextHandler(w, nil)) }
