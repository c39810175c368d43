package forward

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/VictoriaMetrics/metrics"
	"github.com/klauspost/compress/gzip"
	"go.opentelemetry.io/collector/pdata/pmetric"
	"go.opentelemetry.io/collector/pdata/pmetric/pmetricotlp"
	"go.opentelemetry.io/collector/pdata/ptrace"
	"go.opentelemetry.io/collector/pdata/ptrace/ptraceotlp"

	"github.com/binnacle-project/binnacle"
	"github.com/binnacle-project/binnacle/otlp"
)

// Options configures a Forwarder. Zero numbers take the defaults named here.
type Options struct {
	// URL is the base of the remote's OTLP over HTTP: /v1/metrics and /v1/traces
	// are added to its path. Required.
	URL string
	// Signals is "metrics", "traces" or "metrics,traces". Default both.
	Signals string
	// TokenFile holds a bearer token, read anew for each request; empty sends
	// none.
	TokenFile string
	// Dir is the folder of the queue. Required.
	Dir string
	// MaxBytes bounds the queue on disk; beyond it the oldest is dropped, and
	// counted. Default 1 GiB.
	MaxBytes int64

	Log     *slog.Logger
	Metrics *metrics.Set
}

// Validate reports what is wrong with the options an operator gives.
func (o Options) Validate() error {
	u, err := url.Parse(o.URL)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return fmt.Errorf("%q: want http://HOST:PORT/PATH or https://…", o.URL)
	}
	if o.Signals != "" {
		_, err = parseSignals(o.Signals)
	}
	return err
}

const (
	// maxPending bounds what waits in memory to be written to the queue.
	maxPending = 32 << 20
	// writeInterval is half of what is promised: on disk within a second.
	writeInterval  = 500 * time.Millisecond
	requestTimeout = 30 * time.Second
	firstBackoff   = time.Second
	maxBackoff     = 30 * time.Second
)

// Forwarder is an otlp.Sink that passes on what it is given. Its writes never
// wait and never fail.
type Forwarder struct {
	o      Options
	on     [numSignals]bool
	log    *slog.Logger
	queue  *queue
	client *http.Client

	mu           sync.Mutex // guards what waits to be written
	pending      []record
	pendingBytes int

	written chan struct{} // holds one element after a write to the queue
	meters  meters
}

type meters struct {
	retries, damaged *metrics.Counter
	items            [numSignals]map[string]*metrics.Counter // by result
}

// Results of items, a label of binnacle_forward_items_total.
const (
	sent     = "sent"
	refused  = "refused"  // by the remote, for good
	dropped  = "dropped"  // for want of room in the queue
	overflow = "overflow" // the disk was slower than the senders
)

// Open opens the queue; Run passes on what is in it.
func Open(o Options) (*Forwarder, error) {
	if err := o.Validate(); err != nil {
		return nil, err
	}
	if o.Signals == "" {
		o.Signals = "metrics,traces"
	}
	if o.MaxBytes <= 0 {
		o.MaxBytes = 1 << 30
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Metrics == nil {
		o.Metrics = metrics.NewSet()
	}
	q, err := openQueue(o.Dir, o.MaxBytes)
	if err != nil {
		return nil, fmt.Errorf("open the queue in %s: %w", o.Dir, err)
	}
	f := &Forwarder{
		o: o, log: o.Log.With("component", "forward"), queue: q, written: make(chan struct{}, 1),
		client: &http.Client{Timeout: requestTimeout},
	}
	f.on, _ = parseSignals(o.Signals) // Validate has
	f.meters.retries = o.Metrics.GetOrCreateCounter("binnacle_forward_retries_total")
	f.meters.damaged = o.Metrics.GetOrCreateCounter("binnacle_forward_damaged_segments_total")
	o.Metrics.GetOrCreateGauge("binnacle_forward_queue_bytes", func() float64 { return float64(q.bytes()) })
	for s := range f.meters.items {
		f.meters.items[s] = map[string]*metrics.Counter{}
		for _, result := range []string{sent, refused, dropped, overflow} {
			f.meters.items[s][result] = o.Metrics.GetOrCreateCounter(fmt.Sprintf("binnacle_forward_items_total{signal=%q,result=%q}", signal(s), result))
		}
	}
	return f, nil
}

// WriteMetrics implements otlp.Sink.
func (f *Forwarder) WriteMetrics(_ context.Context, _ binnacle.Origin, md pmetric.Metrics) (otlp.Result, error) {
	if f.on[metricsSignal] {
		body, err := pmetricotlp.NewExportRequestFromMetrics(md).MarshalProto()
		f.take(metricsSignal, md.DataPointCount(), body, err)
	}
	return otlp.Result{}, nil
}

// WriteTraces implements otlp.Sink.
func (f *Forwarder) WriteTraces(_ context.Context, _ binnacle.Origin, td ptrace.Traces) (otlp.Result, error) {
	if f.on[tracesSignal] {
		body, err := ptraceotlp.NewExportRequestFromTraces(td).MarshalProto()
		f.take(tracesSignal, td.SpanCount(), body, err)
	}
	return otlp.Result{}, nil
}

func (f *Forwarder) take(s signal, items int, body []byte, err error) {
	if items == 0 {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if err != nil || f.pendingBytes+len(body) > maxPending {
		f.meters.items[s][overflow].Add(items)
		return
	}
	f.pending = append(f.pending, record{s, uint32(items), body})
	f.pendingBytes += len(body)
}

// Run writes to the queue every half second and sends from it until ctx ends.
// What is left then goes out after the next start.
func (f *Forwarder) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	wg.Go(func() { f.send(ctx) })
	tick := time.NewTicker(writeInterval)
	defer tick.Stop()
	for ctx.Err() == nil {
		select {
		case <-tick.C:
		case <-ctx.Done():
		}
		f.write()
	}
	wg.Wait()
	return nil
}

// Close writes what was taken to the queue and closes it; call it after Run has
// returned and no more is taken.
func (f *Forwarder) Close() error {
	f.write()
	return f.queue.close()
}

// write moves what waits to the queue.
func (f *Forwarder) write() {
	f.mu.Lock()
	records := f.pending
	f.mu.Unlock()
	if len(records) > 0 {
		packed := make([]record, len(records))
		for i, r := range records {
			packed[i] = record{r.signal, r.items, pack(r.body)}
		}
		lost, err := f.queue.append(packed)
		if err != nil {
			f.log.Error("the queue of what is forwarded cannot be written, will try again", "dir", f.o.Dir, "error", err)
			return // they wait on; take bounds them
		}
		for s, n := range lost {
			if n > 0 {
				f.meters.items[s][dropped].Add(int(n))
				f.log.Warn("the queue of what is forwarded is full: the oldest were dropped", "signal", signal(s), "items", n, "max_bytes", f.o.MaxBytes)
			}
		}
		f.mu.Lock()
		f.pending = f.pending[len(records):]
		f.pendingBytes = 0
		for _, r := range f.pending {
			f.pendingBytes += len(r.body)
		}
		f.mu.Unlock()
		select {
		case f.written <- struct{}{}:
		default:
		}
	}
	if err := f.queue.savePosition(); err != nil {
		f.log.Warn("place in the queue not kept: some will be sent twice after a restart", "error", err)
	}
}

func pack(b []byte) []byte {
	var out bytes.Buffer
	w, err := gzip.NewWriterLevel(&out, gzip.BestSpeed)
	if err != nil {
		panic("BUG: " + err.Error())
	}
	_, err = w.Write(b)
	if err = errors.Join(err, w.Close()); err != nil {
		panic("BUG: " + err.Error()) // a buffer takes all
	}
	return out.Bytes()
}

// send passes on what is in the queue, in order, until ctx ends. A request that
// the remote may still take is tried again until the queue drops it.
func (f *Forwarder) send(ctx context.Context) {
	backoff := firstBackoff
	for ctx.Err() == nil {
		r, after, ok, err := f.queue.next()
		if err != nil {
			f.meters.damaged.Inc()
			f.log.Error("a part of the queue of what is forwarded is damaged and left out", "error", err)
			continue
		}
		if !ok {
			select {
			case <-f.written:
			case <-ctx.Done():
			}
			continue
		}
		rejected, wait, err := f.post(ctx, r)
		if wait == 0 {
			if err != nil {
				rejected = int(r.items)
				f.log.Warn("the remote refused what was forwarded", "signal", r.signal, "items", r.items, "error", err)
			}
			rejected = min(rejected, int(r.items))
			f.meters.items[r.signal][refused].Add(rejected)
			f.meters.items[r.signal][sent].Add(int(r.items) - rejected)
			f.queue.advance(after, r)
			backoff = firstBackoff
			continue
		}
		if ctx.Err() != nil {
			return
		}
		f.meters.retries.Inc()
		if backoff == firstBackoff {
			f.log.Warn("forwarding fails, will try again", "url", f.o.URL, "error", err)
		}
		// Between half and all of it, so that many do not come at once.
		pause := max(wait, backoff/2+rand.N(backoff/2))
		backoff = min(2*backoff, maxBackoff)
		select {
		case <-time.After(pause):
		case <-ctx.Done():
		}
	}
}

// post sends one request. rejected counts items that the remote did not want. A
// wait of more than 0 says to try again, at the earliest after so long.
func (f *Forwarder) post(ctx context.Context, r record) (rejected int, wait time.Duration, err error) {
	address := strings.TrimSuffix(f.o.URL, "/") + "/v1/" + r.signal.String()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, address, bytes.NewReader(r.body))
	if err != nil {
		return 0, 0, err
	}
	req.Header.Set("Content-Type", "application/x-protobuf")
	req.Header.Set("Content-Encoding", "gzip")
	if f.o.TokenFile != "" {
		token, err := os.ReadFile(f.o.TokenFile)
		if err != nil {
			return 0, time.Nanosecond, err
		}
		req.Header.Set("Authorization", "Bearer "+strings.TrimSpace(string(token)))
	}
	resp, err := f.client.Do(req)
	if err != nil {
		return 0, time.Nanosecond, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
	switch {
	case resp.StatusCode/100 == 2:
		return partial(r.signal, body), 0, nil
	case retryable(resp.StatusCode):
		return 0, max(retryAfter(resp.Header), time.Nanosecond), fmt.Errorf("%s", resp.Status)
	}
	return 0, 0, errors.Join(fmt.Errorf("%s: %.200q", resp.Status, body), err)
}

// retryable are the statuses after which a request may be sent again: those of
// OTLP, and those of a remote that is not set up yet, since what is queued would
// be lost by a wrong token.
//
// Source: OTLP specification, "Retryable Response Codes".
func retryable(status int) bool {
	switch status {
	case http.StatusUnauthorized, http.StatusForbidden, http.StatusNotFound, http.StatusRequestTimeout,
		http.StatusTooManyRequests, http.StatusInternalServerError, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return true
	}
	return false
}

func retryAfter(h http.Header) time.Duration {
	n, err := strconv.Atoi(h.Get("Retry-After"))
	if err != nil || n < 0 {
		return 0
	}
	return min(time.Duration(n)*time.Second, 5*time.Minute)
}

// partial reads how many items the remote rejected of a request it took.
func partial(s signal, body []byte) int {
	var n int64
	switch s {
	case metricsSignal:
		resp := pmetricotlp.NewExportResponse()
		if resp.UnmarshalProto(body) == nil {
			n = resp.PartialSuccess().RejectedDataPoints()
		}
	case tracesSignal:
		resp := ptraceotlp.NewExportResponse()
		if resp.UnmarshalProto(body) == nil {
			n = resp.PartialSuccess().RejectedSpans()
		}
	}
	return int(max(n, 0))
}
