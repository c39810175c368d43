package manager

import (
	"bytes"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"sync"
	"time"
)

// answerTimeout bounds the writing of a held poll's answer.
const answerTimeout = 5 * time.Second

// nodeConn is a node's connection while it is apart from the HTTP server, and when
// it has come back to it. The server takes it for one with TLS by its
// ConnectionState.
type nodeConn struct {
	*tls.Conn
	// early is what was read apart of a request that is the server's to read.
	early []byte
	// leave gives up the place among those that the server works for; nil apart.
	leave func()
}

// Read gives what was read before, first.
func (c *nodeConn) Read(b []byte) (int, error) {
	if len(c.early) > 0 {
		n := copy(b, c.early)
		c.early = c.early[n:]
		return n, nil
	}
	return c.Conn.Read(b)
}

// takeConn takes the connection of a request without a body from the server.
func takeConn(w http.ResponseWriter) (*nodeConn, error) {
	raw, buf, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return nil, err
	}
	c, ok := raw.(*nodeConn)
	if !ok {
		c = &nodeConn{}
		if c.Conn, ok = raw.(*tls.Conn); !ok {
			raw.Close()
			return nil, errors.New("the connection of a node has no TLS")
		}
	}
	if n := buf.Reader.Buffered(); n > 0 {
		early, _ := buf.Reader.Peek(n) // they are there
		c.early = append(bytes.Clone(early), c.early...)
	}
	return c, nil
}

// answer writes an answer. The connection cannot be used any more after an error.
func (c *nodeConn) answer(a *answer) error {
	resp := http.Response{
		StatusCode: a.status, ProtoMajor: 1, ProtoMinor: 1, Header: a.header,
		Body: io.NopCloser(&a.body), ContentLength: int64(a.body.Len()),
	}
	a.header.Set("Date", time.Now().UTC().Format(http.TimeFormat))
	var b bytes.Buffer
	if err := resp.Write(&b); err != nil {
		return err
	}
	_ = c.SetWriteDeadline(time.Now().Add(answerTimeout))
	_, err := c.Write(b.Bytes())
	_ = c.SetWriteDeadline(time.Time{})
	return err
}

// goBack waits for the node's next request and gives the connection to the server
// then. It closes it when none comes, or the listener ends.
func (l *nodeListener) goBack(c *nodeConn) {
	if !l.rest(c.Conn) {
		c.Close()
		return
	}
	deadline := time.Now().Add(idleTimeout)
	if len(c.early) > 0 {
		deadline = time.Time{}
	}
	_ = c.SetReadDeadline(deadline) // that of the waiting may still hold
	if len(c.early) == 0 {
		var b [1]byte
		n, _ := c.Conn.Read(b[:])
		_ = c.SetReadDeadline(time.Time{})
		c.early = b[:n]
	}
	l.unrest(c.Conn)
	if len(c.early) == 0 || !l.giveBack(c) {
		c.Close()
	}
}

// rest remembers a connection that waits apart, for Close. It reports whether the
// listener is open.
func (l *nodeListener) rest(c *tls.Conn) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ctx.Err() != nil {
		return false
	}
	l.resting[c] = struct{}{}
	return true
}

func (l *nodeListener) unrest(c *tls.Conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.resting, c)
}

// giveBack lets the server read the next request of a connection, of which the
// first byte is there, once it is done with enough others. It reports whether
// there is a server to do so.
func (l *nodeListener) giveBack(c *nodeConn) bool {
	select {
	case l.places <- struct{}{}:
	case <-l.ctx.Done():
		return false
	}
	c.leave = sync.OnceFunc(func() { <-l.places })
	select {
	case l.ready <- c:
		return true
	case <-l.ctx.Done():
		return false
	}
}

// connState follows the server: what waits for another request, went away or was
// taken makes place.
func (l *nodeListener) connState(c net.Conn, s http.ConnState) {
	if c, ok := c.(*nodeConn); ok && (s == http.StateIdle || s == http.StateHijacked || s == http.StateClosed) {
		c.leave()
	}
}
