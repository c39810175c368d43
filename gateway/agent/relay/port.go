package relay

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/binnacle-project/binnacle"
)

// Port is one worker's way in. Each worker has its own, so that one that
// drains and its successor do not share a fate.
type Port struct {
	URL string
	srv *http.Server
	wg  sync.WaitGroup
}

// AnyPort makes open take a free port of loopback.
const AnyPort = "127.0.0.1:0"

// Open listens at addr. revision, if not nil, says what runs for senders that
// do not say it themselves.
func (r *Relay) Open(addr string, revision func() binnacle.Revision) (*Port, error) {
	ln, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("open the telemetry relay: %w", err)
	}
	p := &Port{URL: "http://" + ln.Addr().String(), srv: &http.Server{
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

// Close ends the port; an export that has begun is finished first.
func (p *Port) Close() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	if p.srv.Shutdown(ctx) != nil {
		p.srv.Close()
	}
	p.wg.Wait()
}

func (r *Relay) handler(revision func() binnacle.Revision) http.Handler {
	mux := http.NewServeMux()
	take := func(w http.ResponseWriter, req *http.Request) { r.take(w, req, revision) }
	mux.HandleFunc("POST /v1/metrics", take)
	mux.HandleFunc("POST /v1/traces", take)
	return mux
}

// take answers an export once it is queued. An OTLP response without fields is
// an empty message.
func (r *Relay) take(w http.ResponseWriter, req *http.Request, revision func() binnacle.Revision) {
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
