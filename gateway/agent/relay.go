package agent

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
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
// manager under the node's certificate. A worker is answered as soon as its
// export is in a queue in memory, so that neither a manager that is away nor a
// slow disk costs the data path anything. From there one goroutine, run, sends
// it, or, while the manager does not take it, moves it to the spool. It is safe
// for concurrent use.
type relay struct {
	relayOptions
	queue *memoryQueue
	spool *spoolBox

	sent, refused *metrics.Counter
}

// relayOptions say whose telemetry goes where. All are needed.
type relayOptions struct {
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

// newRelay returns a relay that takes exports at once and sends them while run runs.
func newRelay(o relayOptions) *relay {
	r := &relay{
		relayOptions: o,
		queue:        newMemoryQueue(o.QueueBytes, o.Metrics.GetOrCreateCounter("binnacle_agent_relay_dropped_total")),
		spool:        &spoolBox{dir: o.Dir, max: o.SpoolBytes, m: newSpoolMetrics(o.Metrics)},
		sent:         o.Metrics.GetOrCreateCounter("binnacle_agent_relay_sent_total"),
		refused:      o.Metrics.GetOrCreateCounter("binnacle_agent_relay_refused_total"),
	}
	gauge := func(name string, f func() float64) { o.Metrics.GetOrCreateGauge(name, f) }
	gauge("binnacle_agent_relay_queue_bytes", func() float64 { _, n := r.queue.size(); return float64(n) })
	gauge("binnacle_agent_spool_bytes", func() float64 { _, n := r.spool.size(); return float64(n) })
	gauge("binnacle_agent_spool_exports", func() float64 { n, _ := r.spool.size(); return float64(n) })
	return r
}

// put takes an export of the agent's own.
func (r *relay) put(path, contentType string, body []byte) {
	r.queue.put(export{path: path, contentType: contentType, body: body, received: time.Now()})
}

// relayInfo is an account of the relay.
type relayInfo struct {
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

// info returns the account.
func (r *relay) info() relayInfo {
	i := relayInfo{
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
	// maxQueueBytes is the default for all that waits in memory.
	maxQueueBytes = 32 << 20
	// maxSpoolBytes is the default for all that waits on disk.
	maxSpoolBytes = 256 << 20
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

// anyPort makes open take a free port of loopback.
const anyPort = "127.0.0.1:0"

// open listens at addr. revision, if not nil, says what runs for senders that
// do not say it themselves.
func (r *relay) open(addr string, revision func() binnacle.Revision) (*relayPort, error) {
	ln, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("open the telemetry relay: %w", err)
	}
	p := &relayPort{URL: "http://" + ln.Addr().String(), srv: &http.Server{
		Handler:           r.handler(revision),
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       30 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    16 << 10,
		ErrorLog:          slog.NewLogLogger(r.Log.Handler(), slog.LevelDebug),
	}}
	p.wg.Go(func() {
		if err := p.srv.Serve(ln); err != nil && !errors.Is(err, http.ErrServerClosed) {
			r.Log.Error("the telemetry relay stopped listening; this worker's telemetry is lost", "err", err)
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

func (r *relay) handler(revision func() binnacle.Revision) http.Handler {
	mux := http.NewServeMux()
	take := func(w http.ResponseWriter, req *http.Request) { r.take(w, req, revision) }
	mux.HandleFunc("POST /v1/metrics", take)
	mux.HandleFunc("POST /v1/traces", take)
	return mux
}

// take answers an export once it is queued. An OTLP response without fields is
// an empty message.
func (r *relay) take(w http.ResponseWriter, req *http.Request, revision func() binnacle.Revision) {
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
	rev := req.Header.Get(binnacle.HeaderRevision)
	if rev == "" && revision != nil {
		rev = revision().String()
	}
	r.queue.put(export{
		path: req.URL.Path, contentType: ct, encoding: req.Header.Get("Content-Encoding"),
		revision: rev, body: body, received: time.Now(),
	})
	w.Header().Set("Content-Type", ct)
	if strings.HasPrefix(ct, "application/json") {
		io.WriteString(w, "{}")
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
	rt, base := r.Manager()
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
		r.Failed()
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
