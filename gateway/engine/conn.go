package engine

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// quietGrace is how long a drain gives a client to use the connection that it
// keeps idle: a busy client does, learns from Connection: close that it must
// not again, and closes it. Longer loses less against slow networks, and makes
// every stop of a node with idle clients longer.
const quietGrace = 1500 * time.Millisecond

// begunGrace is the same for a client that has begun to say something, which
// may be a request on a slow line, or a TLS handshake made in advance.
const begunGrace = 4 * time.Second

// trafficListener gives connections that can be ended between two requests.
type trafficListener struct{ net.Listener }

// Accept waits for the next connection.
func (l trafficListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if t, ok := c.(*net.TCPConn); ok && err == nil {
		return &trafficConn{TCPConn: t, since: time.Now()}, nil
	}
	return c, err
}

// trafficConn is a client's connection. Closing it while http.Server waits for
// the next request would be a race with that request: instead the server's own
// read is made to return io.EOF, and only when nothing waits to be read. What
// remains is the time that a packet travels, as with every idle timeout.
type trafficConn struct {
	*net.TCPConn
	ending atomic.Bool  // the read deadline is ours
	read   atomic.Int64 // bytes read

	mu       sync.Mutex // guards what follows
	state    http.ConnState
	h2       bool      // HTTP/2 over TLS
	since    time.Time // of the state
	mark     int64     // bytes read when the state began
	deadline time.Time // for reads, as http.Server wants it
}

// trafficConnOf finds the connection under what http.Server calls one, nil if
// it is none of ours.
func trafficConnOf(nc net.Conn) *trafficConn {
	if t, ok := nc.(*tls.Conn); ok {
		nc = t.NetConn()
	}
	c, _ := nc.(*trafficConn)
	return c
}

// setState follows http.Server's own account of nc.
func (c *trafficConn) setState(nc net.Conn, s http.ConnState) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.state == http.StateNew && s != http.StateNew {
		t, ok := nc.(*tls.Conn) // whose handshake is over
		c.h2 = ok && t.ConnectionState().NegotiatedProtocol == "h2"
	}
	c.state, c.since, c.mark = s, time.Now(), c.read.Load()
}

// endIfQuiet reports whether the client had its chance, in a drain since began,
// to send a request, and did not; it then ends the connection, unless that
// speaks HTTP/2.
func (c *trafficConn) endIfQuiet(began, now time.Time) (quiet, h2 bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.state != http.StateNew && c.state != http.StateIdle {
		return false, c.h2
	}
	grace := quietGrace
	if c.read.Load() != c.mark {
		grace = begunGrace
	}
	since := began
	if c.since.After(began) {
		since = c.since
	}
	quiet = now.Sub(since) >= grace
	if quiet && !c.h2 {
		// This wakes the read that waits for the next request.
		c.ending.Store(true)
		c.TCPConn.SetReadDeadline(time.Unix(1, 0)) //nolint:errcheck // fails on a closed connection only
	}
	return quiet, c.h2
}

// Read reads what the client sends, or io.EOF when the connection is to end
// and nothing waits.
func (c *trafficConn) Read(b []byte) (int, error) {
	for {
		n, err := c.TCPConn.Read(b)
		c.read.Add(int64(n))
		if !c.ending.Load() {
			return n, err
		}
		c.goOn()
		if n > 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
			return n, err
		}
		if !c.waiting() {
			return 0, io.EOF
		}
	}
}

// goOn gives the read deadline back to http.Server.
func (c *trafficConn) goOn() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ending.Store(false)
	c.TCPConn.SetReadDeadline(c.deadline) //nolint:errcheck // fails on a closed connection only
}

// waiting reports whether the kernel holds bytes of the client.
func (c *trafficConn) waiting() bool {
	rc, err := c.TCPConn.SyscallConn()
	if err != nil {
		return false
	}
	n := 0
	err = rc.Control(func(fd uintptr) {
		var b [1]byte
		n, _, _ = syscall.Recvfrom(int(fd), b[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
	})
	return err == nil && n > 0
}

// SetReadDeadline bounds reads. A deadline of our own comes first.
func (c *trafficConn) SetReadDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.deadline = t
	if c.ending.Load() {
		return nil
	}
	return c.TCPConn.SetReadDeadline(t)
}

// SetDeadline bounds reads and writes.
func (c *trafficConn) SetDeadline(t time.Time) error {
	return errors.Join(c.SetReadDeadline(t), c.SetWriteDeadline(t))
}
