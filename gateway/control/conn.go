package control

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// Codes of errors that a caller branches on.
const (
	// CodeRefused: the configuration cannot be run; trying it again is of no
	// use.
	CodeRefused = "refused"
	// CodeRestart: the configuration can be run, but by a new process.
	CodeRestart = "restart"
	// CodeUnknown: the other side does not know the method.
	CodeUnknown = "unknown_method"
)

// Error is what the other side answered instead of a result.
type Error struct {
	Method  string
	Code    string
	Message string
}

// Error gives the other side's words.
func (e *Error) Error() string { return e.Message }

// HasCode reports whether err carries an *Error with the code.
func HasCode(err error, code string) bool {
	var e *Error
	return errors.As(err, &e) && e.Code == code
}

// ErrClosed is returned by calls on a connection that has ended, which mostly
// means that the other process has.
var ErrClosed = errors.New("the control connection is closed")

// Handler answers one call. The answer is marshaled as JSON; files, if any,
// travel beside it and are closed after they were sent. An *Error keeps its
// code.
type Handler func(ctx context.Context, method string, body json.RawMessage) (answer any, files []*os.File, err error)

// maxCalls bounds the calls in work on one connection.
const maxCalls = 16

// Serve answers calls on every connection to ln until ctx ends or ln is
// closed, then closes all and returns when the last call has returned.
// onGone, if not nil, is told whenever the last open connection has ended.
func Serve(ctx context.Context, ln net.Listener, log *slog.Logger, h Handler, onGone func()) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var wg sync.WaitGroup
	defer wg.Wait()
	var open atomic.Int64
	stop := context.AfterFunc(ctx, func() { ln.Close() })
	defer stop()
	for {
		c, err := accept(ctx, ln, log)
		if ctx.Err() != nil || errors.Is(err, net.ErrClosed) {
			cancel()
			if err == nil {
				c.Close()
			}
			return nil
		}
		if err != nil {
			cancel()
			return fmt.Errorf("accept a control connection: %w", err)
		}
		uc, ok := c.(*net.UnixConn)
		if !ok {
			c.Close()
			cancel()
			return fmt.Errorf("BUG: a control connection of type %T", c)
		}
		open.Add(1)
		wg.Go(func() {
			if err := serveConn(ctx, uc, h); err != nil {
				log.Debug("control connection ended", "err", err)
			}
			if open.Add(-1) == 0 && onGone != nil {
				onGone()
			}
		})
	}
}

// acceptRetry is the time between two tries while the process or the machine is
// short of descriptors or memory.
const acceptRetry = 100 * time.Millisecond

// accept is ln.Accept, but for shortages, which it waits out: traffic makes them,
// and a process that nobody can direct any more would be worse.
func accept(ctx context.Context, ln net.Listener, log *slog.Logger) (net.Conn, error) {
	for waited := false; ; waited = true {
		c, err := ln.Accept()
		if err == nil || !isShortage(err) {
			return c, err
		}
		if !waited {
			log.Warn("a control connection has to wait", "err", err)
		}
		select {
		case <-ctx.Done():
			return nil, err
		case <-time.After(acceptRetry):
		}
	}
}

func isShortage(err error) bool {
	for _, e := range []error{syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.ENOMEM, syscall.ECONNABORTED} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// serveConn answers the calls of one connection, several at a time.
func serveConn(ctx context.Context, c *net.UnixConn, h Handler) error {
	ctx, cancel := context.WithCancel(ctx)
	stop := context.AfterFunc(ctx, func() { c.Close() })
	defer stop()
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	var wmu sync.Mutex // one frame at a time
	slots := make(chan struct{}, maxCalls)
	for {
		m, err := readMessage(c)
		if err != nil {
			if errors.Is(err, io.EOF) || ctx.Err() != nil {
				return nil
			}
			return err
		}
		for _, f := range m.files { // no method takes any
			f.Close()
		}
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			a := answer(ctx, m, h)
			wmu.Lock()
			err := writeMessage(c, a)
			wmu.Unlock()
			for _, f := range a.files {
				f.Close()
			}
			if err != nil {
				c.Close() // the reader above ends
			}
		})
	}
}

func answer(ctx context.Context, m *message, h Handler) *message {
	out, files, err := h(ctx, m.Method, m.Body)
	a := &message{ID: m.ID, files: files}
	if err == nil && out != nil {
		a.Body, err = json.Marshal(out)
	}
	if err == nil && (len(a.Body) > MaxFrame-1024 || len(files) > maxFiles) {
		err = fmt.Errorf("the answer to %s has %d bytes and %d files: too large", m.Method, len(a.Body), len(files))
	}
	if err != nil {
		for _, f := range files {
			f.Close()
		}
		a.Body, a.files = nil, nil
		a.Error = err.Error()
		var e *Error
		if errors.As(err, &e) {
			a.Code = e.Code
		}
		if a.Error == "" {
			a.Error = "failed without a message"
		}
	}
	return a
}

// Client calls the other side of one connection. It is safe for concurrent
// use.
type Client struct {
	c    *net.UnixConn
	wmu  sync.Mutex // one frame at a time
	gone chan struct{}

	mu    sync.Mutex // guards what follows
	next  uint64
	calls map[uint64]chan *message
	err   error // why the connection ended
}

// NewClient begins reading answers from c, which it owns from now on.
func NewClient(c *net.UnixConn) *Client {
	cl := &Client{c: c, gone: make(chan struct{}), calls: map[uint64]chan *message{}}
	go cl.read()
	return cl
}

func (cl *Client) read() {
	var err error
	for {
		var m *message
		if m, err = readMessage(cl.c); err != nil {
			break
		}
		cl.mu.Lock()
		ch := cl.calls[m.ID]
		delete(cl.calls, m.ID)
		cl.mu.Unlock()
		if ch == nil { // its caller has given up
			for _, f := range m.files {
				f.Close()
			}
			continue
		}
		ch <- m // has room for it
	}
	cl.c.Close()
	cl.mu.Lock()
	cl.err = err
	for id, ch := range cl.calls {
		close(ch)
		delete(cl.calls, id)
	}
	cl.calls = nil
	cl.mu.Unlock()
	close(cl.gone)
}

// Gone is closed when the connection has ended.
func (cl *Client) Gone() <-chan struct{} { return cl.gone }

// Close ends the connection and waits for the reader.
func (cl *Client) Close() error {
	err := cl.c.Close()
	<-cl.gone
	return err
}

// Call sends in and waits for the answer, which is decoded into out unless
// that is nil. An error of the other side is an *Error.
func (cl *Client) Call(ctx context.Context, method string, in, out any) error {
	files, err := cl.CallFiles(ctx, method, in, out)
	for _, f := range files {
		f.Close()
	}
	return err
}

// CallFiles is Call for methods whose answer brings files. The caller owns
// them.
func (cl *Client) CallFiles(ctx context.Context, method string, in, out any) ([]*os.File, error) {
	var body json.RawMessage
	if in != nil {
		var err error
		if body, err = json.Marshal(in); err != nil {
			return nil, fmt.Errorf("control call %s: %w", method, err)
		}
	}
	ch := make(chan *message, 1)
	cl.mu.Lock()
	if cl.calls == nil {
		cl.mu.Unlock()
		return nil, fmt.Errorf("control call %s: %w", method, ErrClosed)
	}
	cl.next++
	id := cl.next
	cl.calls[id] = ch
	cl.mu.Unlock()

	cl.wmu.Lock()
	err := writeMessage(cl.c, &message{ID: id, Method: method, Body: body})
	cl.wmu.Unlock()
	if err != nil {
		cl.forget(id, ch)
		return nil, fmt.Errorf("control call %s: %w", method, errors.Join(ErrClosed, err))
	}
	select {
	case m, ok := <-ch:
		if !ok {
			return nil, fmt.Errorf("control call %s: %w", method, ErrClosed)
		}
		if m.Error != "" {
			return m.files, &Error{Method: method, Code: m.Code, Message: m.Error}
		}
		if out != nil {
			if err := json.Unmarshal(m.Body, out); err != nil {
				return m.files, fmt.Errorf("control call %s: decode the answer: %w", method, err)
			}
		}
		return m.files, nil
	case <-ctx.Done():
		cl.forget(id, ch)
		return nil, fmt.Errorf("control call %s: %w", method, ctx.Err())
	}
}

// forget gives up a call. An answer that came in the same moment is dropped
// with its files.
func (cl *Client) forget(id uint64, ch chan *message) {
	cl.mu.Lock()
	delete(cl.calls, id)
	cl.mu.Unlock()
	select {
	case m, ok := <-ch:
		if ok {
			for _, f := range m.files {
				f.Close()
			}
		}
	default:
	}
}
