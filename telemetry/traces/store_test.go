package traces

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/ptrace"
)

// phases runs f on what was just written, after it was flushed, and after a
// restart: the answers must not change.
func phases(t *testing.T, tds []ptrace.Traces, f func(t *testing.T, s *Store)) {
	t.Helper()
	fs, now := vfs.NewMem(), base
	s := openStore(t, fs, &now)
	for _, td := range tds {
		write(t, s, td)
	}
	t.Run("in memory", func(t *testing.T) { f(t, s) })
	if err := s.flush(); err != nil {
		t.Fatal(err)
	}
	t.Run("gathered", func(t *testing.T) { f(t, s) })
	reopen := func() {
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		s = openStore(t, fs, &now)
	}
	reopen()
	t.Run("gathered, reopened", func(t *testing.T) { f(t, s) })
	merge(t, s)
	t.Run("written", func(t *testing.T) { f(t, s) })
	reopen()
	t.Run("reopened", func(t *testing.T) { f(t, s) })
}

func TestTraceMergesProcessesAndBatches(t *testing.T) {
	root := spec{service: "gateway", name: "GET /users", trace: 1, id: 1, kind: ptrace.SpanKindServer, took: time.Second}
	call := spec{service: "gateway", name: "GET", trace: 1, id: 2, parent: 1, kind: ptrace.SpanKindClient, at: 1, took: time.Millisecond}
	back := spec{service: "users", name: "list", trace: 1, id: 3, parent: 2, kind: ptrace.SpanKindServer, at: 2}
	other := spec{service: "gateway", name: "GET /", trace: 2, id: 1}
	want := canonical(t, make1(root, call, back))
	phases(t, []ptrace.Traces{make1(root, other), make1(back), make1(call, root)}, func(t *testing.T, s *Store) {
		td, err := s.Trace(t.Context(), traceID(1))
		if err != nil {
			t.Fatal(err)
		}
		if got := canonical(t, td); !slices.Equal(got, want) {
			t.Errorf("got %v\nwant %v", got, want)
		}
		if n := td.ResourceSpans().Len(); n != 2 {
			t.Errorf("got %d resources; want 2, one for each process", n)
		}
		if _, err := s.Trace(t.Context(), traceID(3)); !errors.Is(err, ErrNotFound) {
			t.Errorf("absent trace: got %v; want ErrNotFound", err)
		}
	})
}

// TestTraceOverBlocks has each span of a trace in a block of its own.
func TestTraceOverBlocks(t *testing.T) {
	s, now := newStore(t)
	var specs []spec
	for i := range byte(10) {
		sp := spec{service: "a", name: "x", trace: 1, id: i + 1, parent: i, at: time.Duration(i)}
		specs = append(specs, sp)
		write(t, s, make1(sp))
		flush(t, s)
		*now = now.Add(20 * time.Minute) // over several hours
	}
	td, err := s.Trace(t.Context(), traceID(1))
	if err != nil {
		t.Fatal(err)
	}
	if got, want := canonical(t, td), canonical(t, make1(specs...)); !slices.Equal(got, want) {
		t.Errorf("got %v\nwant %v", got, want)
	}
	if n := td.ResourceSpans().Len(); n != 1 {
		t.Errorf("got %d resources; want 1: the blocks share the process", n)
	}
}

func TestWildTraces(t *testing.T) {
	r := rand.New(rand.NewPCG(4, 4))
	var all []ptrace.Traces
	for range 5 {
		all = append(all, wildTraces(r))
	}
	byTrace := map[pcommon.TraceID][]string{}
	seen := map[pcommon.TraceID]map[spanIdentity]bool{}
	for _, td := range all {
		for _, rs := range td.ResourceSpans().All() {
			for _, ss := range rs.ScopeSpans().All() {
				for _, sp := range ss.Spans().All() {
					one := ptrace.NewTraces()
					rs.CopyTo(one.ResourceSpans().AppendEmpty())
					one.ResourceSpans().At(0).ScopeSpans().RemoveIf(func(ptrace.ScopeSpans) bool { return true })
					ss.CopyTo(one.ResourceSpans().At(0).ScopeSpans().AppendEmpty())
					one.ResourceSpans().At(0).ScopeSpans().At(0).Spans().RemoveIf(func(ptrace.Span) bool { return true })
					sp.CopyTo(one.ResourceSpans().At(0).ScopeSpans().At(0).Spans().AppendEmpty())
					k := spanIdentity{sp.SpanID(), uint64(sp.StartTimestamp()), uint8(sp.Kind())}
					if seen[sp.TraceID()] == nil {
						seen[sp.TraceID()] = map[spanIdentity]bool{}
					}
					if !seen[sp.TraceID()][k] {
						seen[sp.TraceID()][k] = true
						byTrace[sp.TraceID()] = append(byTrace[sp.TraceID()], canonical(t, one)...)
					}
				}
			}
		}
	}
	phases(t, all, func(t *testing.T, s *Store) {
		for id, want := range byTrace {
			td, err := s.Trace(t.Context(), id)
			if err != nil {
				t.Fatal(err)
			}
			slices.Sort(want)
			if got := canonical(t, td); !slices.Equal(got, want) {
				t.Errorf("trace %s\n got %v\nwant %v", id, got, want)
			}
		}
	})
}

func TestSearch(t *testing.T) {
	sec := time.Second
	server, client := ptrace.SpanKindServer, ptrace.SpanKindClient
	tds := []ptrace.Traces{
		make1(spec{service: "gw", name: "GET /a", trace: 1, id: 1, kind: server, at: 1 * sec, took: 10 * sec, attrs: []string{"user", "ann"}},
			spec{service: "gw", name: "call", trace: 1, id: 2, parent: 1, kind: client, at: 1 * sec, took: 9 * sec, attrs: []string{"server.address", "b1"}}),
		make1(spec{service: "gw", name: "GET /a", trace: 2, id: 1, kind: server, at: 2 * sec, took: 1 * sec, err: true, attrs: []string{"user", "bob"}}),
		make1(spec{service: "gw", name: "GET /b", trace: 3, id: 1, kind: server, at: 3 * sec, took: 2 * sec, attrs: []string{"user", "ann"}}),
		make1(spec{service: "users", name: "GET /a", trace: 4, id: 1, kind: server, at: 4 * sec, took: 3 * sec}),
	}
	tests := []struct {
		name string
		q    Query
		want []byte // traces, newest first
	}{
		{"all", Query{}, []byte{4, 3, 2, 1}},
		{"service", Query{Service: "gw"}, []byte{3, 2, 1}},
		{"limit", Query{Service: "gw", Limit: 2}, []byte{3, 2}},
		{"unknown service", Query{Service: "x"}, nil},
		{"operation", Query{Service: "gw", Operation: "GET /a"}, []byte{2, 1}},
		{"operation of any service", Query{Operation: "GET /a"}, []byte{4, 2, 1}},
		{"operation of another service", Query{Service: "users", Operation: "GET /b"}, nil},
		{"start", Query{Service: "gw", Start: base.Add(2 * sec)}, []byte{3, 2}},
		{"end", Query{Service: "gw", End: base.Add(2 * sec)}, []byte{2, 1}},
		{"neither", Query{Start: base.Add(10 * sec)}, nil},
		{"minimum duration", Query{Service: "gw", MinDuration: 2 * sec}, []byte{3, 1}},
		{"maximum duration", Query{Service: "gw", MaxDuration: 1 * sec}, []byte{2}},
		{"duration of the operation, not of the service", Query{Service: "gw", Operation: "GET /b", MinDuration: 5 * sec}, nil},
		{"tag", Query{Service: "gw", Tags: map[string]string{"user": "ann"}}, []byte{3, 1}},
		{"tag of the resource", Query{Tags: map[string]string{"service.name": "users"}}, []byte{4}},
		{"two tags of one span", Query{Tags: map[string]string{"user": "ann", "server.address": "b1"}}, nil},
		{"tag and operation", Query{Operation: "GET /a", Tags: map[string]string{"user": "ann"}}, []byte{1}},
		{"error", Query{Tags: map[string]string{"error": "true"}}, []byte{2}},
		{"kind", Query{Tags: map[string]string{"span.kind": "client"}}, []byte{1}},
		{"absent tag", Query{Tags: map[string]string{"user": "eve"}}, nil},
	}
	phases(t, tds, func(t *testing.T, s *Store) {
		for _, tt := range tests {
			found, err := s.Search(t.Context(), tt.q)
			if err != nil {
				t.Fatal(err)
			}
			var got []byte
			for _, td := range found {
				got = append(got, td.ResourceSpans().At(0).ScopeSpans().At(0).Spans().At(0).TraceID()[15])
			}
			if !slices.Equal(got, tt.want) {
				t.Errorf("%s: got %v; want %v", tt.name, got, tt.want)
			}
		}
		services, _ := s.Services(t.Context())
		if want := []string{"gw", "users"}; !slices.Equal(services, want) {
			t.Errorf("services: got %v; want %v", services, want)
		}
		ops, _ := s.Operations(t.Context(), "gw")
		if want := []Operation{{"GET /a", "server"}, {"GET /b", "server"}, {"call", "client"}}; !slices.Equal(ops, want) {
			t.Errorf("operations: got %v; want %v", ops, want)
		}
	})
}

// TestSearchAgainstScan compares searches over many small blocks with a plain
// loop over the same spans.
func TestSearchAgainstScan(t *testing.T) {
	s, now := newStore(t)
	r := rand.New(rand.NewPCG(5, 5))
	var all []spec
	for i := range 200 {
		sp := spec{
			service: fmt.Sprint("s", r.IntN(3)), name: fmt.Sprint("op", r.IntN(4)), trace: byte(i + 1), id: 1,
			at: time.Duration(r.IntN(1e9)), took: time.Duration(r.IntN(1e6)), attrs: []string{"k", fmt.Sprint(r.IntN(10))},
		}
		all = append(all, sp)
		write(t, s, make1(sp))
		if i%7 == 0 {
			flush(t, s)
			*now = now.Add(10 * time.Minute)
		}
	}
	for range 300 {
		q := Query{Service: fmt.Sprint("s", r.IntN(4)), Limit: 1 + r.IntN(30)}
		if r.IntN(2) == 0 {
			q.Operation = fmt.Sprint("op", r.IntN(4))
		}
		if r.IntN(2) == 0 {
			q.Tags = map[string]string{"k": fmt.Sprint(r.IntN(10))}
		}
		if r.IntN(2) == 0 {
			q.MinDuration = time.Duration(r.IntN(1e6))
		}
		if r.IntN(2) == 0 {
			q.Start, q.End = base.Add(time.Duration(r.IntN(5e8))), base.Add(time.Duration(5e8+r.IntN(5e8)))
		}
		var want []byte
		slices.SortFunc(all, func(a, b spec) int { return int(b.at - a.at) })
		for _, sp := range all {
			at := base.Add(sp.at)
			if sp.service == q.Service && (q.Operation == "" || sp.name == q.Operation) && (q.Tags == nil || sp.attrs[1] == q.Tags["k"]) &&
				sp.took >= q.MinDuration && (q.Start.IsZero() || !at.Before(q.Start) && !at.After(q.End)) && len(want) < q.Limit {
				want = append(want, sp.trace)
			}
		}
		found, err := s.Search(t.Context(), q)
		if err != nil {
			t.Fatal(err)
		}
		var got []byte
		for _, td := range found {
			got = append(got, td.ResourceSpans().At(0).ScopeSpans().At(0).Spans().At(0).TraceID()[15])
		}
		if !slices.Equal(got, want) {
			t.Fatalf("%+v: got %v; want %v", q, got, want)
		}
	}
}

// TestDurableWithinASecond runs the store as the manager does and lets the
// power fail at a moment of its own: whatever was acknowledged more than a
// second before must be there afterwards.
func TestDurableWithinASecond(t *testing.T) {
	fs := vfs.NewCrashableMem()
	now := base
	s := openStore(t, fs, &now)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	acked := map[byte]time.Time{}
	stop := time.Now().Add(2500 * time.Millisecond)
	for id := byte(1); time.Now().Before(stop); id++ {
		write(t, s, make1(spec{service: "a", name: "b", trace: id, id: 1}))
		acked[id] = time.Now()
		time.Sleep(20 * time.Millisecond) // a steady sender
	}
	crashed := time.Now()
	after := fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 50, RNG: rand.New(rand.NewPCG(1, 1))})
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	s2 := openStore(t, after, &now)
	kept, lost := 0, 0
	for id, at := range acked {
		_, err := s2.Trace(t.Context(), traceID(id))
		switch {
		case err == nil:
			kept++
		case crashed.Sub(at) > time.Second:
			t.Errorf("trace %d, acknowledged %v before the crash, is gone: %v", id, crashed.Sub(at), err)
		default:
			lost++
		}
	}
	t.Logf("%d kept, %d of the last second lost", kept, lost)
	if kept == 0 {
		t.Error("nothing was kept")
	}
}

func TestRetention(t *testing.T) {
	s, now := newStore(t)
	s.o.Retention = 3 * time.Hour
	for i := range byte(6) {
		write(t, s, make1(spec{service: fmt.Sprint("s", i), name: "x", trace: i + 1, id: 1, at: time.Duration(i) * time.Hour}))
		flush(t, s)
		*now = now.Add(time.Hour)
	}
	s.retain() // it is 18:00; 15:00 is the first hour that lies within
	for i := range byte(6) {
		_, err := s.Trace(t.Context(), traceID(i+1))
		if gone := i < 3; gone != errors.Is(err, ErrNotFound) {
			t.Errorf("trace of %d:00: got %v; want gone %v", 12+i, err, gone)
		}
	}
	if got, _ := s.Services(t.Context()); !slices.Equal(got, []string{"s3", "s4", "s5"}) {
		t.Errorf("services: got %v; want those of the hours that are left", got)
	}
}

func TestOversized(t *testing.T) {
	size := map[partition]uint64{1: 10, 2: 20, 3: 30}
	f := func(maxBytes uint64, want ...partition) {
		t.Helper()
		if got := oversized([]partition{3, 1, 2}, size, maxBytes); !slices.Equal(got, want) {
			t.Errorf("oversized(%d): got %v; want %v", maxBytes, got, want)
		}
	}
	f(math.MaxUint64)
	f(60)
	f(59, 1)
	f(50, 1)
	f(49, 1, 2)
	f(0, 1, 2) // the newest stays
}

func TestExpired(t *testing.T) {
	h := partitionOf(base)
	got := expired([]partition{h, h - 1, h - 2, h - 3}, base.Add(30*time.Minute), 2*time.Hour)
	if want := []partition{h - 3}; !slices.Equal(got, want) {
		t.Errorf("expired: got %v; want %v: an hour goes when its last span is too old", got, want)
	}
}

func TestInvalidSpansAreRejected(t *testing.T) {
	s, _ := newStore(t)
	rejected, message, err := writeTo(t.Context(), s, make1(spec{trace: 1, id: 1}, spec{trace: 0, id: 1}))
	if rejected != 1 || message == "" || err != nil {
		t.Errorf("got %d, %q, %v; want one rejected, with a message", rejected, message, err)
	}
}

// TestFullDisk: refusals are retryable, and pass when space returns.
func TestFullDisk(t *testing.T) {
	fs, now := &smallDisk{FS: vfs.NewMem(), free: 1 << 30}, base
	s := openStore(t, fs, &now, func(o *Options) { o.MinFreeBytes = 1 << 20 })
	s.checkSpace()
	write(t, s, make1(spec{trace: 1, id: 1}))
	fs.set(1 << 10)
	s.checkSpace()
	_, _, err := writeTo(t.Context(), s, make1(spec{trace: 2, id: 1}))
	var r interface{ RetryAfter() time.Duration }
	if !errors.Is(err, ErrReadOnly) || !errors.As(err, &r) || r.RetryAfter() <= 0 {
		t.Errorf("full disk: got %v; want a retryable ErrReadOnly", err)
	}
	if _, err := s.Trace(t.Context(), traceID(1)); err != nil {
		t.Errorf("reading on a full disk: %v", err)
	}
	fs.set(1 << 30)
	s.checkSpace()
	write(t, s, make1(spec{trace: 2, id: 1}))
}

// TestDiskFullInTheMiddle: a write that finds the disk full to the last byte
// waits, spans are refused, and all goes on when there is space again.
func TestDiskFullInTheMiddle(t *testing.T) {
	var full atomic.Bool
	now := base
	disk := &smallDisk{free: 1 << 30, FS: errorfs.Wrap(vfs.NewMem(), errorfs.InjectorFunc(func(op errorfs.Op) error {
		if full.Load() && op.Kind.ReadOrWrite() == errorfs.OpIsWrite {
			return syscall.ENOSPC
		}
		return nil
	}))}
	s := openStore(t, disk, &now, func(o *Options) { o.MinFreeBytes = 1 << 20; o.Log = nil })
	write(t, s, make1(spec{trace: 1, id: 1}))
	flush(t, s)
	write(t, s, make1(spec{trace: 2, id: 1}))
	disk.set(0)
	full.Store(true)
	flushed := make(chan error)
	go func() { flushed <- s.flush() }()
	for deadline := time.Now().Add(10 * time.Second); ; {
		_, _, err := writeTo(t.Context(), s, make1(spec{trace: 3, id: 1}))
		if errors.Is(err, ErrReadOnly) {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("full disk: got %v; want ErrReadOnly", err)
		}
		runtime.Gosched()
	}
	for id := byte(1); id <= 2; id++ {
		if _, err := s.Trace(t.Context(), traceID(id)); err != nil {
			t.Errorf("trace %d on a full disk: %v", id, err)
		}
	}
	full.Store(false)
	disk.set(1 << 30)
	if err := <-flushed; err != nil {
		t.Fatalf("the flush that waited: %v", err)
	}
	write(t, s, make1(spec{trace: 4, id: 1}))
	flush(t, s)
}

type smallDisk struct {
	vfs.FS
	mu   sync.Mutex
	free uint64
}

func (d *smallDisk) set(n uint64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.free = n
}

func (d *smallDisk) GetDiskUsage(string) (vfs.DiskUsage, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return vfs.DiskUsage{AvailBytes: d.free, TotalBytes: 1 << 30}, nil
}

// TestCorruptStoreIsPutAside: the manager starts whatever the disk holds.
func TestCorruptStoreIsPutAside(t *testing.T) {
	fs, now := vfs.NewMem(), base
	s := openStore(t, fs, &now)
	write(t, s, make1(spec{trace: 1, id: 1}))
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	names, err := fs.List("traces")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		if len(name) > 8 && name[:8] == "MANIFEST" {
			f, err := fs.Create("traces/"+name, vfs.WriteCategoryUnspecified)
			if err != nil {
				t.Fatal(err)
			}
			f.Write([]byte("this is no manifest of Pebble's, whatever its name may say"))
			f.Close()
		}
	}
	s = openStore(t, fs, &now)
	write(t, s, make1(spec{trace: 2, id: 1}))
	flush(t, s)
	top, _ := fs.List("")
	if !slices.ContainsFunc(top, func(n string) bool { return len(n) > 15 && n[:15] == "traces.corrupt-" }) {
		t.Errorf("the corrupt store was not put aside: %v", top)
	}
}

// TestMalformedBlock: a block that cannot be read is counted and left out.
func TestMalformedBlock(t *testing.T) {
	s, _ := newStore(t)
	write(t, s, make1(spec{service: "a", trace: 1, id: 1}))
	flush(t, s)
	write(t, s, make1(spec{service: "a", trace: 1, id: 2}))
	flush(t, s)
	if err := s.db.Set(seqKey(partitionOf(base), kindBlock, 0), []byte("nonsense"), pebble.Sync); err != nil {
		t.Fatal(err)
	}
	td, err := s.Trace(t.Context(), traceID(1))
	if err != nil || td.SpanCount() != 1 {
		t.Errorf("got %v; want the span of the other block", err)
	}
	if s.meters.corrupt.Get() == 0 {
		t.Error("the bad block was not counted")
	}
}

// TestConcurrent writes, flushes, merges and reads at once; every span that was
// acknowledged is readable from then on.
func TestConcurrent(t *testing.T) {
	s, _ := newStore(t)
	ctx, cancel := context.WithCancel(t.Context())
	var wg, flusher sync.WaitGroup
	flusher.Go(func() {
		for i := 0; ctx.Err() == nil; i++ {
			if err := s.flush(); err != nil {
				t.Error(err)
			}
			if i%3 == 0 {
				merge(t, s)
			}
		}
	})
	for w := range 4 {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(uint64(w), 7))
			for range 50 {
				td := gatewayTraces(r, 10, base)
				if _, _, err := writeTo(ctx, s, td); err != nil {
					t.Error(err)
					return
				}
				id := td.ResourceSpans().At(0).ScopeSpans().At(0).Spans().At(r.IntN(30)).TraceID()
				got, err := s.Trace(ctx, id)
				if err != nil || got.SpanCount() != 3 {
					t.Errorf("trace %s right after it was acknowledged: %v", id, err)
					return
				}
			}
		})
	}
	wg.Wait()
	cancel()
	flusher.Wait()
}

func TestClose(t *testing.T) {
	s, _ := newStore(t)
	write(t, s, make1(spec{trace: 1, id: 1}))
	for range 2 {
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if _, _, err := writeTo(t.Context(), s, make1(spec{trace: 1, id: 1})); !errors.Is(err, errClosed) {
		t.Errorf("write after Close: got %v; want errClosed", err)
	}
	if _, err := s.Trace(t.Context(), traceID(1)); !errors.Is(err, errClosed) {
		t.Errorf("read after Close: got %v; want errClosed", err)
	}
	if _, err := s.Search(t.Context(), Query{}); !errors.Is(err, errClosed) {
		t.Errorf("search after Close: got %v; want errClosed", err)
	}
}

// TestHugeSpans: what is larger than a block, or than Pebble's memory, is kept,
// found and read back like all else.
func TestHugeSpans(t *testing.T) {
	s, _ := newStore(t)
	td := make1(spec{service: "big", name: "one", trace: 1, id: 1, took: time.Second})
	sp := td.ResourceSpans().At(0).ScopeSpans().At(0).Spans().At(0)
	text := strings.Repeat("0123456789abcdef", 20<<20/16)
	sp.Attributes().PutStr("text", text)
	sp.Attributes().PutEmptyBytes("bytes").FromRaw([]byte(text[:1<<20]))
	for i := range 2000 { // more than are kept of one owner
		sp.Attributes().PutInt(fmt.Sprint("key", i), int64(i))
	}
	for i := range 5000 {
		sp.Events().AppendEmpty().SetName(fmt.Sprint("event", i))
	}
	write(t, s, td)
	many := make1(spec{service: "big", name: "many", trace: 2, id: 1})
	spans := many.ResourceSpans().At(0).ScopeSpans().At(0).Spans()
	for i := range 3 * maxBlockSpans {
		next := spans.AppendEmpty()
		next.SetTraceID(traceID(2))
		next.SetSpanID(pcommon.SpanID{1, byte(i >> 16), byte(i >> 8), byte(i)})
		next.SetParentSpanID(pcommon.SpanID{7: 1})
	}
	write(t, s, many)
	check := func() {
		t.Helper()
		got, err := s.Trace(t.Context(), traceID(1))
		if err != nil {
			t.Fatal(err)
		}
		sp := got.ResourceSpans().At(0).ScopeSpans().At(0).Spans().At(0)
		if v, ok := sp.Attributes().Get("text"); !ok || v.Str() != text || sp.Attributes().Len() != maxAttrs || sp.Events().Len() != 5000 {
			t.Errorf("%d attributes, %d events, or the text differs; want %d, 5000, the same", sp.Attributes().Len(), sp.Events().Len(), maxAttrs)
		}
		if got, err := s.Trace(t.Context(), traceID(2)); err != nil || got.SpanCount() != 3*maxBlockSpans+1 {
			t.Errorf("long trace: %d spans, %v; want %d", got.SpanCount(), err, 3*maxBlockSpans+1)
		}
		for _, q := range []Query{{Tags: map[string]string{"text": text}}, {Tags: map[string]string{"key7": "7"}, MinDuration: time.Second}} {
			if found, err := s.Search(t.Context(), q); err != nil || len(found) != 1 {
				t.Errorf("search: %d traces, %v; want 1", len(found), err)
			}
		}
		if found, err := s.Search(t.Context(), Query{Service: "big"}); err != nil || len(found) != 2 {
			t.Errorf("search of both: %d traces, %v", len(found), err)
		}
	}
	check()
	flush(t, s)
	check()
}

// TestSearchOfLongTraces: an answer stays within its bound where the traces
// that are found are long, and says what it left out.
func TestSearchOfLongTraces(t *testing.T) {
	now := base
	s := openStore(t, vfs.NewMem(), &now, func(o *Options) { o.maxAnswerSpans = 50 })
	for id := byte(1); id <= 5; id++ {
		td := make1(spec{service: "a", name: "root", trace: id, id: 1, at: time.Duration(id) * time.Second})
		for i := byte(2); i <= 20; i++ {
			make1(spec{service: "a", name: "child", trace: id, id: i, parent: 1}).ResourceSpans().MoveAndAppendTo(td.ResourceSpans())
		}
		write(t, s, td)
		flush(t, s)
	}
	found, left, err := s.search(t.Context(), Query{Operation: "root"})
	if err != nil || len(found) != 2 || !left.spans {
		t.Fatalf("%d traces, %+v, %v; want 2 of 5, and to be told", len(found), left, err)
	}
	for i, want := range []byte{5, 4} {
		if id := found[i].ResourceSpans().At(0).ScopeSpans().At(0).Spans().At(0).TraceID(); id != traceID(want) || found[i].SpanCount() != 20 {
			t.Errorf("trace %d is %s of %d spans; want %d, the newest first, of 20", i, id, found[i].SpanCount(), want)
		}
	}
}
