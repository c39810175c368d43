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
	busy   busyMeters
	waits  *metrics.Histogram
	by     map[signal]*signalMeters
}

// busyMeters count what was refused as retryable by the receiver itself, by its
// cause.
type busyMeters struct {
	memory   *metrics.Counter // soft memory limit
	inFlight *metrics.Counter // requests in work
	reading  *metrics.Counter // gRPC messages being read
	decoding *metrics.Counter // bytes being decoded
	peer     *metrics.Counter // bytes of one address
	stalled  *metrics.Counter // the body stopped coming
}

func newBusyMeters(set *metrics.Set) busyMeters {
	one := func(cause string) *metrics.Counter {
		return set.GetOrCreateCounter(fmt.Sprintf("binnacle_otlp_busy_total{cause=%q}", cause))
	}
	return busyMeters{
		memory: one("memory"), inFlight: one("in_flight"), reading: one("reading"),
		decoding: one("decoding"), peer: one("peer"), stalled: one("stalled"),
	}
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

func newMeters(set *metrics.Set) *meters {
	m := &meters{
		set:    set,
		panics: set.GetOrCreateCounter("binnacle_otlp_panics_total"),
		busy:   newBusyMeters(set),
		waits:  set.GetOrCreateHistogram("binnacle_otlp_decode_wait_seconds"),
		by:     map[signal]*signalMeters{},
	}
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

// watch adds what is read when asked for.
func (m *meters) watch(r *Receiver) {
	m.set.GetOrCreateGauge("binnacle_otlp_requests_in_flight", func() float64 { return float64(r.gate.inFlight.Load()) })
	m.set.GetOrCreateGauge("binnacle_otlp_decoding_bytes", func() float64 { return float64(r.budget.used.Load()) })
	m.set.GetOrCreateGauge("binnacle_otlp_messages_reading", func() float64 { return float64(len(r.reading)) })
	m.set.GetOrCreateGauge("binnacle_otlp_memory_short", func() float64 {
		if r.gate.memoryShort() {
			return 1
		}
		return 0
	})
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
