package metrics

import (
	"cmp"
	"encoding/hex"
	"slices"
	"unicode/utf8"

	"github.com/prometheus/prometheus/model/exemplar"
	"github.com/prometheus/prometheus/model/labels"

	"github.com/binnacle-project/binnacle/otlp/wire"
)

const (
	traceIDLabel = "trace_id"
	spanIDLabel  = "span_id"
)

// exemplars converts those exemplars of a point that are newer than the newest
// one seen before, sorted by time: SDKs send the same ones with each export,
// and the TSDB drops what is out of order. The result is valid until the next
// call.
func (w *writer) exemplars(src []wire.Exemplar, p *point, at int64) []exemplar.Exemplar {
	w.exs = w.exs[:0]
	if len(src) == 0 {
		return nil
	}
	newest := p.exemplar
	for i := range src {
		ex := &src[i]
		if ex.Time <= p.exemplar && ex.Time != 0 {
			continue
		}
		newest = max(newest, ex.Time)
		if !ex.HasValue {
			continue
		}
		e := exemplar.Exemplar{Ts: millis(ex.Time), HasTs: true, Value: ex.Value, Labels: w.exemplarLabels(ex)}
		if ex.Time == 0 {
			e.Ts = at
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
func (w *writer) exemplarLabels(ex *wire.Exemplar) labels.Labels {
	b := &w.labels.scratch
	b.Reset()
	runes := 0
	add := func(k, v string) {
		runes += utf8.RuneCountInString(k) + utf8.RuneCountInString(v)
		b.Add(k, v)
	}
	if hasBits(ex.TraceID) {
		add(traceIDLabel, hex.EncodeToString(ex.TraceID))
	}
	if hasBits(ex.SpanID) {
		add(spanIDLabel, hex.EncodeToString(ex.SpanID))
	}
	ids := runes
	for a := range ex.Attrs.All() {
		ids += utf8.RuneCountInString(a.Key) + utf8.RuneCountInString(a.Value.View())
	}
	if ids <= exemplar.ExemplarMaxLabelSetLength {
		for a := range ex.Attrs.All() {
			v := a.Value.View()
			if name, err := labelName(a.Key, plainNames); err == nil && name != "" && v != "" && name != traceIDLabel && name != spanIDLabel {
				add(name, w.labels.clean(v))
			}
		}
	}
	b.Sort()
	return b.Labels()
}

// hasBits says whether an id is one: OTLP takes one of zeros for none.
func hasBits(id []byte) bool {
	return slices.ContainsFunc(id, func(b byte) bool { return b != 0 })
}

// millis turns Unix nanoseconds into milliseconds.
func millis(ts uint64) int64 { return int64(ts / 1e6) }
