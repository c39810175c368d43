package metrics

import (
	"cmp"
	"encoding/hex"
	"slices"
	"unicode/utf8"

	"github.com/prometheus/prometheus/model/exemplar"
	"github.com/prometheus/prometheus/model/labels"
	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/pmetric"
)

const (
	traceIDLabel = "trace_id"
	spanIDLabel  = "span_id"
)

// exemplars converts those exemplars of a point that are newer than the newest
// one seen before, sorted by time: SDKs send the same ones with each export,
// and the TSDB drops what is out of order. The result is valid until the next
// call.
func (w *writer) exemplars(src pmetric.ExemplarSlice, p *point, at int64) []exemplar.Exemplar {
	w.exs = w.exs[:0]
	if src.Len() == 0 {
		return nil
	}
	newest := p.exemplar
	for i := range src.Len() {
		ex := src.At(i)
		ts := ex.Timestamp()
		if ts <= p.exemplar && ts != 0 {
			continue
		}
		newest = max(newest, ts)
		e := exemplar.Exemplar{Ts: millis(ts), HasTs: true, Labels: w.exemplarLabels(ex)}
		if ts == 0 {
			e.Ts = at
		}
		switch ex.ValueType() {
		case pmetric.ExemplarValueTypeInt:
			e.Value = float64(ex.IntValue())
		case pmetric.ExemplarValueTypeDouble:
			e.Value = ex.DoubleValue()
		default:
			continue
		}
		w.exs = append(w.exs, e)
	}
	p.exemplar = newest
	slices.SortStableFunc(w.exs, func(a, b exemplar.Exemplar) int {
		// By value within a millisecond: the TSDB takes only that order.
		return cmp.Or(cmp.Compare(a.Ts, b.Ts), cmp.Compare(a.Value, b.Value))
	})
	w.exemplarCount += len(w.exs)
	return w.exs
}

// exemplarLabels holds the ids, and the filtered attributes if all fit into
// what an exemplar may hold.
func (w *writer) exemplarLabels(ex pmetric.Exemplar) labels.Labels {
	b := &w.labels.scratch
	b.Reset()
	runes := 0
	add := func(k, v string) {
		runes += utf8.RuneCountInString(k) + utf8.RuneCountInString(v)
		b.Add(k, v)
	}
	if id := ex.TraceID(); !id.IsEmpty() {
		add(traceIDLabel, hex.EncodeToString(id[:]))
	}
	if id := ex.SpanID(); !id.IsEmpty() {
		add(spanIDLabel, hex.EncodeToString(id[:]))
	}
	ids := runes
	attrs := ex.FilteredAttributes()
	for k, v := range attrs.All() {
		ids += utf8.RuneCountInString(k) + utf8.RuneCountInString(v.AsString())
	}
	if ids <= exemplar.ExemplarMaxLabelSetLength {
		for k, v := range attrs.All() {
			if name, err := labelName(k, kindUnknown); err == nil && name != "" && v.AsString() != "" && name != traceIDLabel && name != spanIDLabel {
				add(name, w.labels.clean(v.AsString()))
			}
		}
	}
	b.Sort()
	return b.Labels()
}

// millis returns ts in Unix milliseconds.
func millis(ts pcommon.Timestamp) int64 { return int64(ts / 1e6) }
