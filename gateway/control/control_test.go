package control

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// serve starts a server in a new folder and returns a client of it.
func serve(t *testing.T, h Handler) *Client {
	t.Helper()
	dir := t.TempDir()
	ln, err := Listen(dir, "c.sock")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		done <- Serve(ctx, ln, slog.New(slog.NewTextHandler(t.Output(), nil)), h, nil)
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
	c, err := Dial(t.Context(), dir, "c.sock")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func echo(_ context.Context, method string, body json.RawMessage) (any, []*os.File, error) {
	switch method {
	case "refuse":
		return nil, nil, &Error{Method: method, Code: CodeRefused, Message: "no"}
	case "fail":
		return nil, nil, errors.New("broken")
	case "huge":
		return strings.Repeat("x", MaxFrame), nil, nil
	}
	return body, nil, nil
}

func TestCallsRunBesideEachOther(t *testing.T) {
	held := make(chan struct{})
	c := serve(t, func(ctx context.Context, method string, body json.RawMessage) (any, []*os.File, error) {
		if method == "slow" {
			<-held
		}
		return echo(ctx, method, body)
	})
	slow := make(chan error, 1)
	go func() { slow <- c.Call(t.Context(), "slow", 1, nil) }()
	var wg sync.WaitGroup
	for i := range 50 {
		wg.Go(func() {
			want := strings.Repeat("ä", i*100)
			var got string
			if err := c.Call(t.Context(), "echo", want, &got); err != nil || got != want {
				t.Errorf("echo of %d characters: got %d, %v", len(want), len(got), err)
			}
		})
	}
	wg.Wait()
	close(held)
	if err := <-slow; err != nil {
		t.Errorf("slow call: %v", err)
	}
}

func TestErrorsKeepTheirCode(t *testing.T) {
	c := serve(t, echo)
	err := c.Call(t.Context(), "refuse", nil, nil)
	if !HasCode(err, CodeRefused) || err.Error() != "no" {
		t.Errorf("refuse: got %v; want the other side's words with code %s", err, CodeRefused)
	}
	if err = c.Call(t.Context(), "fail", nil, nil); err == nil || err.Error() != "broken" || HasCode(err, CodeRefused) {
		t.Errorf("fail: got %v; want broken without a code", err)
	}
	if err = c.Call(t.Context(), "huge", nil, nil); err == nil || !strings.Contains(err.Error(), "too large") {
		t.Errorf("huge: got %v; want that the answer is too large", err)
	}
	if err = c.Call(t.Context(), "echo", "still there", nil); err != nil {
		t.Errorf("echo after errors: %v", err)
	}
}

func TestConfigurationOfEightMegabytes(t *testing.T) {
	c := serve(t, echo)
	want := Apply{Config: bytes.Repeat([]byte{'{'}, 8<<20)}
	var got Apply
	if err := c.Call(t.Context(), MethodApply, want, &got); err != nil || !bytes.Equal(got.Config, want.Config) {
		t.Fatalf("got %d bytes, %v; want %d", len(got.Config), err, len(want.Config))
	}
}

func TestGivenUpCallDoesNotDisturb(t *testing.T) {
	held := make(chan struct{})
	c := serve(t, func(ctx context.Context, method string, body json.RawMessage) (any, []*os.File, error) {
		if method == "slow" {
			<-held
		}
		return echo(ctx, method, body)
	})
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if err := c.Call(ctx, "slow", nil, nil); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("slow: got %v; want a deadline", err)
	}
	close(held)
	var got int
	if err := c.Call(t.Context(), "echo", 7, &got); err != nil || got != 7 {
		t.Errorf("echo: got %d, %v", got, err)
	}
}

func TestEndOfTheOtherSide(t *testing.T) {
	dir := t.TempDir()
	ln, err := Listen(dir, "c.sock")
	if err != nil {
		t.Fatal(err)
	}
	accepted := make(chan net.Conn, 1)
	go func() {
		conn, _ := ln.Accept()
		accepted <- conn
	}()
	c, err := Dial(t.Context(), dir, "c.sock")
	if err != nil {
		t.Fatal(err)
	}
	call := make(chan error, 1)
	go func() { call <- c.Call(t.Context(), "x", nil, nil) }()
	conn := <-accepted
	if _, err := readMessage(conn.(*net.UnixConn)); err != nil {
		t.Fatal(err)
	}
	conn.Close()
	ln.Close()
	if err := <-call; !errors.Is(err, ErrClosed) {
		t.Errorf("call in flight: got %v; want ErrClosed", err)
	}
	<-c.Gone()
	if err := c.Call(t.Context(), "x", nil, nil); !errors.Is(err, ErrClosed) {
		t.Errorf("later call: got %v; want ErrClosed", err)
	}
}

// TestListenersTravel passes a listening socket as adoption does, and accepts
// from it while the first owner does as well.
func TestListenersTravel(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c := serve(t, func(context.Context, string, json.RawMessage) (any, []*os.File, error) {
		f, err := File(ln)
		return "sent", []*os.File{f}, err
	})
	var said string
	files, err := c.CallFiles(t.Context(), MethodAdopt, nil, &said)
	if err != nil || len(files) != 1 || said != "sent" {
		t.Fatalf("adopt: got %d files, %q, %v; want 1", len(files), said, err)
	}
	again, err := net.FileListener(files[0])
	files[0].Close()
	if err != nil {
		t.Fatal(err)
	}
	// The first owner must not have been switched to blocking mode: a Close
	// then hangs in accept.
	waiting := make(chan struct{})
	go func() {
		ln.Accept()
		close(waiting)
	}()
	time.Sleep(time.Millisecond) // lets accept begin mostly; the outcome must be the same without
	ln.Close()
	select {
	case <-waiting:
	case <-time.After(5 * time.Second):
		t.Fatal("the first owner hangs in accept")
	}
	go func() {
		conn, err := net.Dial("tcp", again.Addr().String())
		if err == nil {
			conn.Close()
		}
	}()
	conn, err := again.Accept()
	if err != nil {
		t.Fatalf("accept on the copy after the first owner closed: %v", err)
	}
	conn.Close()
	again.Close()
}

func TestLongFolder(t *testing.T) {
	dir := filepath.Join(t.TempDir(), strings.Repeat("d", 120))
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	ln, err := Listen(dir, "c.sock")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	c, err := Dial(t.Context(), dir, "c.sock")
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
	fi, err := os.Stat(filepath.Join(dir, "c.sock"))
	if err != nil || fi.Mode().Perm() != 0o600 {
		t.Errorf("mode of the socket: got %v, %v; want 0600", fi.Mode(), err)
	}
}

func FuzzFrame(f *testing.F) {
	for _, m := range []*message{
		{ID: 1, Method: MethodApply, Body: json.RawMessage(`{"config":"e30="}`)},
		{ID: 1 << 60, Error: "no", Code: CodeRefused},
	} {
		b, err := encode(m)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Add([]byte{'B', 'N', 1, 0, 0xff, 0xff, 0xff, 0xff})
	f.Add([]byte("GET / HTTP/1.1\r\n\r\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := decode(bytes.NewReader(b))
		if err != nil {
			return // refusing is fine
		}
		again, err := encode(m)
		if err != nil {
			t.Fatalf("encode of what was decoded: %v", err)
		}
		m2, err := decode(io.MultiReader(bytes.NewReader(again[:5]), bytes.NewReader(again[5:])))
		if err != nil || m2.ID != m.ID || m2.Method != m.Method || m2.Error != m.Error || m2.Code != m.Code {
			t.Fatalf("round trip of %q: got %+v, %v; want %+v", b, m2, err, m)
		}
	})
}

// TestGone: a peer that comes to the socket beside the agent, with garbage even,
// and leaves again is not the end of the agent.
func TestGone(t *testing.T) {
	dir := t.TempDir()
	ln, err := Listen(dir, "c.sock")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	gone, served := make(chan struct{}, 2), make(chan error, 1)
	go func() {
		served <- Serve(ctx, ln, slog.New(slog.NewTextHandler(t.Output(), nil)), echo, func() { gone <- struct{}{} })
	}()
	agent, err := Dial(t.Context(), dir, "c.sock")
	if err != nil {
		t.Fatal(err)
	}
	defer agent.Close()
	stray, err := net.Dial("unix", filepath.Join(dir, "c.sock"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(stray, "GET / HTTP/1.1\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, stray); err != nil && !errors.Is(err, syscall.ECONNRESET) {
		t.Fatal(err) // it was not closed by the other side
	}
	stray.Close()
	if err := agent.Call(t.Context(), "echo", 1, nil); err != nil {
		t.Errorf("the agent's call: %v", err)
	}
	select {
	case <-gone:
		t.Error("the agent counts as gone while it is connected")
	default:
	}
	agent.Close()
	<-gone
	cancel()
	if err := <-served; err != nil {
		t.Error(err)
	}
}

// shortListener fails as often as it says, as it does when descriptors are short.
type shortListener struct {
	net.Listener
	fails int
}

func (l *shortListener) Accept() (net.Conn, error) {
	if l.fails--; l.fails >= 0 {
		return nil, &net.OpError{Op: "accept", Net: "unix", Err: os.NewSyscallError("accept4", syscall.EMFILE)}
	}
	return l.Listener.Accept()
}

// TestShortage: a process that is out of descriptors for a while is directed
// again afterwards, and ends when it is told to in the meantime.
func TestShortage(t *testing.T) {
	for _, fails := range []int{2, 1 << 30} {
		dir := t.TempDir()
		ln, err := Listen(dir, "c.sock")
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		served := make(chan error, 1)
		go func() {
			served <- Serve(ctx, &shortListener{ln, fails}, slog.New(slog.NewTextHandler(t.Output(), nil)), echo, nil)
		}()
		if fails < 10 {
			c, err := Dial(t.Context(), dir, "c.sock")
			if err != nil {
				t.Fatal(err)
			}
			if err := c.Call(t.Context(), "echo", 1, nil); err != nil {
				t.Errorf("after %d failures: %v", fails, err)
			}
			c.Close()
		}
		cancel()
		if err := <-served; err != nil {
			t.Errorf("Serve: %v", err)
		}
	}
}
