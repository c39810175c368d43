package metrics

import (
	"github.com/prometheus/prometheus/storage"
)

// targetInfoEvery is how often the attributes of a resource are stored again:
// often enough that a query's look-back of five minutes always finds them.
const targetInfoEvery = 60_000 // ms

var targetInfoNamed = &named{key: familyKey{kind: kindGauge}, name: targetInfo}

// targetInfo stores what else is known of a resource, as the labels of a
// series whose value is 1. A refusal is not told: it is no point of the sender.
func (w *writer) targetInfo(res *resource, t int64) {
	if res.info == nil || t < res.infoAt+targetInfoEvery && t >= res.infoAt {
		return
	}
	if res.infoTo == nil || res.infoTo.dead.Load() {
		w.labels.list = append(w.labels.list[:0], res.info...)
		lbls, err := w.labels.build(targetInfo, res.base, kindUnknown)
		if err != nil {
			return
		}
		if res.infoTo, err = w.s.table.intern(&Series{}, lbls, res.owner); err != nil {
			return
		}
		w.s.meta.add(targetInfoNamed, "What a sender says of itself.")
	}
	if err := res.infoTo.appendFloat(w.app, t, 1, storage.AppendV2Options{}); err == nil {
		res.infoAt = t
	}
}
