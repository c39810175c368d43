package wire

import (
	"errors"
	"fmt"
	"math"
	"testing"

	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/pmetric"
	"go.opentelemetry.io/collector/pdata/pmetric/pmetricotlp"
)

var testLimits = Limits{Elements: 10_000, Attributes: 128, Events: 1000, Depth: 12}

// sample has each type of point, with all that one can hold.
func sample() pmetric.Metrics {
	md := pmetric.NewMetrics()
	for i := range 2 {
		rm := md.ResourceMetrics().AppendEmpty()
		attrs := rm.Resource().Attributes()
		attrs.PutStr("service.name", "a")
		attrs.PutInt("n", -5)
		attrs.PutDouble("d", 0.25)
		attrs.PutBool("b", true)
		attrs.PutEmpty("empty")
		attrs.PutEmptyBytes("bytes").FromRaw([]byte{1, 2})
		attrs.PutEmptySlice("list").AppendEmpty().SetStr("x")
		attrs.PutEmptyMap("map").PutInt("y", 1)
		rm.Resource().SetDroppedAttributesCount(3)
		rm.SetSchemaUrl("url")
		sm := rm.ScopeMetrics().AppendEmpty()
		sm.SetSchemaUrl("url")
		sm.Scope().SetName(fmt.Sprint("scope", i))
		sm.Scope().SetVersion("1")
		sm.Scope().SetDroppedAttributesCount(300)
		sm.Scope().Attributes().PutStr("s", "t")
		add := func(name string) pmetric.Metric {
			m := sm.Metrics().AppendEmpty()
			m.SetName(name)
			m.SetUnit("s")
			m.SetDescription("what it is")
			m.Metadata().PutStr("k", "v")
			return m
		}
		exemplar := func(s pmetric.ExemplarSlice) {
			e := s.AppendEmpty()
			e.SetTimestamp(7)
			e.SetDoubleValue(1.5)
			e.SetTraceID([16]byte{1})
			e.SetSpanID([8]byte{2})
			e.FilteredAttributes().PutStr("user", "u")
			s.AppendEmpty().SetIntValue(3)
		}
		g := add("gauge").SetEmptyGauge().DataPoints().AppendEmpty()
		g.SetDoubleValue(math.Pi)
		g.SetTimestamp(9)
		s := add("sum").SetEmptySum()
		s.SetIsMonotonic(true)
		s.SetAggregationTemporality(pmetric.AggregationTemporalityDelta)
		for j := range 3 {
			dp := s.DataPoints().AppendEmpty()
			dp.SetIntValue(int64(j) - 1)
			dp.Attributes().PutStr("binnacle.x", "y")
			dp.Attributes().PutInt("j", int64(j))
			dp.SetFlags(pmetric.DefaultDataPointFlags.WithNoRecordedValue(j == 1))
			exemplar(dp.Exemplars())
		}
		h := add("histogram").SetEmptyHistogram()
		h.SetAggregationTemporality(pmetric.AggregationTemporalityCumulative)
		hp := h.DataPoints().AppendEmpty()
		hp.SetStartTimestamp(1)
		hp.SetTimestamp(2)
		hp.ExplicitBounds().FromRaw([]float64{1, 2})
		hp.BucketCounts().FromRaw([]uint64{1, 0, 1 << 60})
		hp.SetCount(6)
		hp.SetSum(9)
		hp.SetMin(0)
		hp.SetMax(5)
		hp.Attributes().PutStr("http.route", "/{id}")
		exemplar(hp.Exemplars())
		x := add("exponential").SetEmptyExponentialHistogram()
		x.SetAggregationTemporality(pmetric.AggregationTemporalityCumulative)
		xp := x.DataPoints().AppendEmpty()
		xp.SetScale(-3)
		xp.SetZeroCount(4)
		xp.SetZeroThreshold(1e-9)
		xp.SetCount(6)
		xp.SetSum(-9)
		xp.SetMin(1)
		xp.SetMax(5)
		xp.Positive().SetOffset(-70)
		xp.Positive().BucketCounts().FromRaw([]uint64{1, 0, 1 << 60, 300})
		xp.Negative().SetOffset(70)
		xp.Negative().BucketCounts().FromRaw([]uint64{200})
		xp.Attributes().PutStr("k", "v")
		exemplar(xp.Exemplars())
		y := add("summary").SetEmptySummary().DataPoints().AppendEmpty()
		y.SetCount(2)
		y.SetSum(3)
		y.Attributes().PutStr("k", "v")
		for _, q := range []float64{0.5, 0.99} {
			v := y.QuantileValues().AppendEmpty()
			v.SetQuantile(q)
			v.SetValue(q * 2)
		}
		add("none")
	}
	return md
}

func encode(md pmetric.Metrics) []byte {
	b, err := pmetricotlp.NewExportRequestFromMetrics(md).MarshalProto()
	if err != nil {
		panic(err)
	}
	return b
}

func TestReadsWhatPdataReads(t *testing.T) {
	body := encode(sample())
	var m Metrics
	for range 2 { // the second time in used memory
		if err := m.Read(body, testLimits); err != nil {
			t.Fatal(err)
		}
		if diff := compare(&m, sample()); diff != "" {
			t.Fatal(diff)
		}
	}
	if m.Points() != sample().DataPointCount() {
		t.Errorf("%d points; want %d", m.Points(), sample().DataPointCount())
	}
}

// TestAllocates holds that a request of known size costs no memory.
func TestAllocates(t *testing.T) {
	body := encode(sample())
	var m Metrics
	if n := testing.AllocsPerRun(100, func() {
		if err := m.Read(body, testLimits); err != nil {
			t.Fatal(err)
		}
	}); n > 0 {
		t.Errorf("%g allocations for a request; want none", n)
	}
}

func TestWritesWhatItRead(t *testing.T) {
	var m Metrics
	if err := m.Read(encode(sample()), testLimits); err != nil {
		t.Fatal(err)
	}
	want := sample()
	for i := range m.Resources {
		m.Resources[i].Attrs.Put("service.name", "other")
		m.Resources[i].Attrs.Put("new", "value")
		want.ResourceMetrics().At(i).Resource().Attributes().PutStr("service.name", "other")
		want.ResourceMetrics().At(i).Resource().Attributes().PutStr("new", "value")
	}
	check := func(want pmetric.Metrics) {
		t.Helper()
		b, err := m.AppendRequest(nil)
		if err != nil {
			t.Fatal(err)
		}
		var again Metrics
		if err := again.Read(b, testLimits); err != nil {
			t.Fatal(err)
		}
		if diff := compare(&again, want); diff != "" {
			t.Error(diff)
		}
	}
	check(want)
	for i := range m.Resources {
		if n := m.Resources[i].RemoveReserved(); n != 3 {
			t.Errorf("removed %d points; want 3", n)
		}
		want.ResourceMetrics().At(i).ScopeMetrics().At(0).Metrics().At(1).Sum().DataPoints().RemoveIf(func(pmetric.NumberDataPoint) bool { return true })
	}
	check(want)
	m.RemoveResources(func(r *Resource) bool { return r.Metrics[0].Scope == "scope0" })
	want.ResourceMetrics().RemoveIf(func(rm pmetric.ResourceMetrics) bool {
		return rm.ScopeMetrics().At(0).Scope().Name() == "scope0"
	})
	check(want)
}

// FuzzRead wants of any bytes what pdata makes of them, by way of Normal if
// need be, and that what Normal writes is read.
func FuzzRead(f *testing.F) {
	f.Add(encode(sample()))
	one := pmetric.NewMetrics()
	m := one.ResourceMetrics().AppendEmpty().ScopeMetrics().AppendEmpty().Metrics().AppendEmpty()
	m.SetEmptyGauge().DataPoints().AppendEmpty().SetIntValue(1)
	f.Add(encode(one))
	f.Add([]byte{0x0a, 0x00})
	f.Fuzz(func(t *testing.T, b []byte) {
		req := pmetricotlp.NewExportRequest()
		pdataErr := req.UnmarshalProto(b)
		var m Metrics
		err := m.Read(b, testLimits)
		if limit, ok := errors.AsType[*LimitError](err); ok {
			if limit.Limit == testLimits.Elements && len(b) < testLimits.Elements {
				t.Fatalf("%v in %d bytes", err, len(b))
			}
			return
		}
		if err != nil {
			if pdataErr != nil {
				return
			}
			normal, normalErr := Normal(b)
			if normalErr != nil {
				t.Fatalf("Normal: %v", normalErr)
			}
			err = m.Read(normal, testLimits)
			if _, ok := errors.AsType[*LimitError](err); ok {
				return
			}
			if err != nil && odd(req.Metrics()) == "" {
				t.Fatalf("the normal form of %x, %x: %v", b, normal, err)
			}
			if err != nil {
				return
			}
		}
		if pdataErr != nil {
			t.Fatalf("read what pdata refuses: %v", pdataErr)
		}
		if diff := compare(&m, req.Metrics()); diff != "" {
			t.Fatal(diff)
		}
		again, err := m.AppendRequest(nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := req.UnmarshalProto(again); err != nil {
			t.Fatalf("written: %v", err)
		}
	})
}

// odd is for what pdata itself writes and Read does not take: nothing so far.
func odd(pmetric.Metrics) string { return "" }

// compare says where m differs from md.
func compare(m *Metrics, md pmetric.Metrics) string {
	c := comparer{}
	c.same("resources", len(m.Resources), md.ResourceMetrics().Len())
	for i := range min(len(m.Resources), md.ResourceMetrics().Len()) {
		rm := md.ResourceMetrics().At(i)
		res := &m.Resources[i]
		n := 0
		for k, v := range rm.Resource().Attributes().All() {
			if n < len(res.Attrs) {
				c.attr(res.Attrs[n], k, v)
			}
			n++
		}
		c.same("resource attributes", len(res.Attrs), n)
		n = 0
		for _, sm := range rm.ScopeMetrics().All() {
			for _, met := range sm.Metrics().All() {
				if n < len(res.Metrics) {
					c.metric(&res.Metrics[n], sm.Scope().Name(), met)
				}
				n++
			}
		}
		c.same("metrics", len(res.Metrics), n)
	}
	return c.diff
}

type comparer struct{ diff string }

func (c *comparer) same(what string, got, want any) {
	if f, ok := got.(float64); ok && f == want {
		return // 0 and -0, too: pdata does not write the sign
	}
	if c.diff == "" && fmt.Sprint(got) != fmt.Sprint(want) {
		c.diff = fmt.Sprintf("%s: got %v; want %v", what, got, want)
	}
}

func (c *comparer) attr(a Attr, k string, v pcommon.Value) {
	c.same("key", a.Key, k)
	c.same("value of "+k, a.Value.View(), v.AsString())
	c.same("type of "+k, a.Value.Type != Empty, v.Type() != pcommon.ValueTypeEmpty)
}

func (c *comparer) attrs(got PointAttrs, want pcommon.Map) {
	n := 0
	var list []Attr
	for a := range got.All() {
		list = append(list, a)
	}
	for k, v := range want.All() {
		if n < len(list) {
			c.attr(list[n], k, v)
		}
		n++
	}
	c.same("attributes", len(list), n)
}

func (c *comparer) metric(m *Metric, scope string, met pmetric.Metric) {
	c.same("scope", m.Scope, scope)
	c.same("name", m.Name, met.Name())
	c.same("unit", m.Unit, met.Unit())
	c.same("description", m.Description, met.Description())
	c.same("type", int(m.Type), int(met.Type()))
	temporality := func(t pmetric.AggregationTemporality) {
		want := Unspecified
		switch t {
		case pmetric.AggregationTemporalityDelta:
			want = Delta
		case pmetric.AggregationTemporalityCumulative:
			want = Cumulative
		}
		c.same("temporality", m.Temporality, want)
	}
	var want []Point
	numbers := func(dps pmetric.NumberDataPointSlice) {
		c.same("points", len(m.Points), dps.Len())
		for i := range min(len(m.Points), dps.Len()) {
			p, dp := &m.Points[i], dps.At(i)
			v := dp.DoubleValue()
			if dp.ValueType() == pmetric.NumberDataPointValueTypeInt {
				v = float64(dp.IntValue())
			}
			c.same("value", p.Value, v)
			c.common(p, dp.Attributes(), dp.StartTimestamp(), dp.Timestamp(), dp.Flags())
			c.exemplars(p, dp.Exemplars())
		}
	}
	_ = want
	switch met.Type() {
	case pmetric.MetricTypeGauge:
		numbers(met.Gauge().DataPoints())
	case pmetric.MetricTypeSum:
		temporality(met.Sum().AggregationTemporality())
		c.same("monotonic", m.Monotonic, met.Sum().IsMonotonic())
		numbers(met.Sum().DataPoints())
	case pmetric.MetricTypeHistogram:
		temporality(met.Histogram().AggregationTemporality())
		dps := met.Histogram().DataPoints()
		c.same("points", len(m.Points), dps.Len())
		for i := range min(len(m.Points), dps.Len()) {
			p, dp := &m.Points[i], dps.At(i)
			c.common(p, dp.Attributes(), dp.StartTimestamp(), dp.Timestamp(), dp.Flags())
			c.exemplars(p, dp.Exemplars())
			c.same("count", p.Count, dp.Count())
			c.same("sum", p.Sum, dp.Sum())
			var counts []uint64
			for j := range p.Counts.Len() {
				counts = append(counts, p.Counts.Uint64(j))
			}
			var bounds []float64
			for j := range p.Bounds.Len() {
				bounds = append(bounds, p.Bounds.Float64(j))
			}
			c.same("counts", counts, dp.BucketCounts().AsRaw())
			c.same("bounds", bounds, dp.ExplicitBounds().AsRaw())
		}
	case pmetric.MetricTypeExponentialHistogram:
		temporality(met.ExponentialHistogram().AggregationTemporality())
		dps := met.ExponentialHistogram().DataPoints()
		c.same("points", len(m.Points), dps.Len())
		for i := range min(len(m.Points), dps.Len()) {
			p, dp := &m.Points[i], dps.At(i)
			c.common(p, dp.Attributes(), dp.StartTimestamp(), dp.Timestamp(), dp.Flags())
			c.exemplars(p, dp.Exemplars())
			c.same("count", p.Count, dp.Count())
			c.same("sum", p.Sum, dp.Sum())
			c.same("scale", p.Scale, dp.Scale())
			c.same("zero", p.Zero, dp.ZeroCount())
			c.same("threshold", p.ZeroThreshold, dp.ZeroThreshold())
			c.buckets(p.Positive, dp.Positive())
			c.buckets(p.Negative, dp.Negative())
		}
	case pmetric.MetricTypeSummary:
		dps := met.Summary().DataPoints()
		c.same("points", len(m.Points), dps.Len())
		for i := range min(len(m.Points), dps.Len()) {
			p, dp := &m.Points[i], dps.At(i)
			c.common(p, dp.Attributes(), dp.StartTimestamp(), dp.Timestamp(), dp.Flags())
			c.same("count", p.Count, dp.Count())
			c.same("sum", p.Sum, dp.Sum())
			c.same("quantiles", len(p.Quantiles), dp.QuantileValues().Len())
			for j := range min(len(p.Quantiles), dp.QuantileValues().Len()) {
				c.same("quantile", p.Quantiles[j].Quantile, dp.QuantileValues().At(j).Quantile())
				c.same("value", p.Quantiles[j].Value, dp.QuantileValues().At(j).Value())
			}
		}
	}
}

func (c *comparer) common(p *Point, attrs pcommon.Map, start, at pcommon.Timestamp, flags pmetric.DataPointFlags) {
	c.attrs(p.Key, attrs)
	c.same("start", p.Start, uint64(start))
	c.same("time", p.Time, uint64(at))
	c.same("no value", p.NoValue, flags.NoRecordedValue())
	isReserved := false
	for k := range attrs.All() {
		isReserved = isReserved || reserved(k)
	}
	c.same("reserved", p.Reserved, isReserved)
}

func (c *comparer) buckets(b Buckets, want pmetric.ExponentialHistogramDataPointBuckets) {
	c.same("offset", b.Offset, want.Offset())
	var counts []uint64
	for v := b.Counts; len(v) > 0; {
		var n uint64
		n, v = v.Next()
		counts = append(counts, n)
	}
	c.same("number of buckets", b.Counts.Len(), want.BucketCounts().Len())
	c.same("counts", counts, want.BucketCounts().AsRaw())
}

func (c *comparer) exemplars(p *Point, want pmetric.ExemplarSlice) {
	c.same("exemplars", len(p.Exemplars), want.Len())
	for i := range min(len(p.Exemplars), want.Len()) {
		e, ex := &p.Exemplars[i], want.At(i)
		v := ex.DoubleValue()
		if ex.ValueType() == pmetric.ExemplarValueTypeInt {
			v = float64(ex.IntValue())
		}
		c.same("exemplar", e.Value, v)
		c.same("exemplar has a value", e.HasValue, ex.ValueType() != pmetric.ExemplarValueTypeEmpty)
		c.same("exemplar's time", e.Time, uint64(ex.Timestamp()))
		var trace [16]byte
		var span [8]byte
		copy(trace[:], e.TraceID)
		copy(span[:], e.SpanID)
		c.same("trace id", trace, [16]byte(ex.TraceID()))
		c.same("span id", span, [8]byte(ex.SpanID()))
		c.attrs(e.Attrs, ex.FilteredAttributes())
	}
}

func BenchmarkRead(b *testing.B) {
	md := pmetric.NewMetrics()
	ms := md.ResourceMetrics().AppendEmpty().ScopeMetrics().AppendEmpty().Metrics()
	h := ms.AppendEmpty().SetEmptyHistogram()
	for i := range 80 {
		dp := h.DataPoints().AppendEmpty()
		dp.SetTimestamp(1 << 60)
		dp.SetStartTimestamp(1 << 60)
		dp.SetCount(5)
		dp.SetSum(5)
		dp.ExplicitBounds().FromRaw(make([]float64, 13))
		dp.BucketCounts().FromRaw(make([]uint64, 14))
		dp.Attributes().PutStr("http.route", fmt.Sprintf("/api/v1/resource-%d/{id}", i))
		dp.Attributes().PutStr("http.request.method", "GET")
		dp.Attributes().PutStr("http.response.status_code", "200")
		dp.Attributes().PutStr("url.scheme", "http")
	}
	body := encode(md)
	b.Run("wire", func(b *testing.B) {
		b.ReportAllocs()
		b.SetBytes(int64(len(body)))
		var m Metrics
		for b.Loop() {
			if err := m.Read(body, testLimits); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("pdata", func(b *testing.B) {
		b.ReportAllocs()
		b.SetBytes(int64(len(body)))
		for b.Loop() {
			if err := pmetricotlp.NewExportRequest().UnmarshalProto(body); err != nil {
				b.Fatal(err)
			}
		}
	})
}
