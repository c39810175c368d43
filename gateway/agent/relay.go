package agent

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
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

// relay takes the worker's telemetry on loopback and sends it on to the
// manager under the node's certificate. What cannot be sent waits in a queue;
// a worker is answered as soon as its export is in there, so that a manager
// that is away costs the data path nothing.
type relay struct {
	log     *slog.Logger
	queue   exportQueue
	manager func() (http.RoundTripper, string) // nil transport: not a member yet
	failed  func()                             // the manager in use did not answer

	// phase spreads retries, see retryDelay.
	phase func() time.Duration

	sent, refused *metrics.Counter
}

// exportQueue is where exports wait. The one here is memory; one on disk takes
// its place when a node shall ride out long outages.
type exportQueue interface {
	// put adds e, dropping the oldest ones if there is no room.
	put(e export)
	// next waits for the oldest export and leaves it in the queue.
	next(ctx context.Context) (export, uint64, error)
	// done removes what next gave, if it is still there.
	done(id uint64)
	// size returns how much waits.
	size() (exports int, bytes int64)
}

const (
	// maxExport bounds one request, as the manager's receivers do.
	maxExport = 16 << 20
	// maxQueueBytes is the default for all that waits.
	maxQueueBytes = 32 << 20
	// exportTimeout bounds one delivery.
	exportTimeout = 20 * time.Second
)

// relayPort is one worker's way in. Each worker has its own, so that one that
// drains and its successor do not share a fate.
type relayPort struct {
	URL string
	srv *http.Server
	wg  sync.WaitGroup
}

// open listens on a free port of loopback.
func (r *relay) open() (*relayPort, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("open the telemetry relay: %w", err)
	}
	p := &relayPort{URL: "http://" + ln.Addr().String(), srv: &http.Server{
		Handler:           r.handler(),
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       30 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    16 << 10,
		ErrorLog:          slog.NewLogLogger(r.log.Handler(), slog.LevelDebug),
	}}
	p.wg.Go(func() {
		if err := p.srv.Serve(ln); err != nil && !errors.Is(err, http.ErrServerClosed) {
			r.log.Error("the telemetry relay stopped listening; this worker's telemetry is lost", "err", err)
		}
	})
	return p, nil
}

// close ends the port; an export that has begun is finished first.
func (p *relayPort) close() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	if p.srv.Shutdown(ctx) != nil {
		p.srv.Close()
	}
	p.wg.Wait()
}

func (r *relay) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /v1/metrics", r.take)
	mux.HandleFunc("POST /v1/traces", r.take)
	return mux
}

// take answers an export once it is queued. An OTLP response without fields is
// an empty message.
func (r *relay) take(w http.ResponseWriter, req *http.Request) {
	body, err := io.ReadAll(http.MaxBytesReader(w, req.Body, maxExport))
	if err != nil {
		status := http.StatusBadRequest
		var tooLarge *http.MaxBytesError
		if errors.As(err, &tooLarge) {
			status = http.StatusRequestEntityTooLarge
		}
		http.Error(w, "reading the export: "+err.Error(), status)
		return
	}
	ct := req.Header.Get("Content-Type")
	r.queue.put(export{
		path: req.URL.Path, contentType: ct, encoding: req.Header.Get("Content-Encoding"),
		revision: req.Header.Get(binnacle.HeaderRevision), body: body, received: time.Now(),
	})
	w.Header().Set("Content-Type", ct)
	if strings.HasPrefix(ct, "application/json") {
		io.WriteString(w, "{}")
	}
}

// run sends what waits, the oldest first, until ctx ends.
func (r *relay) run(ctx context.Context) {
	for failures := 0; ; {
		e, id, err := r.queue.next(ctx)
		if err != nil {
			return
		}
		wait, err := r.send(ctx, e)
		var lost *lostExport
		switch {
		case err == nil:
			if failures > 0 {
				r.log.Info("telemetry goes to the manager again", "failures", failures)
			}
			failures = 0
			r.sent.Inc()
			r.queue.done(id)
			continue
		case ctx.Err() != nil:
			return
		case errors.As(err, &lost):
			r.refused.Inc()
			r.log.Warn("the manager refused an export for good; it is dropped", "err", err)
			r.queue.done(id)
			continue
		}
		if failures == 0 && !errors.Is(err, errNotMember) {
			r.log.Warn("telemetry waits: the manager does not take it", "err", err)
		}
		delay := retryDelay(failures, r.phase(), rand.Float64())
		if !errors.Is(err, errNotMember) {
			failures++
		}
		if sleep(ctx, max(delay, wait)) != nil {
			return
		}
	}
}

// flush sends what waits, each once, until the queue is empty, one fails or ctx
// ends. It is for the end, after run.
func (r *relay) flush(ctx context.Context) error {
	for {
		if n, _ := r.queue.size(); n == 0 {
			return nil
		}
		e, id, err := r.queue.next(ctx)
		if err != nil {
			return err
		}
		var lost *lostExport
		if _, err := r.send(ctx, e); err != nil && !errors.As(err, &lost) {
			return err
		}
		r.queue.done(id)
	}
}

var errNotMember = errors.New("the node is no member of a cluster yet")

// lostExport is an answer after which sending again is of no use.
type lostExport struct{ status int }

// Error names the answer.
func (e *lostExport) Error() string { return fmt.Sprintf("answered %d", e.status) }

// send delivers one export. wait is what the manager asked for before the next
// try.
//
// Source: OTLP specification, "OTLP/HTTP Response": 429, 502, 503 and 504 are
// retryable, all others are not. 401 is kept as well: an agent that enrolls
// anew can send then.
func (r *relay) send(ctx context.Context, e export) (wait time.Duration, err error) {
	rt, base := r.manager()
	if rt == nil {
		return time.Second, errNotMember
	}
	ctx, cancel := context.WithTimeout(ctx, exportTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, base+e.path, bytes.NewReader(e.body))
	if err != nil {
		return 0, err
	}
	req.Header.Set("Content-Type", e.contentType)
	if e.encoding != "" {
		req.Header.Set("Content-Encoding", e.encoding)
	}
	if e.revision != "" {
		req.Header.Set(binnacle.HeaderRevision, e.revision)
	}
	req.Header.Set("User-Agent", binnacle.ServiceGateway+"/"+binnacle.Version)
	resp, err := rt.RoundTrip(req)
	if err != nil {
		r.failed()
		return 0, fmt.Errorf("send telemetry to %s: %w", base, err)
	}
	defer resp.Body.Close()
	io.CopyN(io.Discard, resp.Body, 1<<20) //nolint:errcheck // only for reuse of the connection
	switch resp.StatusCode {
	case http.StatusOK, http.StatusAccepted, http.StatusNoContent:
		return 0, nil
	case http.StatusTooManyRequests, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout, http.StatusUnauthorized:
		if n, err := strconv.Atoi(resp.Header.Get("Retry-After")); err == nil && n > 0 {
			wait = min(time.Duration(n)*time.Second, time.Minute)
		}
		return wait, fmt.Errorf("send telemetry to %s: answered %d", base, resp.StatusCode)
	}
	return 0, fmt.Errorf("send telemetry to %s: %w", base, &lostExport{resp.StatusCode})
}
