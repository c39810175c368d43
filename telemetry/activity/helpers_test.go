package activity

import (
	"context"
	"fmt"
	"log/slog"
	"math"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/pmetric"
	"go.opentelemetry.io/collector/pdata/pmetric/pmetricotlp"

	"github.com/binnacle-project/binnacle"
	"github.com/binnacle-project/binnacle/api"
	"github.com/binnacle-project/binnacle/otlp/wire"
)

// fakeNode makes the exports of one process, cumulative since its start, from
// the single observations that a test gives it.
type fakeNode struct {
	id      string
	service string
	process string
	scope   string
	form    string // "exp" (default), "explicit", "krakend", "delta"
	start   time.Time
	streams []*fakeStream
}

type fakeStream struct {
	metric string
	attrs  map[string]any
	values []float64
}

var fakeBounds = []float64{.01, .02, .05, .075, .1, .125, .15, .175, .2, .25, .3, .35, .5, .75, 1, 1.5, 2, 3.5, 5, 10}

func newFakeNode(id string) *fakeNode {
	return &fakeNode{id: id, service: binnacle.ServiceGateway, process: "p1", start: time.Now()}
}

func (n *fakeNode) observe(metric string, attrs map[string]any, seconds ...float64) {
	for _, s := range n.streams {
		if s.metric == metric && equalAttrs(s.attrs, attrs) {
			s.values = append(s.values, seconds...)
			return
		}
	}
	n.streams = append(n.streams, &fakeStream{metric, attrs, slices.Clone(seconds)})
}

func equalAttrs(a, b map[string]any) bool {
	if len(a) != len(b) {
		return false
	}
	for k, v := range a {
		if b[k] != v {
			return false
		}
	}
	return true
}

// serve notes n requests of one route; status 0 is a time-out.
func (n *fakeNode) serve(route string, status, count int, seconds float64) {
	for range count {
		if n.form == "krakend" {
			n.observe("http.server.duration", map[string]any{"http.request.method": "GET", "http.route": route, "http.response.status_code": status}, seconds)
			continue
		}
		n.observe("http.server.request.duration", map[string]any{"http.request.method": "GET", "http.route": route, "http.response.status_code": status}, seconds)
	}
}

func (n *fakeNode) call(host string, port, status, count int, seconds float64) {
	for range count {
		attrs := map[string]any{"server.address": host, "server.port": port, "http.response.status_code": status}
		name := "http.client.request.duration"
		if n.form == "krakend" {
			name = "http.client.duration"
			attrs["krakend.endpoint.route"] = "/users/:id"
		}
		n.observe(name, attrs, seconds)
	}
}

// export builds one export as of now.
func (n *fakeNode) export(now time.Time) pmetric.Metrics {
	md := pmetric.NewMetrics()
	rm := md.ResourceMetrics().AppendEmpty()
	ra := rm.Resource().Attributes()
	ra.PutStr("service.name", n.service)
	if n.id != "" {
		ra.PutStr("service.instance.id", n.id)
	}
	if n.process != "" {
		ra.PutStr(binnacle.AttrProcess, n.process)
	}
	sm := rm.ScopeMetrics().AppendEmpty()
	sm.Scope().SetName(n.scope)
	for _, s := range n.streams {
		m := sm.Metrics().AppendEmpty()
		m.SetName(s.metric)
		if n.form != "krakend" {
			m.SetUnit("s")
		}
		if n.form == "explicit" || n.form == "krakend" {
			explicitPoint(m.SetEmptyHistogram(), s, n.start, now)
			continue
		}
		h := m.SetEmptyExponentialHistogram()
		h.SetAggregationTemporality(pmetric.AggregationTemporalityCumulative)
		start := n.start
		if n.form == "delta" {
			h.SetAggregationTemporality(pmetric.AggregationTemporalityDelta)
			start = now.Add(-10 * time.Second)
		}
		exponentialPoint(h.DataPoints().AppendEmpty(), s, start, now, 5)
		if n.form == "delta" {
			s.values = nil
		}
	}
	return md
}

func times(dp interface {
	SetStartTimestamp(pcommon.Timestamp)
	SetTimestamp(pcommon.Timestamp)
}, start, now time.Time) {
	dp.SetStartTimestamp(pcommon.NewTimestampFromTime(start))
	dp.SetTimestamp(pcommon.NewTimestampFromTime(now))
}

func explicitPoint(h pmetric.Histogram, s *fakeStream, start, now time.Time) {
	h.SetAggregationTemporality(pmetric.AggregationTemporalityCumulative)
	dp := h.DataPoints().AppendEmpty()
	times(dp, start, now)
	dp.ExplicitBounds().FromRaw(fakeBounds)
	counts := make([]uint64, len(fakeBounds)+1)
	sum := 0.0
	for _, v := range s.values {
		i, _ := slices.BinarySearch(fakeBounds, v)
		counts[i]++
		sum += v
	}
	dp.BucketCounts().FromRaw(counts)
	dp.SetCount(uint64(len(s.values)))
	dp.SetSum(sum)
	_ = dp.Attributes().FromRaw(s.attrs)
}

func exponentialPoint(dp pmetric.ExponentialHistogramDataPoint, s *fakeStream, start, now time.Time, exp int) {
	times(dp, start, now)
	dp.SetScale(int32(exp))
	sum := 0.0
	index := map[int]uint64{}
	lo, hi := 1<<30, -1<<30
	for _, v := range s.values {
		i := fineIndex(v, exp)
		index[i]++
		lo, hi = min(lo, i), max(hi, i)
		sum += v
	}
	if len(s.values) > 0 {
		dp.Positive().SetOffset(int32(lo))
		counts := make([]uint64, hi-lo+1)
		for i, c := range index {
			counts[i-lo] = c
		}
		dp.Positive().BucketCounts().FromRaw(counts)
	}
	dp.SetCount(uint64(len(s.values)))
	dp.SetSum(sum)
	_ = dp.Attributes().FromRaw(s.attrs)
}

func managed(id string, g binnacle.Group, rev binnacle.Revision) binnacle.Origin {
	return binnacle.Origin{Managed: true, Node: binnacle.NodeID(id), Group: g, Revision: rev}
}

// open returns an Aggregator that logs to the test.
func open(t testing.TB, o Options) *Aggregator {
	t.Helper()
	if o.Log == nil {
		o.Log = slog.New(slog.NewTextHandler(t.Output(), nil))
	}
	a, err := Open(o)
	if err != nil {
		t.Fatalf("Open: %v", err)
	}
	return a
}

// run starts Run and returns what stops it and waits.
func run(t testing.TB, a *Aggregator) (stop func()) {
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- a.Run(ctx) }()
	stopped := false
	stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	}
	t.Cleanup(stop)
	return stop
}

// memRollups keeps roll-ups in memory, as a store would.
type memRollups struct {
	mu     sync.Mutex
	fail   error
	series []*memSeries
}

// setFail makes Append fail, or work again.
func (m *memRollups) setFail(err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.fail = err
}

// gate is the way to a store that a killed manager does not find any more.
type gate struct {
	Rollups
	shut atomic.Bool
}

func (g *gate) Append(samples []RollupSample) error {
	if g.shut.Load() {
		return nil
	}
	return g.Rollups.Append(samples)
}

type memSeries struct {
	labels  labels.Labels
	samples []memSample
}

type memSample struct {
	t int64
	h *histogram.Histogram
}

func (m *memRollups) Append(samples []RollupSample) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.fail != nil {
		return m.fail
	}
	for _, s := range samples {
		ms := m.get(s.Series.Labels)
		if n := len(ms.samples); n > 0 && ms.samples[n-1].t >= s.T {
			panic("sample out of order in " + s.Series.Labels.String())
		}
		ms.samples = append(ms.samples, memSample{s.T, s.Histogram})
	}
	return nil
}

func (m *memRollups) get(l labels.Labels) *memSeries {
	for _, s := range m.series {
		if labels.Equal(s.labels, l) {
			return s
		}
	}
	s := &memSeries{labels: l}
	m.series = append(m.series, s)
	return s
}

// all returns the series as they are now.
func (m *memRollups) all() []memSeries {
	m.mu.Lock()
	defer m.mu.Unlock()
	var out []memSeries
	for _, s := range m.series {
		out = append(out, memSeries{s.labels, slices.Clone(s.samples)})
	}
	return out
}

// one returns the series with these labels.
func (m *memRollups) one(l labels.Labels) memSeries {
	for _, s := range m.all() {
		if labels.Equal(s.labels, l) {
			return s
		}
	}
	return memSeries{labels: l}
}

func (m *memRollups) Select(_ context.Context, name string, from, to int64, f func(labels.Labels, int64, *histogram.Histogram) bool) error {
	for _, s := range m.series {
		if s.labels.Get(model.MetricNameLabel) != name {
			continue
		}
		for _, x := range s.samples {
			if x.h != nil && x.t >= from && x.t <= to && !f(s.labels, x.t, x.h.Copy()) {
				return nil
			}
		}
	}
	return nil
}

// increase adds up what a query over all of a metric's series that match
// sees: rises, and the whole after a fall. Nothing is added for a first
// sample, as in PromQL.
func (m *memRollups) increase(name string, match map[string]string) (count uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
series:
	for _, s := range m.series {
		if s.labels.Get(model.MetricNameLabel) != name {
			continue
		}
		for k, v := range match {
			if s.labels.Get(k) != v {
				continue series
			}
		}
		var last *histogram.Histogram
		for _, x := range s.samples {
			if x.h == nil {
				continue
			}
			if last != nil {
				if x.h.Count >= last.Count {
					count += x.h.Count - last.Count
				} else {
					count += x.h.Count
				}
			}
			last = x.h
		}
	}
	return count
}

func requests(a *api.Activity) uint64 {
	if a == nil {
		return 0
	}
	return a.Requests
}

func total(a *api.Activity) uint64 {
	if a == nil {
		return 0
	}
	return a.RequestsTotal
}

// cells lends out cells as the metrics store does: one for each point of a series,
// by its bytes.
type cells map[string]*wire.Cell

func (c cells) lend(o binnacle.Origin, m *wire.Metrics) {
	for _, res := range m.Resources {
		who := fmt.Sprint(o.Managed, o.Node, o.Group)
		for _, a := range res.Attrs {
			who += fmt.Sprintf("|%q=%d%q", a.Key, a.Value.Type, a.Value.View())
		}
		for _, met := range res.Metrics {
			for j := range met.Points {
				key := fmt.Sprintf("%s|%q%q%q%d%d|%x", who, met.Scope, met.Name, met.Unit, met.Type, met.Temporality, []byte(met.Points[j].Key))
				if c[key] == nil {
					c[key] = &wire.Cell{}
				}
				met.Points[j].Cell = c[key]
			}
		}
	}
}

// lent are the cells of each aggregator that is fed.
var lent sync.Map // *Aggregator -> cells

// feed gives a batch to the aggregator as it would come off the wire and by way
// of the store.
func feed(t testing.TB, a *Aggregator, o binnacle.Origin, md pmetric.Metrics) {
	t.Helper()
	mine, _ := lent.LoadOrStore(a, cells{})
	feedBytes(t, a, o, md, mine.(cells))
}

// feedBytes feeds with cells, or without any if they are nil. The bytes of the
// batch are overwritten afterwards, as those of a request are.
func feedBytes(t testing.TB, a *Aggregator, o binnacle.Origin, md pmetric.Metrics, c cells) {
	t.Helper()
	body, err := pmetricotlp.NewExportRequestFromMetrics(md).MarshalProto()
	if err != nil {
		t.Fatal(err)
	}
	var m wire.Metrics
	if err := m.Read(body, wire.Limits{Elements: 1 << 30, Attributes: 1 << 30, Depth: 100}); err != nil {
		t.Fatal(err)
	}
	if c != nil {
		c.lend(o, &m)
	}
	a.WriteMetrics(t.Context(), o, &m)
	for i := range body {
		body[i] = 0xff
	}
}

// activity is what a reader of the key alone would see.
func (k *key) activity(w, now int64, ws *work) (act *api.Activity, until int64) {
	s, some := k.sum(w, now, ws)
	if !some {
		return nil, math.MaxInt64
	}
	_, seconds := cut(now, w)
	var show shown
	s.show(&show, ws)
	return new(row).show(&show, w, seconds, k.total, k.lastFed), s.until(w)
}
