package otlp

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"go.opentelemetry.io/collector/pdata/ptrace/ptraceotlp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	grpcstatus "google.golang.org/grpc/status"

	"github.com/binnacle-project/binnacle"
	"github.com/binnacle-project/binnacle/otlp/wire"
)

// TestBodyThatStops: a body that stops coming is refused, as retryable, and
// gives back what it held; one that is slow and comes is taken; and a store that
// takes longer than a body may is not taken for a sender that left.
func TestBodyThatStops(t *testing.T) {
	var pause time.Duration
	kept := 0
	r := newRig(t, Options{Sink: SinkFuncs{Traces: func(ctx context.Context, _ binnacle.Origin, _ *wire.Traces) (Result, error) {
		select {
		case <-time.After(pause):
			kept++
			return Result{}, nil
		case <-ctx.Done():
			return Result{}, ctx.Err()
		}
	}}}, anyone)
	r.bodies.stall, r.bodies.total = 200*time.Millisecond, 800*time.Millisecond
	body, err := ptraceotlp.NewExportRequestFromTraces(sampleTraces(3)).MarshalProto()
	if err != nil {
		t.Fatal(err)
	}
	// send writes the body in parts, with pauses between, and returns the answer.
	send := func(parts int, between time.Duration, whole bool) *http.Response {
		conn, err := net.Dial("tcp", strings.TrimPrefix(r.http, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		conn.SetReadDeadline(time.Now().Add(10 * time.Second))
		fmt.Fprintf(conn, "POST /v1/traces HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-protobuf\r\nContent-Length: %d\r\n\r\n", len(body))
		rest, n := body, len(body)/parts
		for range parts - 1 {
			conn.Write(rest[:n])
			rest = rest[n:]
			time.Sleep(between)
		}
		if whole {
			conn.Write(rest)
		}
		resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			t.Fatalf("no answer: %v", err)
		}
		io.Copy(io.Discard, resp.Body)
		return resp
	}
	if resp := send(2, 0, false); resp.StatusCode != http.StatusServiceUnavailable || resp.Header.Get("Retry-After") == "" {
		t.Errorf("a body that stops: %d, Retry-After %q; want 503 with one", resp.StatusCode, resp.Header.Get("Retry-After"))
	}
	if n := r.meters.busy.stalled.Get(); n != 1 {
		t.Errorf("stalled: counted %d; want 1", n)
	}
	if resp := send(4, 120*time.Millisecond, true); resp.StatusCode != http.StatusOK {
		t.Errorf("a slow body: %d; want 200", resp.StatusCode)
	}
	if resp := send(20, 120*time.Millisecond, true); resp.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("a body that trickles for longer than it may: %d; want 503", resp.StatusCode)
	}
	pause = time.Second
	if resp := send(1, 0, true); resp.StatusCode != http.StatusOK || kept != 2 {
		t.Errorf("a slow store: %d, %d batches kept; want 200, 2", resp.StatusCode, kept)
	}
	if n := r.budget.used.Load(); n != 0 {
		t.Errorf("%d bytes of the budget were not given back", n)
	}
}

// slowConn sends what is written to it only while it is let.
type slowConn struct {
	net.Conn
	after int // bytes, then nothing more goes out
}

func (c *slowConn) Write(b []byte) (int, error) {
	n := min(len(b), c.after)
	if n > 0 {
		if _, err := c.Conn.Write(b[:n]); err != nil {
			return 0, err
		}
		c.after -= n
	}
	return len(b), nil // the rest is lost on the way
}

// TestMessageThatStops: a gRPC message that never ends holds its place for as
// long as a message may take, and others wait or are told to come again.
func TestMessageThatStops(t *testing.T) {
	r := newRig(t, Options{MaxBytes: 1 << 20, DecodeBytes: 1 << 20, DecodeWait: 100 * time.Millisecond}, anyone)
	r.bodies.total = 2 * time.Second
	const places = 4 // the fewest
	if cap(r.reading) != places {
		t.Fatalf("%d places; want %d", cap(r.reading), places)
	}
	big := sampleTraces(2000) // some 400 kB
	answers := make(chan error, places)
	for range places {
		cc, err := grpc.NewClient("passthrough:///"+r.grpc, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithContextDialer(func(ctx context.Context, a string) (net.Conn, error) {
			c, err := (&net.Dialer{}).DialContext(ctx, "tcp", a)
			return &slowConn{c, 100_000}, err
		}))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { cc.Close() })
		go func() {
			_, err := ptraceotlp.NewGRPCClient(cc).Export(t.Context(), ptraceotlp.NewExportRequestFromTraces(big))
			answers <- err
		}()
	}
	for deadline := time.Now().Add(5 * time.Second); len(r.reading) < places; time.Sleep(time.Millisecond) {
		if len(answers) > 0 {
			t.Fatal(<-answers)
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d messages are being read; want %d", len(r.reading), places)
		}
	}
	_, err := ptraceotlp.NewGRPCClient(r.dial(t)).Export(t.Context(), ptraceotlp.NewExportRequestFromTraces(sampleTraces(1)))
	if a := fromStatus(t, 0, grpcstatus.Convert(err).Proto()); a.code != codes.Unavailable || a.retry == 0 {
		t.Errorf("while all places are taken: %+v; want UNAVAILABLE with RetryInfo", a)
	}
	if n := r.meters.busy.reading.Get(); n != 1 {
		t.Errorf("reading: counted %d; want 1", n)
	}
	for range places {
		if err := <-answers; grpcstatus.Code(err) != codes.DeadlineExceeded {
			t.Errorf("a message that never ends: %v; want DEADLINE_EXCEEDED", err)
		}
	}
	if got := r.send(t, viaGRPC, "", sampleTraces(1)); got != (answer{}) {
		t.Errorf("afterwards: %+v; want success", got)
	}
	if n := r.gate.inFlight.Load(); n > 1 || len(r.reading) != 0 && errors.Is(err, nil) {
		t.Errorf("%d requests in work, %d being read; want none", n, len(r.reading))
	}
}
