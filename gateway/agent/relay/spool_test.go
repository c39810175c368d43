package relay

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/VictoriaMetrics/metrics"

	"github.com/binnacle-project/binnacle"
)

func newSpool(t *testing.T, dir string, limit int64) *spool {
	t.Helper()
	s, err := openSpool(dir, limit, testLog(t), newSpoolMetrics(metrics.NewSet()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.close)
	return s
}

// plain returns an export's body as it was made.
func plain(t testing.TB, e export) []byte {
	t.Helper()
	if e.encoding != "gzip" {
		return e.body
	}
	zr, err := gzip.NewReader(bytes.NewReader(e.body))
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(zr)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func exportN(i int) export {
	return export{path: "/v1/metrics", contentType: "application/x-protobuf", revision: fmt.Sprint(i % 3),
		body: []byte(strings.Repeat(fmt.Sprintf("export %d, ", i), 1+i%200)), received: time.UnixMilli(int64(1e12 + i))}
}

// take takes all that waits.
func take(t testing.TB, s *spool) []spooled {
	var out []spooled
	for {
		e, ok := s.oldest()
		if !ok {
			return out
		}
		out = append(out, e)
		s.done(e)
	}
}

func TestSpoolKeepsOrderAndBytesOverRestarts(t *testing.T) {
	dir := t.TempDir()
	put, got := 0, 0
	for range 6 {
		s := newSpool(t, dir, MaxSpoolBytes)
		if n, _ := s.size(); n != put-got {
			t.Fatalf("waiting after a restart: got %d; want %d", n, put-got)
		}
		for range 500 {
			if err := s.put(exportN(put), "n-1"); err != nil {
				t.Fatal(err)
			}
			put++
		}
		for range 300 {
			e, ok := s.oldest()
			want := exportN(got)
			if !ok || !bytes.Equal(plain(t, e.export), want.body) || e.revision != want.revision || e.path != want.path || !e.received.Equal(want.received) || e.node != "n-1" {
				t.Fatalf("export %d: got %+v, %v", got, e, ok)
			}
			s.done(e)
			got++
		}
		if got%2 == 0 { // every other end is a crash
			s.close()
		}
	}
	s := newSpool(t, dir, MaxSpoolBytes)
	got += len(take(t, s))
	if put != got {
		t.Errorf("%d put, %d taken", put, got)
	}
	if n, b := s.size(); n != 0 || b != 0 {
		t.Errorf("when all is taken: got %d exports, %d bytes", n, b)
	}
	if left, _ := filepath.Glob(filepath.Join(dir, "*.seg")); len(left) != 0 {
		t.Errorf("when all is taken there is still %v", left)
	}
}

func TestSpoolDropsTheOldest(t *testing.T) {
	s := newSpool(t, t.TempDir(), 1<<20)
	body := make([]byte, 10_000)
	const n = 300
	for i := range n {
		rng := rand.New(rand.NewPCG(1, uint64(i)))
		for j := range body {
			body[j] = byte(rng.Uint32()) // gzip makes nothing of it
		}
		e := exportN(i)
		e.body = body
		if err := s.put(e, "n-1"); err != nil {
			t.Fatal(err)
		}
		if _, b := s.size(); b > 1<<20 {
			t.Fatalf("after %d: %d bytes", i, b)
		}
	}
	got := take(t, s)
	if len(got)+int(s.m.dropped.Get()) != n || len(got) < 80 {
		t.Errorf("%d kept and %d counted as dropped; want %d in all, most of the room used", len(got), s.m.dropped.Get(), n)
	}
	if first, last := got[0].received, got[len(got)-1].received; !last.Equal(exportN(n-1).received) || !first.Equal(exportN(n-len(got)).received) {
		t.Errorf("kept are %v to %v; want the newest", first, last)
	}
}

// TestSpoolCutAtAnyByte cuts a spool's only segment at each byte: what stands
// whole before the cut comes back, nothing else does, and it goes on.
func TestSpoolCutAtAnyByte(t *testing.T) {
	dir := t.TempDir()
	s := newSpool(t, dir, MaxSpoolBytes)
	const n = 5
	for i := range n {
		if err := s.put(exportN(i), "n-1"); err != nil {
			t.Fatal(err)
		}
	}
	s.close()
	files, _ := filepath.Glob(filepath.Join(dir, "*.seg"))
	whole, err := os.ReadFile(files[0])
	if err != nil || len(files) != 1 {
		t.Fatal(files, err)
	}
	for cut := range len(whole) {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, filepath.Base(files[0])), whole[:cut], 0o600); err != nil {
			t.Fatal(err)
		}
		s := newSpool(t, dir, MaxSpoolBytes)
		if err := s.put(exportN(n), "n-1"); err != nil {
			t.Fatal(err)
		}
		got := take(t, s)
		for i, e := range got {
			want := exportN(i)
			if i == len(got)-1 {
				want = exportN(n)
			}
			if !bytes.Equal(plain(t, e.export), want.body) {
				t.Fatalf("cut at %d of %d: export %d of %d is %q", cut, len(whole), i, len(got), plain(t, e.export))
			}
		}
		s.close()
	}
}

// TestSpoolTurnedBits damages single bytes: one record is lost, at most all
// behind it in the segment, and never one that was not written.
func TestSpoolTurnedBits(t *testing.T) {
	dir := t.TempDir()
	s := newSpool(t, dir, MaxSpoolBytes)
	const n = 20
	known := map[string]bool{}
	for i := range n {
		known[string(exportN(i).body)] = true
		if err := s.put(exportN(i), "n-1"); err != nil {
			t.Fatal(err)
		}
	}
	s.close()
	files, _ := filepath.Glob(filepath.Join(dir, "*.seg"))
	whole, err := os.ReadFile(files[0])
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(whole); i += 7 {
		dir := t.TempDir()
		b := slices.Clone(whole)
		b[i] ^= 0x41
		if err := os.WriteFile(filepath.Join(dir, filepath.Base(files[0])), b, 0o600); err != nil {
			t.Fatal(err)
		}
		s := newSpool(t, dir, MaxSpoolBytes)
		waiting, _ := s.size()
		got := take(t, s)
		if len(got) != waiting || len(got) >= n || s.m.damaged.Get() == 0 {
			t.Errorf("byte %d: said %d, gave %d of %d, %d counted as damaged", i, waiting, len(got), n, s.m.damaged.Get())
		}
		for _, e := range got {
			if !known[string(plain(t, e.export))] {
				t.Errorf("byte %d: gave %q", i, e.body)
			}
		}
	}
}

func FuzzSpool(f *testing.F) {
	var b []byte
	b = append(b, spoolMagic...)
	f.Add(b, []byte{1, 2, 3})
	f.Add(append(b, make([]byte, 100)...), make([]byte, cursorBytes))
	f.Fuzz(func(t *testing.T, segment, cursor []byte) {
		dir := t.TempDir()
		os.WriteFile(filepath.Join(dir, "0000000000000001.seg"), segment, 0o600)
		os.WriteFile(filepath.Join(dir, cursorName), cursor, 0o600)
		s, err := openSpool(dir, 1<<20, testLog(t), newSpoolMetrics(metrics.NewSet()))
		if err != nil {
			t.Fatalf("a damaged spool must not keep the agent from working: %v", err)
		}
		defer s.close()
		if err := s.put(exportN(1), "n"); err != nil {
			t.Fatal(err)
		}
		got := take(t, s)
		if len(got) == 0 || !bytes.Equal(plain(t, got[len(got)-1].export), exportN(1).body) {
			t.Fatalf("%d exports came back; want the new one last", len(got))
		}
	})
}

func TestNextStep(t *testing.T) {
	now := time.Unix(1000, 0)
	at := func(s int) time.Time { return now.Add(time.Duration(s) * time.Second) }
	f := func(name string, w waiting, want step, until time.Time) {
		t.Helper()
		if got, u := nextStep(w, now); got != want || !u.Equal(until) {
			t.Errorf("%s: got %v until %v; want %v until %v", name, got, u, want, until)
		}
	}
	f("nothing", waiting{}, stepWait, time.Time{})
	f("live", waiting{live: true}, stepLive, time.Time{})
	f("live before an old backlog", waiting{live: true, backlog: true, since: at(-120)}, stepLive, time.Time{})
	f("a fresh backlog before live", waiting{live: true, backlog: true, since: at(-10)}, stepOld, time.Time{})
	f("an old backlog", waiting{backlog: true, since: at(-120)}, stepOld, time.Time{})
	f("an old backlog at its pace", waiting{backlog: true, since: at(-120), paceAt: at(1)}, stepWait, at(1))
	f("live in a pause of the backlog", waiting{live: true, backlog: true, since: at(-120), paceAt: at(1)}, stepLive, time.Time{})
	f("the manager is away", waiting{live: true, backlog: true, since: at(-10), retryAt: at(5)}, stepWait, at(5))
	f("a clock set back", waiting{live: true, backlog: true, since: at(500)}, stepOld, time.Time{})
}

// fakeReceiver is a manager's receiver without a socket, so that an hour passes
// in a bubble.
type fakeReceiver struct {
	t  testing.TB
	mu sync.Mutex

	away bool
	got  []string // revisions and hashes of bodies
}

func (f *fakeReceiver) RoundTrip(r *http.Request) (*http.Response, error) {
	b, err := io.ReadAll(r.Body)
	if err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.away {
		return nil, errors.New("connection refused")
	}
	e := export{body: b, encoding: r.Header.Get("Content-Encoding")}
	f.got = append(f.got, r.Header.Get(binnacle.HeaderRevision)+" "+digest(plain(f.t, e)))
	return &http.Response{StatusCode: http.StatusOK, Body: http.NoBody}, nil
}

// TestAnHourAway is an outage of the manager of one hour, with what a node at
// 100 requests a second exports: metrics of 40 KB every ten seconds, and two
// spans of 500 bytes a request, all sampled, in one export a second. All sizes,
// that of the spool too, are a tenth of the real ones, but with BINNACLE_LOAD=full. The agent is killed in the
// middle of it. All arrives once, its bytes and revisions as they were; what
// comes in after the hour does not wait for what is from before.
func TestAnHourAway(t *testing.T) {
	dir := t.TempDir()
	size := 1
	if os.Getenv("BINNACLE_LOAD") == "full" {
		size = 10
	}
	synctest.Test(t, func(t *testing.T) {
		f := &fakeReceiver{t: t}
		set := metrics.NewSet()
		start := func() (*Relay, func(kill bool)) {
			r := New(Options{
				Dir: dir, QueueBytes: MaxQueueBytes, SpoolBytes: MaxSpoolBytes / 10 * int64(size),
				Manager: func() (http.RoundTripper, string) { return f, "https://m" },
				Node:    func() binnacle.NodeID { return "n-1" },
				Failed:  func() {},
				// As agents wait: twice as long each time, spread, up to 15 s, the first
				// retry with the phase of the node.
				Pause: func(n int) time.Duration {
					d := min(250*time.Millisecond<<min(n, 20), 15*time.Second)
					d -= time.Duration(rand.Float64() * float64(d) / 2)
					if n == 0 {
						d += 3 * time.Second
					}
					return d
				},
				Metrics: set, Log: testLog(t),
			})
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan struct{})
			go func() { r.Run(ctx); close(done) }()
			return r, func(kill bool) {
				cancel()
				<-done
				if !kill {
					if err := r.Flush(t.Context()); err != nil {
						t.Errorf("flush: %v", err)
					}
				}
			}
		}
		r, stop := start()
		var want []string
		began := time.Now()
		put := func(path, what string, size int) {
			body := fmt.Appendf(nil, "%s of second %d ", what, len(want))
			for len(body) < size { // about as repetitive as OTLP
				body = fmt.Appendf(body, "span %x of %s, ", rand.Uint64(), what)
			}
			rev := fmt.Sprint(len(want) / 1000)
			r.queue.put(export{path: path, contentType: "application/x-protobuf", revision: rev, body: body, received: time.Now()})
			want = append(want, rev+" "+digest(body))
		}
		second := func(n int) {
			for range n {
				put("/v1/traces", "spans", 20*500*size)
				if int(time.Since(began).Seconds())%10 == 0 {
					put("/v1/metrics", "metrics", 4<<10*size)
				}
				time.Sleep(time.Second)
			}
		}
		second(60)
		f.mu.Lock()
		if f.away = true; len(f.got) != len(want) {
			t.Errorf("before the outage: %d of %d arrived", len(f.got), len(want))
		}
		f.mu.Unlock()
		second(1800)
		synctest.Wait()
		stop(true)
		r, stop = start()
		second(1800)
		f.mu.Lock()
		f.away = false
		missed := len(want) - len(f.got)
		f.mu.Unlock()
		n, size := r.spool.size()
		t.Logf("after the outage: %d exports in the spool, %d KiB", n, size>>10)

		back, first := time.Now(), len(want)
		second(30)
		synctest.Wait()
		f.mu.Lock()
		arrived := map[string]bool{}
		for _, s := range f.got {
			arrived[s] = true
		}
		now, backlog := 0, 0
		for i, s := range want {
			if arrived[s] && i >= first {
				now++
			} else if arrived[s] && i >= first-missed {
				backlog++
			}
		}
		f.mu.Unlock()
		t.Logf("%v after its end: %d of %d new ones, %d of %d of the backlog", time.Since(back), now, len(want)-first, backlog, missed)
		if now < len(want)-first-18 { // the retry comes within sixteen seconds
			t.Errorf("new exports wait behind the backlog: %d of %d arrived", now, len(want)-first)
		}
		if backlog == 0 || backlog > 30*backlogExports {
			t.Errorf("%d exports of the backlog came in %v; want some, at most %d a second", backlog, time.Since(back), backlogExports)
		}
		second(400)
		synctest.Wait()
		stop(false)
		if n, _ := r.spool.size(); n != 0 {
			t.Errorf("%d exports still wait", n)
		}
		f.mu.Lock()
		defer f.mu.Unlock()
		slices.Sort(want)
		got := slices.Clone(f.got)
		slices.Sort(got)
		if !slices.Equal(got, want) {
			t.Errorf("%d exports arrived; want exactly the %d that were made", len(got), len(want))
		}
		if i := r.Info(); i.Dropped+i.Damaged+i.Refused != 0 {
			t.Errorf("counted as lost: %+v", i)
		}
	})
}

func digest(b []byte) string { return fmt.Sprintf("%x", sha256.Sum256(b)) }
