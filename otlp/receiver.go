package otlp

import (
	"context"
	"fmt"
	"log/slog"
	"runtime/debug"
	"time"

	"github.com/VictoriaMetrics/metrics"
	"go.opentelemetry.io/collector/pdata/pmetric"
	"go.opentelemetry.io/collector/pdata/ptrace"

	"github.com/binnacle-project/binnacle"
	"github.com/binnacle-project/binnacle/otlp/wire"
)

// Options configures a Receiver. Zero numbers take the defaults named here.
type Options struct {
	// Sink takes what was received; use Fan for several. Required.
	Sink Sink
	// IsNode reports whether an id is that of an enrolled node. Unmanaged
	// senders that claim one are refused. nil knows no nodes.
	IsNode func(binnacle.NodeID) bool

	// MaxBytes bounds a request on the wire and, apart from that, inflated.
	// Default 16 MiB. Raising it lets one request take more memory: decoded
	// data take about seven times their size.
	MaxBytes int64
	// MaxElements bounds the resources, scopes, metrics, data points, spans,
	// events, links and exemplars of one request, all together. Default
	// 100,000.
	MaxElements int
	// MaxAttributes bounds the attributes of one span, point or resource.
	// Default 128.
	MaxAttributes int
	// MaxEvents bounds the events and links of one span. Default 1,000.
	MaxEvents int
	// MaxDepth bounds the nesting of array and map values. Default 12.
	MaxDepth int
	// DecodeBytes bounds the memory that requests in decoding take together,
	// by estimate. A request that does not get its share within DecodeWait is
	// refused as retryable, one that alone would cost more for good. One peer
	// gets half of it at most. Default 256 MiB.
	DecodeBytes int64
	// DecodeWait is how long a request may wait for its share. Default 2 s.
	DecodeWait time.Duration
	// SoftMemory is the size of the Go heap, in bytes, above which requests
	// are refused as retryable before their body is read. 0 means four fifths
	// of the memory limit of the Go runtime (GOMEMLIMIT), and no check where
	// there is none; negative turns the check off.
	SoftMemory int64
	// MaxInFlight bounds the requests in work at once. Default 512.
	MaxInFlight int
	// Gather is how long metrics over HTTP of a sender that comes seldom may wait for
	// those of others, to be worked on in one go, which costs less. 0 is not at all.
	Gather time.Duration

	Log     *slog.Logger
	Metrics *metrics.Set
}

func (o Options) withDefaults() Options {
	def := func(p *int, v int) {
		if *p <= 0 {
			*p = v
		}
	}
	if o.MaxBytes <= 0 {
		o.MaxBytes = 16 << 20
	}
	def(&o.MaxElements, 100_000)
	def(&o.MaxAttributes, 128)
	def(&o.MaxEvents, 1000)
	def(&o.MaxDepth, 12)
	def(&o.MaxInFlight, 512)
	if o.DecodeBytes <= 0 {
		o.DecodeBytes = 256 << 20
	}
	if o.DecodeWait <= 0 {
		o.DecodeWait = 2 * time.Second
	}
	if o.IsNode == nil {
		o.IsNode = func(binnacle.NodeID) bool { return false }
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Metrics == nil {
		o.Metrics = metrics.NewSet()
	}
	return o
}

// Receiver takes OTLP from any number of listeners. Its methods are safe for
// concurrent use.
type Receiver struct {
	o      Options
	log    *slog.Logger
	lim    limits
	gate   *gate
	budget *budget
	meters *meters
	gather *gatherer
	bodies bodyPool
	// reading holds an element for each gRPC message being read and inflated,
	// which gRPC does in memory of its own, before it can be counted.
	reading chan struct{}
}

// New makes a Receiver. It panics where Options.Sink is nil.
func New(o Options) *Receiver {
	if o.Sink == nil {
		panic("BUG: otlp.New without a Sink")
	}
	o = o.withDefaults()
	r := &Receiver{
		o:   o,
		log: o.Log.With("component", "otlp"),
		lim: limits{
			elements:   o.MaxElements,
			attributes: o.MaxAttributes,
			events:     o.MaxEvents,
			depth:      o.MaxDepth,
			cost:       o.DecodeBytes,
		},
		meters:  newMeters(o.Metrics),
		bodies:  bodyPool{total: bodyTime, stall: stallTime},
		reading: make(chan struct{}, max(4, o.DecodeBytes/o.MaxBytes)),
	}
	r.gate = newGate(o.MaxInFlight, o.SoftMemory, &r.meters.busy)
	r.budget = newBudget(o.DecodeBytes, o.DecodeWait, &r.meters.busy, r.meters.waits.UpdateDuration)
	r.gather = newGatherer(o.Gather, func() bool { return r.budget.used.Load() > r.budget.size/2 })
	r.meters.watch(r)
	return r
}

// ReceiveMetrics takes the process's own metrics, without a socket. The origin
// is believed: its cluster, node and group are set where they are not empty,
// and nothing is refused.
func (r *Receiver) ReceiveMetrics(ctx context.Context, o binnacle.Origin, md pmetric.Metrics) (Result, error) {
	m, err := wire.FromPdata(md)
	if err != nil {
		return Result{}, fmt.Errorf("read own metrics: %w", err)
	}
	return r.keep(ctx, metricsSignal, &attribution{origin: o, trusted: true}, &metricsBatch{*m})
}

// ReceiveTraces takes the process's own spans, as ReceiveMetrics does metrics.
func (r *Receiver) ReceiveTraces(ctx context.Context, o binnacle.Origin, td ptrace.Traces) (Result, error) {
	t, err := wire.TracesFromPdata(td)
	if err != nil {
		return Result{}, fmt.Errorf("read own spans: %w", err)
	}
	return r.keep(ctx, tracesSignal, &attribution{origin: o, trusted: true}, &tracesBatch{*t})
}

// receive takes the inflated body of one request: scan, share of the decoding
// budget, decode, attribute, write. sh already holds the body's own size; the
// caller releases it when the answer is made.
func (r *Receiver) receive(ctx context.Context, sig signal, o binnacle.Origin, body []byte, json bool, b batch, sh *share) (Result, error) {
	r.meters.bytes(sig, len(body))
	if err := r.decode(ctx, body, json, b, sh); err != nil {
		return Result{}, err
	}
	return r.keep(ctx, sig, &attribution{origin: o, isNode: r.o.IsNode}, b)
}

// decode is the only way to a decoded batch; the guards are in it.
func (r *Receiver) decode(ctx context.Context, body []byte, json bool, b batch, sh *share) (err error) {
	defer func() {
		if p := recover(); p != nil {
			r.meters.panics.Inc()
			r.log.Error("decoder panicked", "panic", p, "stack", string(debug.Stack()))
			err = refuse(badRequest, "the request could not be decoded")
		}
	}()
	return b.decode(ctx, body, json, r.lim, sh)
}

// keep attributes a decoded batch and gives it to the sink.
func (r *Receiver) keep(ctx context.Context, sig signal, a *attribution, b batch) (res Result, err error) {
	defer func() {
		if p := recover(); p != nil {
			r.meters.panics.Inc()
			r.log.Error("store panicked", "signal", string(sig), "panic", p, "stack", string(debug.Stack()))
			err = fmt.Errorf("write %s: panic: %v", sig, p)
		}
	}()
	total := b.items()
	refused := b.attribute(a)
	if total > refused.Rejected {
		kept, err := b.write(ctx, r.o.Sink, a.origin)
		if err != nil {
			return Result{}, fmt.Errorf("write %s: %w", sig, err)
		}
		res = Result{Rejected: min(refused.Rejected+kept.Rejected, total), Message: joinMessages(refused.Message, kept.Message)}
	} else {
		res = refused // nothing is left, or the request was empty: success
	}
	r.meters.items(sig, total, res.Rejected)
	return res, nil
}
