package traces

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
	"go.opentelemetry.io/collector/pdata/pcommon"
)

// keysOf counts the keys of a kind, over all hours.
func keysOf(t *testing.T, s *Store, kind byte) (n int, hours map[partition]int) {
	t.Helper()
	it, err := s.db.NewIter(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer it.Close()
	hours = map[partition]int{}
	for ok := it.First(); ok; ok = it.Next() {
		if p, k, _, err := parseKey(it.Key()); err != nil {
			t.Fatal(err)
		} else if k == kind {
			n++
			hours[p]++
		}
	}
	return n, hours
}

// stored counts the spans in blocks and in what is gathered, each as often as it
// is there: answers would hide that one is there twice.
func stored(t *testing.T, s *Store) int {
	t.Helper()
	n := len(s.gathering.spans)
	it, err := s.db.NewIter(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer it.Close()
	for ok := it.First(); ok; ok = it.Next() {
		if _, k, _, err := parseKey(it.Key()); err == nil && k == kindBlock {
			v, err := it.ValueAndErr()
			if err != nil {
				t.Fatal(err)
			}
			o, err := openBlock(v)
			if err != nil {
				t.Fatal(err)
			}
			n += o.spans
		}
	}
	return n
}

// TestSlowStream sends 51 spans every half second. They must be durable at once,
// found all the while, and end in few blocks, of no more bytes a span than
// those of a fast stream may have.
func TestSlowStream(t *testing.T) {
	fs, now := vfs.NewCrashableMem(), base
	s := openStore(t, fs, &now)
	r := rand.New(rand.NewPCG(1, 2))
	var ids []pcommon.TraceID
	for i := range 400 {
		td := gatewayTraces(r, 17, now)
		ids = append(ids, td.ResourceSpans().At(0).ScopeSpans().At(0).Spans().At(0).TraceID())
		write(t, s, td)
		if err := s.flush(); err != nil {
			t.Fatal(err)
		}
		now = now.Add(500 * time.Millisecond)
		if i%57 != 0 {
			continue
		}
		q := Query{Service: "binnacle-gateway", Limit: 1}
		if found, err := s.Search(t.Context(), q); err != nil || len(found) != 1 || found[0].SpanCount() != 3 {
			t.Fatalf("search after %d flushes: %d traces, %v; want the newest", i+1, len(found), err)
		}
		after := openStore(t, fs.CrashClone(vfs.CrashCloneCfg{}), &now)
		if n := stored(t, after); n != len(ids)*51 {
			t.Fatalf("after a crash: %d spans are there; want %d", n, len(ids)*51)
		}
		if err := after.Close(); err != nil {
			t.Fatal(err)
		}
	}
	blocks, _ := keysOf(t, s, kindBlock)
	if parts, _ := keysOf(t, s, kindPart); blocks != 1 || parts != len(s.gathering.parts) || parts == 0 {
		t.Errorf("%d blocks, %d parts on disk, %d in memory; want 1 block of what fills one, and a part for each flush since", blocks, parts, len(s.gathering.parts))
	}
	merge(t, s)
	if n := stored(t, s); n != len(ids)*51 {
		t.Errorf("%d spans are there; want %d", n, len(ids)*51)
	}
	if parts, _ := keysOf(t, s, kindPart); parts != 0 {
		t.Errorf("%d parts are left of what is merged", parts)
	}
	for _, id := range ids {
		if td, err := s.Trace(t.Context(), id); err != nil || td.SpanCount() != 3 {
			t.Fatalf("trace %s: %v", id, err)
		}
	}
	if err := s.db.Flush(); err != nil {
		t.Fatal(err)
	}
	if err := s.db.Compact(t.Context(), key(0, 0), key(1<<31, 0), true); err != nil {
		t.Fatal(err)
	}
	perSpan := float64(s.db.Metrics().Total().TablesSize) / float64(51*len(ids))
	t.Logf("%.1f bytes a span", perSpan)
	if perSpan > 60 {
		t.Errorf("%.1f bytes a span; want at most 60", perSpan)
	}
}

// TestGatheringEnds: what is gathered is written after ten minutes, and at the end of
// its hour, into that hour: there it goes with what came beside it.
func TestGatheringEnds(t *testing.T) {
	for _, tc := range []struct {
		name  string
		from  time.Duration // after base, a full hour
		after time.Duration
		want  int // blocks
	}{
		{"young", 0, 9 * time.Minute, 0},
		{"old", 0, 10 * time.Minute, 1},
		{"end of the hour", 59 * time.Minute, time.Minute, 1},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s, now := newStore(t)
			*now = base.Add(tc.from)
			came := partitionOf(*now)
			write(t, s, make1(spec{service: "a", name: "b", trace: 1, id: 1}))
			for range 2 {
				if err := s.flush(); err != nil {
					t.Fatal(err)
				}
				*now = base.Add(tc.from + tc.after)
			}
			n, hours := keysOf(t, s, kindBlock)
			if n != tc.want || hours[came] != n {
				t.Errorf("%d blocks, by hour %v; want %d in %d", n, hours, tc.want, came)
			}
			if _, err := s.Trace(t.Context(), traceID(1)); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestGatheredGoWithTheirHour: parts of a manager that was away for longer than spans are
// kept do not begin a second life.
func TestGatheredGoWithTheirHour(t *testing.T) {
	fs, now := vfs.NewMem(), base
	s := openStore(t, fs, &now)
	for i := range byte(2) { // two hours, neither of them written
		write(t, s, make1(spec{service: "a", name: "b", trace: i + 1, id: 1}))
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		now = now.Add(time.Hour)
		s = openStore(t, fs, &now)
	}
	for i := range byte(2) {
		if _, err := s.Trace(t.Context(), traceID(i+1)); err != nil {
			t.Errorf("trace %d after two starts: %v", i+1, err)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	now = base.Add(7*24*time.Hour + time.Hour + time.Minute)
	s = openStore(t, fs, &now)
	if err := s.flush(); err != nil {
		t.Fatal(err)
	}
	s.retain()
	for i, kept := range []bool{false, true} {
		if _, err := s.Trace(t.Context(), traceID(byte(i+1))); (err == nil) != kept {
			t.Errorf("trace of hour %d, seven days and an hour later: %v; want kept: %v", i, err, kept)
		}
	}
	if n, _ := keysOf(t, s, kindPart); n != 0 {
		t.Errorf("%d parts are left", n)
	}
}

// TestHourOfParts: an hour that has nothing but parts is none to search or to drop, and
// knows the times of its spans once they are merged.
func TestHourOfParts(t *testing.T) {
	fs, now := vfs.NewMem(), base
	s := openStore(t, fs, &now)
	write(t, s, make1(spec{service: "a", name: "b", trace: 1, id: 1, at: time.Second}))
	reopen := func() {
		t.Helper()
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		s = openStore(t, fs, &now)
	}
	reopen()
	if hours := s.parts.newestFirst(0, math.MaxUint64); len(hours) != 0 {
		t.Errorf("hours with a part only: %v; want none", hours)
	}
	merge(t, s)
	reopen()
	at := uint64(base.Add(time.Second).UnixNano())
	if b := s.parts.m[partitionOf(base)]; b != (bounds{at, at}) {
		t.Errorf("bounds of the hour: %v; want %d", b, at)
	}
}

// TestGatheringIsBounded: flushes of just under mergeSpans.
func TestGatheringIsBounded(t *testing.T) {
	s, _ := newStore(t)
	r := rand.New(rand.NewPCG(1, 2))
	for range 12 {
		write(t, s, gatewayTraces(r, (mergeSpans-1)/3, base))
		if err := s.flush(); err != nil {
			t.Fatal(err)
		}
		if n := len(s.gathering.spans); n >= maxBlockSpans+mergeSpans {
			t.Fatalf("%d spans are gathered; want less than %d", n, maxBlockSpans+mergeSpans)
		}
	}
	if n, _ := keysOf(t, s, kindBlock); n < 2 {
		t.Errorf("%d blocks; want 2 at least", n)
	}
}

// TestDamagedPart: one part that cannot be read costs its own spans.
func TestDamagedPart(t *testing.T) {
	fs, now := vfs.NewMem(), base
	s := openStore(t, fs, &now)
	for i := range byte(3) {
		write(t, s, make1(spec{service: "a", name: "b", trace: i + 1, id: 1}))
		if err := s.flush(); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.db.Set(seqKey(partitionOf(now), kindPart, 1), []byte("nonsense"), pebble.Sync); err != nil {
		t.Fatal(err)
	}
	for range 2 { // the second start finds nothing to complain about
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		s = openStore(t, fs, &now)
	}
	for i, want := range []bool{true, false, true} {
		if _, err := s.Trace(t.Context(), traceID(byte(i+1))); (err == nil) != want {
			t.Errorf("trace %d: got %v; want found: %v", i+1, err, want)
		}
	}
	if n := s.meters.corrupt.Get(); n != 0 {
		t.Errorf("the part is complained of again, %d times", n)
	}
	// Numbers go on after those on disk.
	write(t, s, make1(spec{service: "a", name: "b", trace: 9, id: 1}))
	if err := s.flush(); err != nil {
		t.Fatal(err)
	}
	if n, _ := keysOf(t, s, kindPart); n != 3 {
		t.Errorf("%d parts; want 3", n)
	}
}

// TestGatheredVerdicts: a span that was kept because its trace is, and waits to be
// merged, is not judged again after a crash.
func TestGatheredVerdicts(t *testing.T) {
	fs, now := vfs.NewCrashableMem(), base
	rules := mustRules(t, "errors: status=error keep=100%; rest: keep=0%")
	o := func(o *Options) { o.Sampling = Sampling{Rules: rules, Window: 10 * time.Second} }
	s := openStore(t, fs, &now, o)
	step := func(s *Store) {
		t.Helper()
		for range 2 {
			if err := s.flush(); err != nil {
				t.Fatal(err)
			}
			now = now.Add(15 * time.Second)
			if err := s.decide(); err != nil {
				t.Fatal(err)
			}
		}
	}
	write(t, s, make1(spec{service: "a", name: "b", trace: 1, id: 1, err: true}, spec{service: "a", name: "b", trace: 2, id: 1}))
	step(s)
	write(t, s, make1(spec{service: "a", name: "late", trace: 1, id: 2}, spec{service: "a", name: "late", trace: 2, id: 2}))
	step(s)
	for i := range 2 {
		if td, err := s.Trace(t.Context(), traceID(1)); err != nil || td.SpanCount() != 2 {
			t.Errorf("start %d: the kept trace: %v; want 2 spans", i, err)
		}
		if _, err := s.Trace(t.Context(), traceID(2)); err == nil {
			t.Errorf("start %d: the other trace is still there", i)
		}
		if n := len(s.gathering.spans); n != 2 || len(s.undecided) != 0 {
			t.Errorf("start %d: %d spans gathered, %d blocks undecided; want 2, 0", i, n, len(s.undecided))
		}
		s = openStore(t, fs.CrashClone(vfs.CrashCloneCfg{}), &now, o)
		step(s)
	}
	merge(t, s)
	if td, err := s.Trace(t.Context(), traceID(1)); err != nil || td.SpanCount() != 2 {
		t.Errorf("merged: %v; want 2 spans", err)
	}
}

// TestMergeThatFails: spans whose merging the disk refuses stay in answers, and are there,
// each once, after a start.
func TestMergeThatFails(t *testing.T) {
	var broken atomic.Bool
	mem, now := vfs.NewCrashableMem(), base
	disk := errorfs.Wrap(mem, errorfs.InjectorFunc(func(op errorfs.Op) error {
		if broken.Load() && op.Kind.ReadOrWrite() == errorfs.OpIsWrite {
			return syscall.EIO
		}
		return nil
	}))
	s, err := Open(Options{Dir: "traces", fs: disk, MinFreeBytes: -1, now: func() time.Time { return now }}) // never closed: its Pebble is stuck
	if err != nil {
		t.Fatal(err)
	}
	for i := range byte(5) {
		write(t, s, make1(spec{service: "a", name: "b", trace: i + 1, id: 1}))
		if err := s.flush(); err != nil {
			t.Fatal(err)
		}
	}
	broken.Store(true)
	now = now.Add(gatherFor)
	for range 2 {
		if err := s.flush(); !errors.Is(err, ErrReadOnly) {
			t.Fatalf("merge on a broken disk: %v; want ErrReadOnly", err)
		}
		if found, err := s.Search(t.Context(), Query{Service: "a"}); err != nil || len(found) != 5 {
			t.Errorf("search after the merge failed: %d traces, %v; want 5", len(found), err)
		}
	}
	after := openStore(t, mem.CrashClone(vfs.CrashCloneCfg{}), &now)
	merge(t, after)
	if n := stored(t, after); n != 5 {
		t.Errorf("%d spans are there after a start; want 5", n)
	}
	if n, _ := keysOf(t, after, kindPart); n != 0 {
		t.Errorf("%d parts are left", n)
	}
}

// BenchmarkSlowStream writes as many spans a flush as its name says and reports processor
// time and bytes on disk, after a full compaction, for each span, and that of a search
// for what nobody has.
func BenchmarkSlowStream(b *testing.B) {
	for _, spans := range []int{51, mergeSpans - 16} {
		b.Run(fmt.Sprint(spans), func(b *testing.B) { benchmarkStream(b, spans) })
	}
}

func benchmarkStream(b *testing.B, size int) {
	r := rand.New(rand.NewPCG(1, 2))
	s, err := Open(Options{Dir: b.TempDir()})
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	td := gatewayTraces(r, size/3, base)
	spans, start := 0, cpu()
	for b.Loop() {
		rekey(td, r.Uint64())
		if _, _, err := writeTo(b.Context(), s, td); err != nil {
			b.Fatal(err)
		}
		if err := s.flush(); err != nil {
			b.Fatal(err)
		}
		spans += td.SpanCount()
	}
	b.ReportMetric(float64(cpu()-start)/float64(spans)/1e3, "cpu-us/span")
	if err := s.db.Flush(); err != nil {
		b.Fatal(err)
	}
	if err := s.db.Compact(b.Context(), key(0, 0), key(1<<31, 0), true); err != nil {
		b.Fatal(err)
	}
	b.ReportMetric(float64(s.db.Metrics().Total().TablesSize)/float64(spans), "disk-B/span")
	c := cpu()
	for range 40 {
		if _, err := s.Search(b.Context(), Query{Service: "binnacle-gateway", Tags: map[string]string{"client.address": fmt.Sprint("none-", r.Int())}}); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(cpu()-c)/40/1e6, "search-cpu-ms")
}
