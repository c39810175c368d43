package wire

import (
	"math"

	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/pmetric"
	"go.opentelemetry.io/collector/pdata/pmetric/pmetricotlp"
	"google.golang.org/protobuf/encoding/protowire"
)

// Normal brings a request that Read finds odd into the form that it reads, by
// way of pdata, whose error it is if it is no OTLP.
func Normal(b []byte) ([]byte, error) {
	req := pmetricotlp.NewExportRequest()
	if err := req.UnmarshalProto(b); err != nil {
		return nil, err
	}
	return req.MarshalProto()
}

// FromPdata returns what md holds; it is under no limit.
func FromPdata(md pmetric.Metrics) (*Metrics, error) {
	b, err := pmetricotlp.NewExportRequestFromMetrics(md).MarshalProto()
	if err != nil {
		return nil, err
	}
	m := new(Metrics)
	return m, m.Read(b, Limits{Elements: math.MaxInt, Attributes: math.MaxInt, Depth: math.MaxInt})
}

// AppendRequest appends m, as it is now, as an ExportMetricsServiceRequest.
func (m *Metrics) AppendRequest(b []byte) ([]byte, error) {
	for i := range m.Resources {
		res := &m.Resources[i]
		whole := appendResource(nil, res.Attrs, res.desc, res.raw)
		if !res.thinned {
			b = appendMessage(b, 1, whole)
			continue
		}
		thin, err := withoutReserved(appendMessage(nil, 1, whole))
		if err != nil {
			return nil, err
		}
		b = append(b, thin...)
	}
	return b, nil
}

// appendResource appends a ResourceMetrics or ResourceSpans message raw: the
// attributes as they are now, all else as it came. desc is the Resource in it.
func appendResource(b []byte, attrs Attrs, desc, raw []byte) []byte {
	var now []byte
	for _, a := range attrs {
		now = appendMessage(now, 1, a.message())
	}
	now = appendFieldsBut(now, desc, 1)
	b = appendMessage(b, 1, now)
	return appendFieldsBut(b, raw, 1)
}

// message returns the KeyValue message.
func (a *Attr) message() []byte {
	if a.raw != nil {
		return a.raw
	}
	value := protowire.AppendString(protowire.AppendTag(nil, 1, protowire.BytesType), a.Value.data)
	kv := protowire.AppendString(protowire.AppendTag(nil, 1, protowire.BytesType), a.Key)
	return appendMessage(kv, 2, value)
}

func appendMessage(b []byte, field protowire.Number, v []byte) []byte {
	return protowire.AppendBytes(protowire.AppendTag(b, field, protowire.BytesType), v)
}

// appendFieldsBut appends the fields of a message but those of one number.
func appendFieldsBut(b, message []byte, but protowire.Number) []byte {
	for len(message) > 0 {
		num, _, n := protowire.ConsumeField(message)
		if n < 0 {
			return b // Read took it: cannot be
		}
		if num != but {
			b = append(b, message[:n]...)
		}
		message = message[n:]
	}
	return b
}

// withoutReserved takes the points with reserved attributes out of a request.
func withoutReserved(b []byte) ([]byte, error) {
	req := pmetricotlp.NewExportRequest()
	if err := req.UnmarshalProto(b); err != nil {
		return nil, err
	}
	bad := func(attrs pcommon.Map) bool {
		for k := range attrs.All() {
			if reserved(k) {
				return true
			}
		}
		return false
	}
	for _, rm := range req.Metrics().ResourceMetrics().All() {
		for _, sm := range rm.ScopeMetrics().All() {
			for _, m := range sm.Metrics().All() {
				switch m.Type() {
				case pmetric.MetricTypeGauge:
					m.Gauge().DataPoints().RemoveIf(func(p pmetric.NumberDataPoint) bool { return bad(p.Attributes()) })
				case pmetric.MetricTypeSum:
					m.Sum().DataPoints().RemoveIf(func(p pmetric.NumberDataPoint) bool { return bad(p.Attributes()) })
				case pmetric.MetricTypeHistogram:
					m.Histogram().DataPoints().RemoveIf(func(p pmetric.HistogramDataPoint) bool { return bad(p.Attributes()) })
				case pmetric.MetricTypeExponentialHistogram:
					m.ExponentialHistogram().DataPoints().RemoveIf(func(p pmetric.ExponentialHistogramDataPoint) bool { return bad(p.Attributes()) })
				case pmetric.MetricTypeSummary:
					m.Summary().DataPoints().RemoveIf(func(p pmetric.SummaryDataPoint) bool { return bad(p.Attributes()) })
				}
			}
		}
	}
	return req.MarshalProto()
}
