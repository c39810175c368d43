package relay

import (
	"log/slog"
	"net/http"
	"time"

	"github.com/VictoriaMetrics/metrics"

	"github.com/binnacle-project/binnacle"
)

// export is one OTLP request as a worker made it: its bytes are never decoded
// here.
type export struct {
	path        string // /v1/metrics or /v1/traces
	contentType string
	encoding    string
	revision    string // what Binnacle-Revision said
	body        []byte
	received    time.Time
}

// Relay takes the worker's telemetry on loopback and sends it on to the
// manager under the node's certificate. A worker is answered as soon as its
// export is in a queue in memory, so that neither a manager that is away nor a
// slow disk costs the data path anything. From there one goroutine, run, sends
// it, or, while the manager does not take it, moves it to the spool. It is safe
// for concurrent use.
type Relay struct {
	Options
	queue *memoryQueue
	spool *spoolBox

	sent, refused *metrics.Counter
}

// Options say whose telemetry goes where. All are needed.
type Options struct {
	// Dir keeps what waits while the manager is away.
	Dir string
	// QueueBytes bounds what waits in memory, SpoolBytes what waits on disk;
	// negative for nothing on disk.
	QueueBytes, SpoolBytes int64
	// Manager is the way to the manager in use and its address; a nil transport
	// means that the node is no member yet.
	Manager func() (http.RoundTripper, string)
	// Failed tells that the manager in use did not answer.
	Failed func()
	Node   func() binnacle.NodeID
	// Pause is how long to wait before retry n, counted from 0.
	Pause   func(n int) time.Duration
	Metrics *metrics.Set
	Log     *slog.Logger
}

// New returns a relay that takes exports at once and sends them while run runs.
func New(o Options) *Relay {
	r := &Relay{
		Options: o,
		queue:   newMemoryQueue(o.QueueBytes, o.Metrics.GetOrCreateCounter("binnacle_agent_relay_dropped_total")),
		spool:   &spoolBox{dir: o.Dir, max: o.SpoolBytes, m: newSpoolMetrics(o.Metrics)},
		sent:    o.Metrics.GetOrCreateCounter("binnacle_agent_relay_sent_total"),
		refused: o.Metrics.GetOrCreateCounter("binnacle_agent_relay_refused_total"),
	}
	gauge := func(name string, f func() float64) { o.Metrics.GetOrCreateGauge(name, f) }
	gauge("binnacle_agent_relay_queue_bytes", func() float64 { _, n := r.queue.size(); return float64(n) })
	gauge("binnacle_agent_spool_bytes", func() float64 { _, n := r.spool.size(); return float64(n) })
	gauge("binnacle_agent_spool_exports", func() float64 { n, _ := r.spool.size(); return float64(n) })
	return r
}

// Put takes an export of the agent's own.
func (r *Relay) Put(path, contentType string, body []byte) {
	r.queue.put(export{path: path, contentType: contentType, body: body, received: time.Now()})
}

// Info is an account of the relay.
type Info struct {
	// Waiting exports are in memory, Spooled ones on disk.
	Waiting      int    `json:"waiting"`
	WaitingBytes int64  `json:"waiting_bytes"`
	Spooled      int    `json:"spooled"`
	SpooledBytes int64  `json:"spooled_bytes"`
	Sent         uint64 `json:"sent"`
	// Dropped are those for which there was no room in memory or on disk,
	// Damaged those that the disk spoilt, Refused those that the manager will
	// not take.
	Dropped uint64 `json:"dropped"`
	Damaged uint64 `json:"damaged"`
	Refused uint64 `json:"refused"`
}

// Info returns the account.
func (r *Relay) Info() Info {
	i := Info{
		Sent: r.sent.Get(), Refused: r.refused.Get(),
		Dropped: r.queue.dropped.Get() + r.spool.m.dropped.Get(), Damaged: r.spool.m.damaged.Get(),
	}
	i.Waiting, i.WaitingBytes = r.queue.size()
	i.Spooled, i.SpooledBytes = r.spool.size()
	return i
}

const (
	// maxExport bounds one request, as the manager's receivers do.
	maxExport = 16 << 20
	// MaxQueueBytes is the default for all that waits in memory.
	MaxQueueBytes = 32 << 20
	// MaxSpoolBytes is the default for all that waits on disk.
	MaxSpoolBytes = 256 << 20
	// exportTimeout bounds one delivery.
	exportTimeout = 20 * time.Second
)
