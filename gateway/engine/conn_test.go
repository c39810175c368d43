package engine

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// TestDrainWithIdleClients drains under clients that keep connections: unused
// ones, ones that were used once, ones that are used now and then, and one
// whose request arrives in two halves. None of them loses a request, and the
// drain does not wait for those that say nothing.
func TestDrainWithIdleClients(t *testing.T) {
	t.Parallel()
	b := newBackend(t, map[string]string{"/x": `{"ok": true}`})
	e := newEngine(t, conf(`{"endpoint": "/x", "method": "POST", "backend": [{"host": ["`+b.URL+`"], "url_pattern": "/x", "method": "GET"}]}`))
	srv, base := serve(t, e, ServerSettings{})
	addr := strings.TrimPrefix(base, "http://")
	const post = "POST /x HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}"

	var clients sync.WaitGroup
	var requests atomic.Int64
	draining := make(chan struct{})
	client := func(use func(c net.Conn, ask func(request string) (open bool))) {
		c, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		r := bufio.NewReader(c)
		clients.Go(func() {
			defer c.Close()
			use(c, func(request string) bool {
				if _, err := io.WriteString(c, request); err != nil {
					t.Errorf("send: %v", err)
					return false
				}
				resp, err := http.ReadResponse(r, nil)
				if err != nil {
					t.Errorf("a request was lost: %v", err)
					return false
				}
				io.Copy(io.Discard, resp.Body)
				if requests.Add(1); resp.StatusCode != http.StatusOK {
					t.Errorf("answered %d", resp.StatusCode)
				}
				return !resp.Close
			})
		})
	}
	ended := func(c net.Conn) { // by the server, and with nothing more to read
		c.SetReadDeadline(time.Now().Add(20 * time.Second))
		if n, err := c.Read(make([]byte, 1)); n != 0 || !errors.Is(err, io.EOF) {
			t.Errorf("the end of an idle connection: got %d bytes, %v; want EOF", n, err)
		}
	}
	for range 20 {
		client(func(c net.Conn, _ func(string) bool) { ended(c) })
		client(func(c net.Conn, ask func(string) bool) {
			if ask(post) {
				ended(c)
			}
		})
	}
	for i := range 20 {
		client(func(c net.Conn, ask func(string) bool) {
			for ask(post) {
				time.Sleep(quietGrace/2 + time.Duration(i)*10*time.Millisecond) // a client's pace
			}
		})
	}
	client(func(c net.Conn, ask func(string) bool) {
		if !ask(post) {
			return
		}
		io.WriteString(c, post[:30])
		<-draining
		time.Sleep(quietGrace + time.Second) // a slow line
		ask(post[30:])
	})
	waitFor(t, "all connections", func() bool { return srv.Connections() == 61 && requests.Load() >= 41 })

	began := time.Now()
	close(draining)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := srv.Drain(ctx); err != nil {
		t.Errorf("Drain: %v", err)
	}
	took := time.Since(began)
	clients.Wait()
	t.Logf("drained in %v, %d requests", took, requests.Load())
	if took > 6*time.Second {
		t.Errorf("the drain took %v; want about the %v of the slow line", took, quietGrace+time.Second)
	}
}

// TestDrainTLS drains idle connections over TLS, HTTP/1.1 and HTTP/2.
func TestDrainTLS(t *testing.T) {
	t.Parallel()
	b := newBackend(t, map[string]string{"/x": `{"ok": true}`})
	e := newEngine(t, conf(`{"endpoint": "/x", "backend": [{"host": ["`+b.URL+`"], "url_pattern": "/x"}]}`))
	cert := httptest.NewTLSServer(nil)
	cert.Close()
	for _, proto := range []string{"http/1.1", "h2"} {
		t.Run(proto, func(t *testing.T) {
			e.SetDraining(false)
			srv, err := e.NewServer(ServerSettings{})
			if err != nil {
				t.Fatal(err)
			}
			srv.tls = true
			srv.http.TLSConfig = &tls.Config{Certificates: cert.TLS.Certificates}
			srv.http.Protocols = protocols(srv.http.TLSConfig, false)
			ln, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			served := make(chan error, 1)
			go func() { served <- srv.Serve(ln) }()
			tr := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true, NextProtos: []string{proto}}, ForceAttemptHTTP2: proto == "h2"}
			defer tr.CloseIdleConnections()
			resp, err := (&http.Client{Transport: tr}).Get("https://" + ln.Addr().String() + "/x")
			if err != nil {
				t.Fatal(err)
			}
			io.Copy(io.Discard, resp.Body)
			resp.Body.Close()
			if want := map[string]int{"http/1.1": 1, "h2": 2}[proto]; resp.ProtoMajor != want {
				t.Fatalf("HTTP/%d; want %d", resp.ProtoMajor, want)
			}
			began := time.Now()
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			defer cancel()
			if err := srv.Drain(ctx); err != nil {
				t.Errorf("Drain: %v", err)
			}
			if took := time.Since(began); took > 8*time.Second {
				t.Errorf("the drain took %v", took)
			}
			if err := <-served; err != nil {
				t.Errorf("Serve: %v", err)
			}
		})
	}
}
