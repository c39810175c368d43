package e2e

import (
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// tracesExport is one trace of a single span, as an SDK sends it in JSON. The
// placeholders are trace id, start, end, status code.
const tracesExport = `{"resourceSpans":[{"resource":{"attributes":[{"key":"service.name","value":{"stringValue":"shop"}}]},
"scopeSpans":[{"spans":[{"traceId":"%s","spanId":"00000000000000aa","name":"GET /cart","kind":2,
"startTimeUnixNano":"%d","endTimeUnixNano":"%d","status":{"code":%d}}]}]}]}`

// sendTrace posts one trace and returns the status, the seconds of Retry-After
// and the body.
func (c *cluster) sendTrace(id string, took time.Duration, failed bool) (status int, retry, body string) {
	c.t.Helper()
	now, code := time.Now(), 0
	if failed {
		code = 2
	}
	text := fmt.Sprintf(tracesExport, id, now.Add(-took).UnixNano(), now.UnixNano(), code)
	resp, err := http.Post(c.otlp+"/v1/traces", "application/json", strings.NewReader(text))
	if err != nil {
		c.t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		c.t.Fatal(err)
	}
	return resp.StatusCode, resp.Header.Get("Retry-After"), string(b)
}

// hasTrace asks the Jaeger API as Grafana would.
func (c *cluster) hasTrace(id string) bool {
	c.t.Helper()
	var out json.RawMessage
	err := c.get("/jaeger/api/traces/"+id, c.token("reader.token"), &out)
	if err != nil && !strings.Contains(err.Error(), "404") {
		c.t.Fatal(err)
	}
	return err == nil
}

// TestTailSampling kills a manager while spans wait for their verdict: all of
// them are there after the restart, and afterwards what the rules keep.
func TestTailSampling(t *testing.T) {
	c := startManager(t,
		"--traces-sample", "errors: service=shop status=error keep=100%; slow: duration>=1s keep=100%", "--traces-sample", "rest: keep=0%",
		"--traces-sample-window", "4s")
	id := func(i int) string { return fmt.Sprintf("%032x", 0xabc000+i) }
	kept := func(i int) bool { return i%10 == 0 || i%10 == 1 }
	for i := range 100 {
		took := 5 * time.Millisecond
		if i%10 == 1 {
			took = 2 * time.Second
		}
		if status, _, body := c.sendTrace(id(i), took, i%10 == 0); status != http.StatusOK {
			t.Fatalf("status %d: %s", status, body)
		}
	}
	acknowledged := time.Now()
	count := func(want func(int) bool) error {
		for i := range 100 {
			if got := c.hasTrace(id(i)); got != want(i) {
				return fmt.Errorf("trace %d: there %v; want %v", i, got, want(i))
			}
		}
		return nil
	}
	all := func(int) bool { return true }
	if err := count(all); err != nil {
		t.Errorf("before the decision: %v", err)
	}
	// The promise is a second after the acknowledgment.
	time.Sleep(time.Until(acknowledged.Add(time.Second)))
	c.manager.kill(t)
	c.runManager()
	if err := count(all); err != nil {
		t.Errorf("after kill -9 and restart: %v", err)
	}
	eventually(t, 15*time.Second, "the rules have decided", func() error { return count(kept) })
	admin := c.token("admin.token")
	for name, want := range map[string]float64{
		`binnacle_traces_sampling_spans_total{rule="errors",verdict="kept"}`:  10,
		`binnacle_traces_sampling_spans_total{rule="slow",verdict="kept"}`:    10,
		`binnacle_traces_sampling_spans_total{rule="rest",verdict="dropped"}`: 80,
		`binnacle_traces_undecided_spans`:                                     0,
	} {
		if got, err := c.metric(admin, name); err != nil || got != want {
			t.Errorf("%s: got %v, %v; want %v", name, got, err, want)
		}
	}
}

// TestFullDiskOfTraces fills the disk under the trace store, first slowly, then
// to the last byte in the middle of writes: spans are refused as retryable,
// traces stay readable, and spans are taken again when space returns.
func TestFullDiskOfTraces(t *testing.T) {
	c := prepareManager(t)
	dir := filepath.Join(c.dir, "manager", "traces")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=160m"); err != nil {
		t.Skipf("a small disk needs the right to mount one: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			t.Errorf("unmount: %v", err)
		}
	})
	c.runManager()
	r := rand.New(rand.NewPCG(1, 1))
	id := func() string { return fmt.Sprintf("%016x%016x", r.Uint64()|1, r.Uint64()) }
	first := id()
	if status, _, body := c.sendTrace(first, time.Millisecond, false); status != http.StatusOK {
		t.Fatalf("status %d: %s", status, body)
	}
	// taken sends until spans are taken, or refused; the last one's id.
	taken := func(want bool) string {
		t.Helper()
		last := id()
		eventually(t, 20*time.Second, fmt.Sprintf("spans are taken: %v", want), func() error {
			last = id()
			status, retry, body := c.sendTrace(last, time.Millisecond, false)
			switch {
			case (status == http.StatusOK) == want && (want || status == http.StatusServiceUnavailable && retry != ""):
				return nil
			default:
				return fmt.Errorf("status %d, Retry-After %q: %s", status, retry, body)
			}
		})
		return last
	}
	ballast := filepath.Join(dir, "ballast")
	fill := func(leave int64) {
		t.Helper()
		f, err := os.Create(ballast)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		for range 100 {
			var st syscall.Statfs_t
			if err = syscall.Statfs(dir, &st); err != nil {
				t.Fatal(err)
			}
			err = syscall.Fallocate(int(f.Fd()), 0, 0, int64(st.Bavail)*int64(st.Bsize)-leave)
			if err == nil {
				return
			}
			if err := f.Truncate(0); err != nil { // the manager took some of it meanwhile
				t.Fatal(err)
			}
		}
		t.Fatal(err)
	}
	empty := func() {
		t.Helper()
		if err := os.Remove(ballast); err != nil {
			t.Fatal(err)
		}
	}

	fill(32 << 20) // less than the store wants to be free
	taken(false)
	if !c.hasTrace(first) {
		t.Error("a trace cannot be read on a full disk")
	}
	if v, err := c.metric(c.token("admin.token"), "binnacle_traces_read_only"); err != nil || v != 1 {
		t.Errorf("binnacle_traces_read_only: %v, %v; want 1", v, err)
	}
	empty()
	second := taken(true)

	// To the last byte, while spans come: the log cannot be written.
	load := newTraceLoad(4, 400)
	stop := make(chan struct{})
	done := make(chan struct{})
	go func() {
		defer close(done)
		for n := 0; n < 400; n++ {
			select {
			case <-stop:
				return
			default:
				resp, err := http.Post(c.otlp+"/v1/traces", "application/x-protobuf", strings.NewReader(string(load.body(nil, n))))
				if err == nil {
					resp.Body.Close()
				}
			}
		}
	}()
	fill(0)
	taken(false)
	close(stop)
	<-done
	if !c.hasTrace(first) || !c.hasTrace(second) {
		t.Error("a trace cannot be read after the disk was full to the last byte")
	}
	empty()
	third := taken(true)
	eventually(t, 20*time.Second, "what was taken is written", func() error { return c.idleTraces(c.token("admin.token")) })
	c.manager.kill(t)
	c.runManager()
	for i, id := range []string{first, second, third} {
		if !c.hasTrace(id) {
			t.Errorf("trace %d is gone after a restart", i+1)
		}
	}
}
