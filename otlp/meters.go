package otlp

import (
	"fmt"
	"time"

	"github.com/VictoriaMetrics/metrics"
)

// meters are the receiver's own metrics. Those of the hot path are looked up
// once.
type meters struct {
	set    *metrics.Set
	panics *metrics.Counter
	by     map[signal]*signalMeters
}

type signalMeters struct {
	bytes, items, rejected *metrics.Counter
	seconds                *metrics.Histogram
	requests               [2][numReasons]*metrics.Counter // by transport
	partial                [2]*metrics.Counter
}

type transport uint8

const (
	overHTTP transport = iota
	overGRPC
)

func (t transport) String() string {
	if t == overGRPC {
		return "grpc"
	}
	return "http"
}

func newMeters(set *metrics.Set, r *Receiver) *meters {
	m := &meters{
		set:    set,
		panics: set.GetOrCreateCounter("binnacle_otlp_panics_total"),
		by:     map[signal]*signalMeters{},
	}
	set.GetOrCreateGauge("binnacle_otlp_requests_in_flight", func() float64 { return float64(r.gate.inFlight.Load()) })
	set.GetOrCreateGauge("binnacle_otlp_decoding_bytes", func() float64 { return float64(r.budget.used.Load()) })
	for _, s := range []signal{metricsSignal, tracesSignal, logsSignal} {
		sm := &signalMeters{
			bytes:    set.GetOrCreateCounter(fmt.Sprintf("binnacle_otlp_received_bytes_total{signal=%q}", s)),
			items:    set.GetOrCreateCounter(fmt.Sprintf("binnacle_otlp_received_items_total{signal=%q}", s)),
			rejected: set.GetOrCreateCounter(fmt.Sprintf("binnacle_otlp_rejected_items_total{signal=%q}", s)),
			seconds:  set.GetOrCreateHistogram(fmt.Sprintf("binnacle_otlp_request_duration_seconds{signal=%q}", s)),
		}
		for _, t := range []transport{overHTTP, overGRPC} {
			name := func(result string) string {
				return fmt.Sprintf("binnacle_otlp_requests_total{signal=%q,transport=%q,result=%q}", s, t, result)
			}
			for why, info := range reasons {
				sm.requests[t][why] = set.GetOrCreateCounter(name(info.label))
			}
			sm.partial[t] = set.GetOrCreateCounter(name("partial"))
		}
		m.by[s] = sm
	}
	return m
}

func (m *meters) bytes(s signal, n int) { m.by[s].bytes.Add(n) }

func (m *meters) items(s signal, total, rejected int) {
	m.by[s].items.Add(total)
	m.by[s].rejected.Add(rejected)
}

// done counts one answered request.
func (m *meters) done(s signal, t transport, start time.Time, res Result, why reason) {
	sm := m.by[s]
	if why == accepted && res.Rejected > 0 {
		sm.partial[t].Inc()
	} else {
		sm.requests[t][why].Inc()
	}
	sm.seconds.UpdateDuration(start)
}
