package forward

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"path/filepath"
	"sync"

	"github.com/VictoriaMetrics/metrics"

	"github.com/binnacle-project/binnacle"
	"github.com/binnacle-project/binnacle/otlp"
	"github.com/binnacle-project/binnacle/otlp/wire"
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
	// Dir holds the queues, a folder for each signal. Required.
	Dir string
	// MaxBytes bounds the queues on disk, shared alike between the signals;
	// beyond its share the oldest of a signal is dropped, and counted. Default
	// 1 GiB.
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

// Forwarder is an otlp.Sink that passes on what it is given. Its writes never
// wait and never fail.
//
// Each signal has a lane of its own, queue and sender: a remote that takes one
// and not the other holds up nothing.
type Forwarder struct {
	lanes [numSignals]*lane // nil where the signal is not forwarded
}

// Open opens the queues; Run passes on what is in them.
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
	on, _ := parseSignals(o.Signals) // Validate has
	share := o.MaxBytes
	if on[metricsSignal] && on[tracesSignal] {
		share /= 2
	}
	var (
		f   Forwarder
		out = remote{url: o.URL, tokenFile: o.TokenFile, client: &http.Client{Timeout: requestTimeout}}
	)
	for s := range numSignals {
		if !on[s] {
			continue
		}
		dir := filepath.Join(o.Dir, s.String())
		q, err := openQueue(dir, share)
		if err != nil {
			return nil, errors.Join(fmt.Errorf("open the queue in %s: %w", dir, err), f.Close())
		}
		f.lanes[s] = newLane(s, q, out, o.Log, o.Metrics)
	}
	return &f, nil
}

// WriteMetrics implements otlp.Sink.
func (f *Forwarder) WriteMetrics(_ context.Context, _ binnacle.Origin, m *wire.Metrics) (otlp.Result, error) {
	if l := f.lanes[metricsSignal]; l != nil {
		body, err := m.AppendRequest(nil)
		l.take(m.Points(), body, err)
	}
	return otlp.Result{}, nil
}

// WriteTraces implements otlp.Sink.
func (f *Forwarder) WriteTraces(_ context.Context, _ binnacle.Origin, t *wire.Traces) (otlp.Result, error) {
	if l := f.lanes[tracesSignal]; l != nil {
		body, err := t.AppendRequest(nil)
		l.take(t.Spans(), body, err)
	}
	return otlp.Result{}, nil
}

// Run writes to the queues every half second and sends from them until ctx
// ends. What is left then goes out after the next start.
func (f *Forwarder) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	for _, l := range f.lanes {
		if l != nil {
			wg.Go(func() { l.run(ctx) })
		}
	}
	wg.Wait()
	return nil
}

// Close writes what was taken to the queues and closes them; call it after Run
// has returned and no more is taken.
func (f *Forwarder) Close() error {
	var errs []error
	for _, l := range f.lanes {
		if l != nil {
			l.write()
			errs = append(errs, l.queue.close())
		}
	}
	return errors.Join(errs...)
}
