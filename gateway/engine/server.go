package engine

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

// Server is the traffic server of one worker process: an http.Server that
// knows its connections, so that it can drain without losing a request.
//
// http.Server.Shutdown alone loses some: it closes idle connections on which a
// request may just be arriving, and drops one that it has read but not begun.
// So Drain first talks all clients into closing, closes those itself that have
// nothing to say, and shuts down when all are gone.
type Server struct {
	engine *Engine
	http   *http.Server
	tls    bool

	conns atomic.Int64
	gone  chan struct{} // one token: a connection has closed

	mu        sync.Mutex // guards what follows
	listeners []net.Listener
	open      map[*trafficConn]struct{}
	ended     bool
}

// NewServer returns a server with settings for the engine's handler. It loads
// the TLS files, if any, and fails when it cannot.
func (e *Engine) NewServer(s ServerSettings) (*Server, error) {
	conf, err := s.tlsConfig()
	if err != nil {
		return nil, err
	}
	srv := &Server{engine: e, tls: conf != nil, gone: make(chan struct{}, 1), open: map[*trafficConn]struct{}{}}
	srv.http = &http.Server{
		Handler:           e.Handler(),
		ReadTimeout:       s.ReadTimeout,
		WriteTimeout:      s.WriteTimeout,
		IdleTimeout:       s.IdleTimeout,
		ReadHeaderTimeout: s.ReadHeaderTimeout,
		MaxHeaderBytes:    s.MaxHeaderBytes,
		TLSConfig:         conf,
		ConnState:         srv.count,
		// Broken handshakes and the like are the clients' affair.
		ErrorLog:  slog.NewLogLogger(e.log.Handler(), slog.LevelDebug),
		Protocols: protocols(conf, s.H2C),
	}
	return srv, nil
}

// protocols allows HTTP/2 over TLS always, and without it when asked for.
func protocols(conf *tls.Config, h2c bool) *http.Protocols {
	p := new(http.Protocols)
	p.SetHTTP1(true)
	p.SetHTTP2(conf != nil)
	p.SetUnencryptedHTTP2(conf == nil && h2c)
	return p
}

func (s *Server) count(nc net.Conn, state http.ConnState) {
	c := trafficConnOf(nc)
	if c != nil {
		c.setState(nc, state)
	}
	switch state {
	case http.StateNew:
		s.conns.Add(1)
		if c != nil {
			s.mu.Lock()
			s.open[c] = struct{}{}
			s.mu.Unlock()
		}
	case http.StateClosed, http.StateHijacked:
		s.conns.Add(-1)
		if c != nil {
			s.mu.Lock()
			delete(s.open, c)
			s.mu.Unlock()
		}
		select {
		case s.gone <- struct{}{}:
		default:
		}
	}
}

// Serve accepts connections on ln until Drain or Close, with TLS when the
// settings say so; then it returns nil. It may run on several listeners.
func (s *Server) Serve(ln net.Listener) error {
	s.mu.Lock()
	if s.ended {
		s.mu.Unlock()
		return ln.Close()
	}
	s.listeners = append(s.listeners, ln)
	s.mu.Unlock()

	var err error
	if s.tls {
		err = s.http.ServeTLS(trafficListener{ln}, "", "")
	} else {
		err = s.http.Serve(trafficListener{ln})
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended || errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return fmt.Errorf("serve on %s: %w", ln.Addr(), err)
}

// Connections returns how many client connections are open.
func (s *Server) Connections() int { return int(s.conns.Load()) }

// Drain ends the server without losing a request: it closes the listeners,
// answers everything with Connection: close, waits until no connection is open
// or ctx ends, and only then shuts down. Closing a listener closes the file
// descriptor of this process only: a successor that inherited the socket goes
// on accepting.
//
// A connection on which the client says nothing for quietGrace is closed, so
// that clients which keep idle ones do not hold the end up: a drain takes about
// two seconds with those, and as long as the longest request without. Give ctx
// about ten seconds.
//
// Afterwards nothing is open. An error says how many connections were cut.
func (s *Server) Drain(ctx context.Context) error {
	s.engine.SetDraining(true)
	s.closeListeners()
	began := time.Now()
	tick := time.NewTicker(quietGrace / 30)
	defer tick.Stop()
	for s.conns.Load() > 0 && ctx.Err() == nil {
		if s.endQuiet(began, time.Now()) {
			break
		}
		select {
		case <-s.gone:
		case <-tick.C:
		case <-ctx.Done():
		}
	}
	// What is open now speaks HTTP/2, which Shutdown ends in order; with ctx
	// ended, Shutdown closes what is idle and Close the rest.
	err := s.http.Shutdown(ctx)
	if cut := s.conns.Load(); err != nil && cut > 0 {
		return errors.Join(fmt.Errorf("drain: %d connections were cut: %w", cut, err), s.http.Close())
	}
	return nil
}

// endQuiet closes the connections that have been quiet since the drain began at
// began. It reports whether all that is left open is quiet HTTP/2: that one has
// a way of its own to say good-bye (GOAWAY), which http.Server.Shutdown uses.
func (s *Server) endQuiet(began, now time.Time) (rest bool) {
	s.mu.Lock()
	open := make([]*trafficConn, 0, len(s.open))
	for c := range s.open {
		open = append(open, c)
	}
	s.mu.Unlock()
	rest = len(open) > 0 && int64(len(open)) == s.conns.Load()
	for _, c := range open {
		quiet, h2 := c.endIfQuiet(began, now)
		rest = rest && quiet && h2
	}
	return rest
}

// closeListeners ends the accepting, once.
func (s *Server) closeListeners() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ended = true
	for _, ln := range s.listeners {
		_ = ln.Close() // its only failure is to be closed already
	}
	s.listeners = nil
}

// Close ends the server and its connections at once.
func (s *Server) Close() error {
	s.closeListeners()
	return s.http.Close()
}
