package forward

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/VictoriaMetrics/metrics"
	"go.opentelemetry.io/collector/pdata/ptrace"
	"go.opentelemetry.io/collector/pdata/ptrace/ptraceotlp"

	"github.com/binnacle-project/binnacle"
)

func rec(n int) record { return record{tracesSignal, 1, fmt.Appendf(nil, "record %06d", n)} }

func openTestQueue(t *testing.T, dir string, limit int64) *queue {
	t.Helper()
	q, err := openQueue(dir, limit)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { q.close() })
	return q
}

func add(t *testing.T, q *queue, records ...record) counts {
	t.Helper()
	dropped, err := q.append(records)
	if err != nil {
		t.Fatal(err)
	}
	return dropped
}

// drain reads all that is there; damaged counts the errors on the way.
func drain(q *queue) (bodies []string, damaged int) {
	for {
		r, after, ok, err := q.next()
		if err != nil {
			damaged++
			continue
		}
		if !ok {
			return bodies, damaged
		}
		bodies = append(bodies, string(r.body))
		q.advance(after, r)
	}
}

func names(from, to int) (out []string) {
	for n := from; n < to; n++ {
		out = append(out, string(rec(n).body))
	}
	return out
}

func TestQueueKeepsOrderOverRestarts(t *testing.T) {
	dir := t.TempDir()
	q := openTestQueue(t, dir, 1<<20)
	for n := range 30 {
		add(t, q, rec(n))
	}
	for range 10 {
		r, after, ok, err := q.next()
		if !ok || err != nil {
			t.Fatal(ok, err)
		}
		q.advance(after, r)
	}
	if err := q.close(); err != nil {
		t.Fatal(err)
	}
	q = openTestQueue(t, dir, 1<<20)
	add(t, q, rec(30), rec(31))
	if got, damaged := drain(q); !slices.Equal(got, names(10, 32)) || damaged != 0 {
		t.Errorf("after a restart: got %v, %d damaged; want 10 to 31", got, damaged)
	}
	// Without a position, as after a power failure, all of the segment comes again.
	q.close()
	if err := os.Remove(filepath.Join(dir, "position")); err != nil {
		t.Fatal(err)
	}
	q = openTestQueue(t, dir, 1<<20)
	if got, _ := drain(q); len(got) > 32 || !slices.IsSorted(got) {
		t.Errorf("without a position: got %v", got)
	}
}

func TestQueueDropsOldest(t *testing.T) {
	dir := t.TempDir()
	big := func(n int) record {
		return record{tracesSignal, 10, append(rec(n).body, make([]byte, segmentBytes/4)...)}
	}
	q := openTestQueue(t, dir, 3*segmentBytes)
	var dropped counts
	for n := range 40 {
		dropped.add(add(t, q, big(n)))
		if q.bytes() > 3*segmentBytes {
			t.Fatalf("the queue holds %d bytes; want at most %d", q.bytes(), 3*segmentBytes)
		}
	}
	got, _ := drain(q)
	if len(got) == 0 || !bytes.HasPrefix([]byte(got[len(got)-1]), rec(39).body) || int64(len(got))*10+dropped[tracesSignal] != 400 {
		t.Errorf("read %d records, dropped %d items; want 400 in sum and the newest kept", len(got), dropped[tracesSignal])
	}
	files, err := filepath.Glob(filepath.Join(dir, "*.queue"))
	if err != nil || len(files) > 1 {
		t.Errorf("after all was read: files %v, %v; want one", files, err)
	}
}

// TestQueueDamage: what is cut or flipped is left out up to the next segment.
func TestQueueDamage(t *testing.T) {
	for name, damage := range map[string]func([]byte) []byte{
		"cut":     func(b []byte) []byte { return b[:len(b)-3] },
		"flipped": func(b []byte) []byte { b[len(b)/2] ^= 1; return b },
		"length":  func(b []byte) []byte { b[0] = 0xff; return b },
		"emptied": func([]byte) []byte { return nil },
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			q := openTestQueue(t, dir, 1<<20)
			for n := range 10 {
				add(t, q, rec(n))
			}
			q.close()
			path := filepath.Join(dir, segmentName(1))
			b, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, damage(b), 0o600); err != nil {
				t.Fatal(err)
			}
			q = openTestQueue(t, dir, 1<<20)
			add(t, q, rec(77))
			got, damaged := drain(q)
			if len(got) == 0 || got[len(got)-1] != string(rec(77).body) || len(got) > 10 {
				t.Errorf("got %v", got)
			}
			if name != "emptied" && damaged != 1 {
				t.Errorf("damage told %d times; want once", damaged)
			}
		})
	}
}

func FuzzParseRecord(f *testing.F) {
	f.Add(appendRecord(nil, rec(1)))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, n, err := parseRecord(bytes.NewReader(b))
		if err != nil {
			return
		}
		if again := appendRecord(nil, r); !bytes.Equal(again, b[:n]) {
			t.Fatalf("round trip of %x: got %x", b[:n], again)
		}
	})
}

// remote is an OTLP receiver that can be made to fail.
type remote struct {
	*httptest.Server
	mu     sync.Mutex
	status int
	names  []string
	auth   string
}

func startRemote(t *testing.T) *remote {
	r := &remote{status: http.StatusOK}
	r.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		zr, err := gzip.NewReader(req.Body)
		if err != nil {
			t.Error(err)
			return
		}
		b, err := io.ReadAll(zr)
		if err != nil {
			t.Error(err)
		}
		r.mu.Lock()
		defer r.mu.Unlock()
		r.auth = req.Header.Get("Authorization")
		if r.status != http.StatusOK {
			w.WriteHeader(r.status)
			return
		}
		got := ptraceotlp.NewExportRequest()
		if err := got.UnmarshalProto(b); err != nil || req.URL.Path != "/otlp/v1/traces" {
			t.Errorf("%s: %v", req.URL.Path, err)
			return
		}
		r.names = append(r.names, got.Traces().ResourceSpans().At(0).ScopeSpans().At(0).Spans().At(0).Name())
	}))
	t.Cleanup(r.Close)
	return r
}

func (r *remote) set(status int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.status = status
}

func (r *remote) got() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.names)
}

func oneSpan(name string) ptrace.Traces {
	td := ptrace.NewTraces()
	td.ResourceSpans().AppendEmpty().ScopeSpans().AppendEmpty().Spans().AppendEmpty().SetName(name)
	td.MarkReadOnly()
	return td
}

func forward(t *testing.T, f *Forwarder, names ...string) {
	t.Helper()
	for _, name := range names {
		if res, err := f.WriteTraces(t.Context(), binnacle.Origin{}, oneSpan(name)); err != nil || res.Rejected != 0 {
			t.Fatalf("WriteTraces: %v, %v; want it never to fail", res, err)
		}
	}
}

func eventually(t *testing.T, what string, f func() error) {
	t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for err := f(); err != nil; err = f() {
		if time.Now().After(deadline) {
			t.Fatalf("%s: %v", what, err)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// TestForward: all arrives in order over an outage of the remote and a restart
// here; what the remote refuses for good is counted and in nobody's way.
func TestForward(t *testing.T) {
	r := startRemote(t)
	dir, set := t.TempDir(), metrics.NewSet()
	token := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(token, []byte("secret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	start := func() (*Forwarder, func()) {
		f, err := Open(Options{URL: r.URL + "/otlp/", Signals: "traces", Dir: dir, TokenFile: token, Metrics: set})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan error, 1)
		go func() { done <- f.Run(ctx) }()
		return f, func() {
			cancel()
			if err := errors.Join(<-done, f.Close()); err != nil {
				t.Error(err)
			}
		}
	}
	want := func(names ...string) func() error {
		return func() error {
			if got := r.got(); !slices.Equal(got, names) {
				return fmt.Errorf("got %v; want %v", got, names)
			}
			return nil
		}
	}
	f, stop := start()
	forward(t, f, "a", "b")
	eventually(t, "arrives", want("a", "b"))
	if r.auth != "Bearer secret" {
		t.Errorf("Authorization is %q", r.auth)
	}
	r.set(http.StatusServiceUnavailable)
	forward(t, f, "c")
	eventually(t, "is tried", func() error {
		if set.GetOrCreateCounter("binnacle_forward_retries_total").Get() == 0 {
			return errors.New("no retry")
		}
		return nil
	})
	forward(t, f, "d")
	stop() // at once: "d" may be in memory only
	r.set(http.StatusOK)
	f, stop = start()
	forward(t, f, "e")
	eventually(t, "arrives after outage and restart", want("a", "b", "c", "d", "e"))
	r.set(http.StatusBadRequest)
	forward(t, f, "bad")
	refusals := set.GetOrCreateCounter(`binnacle_forward_items_total{signal="traces",result="refused"}`)
	eventually(t, "is refused", func() error {
		if refusals.Get() != 1 {
			return fmt.Errorf("refused %d", refusals.Get())
		}
		return nil
	})
	r.set(http.StatusOK)
	forward(t, f, "g")
	eventually(t, "goes on", want("a", "b", "c", "d", "e", "g"))
	stop()
	if n := set.GetOrCreateCounter(`binnacle_forward_items_total{signal="traces",result="sent"}`).Get(); n != 6 {
		t.Errorf("sent: counted %d; want 6", n)
	}
}

func TestOptions(t *testing.T) {
	for _, o := range []Options{{URL: ""}, {URL: "host:4318"}, {URL: "ftp://host/"}, {URL: "http://host:4318", Signals: "logs"}} {
		if _, err := Open(Options{URL: o.URL, Signals: o.Signals, Dir: t.TempDir()}); err == nil {
			t.Errorf("Open(%+v): want an error", o)
		}
	}
}
