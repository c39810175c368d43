package otlp

import (
	"bytes"
	"context"
	"fmt"
	"hash/maphash"
	"maps"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.opentelemetry.io/collector/pdata/pmetric/pmetricotlp"
)

const gatherWait = 100 * time.Millisecond

// gatherRun brings requests to a gatherer, and notes when each was worked on.
type gatherRun struct {
	g     *gatherer
	begin time.Time
	conns map[string]string // by name; no two share a slot
	wg    sync.WaitGroup

	mu   sync.Mutex
	done []string // "name at"
}

func newGatherRun(wait time.Duration, busy bool) *gatherRun {
	return &gatherRun{g: newGatherer(wait, func() bool { return busy }), begin: time.Now(), conns: map[string]string{}}
}

// conn returns what stands for the connection of a name.
func (r *gatherRun) conn(name string) string {
	for i := 0; r.conns[name] == ""; i++ {
		c := fmt.Sprint(name, i)
		if r.g.last[maphash.String(r.g.seed, c)%gatherSlots].Load() == 0 {
			r.conns[name] = c
		}
	}
	return r.conns[name]
}

func (r *gatherRun) bring(name string, size int) {
	conn := r.conn(name)
	r.wg.Go(func() {
		worked := 0
		r.g.do(conn, size, func() {
			r.mu.Lock()
			defer r.mu.Unlock()
			worked++
			r.done = append(r.done, fmt.Sprint(name, " ", time.Since(r.begin)))
		})
		if worked != 1 {
			panic(fmt.Sprint("work was done ", worked, " times when do returned"))
		}
	})
	synctest.Wait()
}

// fleet brings so many requests that the next ones wait for each other.
func (r *gatherRun) fleet() {
	for range r.g.recent {
		r.g.hold(func() {})
	}
	r.g.mu.Lock()
	r.g.waiting = nil
	r.g.mu.Unlock()
}

func TestGather(t *testing.T) {
	for _, c := range []struct {
		name string
		busy bool
		act  func(*gatherRun)
		want []string
	}{
		{"those of a moment wait for its end, in their order", false, func(r *gatherRun) {
			for _, conn := range []string{"a", "b", "c"} {
				r.bring(conn, 1000)
				time.Sleep(20 * time.Millisecond)
			}
			time.Sleep(400 * time.Millisecond)
			r.bring("d", 1000)
		}, []string{"a 100ms", "b 100ms", "c 100ms", "d 560ms"}},
		{"one after another do not wait", false, func(r *gatherRun) {
			r.bring("a", 1000)
			time.Sleep(gatherWait + 50*time.Millisecond)
			r.bring("a", 1000)
			r.bring("a", 1000)
			time.Sleep(gatherApart) // the first waited alone
			r.fleet()
			r.bring("a", 1000)
		}, []string{"a 100ms", "a 150ms", "a 150ms", "a 10.25s"}},
		{"large ones do not wait", false, func(r *gatherRun) {
			r.bring("a", gatherBytes+1)
			r.bring("b", gatherBytes)
		}, []string{"a 0s", "b 100ms"}},
		{"where memory is scarce none waits for the work of another", true, func(r *gatherRun) {
			r.bring("a", 1000)
			r.bring("b", 1000)
		}, []string{"a 100ms", "b 100ms"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newGatherRun(gatherWait, c.busy)
				r.fleet()
				time.Sleep(gatherWait) // its timer
				r.begin = time.Now()
				c.act(r)
				r.wg.Wait()
				if c.busy { // each on its own
					slices.Sort(r.done)
				}
				if !slices.Equal(r.done, c.want) {
					t.Errorf("worked on %q; want %q", r.done, c.want)
				}
			})
		})
	}
}

// TestGatherFew is a fleet of which hardly two meet: none waits.
func TestGatherFew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newGatherRun(gatherWait, false)
		for i := range 50 {
			time.Sleep(gatherWait * 6 / 10)
			if r.bring(fmt.Sprint("n-", i), 1000); len(r.done) != i+1 {
				t.Fatalf("the %d. request waits", i)
			}
		}
		r.wg.Wait()
	})
}

// TestGatherAlone is a sender with a connection for each request, who sends one after
// another: one of them waits in ten seconds.
func TestGatherAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newGatherRun(gatherWait, false)
		r.fleet()
		waited := 0
		for i := range 4000 {
			begin := time.Now()
			r.bring(fmt.Sprint("n-", i), 1000)
			r.wg.Wait()
			if time.Since(begin) > 0 {
				waited++
			}
			time.Sleep(5 * time.Millisecond)
		}
		if waited != 2 {
			t.Errorf("%d of 4000 requests waited in %v; want 2", waited, time.Since(r.begin))
		}
	})
}

// TestGatherMost fills a moment, and then another one.
func TestGatherMost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newGatherRun(time.Minute, false)
		r.fleet()
		for i := range 2 * gatherMost {
			r.bring(fmt.Sprint("n-", i), 1000)
			if want := (i + 1) / gatherMost * gatherMost; len(r.done) != want {
				t.Fatalf("%d requests, %d worked on; want %d", i+1, len(r.done), want)
			}
		}
		r.wg.Wait()
		if took := time.Since(r.begin); took != 0 {
			t.Errorf("the last of a full moment was worked on after %v", took)
		}
	})
}

// TestGatherPanic has one of three requests panic: where it came in, and alone.
func TestGatherPanic(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newGatherRun(gatherWait, false)
		r.fleet()
		r.bring("a", 1000)
		var got any
		r.wg.Go(func() {
			defer func() { got = recover() }()
			r.g.do(r.conn("b"), 1000, func() { panic("of b") })
		})
		synctest.Wait()
		r.bring("c", 1000)
		r.wg.Wait()
		if got != "of b" || len(r.done) != 2 {
			t.Errorf("b recovered %v, and %q were worked on; want its own panic, and the two others", got, r.done)
		}
	})
}

// TestGatherNothing is a receiver without Options.Gather.
func TestGatherNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newGatherRun(0, false)
		r.fleet()
		r.bring("a", 1000)
		if want := []string{"a 0s"}; !slices.Equal(r.done, want) {
			t.Errorf("worked on %q; want %q", r.done, want)
		}
	})
}

// TestGatherOverHTTP sends from many connections at once. One sends garbage and one
// leaves: neither concerns the others.
func TestGatherOverHTTP(t *testing.T) {
	const senders, garbage, leaves = 60, 58, 59
	r := newRig(t, Options{Gather: 400 * time.Millisecond}, anyone)
	want := map[string]bool{}
	var waited atomic.Int64
	var wg sync.WaitGroup
	for n := range senders {
		id := fmt.Sprint("sender-", n)
		body, err := pmetricotlp.NewExportRequestFromMetrics(sampleMetrics("service.name", "s", "service.instance.id", id)).MarshalProto()
		if err != nil {
			t.Fatal(err)
		}
		status := http.StatusOK
		ctx := t.Context()
		switch n {
		case garbage:
			body, status = []byte("garbage"), http.StatusBadRequest
		case leaves:
			status = 0
			var cancel context.CancelFunc
			ctx, cancel = context.WithTimeout(ctx, 50*time.Millisecond)
			defer cancel()
		default:
			want[id] = true
		}
		send := func() {
			client := &http.Client{Transport: &http.Transport{}}
			defer client.CloseIdleConnections()
			req, err := http.NewRequestWithContext(ctx, http.MethodPost, r.http+"/v1/metrics", bytes.NewReader(body))
			if err != nil {
				t.Error(err)
				return
			}
			req.Header.Set("Content-Type", mediaProto)
			begin := time.Now()
			resp, err := client.Do(req)
			if err != nil {
				if status != 0 {
					t.Error(err)
				}
				return
			}
			resp.Body.Close()
			if resp.StatusCode != status && status != 0 {
				t.Errorf("%s: status %d; want %d", id, resp.StatusCode, status)
			}
			if time.Since(begin) > r.o.Gather/2 {
				waited.Add(1)
			}
		}
		if n < len(r.gather.recent) {
			send() // so many that the others wait
		} else {
			wg.Go(send)
		}
	}
	wg.Wait()
	got := map[string]bool{}
	r.sink.mu.Lock()
	defer r.sink.mu.Unlock()
	for _, md := range r.sink.metrics {
		id, _ := md.ResourceMetrics().At(0).Resource().Attributes().Get("service.instance.id")
		if got[id.Str()] {
			t.Errorf("%s is stored twice", id.Str())
		}
		got[id.Str()] = true
	}
	delete(got, fmt.Sprint("sender-", leaves)) // stored or not
	if !maps.Equal(got, want) {
		t.Errorf("stored are those of %d senders; want %d", len(got), len(want))
	}
	if waited.Load() < senders/2 {
		t.Errorf("%d of %d requests waited", waited.Load(), senders)
	}
}
