package e2e

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/protobuf/encoding/protowire"
)

// field wraps b as field n of each of nums, from the inside out.
func field(b []byte, nums ...protowire.Number) []byte {
	for _, n := range nums {
		b = protowire.AppendBytes(protowire.AppendTag(nil, n, protowire.BytesType), b)
	}
	return b
}

func gzipped(b []byte) []byte {
	var out bytes.Buffer
	w, _ := gzip.NewWriterLevel(&out, gzip.BestSpeed)
	_, _ = w.Write(b)
	_ = w.Close()
	return out.Bytes()
}

// heavySpans is what passes every count and is dear to decode: 100,000 elements
// with attributes, some 16 MiB.
func heavySpans(size int) []byte {
	attr := field(append(field([]byte("some.key"), 1), field(field([]byte("some value of some length"), 1), 2)...), 9)
	span := field(bytes.Repeat(attr, 20), 2)
	return field(bytes.Repeat(span, size/len(span)), 2, 1)
}

// memory reads how much memory the process has (VmRSS) and had at most since
// the last call of forget (VmHWM), in MiB.
func (p *process) memory(t *testing.T) (now, most int) {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		var kib int
		if _, err := fmt.Sscanf(line, "VmRSS: %d kB", &kib); err == nil {
			now = kib >> 10
		}
		if _, err := fmt.Sscanf(line, "VmHWM: %d kB", &kib); err == nil {
			most = kib >> 10
		}
	}
	return now, most
}

func (p *process) forgetMost(t *testing.T) {
	t.Helper()
	if err := os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", p.cmd.Process.Pid), []byte("5"), 0); err != nil {
		t.Fatal(err)
	}
}

// TestAttacks throws at a real manager what is meant to take its memory, many at
// once, and wants it to stay small, to refuse by the book, and to take an honest
// request right after. With BINNACLE_LOAD=full five times as many come at once.
func TestAttacks(t *testing.T) {
	c := startManager(t)
	at := 16 // requests at once
	if os.Getenv("BINNACLE_LOAD") == "full" {
		at = 128
	}
	post := func(media, encoding string, body []byte) func(*testing.T) map[string]int {
		return func(t *testing.T) map[string]int {
			return crowd(at, 2*at, func() string {
				req, _ := http.NewRequestWithContext(t.Context(), http.MethodPost, c.otlp+"/v1/traces", bytes.NewReader(body))
				req.Header.Set("Content-Type", media)
				if encoding != "" {
					req.Header.Set("Content-Encoding", encoding)
				}
				resp, err := http.DefaultClient.Do(req)
				if err != nil {
					return "cut off"
				}
				defer resp.Body.Close()
				_, _ = io.Copy(io.Discard, resp.Body)
				return fmt.Sprint(resp.StatusCode)
			})
		}
	}
	// What 64 requests of 16 MiB would take undefended is several GiB.
	const maxMemory = 1400
	const proto, json = "application/x-protobuf", "application/json"
	heavy := heavySpans(15 << 20)
	zw, err := zstd.NewWriter(nil, zstd.WithWindowSize(64<<20), zstd.WithEncoderConcurrency(1), zstd.WithEncoderLevel(zstd.SpeedFastest))
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range []struct {
		name   string
		attack func(*testing.T) map[string]int
		want   []string // the only answers
	}{
		{"gzip of 128 MiB of zeros", post(proto, "gzip", gzipped(make([]byte, 128<<20))), []string{"413", "503"}},
		{"gzip in gzip", post(proto, "gzip", gzipped(gzipped(make([]byte, 32<<20)))), []string{"400", "503"}},
		{"zstd of 80 MiB of zeros", post(proto, "zstd", zw.EncodeAll(make([]byte, 80<<20), nil)), []string{"413", "400", "503"}},
		{"five million empty spans", post(proto, "gzip", gzipped(field(bytes.Repeat([]byte{0x12, 0}, 5<<20), 2, 1))), []string{"413", "503"}},
		{"five million empty attributes", post(proto, "gzip", gzipped(field(bytes.Repeat([]byte{0x4a, 0}, 5<<20), 2, 2, 1))), []string{"413", "503"}},
		{"values in values", post(proto, "", nested(64<<10)), []string{"413", "503"}},
		{"JSON of brackets", post(json, "", bytes.Repeat([]byte("["), 15<<20)), []string{"413", "503"}},
		{"JSON of empty spans", post(json, "gzip", gzipped([]byte(`{"resourceSpans":[{"scopeSpans":[{"spans":[`+strings.Repeat("{},", 5<<20)+`{}]}]}]}`))), []string{"413", "503"}},
		{"as dear as is allowed", post(proto, "gzip", gzipped(heavy)), []string{"200", "413", "503"}},
		{"gRPC, as dear as is allowed", c.rawGRPC(4*at, "gzip", gzipped(heavy), false), []string{"0", "8", "14"}},
		{"gRPC, gzip of zeros", c.rawGRPC(4*at, "gzip", gzipped(make([]byte, 15<<20)), false), []string{"3", "8", "14"}},
		{"gRPC, gzip of 128 MiB of zeros", c.rawGRPC(4*at, "gzip", gzipped(make([]byte, 128<<20)), false), []string{"8", "14"}},
		{"gRPC, never ended", c.rawGRPC(4*at, "", heavy, true), nil},
		{"bodies never ended", c.slowBodies(2*at, heavy), nil},
	} {
		t.Run(a.name, func(t *testing.T) {
			c.manager.forgetMost(t)
			start := time.Now()
			got := a.attack(t)
			now, most := c.manager.memory(t)
			if most > maxMemory {
				t.Errorf("memory rose to %d MiB; want at most %d", most, maxMemory)
			}
			t.Logf("%v in %v; memory %d MiB, at most %d", got, time.Since(start).Round(time.Millisecond), now, most)
			for answers := range got {
				if len(a.want) > 0 && slices.ContainsFunc(strings.Split(answers, "+"), func(s string) bool { return !slices.Contains(a.want, s) }) {
					t.Errorf("answers %v; want only %v", got, a.want)
				}
			}
			eventually(t, 40*time.Second, "an honest request is taken", func() error {
				if status, _, body := c.sendTrace(fmt.Sprintf("%032x", 0xa0000+start.UnixNano()%1000), time.Millisecond, false); status != http.StatusOK {
					return fmt.Errorf("%d %s", status, body)
				}
				return nil
			})
		})
	}
	c.checkOwnMetrics(t)
}

// checkOwnMetrics wants every number of /metrics in the manager's own store, and
// what the attacks came to among them.
func (c *cluster) checkOwnMetrics(t *testing.T) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, c.base+"/metrics", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+c.token("admin.token"))
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	shown := map[string]bool{}
	for lines := bufio.NewScanner(resp.Body); lines.Scan(); {
		if name, _, ok := strings.Cut(strings.ReplaceAll(lines.Text(), "{", " "), " "); ok && !strings.HasPrefix(name, "#") {
			shown[name] = true
		}
	}
	eventually(t, 40*time.Second, "the own metrics are in the store", func() error {
		var names struct{ Data []string }
		if err := c.get("/prometheus/api/v1/label/__name__/values?match[]="+url.QueryEscape(`{job="binnacle-manager"}`), c.token("admin.token"), &names); err != nil {
			return err
		}
		for name := range shown {
			if !slices.Contains(names.Data, name) {
				return fmt.Errorf("%s is in /metrics and not in the store", name)
			}
		}
		if len(shown) < 100 {
			return fmt.Errorf("/metrics shows %d names only", len(shown))
		}
		var refused struct {
			Data struct {
				Result []struct{ Metric map[string]string }
			}
		}
		if err := c.get("/prometheus/api/v1/query?query="+url.QueryEscape(`sum by (cause) (binnacle_otlp_busy_total) > 0`), c.token("admin.token"), &refused); err != nil {
			return err
		}
		causes := map[string]bool{}
		for _, r := range refused.Data.Result {
			causes[r.Metric["cause"]] = true
		}
		for _, want := range []string{"reading", "stalled"} {
			if !causes[want] {
				return fmt.Errorf("causes of refusals in the store: %v; want %q, too", causes, want)
			}
		}
		return nil
	})
}

// crowd calls do n times, so many at once, and counts what it says.
func crowd(at, n int, do func() string) map[string]int {
	var (
		mu   sync.Mutex
		wg   sync.WaitGroup
		said = map[string]int{}
		turn = make(chan struct{}, n)
	)
	for range n {
		turn <- struct{}{}
	}
	close(turn)
	for range at {
		wg.Go(func() {
			for range turn {
				s := do()
				mu.Lock()
				said[s]++
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	return said
}

// nested is one attribute whose value is in an array in an array …
func nested(size int) []byte {
	var b []byte
	for len(b) < size {
		b = field(b, 1, 5)
	}
	return field(b, 2, 9, 2, 2, 1)
}

// rawGRPC speaks HTTP/2 by hand: one message on each of so many streams over
// four connections. Where hold is set the last byte never comes. It counts the
// values of grpc-status.
func (c *cluster) rawGRPC(streams int, encoding string, message []byte, hold bool) func(*testing.T) map[string]int {
	return func(t *testing.T) map[string]int {
		compressed := byte(0)
		if encoding != "" {
			compressed = 1
		}
		frame := append(binary.BigEndian.AppendUint32([]byte{compressed}, uint32(len(message))), message...)
		if hold {
			frame = frame[:len(frame)-1]
		}
		const conns = 4
		// Who holds its messages does so until all the others have sent theirs, or
		// were refused: else the first would make room for the next.
		var sending sync.WaitGroup
		sending.Add(conns)
		return crowd(conns, conns, func() string {
			said, err := c.oneConnection(t, streams/conns, encoding, frame, hold, &sending)
			if err != nil {
				return "cut off: " + err.Error()
			}
			return said
		})
	}
}

func (c *cluster) oneConnection(t *testing.T, streams int, encoding string, frame []byte, hold bool, sending *sync.WaitGroup) (string, error) {
	sent := sync.OnceFunc(sending.Done)
	defer sent()
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", c.grpc)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	deadline, _ := ctx.Deadline()
	_ = conn.SetDeadline(deadline)
	if _, err := io.WriteString(conn, http2.ClientPreface); err != nil {
		return "", err
	}
	var (
		mu     sync.Mutex
		room   = sync.NewCond(&mu)
		window = map[uint32]int{0: 65535}
		first  = 65535
		closed = map[uint32]bool{}
		ended  error
		status = map[string]int{}
		ponged = false
		w      = bufio.NewWriterSize(conn, 1<<20)
		fr     = http2.NewFramer(w, bufio.NewReader(conn))
	)
	fr.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	_ = fr.WriteSettings()
	_ = w.Flush()
	go func() { // reads until the connection ends
		for {
			f, err := fr.ReadFrame()
			mu.Lock()
			switch f := f.(type) {
			case *http2.WindowUpdateFrame:
				window[f.StreamID] += int(f.Increment)
			case *http2.SettingsFrame:
				if v, ok := f.Value(http2.SettingInitialWindowSize); ok {
					for id := range window {
						if id != 0 {
							window[id] += int(v) - first
						}
					}
					first = int(v)
				}
				if !f.IsAck() {
					_ = fr.WriteSettingsAck()
					_ = w.Flush()
				}
			case *http2.PingFrame:
				if f.IsAck() {
					ponged = true
				} else {
					_ = fr.WritePing(true, f.Data)
					_ = w.Flush()
				}
			case *http2.MetaHeadersFrame:
				for _, h := range f.Fields {
					if h.Name == "grpc-status" {
						status[h.Value]++
						closed[f.StreamID] = true
					}
				}
			case *http2.RSTStreamFrame:
				closed[f.StreamID] = true
			}
			if err != nil {
				ended = err
			}
			room.Broadcast()
			mu.Unlock()
			if err != nil {
				return
			}
		}
	}()
	var enc bytes.Buffer
	he := hpack.NewEncoder(&enc)
	left := map[uint32][]byte{}
	mu.Lock()
	for i := range streams {
		enc.Reset()
		for _, h := range [][2]string{{":method", "POST"}, {":scheme", "http"}, {":path", "/opentelemetry.proto.collector.trace.v1.TraceService/Export"}, {":authority", "x"},
			{"content-type", "application/grpc"}, {"te", "trailers"}, {"grpc-encoding", encoding}} {
			if h[1] != "" {
				_ = he.WriteField(hpack.HeaderField{Name: h[0], Value: h[1]})
			}
		}
		id := uint32(2*i + 1)
		left[id] = frame
		window[id] = first
		_ = fr.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: enc.Bytes(), EndHeaders: true})
	}
	for len(left) > 0 && ended == nil {
		wrote := false
		for id, b := range left {
			if closed[id] {
				delete(left, id)
				wrote = true
				continue
			}
			n := min(len(b), 16384, window[id], window[0])
			if n <= 0 {
				continue
			}
			last := n == len(b)
			if err := fr.WriteData(id, last && !hold, b[:n]); err != nil {
				ended = err
				break
			}
			window[id] -= n
			window[0] -= n
			wrote = true
			if left[id] = b[n:]; last {
				delete(left, id)
			}
		}
		_ = w.Flush()
		if !wrote {
			room.Wait()
		}
	}
	if hold { // all is sent but the last byte of each; the answer to a ping says that it was read
		_ = fr.WritePing(false, [8]byte{})
		_ = w.Flush()
		for !ponged && ended == nil {
			room.Wait()
		}
		defer mu.Unlock()
		err := ended
		mu.Unlock()
		sent()
		sending.Wait()
		mu.Lock()
		return "held", err
	}
	for len(closed) < streams && ended == nil {
		room.Wait()
	}
	defer mu.Unlock()
	if len(closed) < streams {
		return "", errors.Join(errors.New("streams without an answer"), ended)
	}
	for s := range status { // most often all alike
		if len(status) == 1 {
			return s, nil
		}
	}
	return strings.Join(slices.Sorted(maps.Keys(status)), "+"), nil
}

// slowBodies opens so many requests and sends all but the last byte.
func (c *cluster) slowBodies(at int, body []byte) func(*testing.T) map[string]int {
	return func(t *testing.T) map[string]int {
		return crowd(at, at, func() string {
			conn, err := net.DialTimeout("tcp", strings.TrimPrefix(c.otlp, "http://"), 5*time.Second)
			if err != nil {
				return "cut off"
			}
			defer conn.Close()
			_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
			fmt.Fprintf(conn, "POST /v1/traces HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-protobuf\r\nContent-Length: %d\r\n\r\n", len(body))
			go conn.Write(body[:len(body)-1])
			resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
			if err != nil {
				return "held"
			}
			resp.Body.Close()
			return fmt.Sprint(resp.StatusCode)
		})
	}
}
