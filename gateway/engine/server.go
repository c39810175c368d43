package engine

import (
	"context"
	"net"
)

// Server is the traffic server of one worker process: an http.Server that
// counts its connections, so that it can drain without losing a request.
type Server struct{}

// NewServer returns a server with settings for the engine's handler. It loads
// the TLS files, if any, and fails when it cannot.
func (e *Engine) NewServer(s ServerSettings) (*Server, error) { return nil, nil }

// Serve accepts connections on ln until Drain or Close, with TLS when the
// settings say so; then it returns nil. It may run on several listeners.
func (s *Server) Serve(ln net.Listener) error { return nil }

// Connections returns how many client connections are open.
func (s *Server) Connections() int { return 0 }

// Drain ends the server without losing a request: it closes the listeners,
// answers everything with Connection: close, waits until no connection is open
// or ctx ends, and only then shuts down. Closing a listener closes the file
// descriptor of this process only: a successor that inherited the socket goes
// on accepting.
func (s *Server) Drain(ctx context.Context) error { return nil }

// Close ends the server and its connections at once.
func (s *Server) Close() error { return nil }
