package otlp

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"testing"
	"time"
)

// TestConnectionLimit opens more connections to a real server than may be, and
// wants those over the limit closed, counted, and let in again once there is
// room.
func TestConnectionLimit(t *testing.T) {
	for _, bound := range []string{"in all", "per peer"} {
		t.Run(bound, func(t *testing.T) {
			r := newRig(t, Options{}, anyone)
			ln, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			limited := r.LimitConnections(ln, "test").(*limitedListener)
			if bound == "in all" {
				limited.max = 3
			} else {
				limited.maxPerPeer = 3
			}
			srv := r.HTTPServer(anyone)
			done := make(chan error, 1)
			go func() { done <- srv.Serve(limited) }()
			t.Cleanup(func() {
				srv.Close()
				if err := <-done; !errors.Is(err, http.ErrServerClosed) {
					t.Error(err)
				}
				if n := limited.open.Load(); n != 0 || len(limited.peers) != 0 {
					t.Errorf("after the end: %d open, peers %v", n, limited.peers)
				}
			})
			// alive says whether the server answers on a connection.
			alive := func(c net.Conn) bool {
				c.SetDeadline(time.Now().Add(5 * time.Second))
				fmt.Fprint(c, "GET /v1/traces HTTP/1.1\r\nHost: x\r\n\r\n")
				_, err := io.ReadFull(c, make([]byte, 12))
				return err == nil
			}
			dial := func() net.Conn {
				c, err := net.Dial("tcp", ln.Addr().String())
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { c.Close() })
				return c
			}
			var conns []net.Conn
			for i := range 3 {
				c := dial()
				if !alive(c) {
					t.Fatalf("connection %d is not served", i)
				}
				conns = append(conns, c)
			}
			if alive(dial()) {
				t.Error("a connection over the limit is served")
			}
			if got := r.counter(`binnacle_otlp_connections_refused_total{listener="test"}`); got != 1 {
				t.Errorf("refused: counted %d; want 1", got)
			}
			conns[0].Close()
			for deadline := time.Now().Add(5 * time.Second); !alive(dial()); {
				if time.Now().After(deadline) {
					t.Fatal("no connection is served after one was closed")
				}
			}
		})
	}
}
