package traces

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/VictoriaMetrics/metrics"
	"github.com/cockroachdb/pebble/v2/vfs"
	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/ptrace"

	"github.com/binnacle-project/binnacle"
)

const testRules = `errors: status=error keep=100%; slow: duration>=1s keep=100%; rest: keep=10%`

func mustRules(t testing.TB, text string) Rules {
	t.Helper()
	rs, err := ParseRules(text)
	if err != nil {
		t.Fatal(err)
	}
	return rs
}

func TestRules(t *testing.T) {
	sp := make1(spec{service: "gateway", name: "GET /users/{id}", trace: 1, id: 1, took: 300 * time.Millisecond, err: true, attrs: []string{"http.route", "/users/{id}", "client.address", "10.1.2.3"}})
	sp.ResourceSpans().At(0).Resource().Attributes().PutStr("host.name", "gw-1")
	sp.ResourceSpans().At(0).ScopeSpans().At(0).Spans().At(0).Attributes().PutInt("http.response.status_code", 502)
	f := func(conditions string, want bool) {
		t.Helper()
		rs := mustRules(t, "r: "+conditions+" keep=1%")
		b := newBlock()
		add(b, sp)
		if got := rs.matches(b, &b.spans[0]) == 1; got != want {
			t.Errorf("%s: got %v; want %v", conditions, got, want)
		}
	}
	f("", true)
	f("service=gateway", true)
	f("service=gate*", true)
	f("service=*way", true)
	f("service=g*t*w*y", true)
	f("service=g*x*y", false)
	f("service!=gateway", false)
	f("service!=other", true)
	f(`operation="GET /users/{id}"`, true)
	f("operation=GET*", true)
	f("operation=GET", false)
	f("route=/users/*", true)
	f("route=/health", false)
	f("route!=/health", true)
	f("status=error", true)
	f("status=ok", false)
	f("status=unset", false)
	f("status=502", true)
	f("status=5xx", true)
	f("status=500", false)
	f("status=4xx", false)
	f("status!=4xx", true)
	f("duration>=300ms", true)
	f("duration>300ms", false)
	f("duration<=300ms", true)
	f("duration<300ms", false)
	f("client.address=10.1.*", true)
	f("host.name=gw-1", true)
	f("no.such=*", false)
	f("no.such!=*", true)
	f("service=gateway status=5xx duration>=200ms route=/users/*", true)
	f("service=gateway status=5xx duration>=2s route=/users/*", false)
}

func TestParseRulesErrors(t *testing.T) {
	f := func(text, words string) {
		t.Helper()
		if rs, err := ParseRules(text); err == nil || !strings.Contains(err.Error(), words) {
			t.Errorf("ParseRules(%q): got %v, %v; want an error with %q", text, rs, err, words)
		}
	}
	f("keep=5%", "NAME")
	f("A b: keep=5%", "NAME")
	f("unmatched: keep=5%", "NAME")
	f("a: status=error", "keep= is missing")
	f("a: keep=5% keep=6%", "twice")
	f("a: keep=0.5", "percentage")
	f("a: keep=101%", "percentage")
	f("a: keep=NaN%", "percentage")
	f("a: keep=5%; a: keep=6%", "already")
	f("a: speed=3 keep=5%", "dot")
	f("a: service>3 keep=5%", "only duration")
	f("a: duration=3s keep=5%", "compare")
	f("a: duration>=3 keep=5%", "500ms")
	f("a: status=bad keep=5%", "5xx")
	f("a: status=6xx keep=5%", "5xx")
	f("a: nonsense keep=5%", "no condition")
	f(`a: service="x keep=5%`, "quotes")
	f(strings.Repeat("a: keep=1%;", 2), "already")
	var many []string
	for i := range maxRules + 1 {
		many = append(many, fmt.Sprintf("r%d: keep=1%%", i))
	}
	f(strings.Join(many, "\n"), "at most")
	if rs, err := ParseRules("", " ; \n"); err != nil || len(rs) != 0 {
		t.Errorf("nothing: got %v, %v; want no rules", rs, err)
	}
}

func FuzzParseRules(f *testing.F) {
	f.Add(testRules)
	f.Add(`a: service="x y" no.x!=* status=4xx duration<3s keep=0.1%`)
	b := newBlock()
	add(b, make1(spec{service: "a", name: "b", trace: 1, id: 1, attrs: []string{"http.route", "/"}}))
	f.Fuzz(func(t *testing.T, text string) {
		rs, err := ParseRules(text)
		if err != nil {
			return
		}
		bits := rs.matches(b, &b.spans[0])
		if v := rs.judge(traceID(1), bits); v.rule != noRule && int(v.rule) >= len(rs) {
			t.Fatalf("%q: judged by rule %d of %d", text, v.rule, len(rs))
		}
	})
}

// TestShare: shares are what they say, and nest.
func TestShare(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	const n = 100_000
	kept := map[float64]int{}
	for range n {
		id := randomTrace(r)
		last := false
		for _, share := range []float64{0, 0.001, 0.05, 0.5, 1} {
			in := inShare(id, share)
			if last && !in {
				t.Fatalf("trace %s is in a smaller share and not in %v", id, share)
			}
			if last = in; in {
				kept[share]++
			}
		}
	}
	for share, got := range kept {
		if want := share * n; float64(got) < want*0.8-10 || float64(got) > want*1.2+10 {
			t.Errorf("share %v: kept %d of %d", share, got, n)
		}
	}
	if kept[0] != 0 || kept[1] != n {
		t.Errorf("0 %% kept %d, 100 %% kept %d of %d", kept[0], kept[1], n)
	}
}

func randomTrace(r *rand.Rand) (id pcommon.TraceID) {
	binary.BigEndian.PutUint64(id[:], r.Uint64())
	binary.BigEndian.PutUint64(id[8:], r.Uint64())
	return id
}

// withID gives all spans of td a trace id.
func withID(td ptrace.Traces, id pcommon.TraceID) ptrace.Traces {
	for _, rs := range td.ResourceSpans().All() {
		for _, ss := range rs.ScopeSpans().All() {
			for _, sp := range ss.Spans().All() {
				sp.SetTraceID(id)
			}
		}
	}
	return td
}

func sampled(rules Rules, set *metrics.Set) func(*Options) {
	return func(o *Options) {
		o.Sampling = Sampling{Rules: rules, Window: 10 * time.Second}
		o.Metrics = set
		o.now = time.Now
		o.Log = nil
	}
}

func counter(set *metrics.Set, name string) uint64 { return set.GetOrCreateCounter(name).Get() }

// TestSampling sends traces in pieces over time: everything is readable until
// the window is over; afterwards what the rules keep is whole and the rest is
// gone and counted, late spans included.
func TestSampling(t *testing.T) {
	// The channels of the compressor, which all tests share, must not belong to
	// the bubble.
	b := newBlock()
	add(b, gatewayTraces(rand.New(rand.NewPCG(1, 2)), 50, base))
	if _, err := decodeBlock(encodeBlock(nil, b)); err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		rules, set := mustRules(t, testRules), metrics.NewSet()
		s := openStore(t, vfs.NewMem(), nil, sampled(rules, set))
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- s.Run(ctx) }()

		type trace struct {
			id   pcommon.TraceID
			rule string
			want bool
		}
		r := rand.New(rand.NewPCG(3, 3))
		var all []trace
		counts := map[string][2]uint64{}
		for i := range 600 {
			tr := trace{id: randomTrace(r), rule: "rest"}
			child := spec{service: "users", name: "list", id: 2, parent: 1}
			root := spec{service: "gateway", name: "GET /users", id: 1, took: time.Millisecond}
			switch i % 10 {
			case 0:
				tr.rule, child.err = "errors", true
			case 1:
				tr.rule, root.took = "slow", 2*time.Second
			}
			tr.want = tr.rule != "rest" || inShare(tr.id, 0.1)
			c := counts[tr.rule]
			if tr.want {
				c[0]++
			} else {
				c[1]++
			}
			counts[tr.rule] = c
			all = append(all, tr)
			write(t, s, withID(make1(child), tr.id))
			if i%2 == 0 {
				write(t, s, withID(make1(root), tr.id))
			} else { // the gateway's own span comes seconds later
				go func() {
					time.Sleep(3 * time.Second)
					write(t, s, withID(make1(root), tr.id))
				}()
			}
		}
		spans := func(id pcommon.TraceID) int {
			td, err := s.Trace(ctx, id)
			if errors.Is(err, ErrNotFound) {
				return 0
			} else if err != nil {
				t.Fatal(err)
			}
			return td.SpanCount()
		}
		time.Sleep(5 * time.Second)
		for _, tr := range all {
			if n := spans(tr.id); n != 2 {
				t.Fatalf("before the decision: trace has %d spans; want 2", n)
			}
		}
		if ops, err := s.Operations(ctx, "users"); err != nil || len(ops) != 1 {
			t.Errorf("operations before the decision: %v, %v", ops, err)
		}
		if found, err := s.Search(ctx, Query{Service: "users", Tags: map[string]string{"error": "true"}, Limit: 100}); err != nil || len(found) != 60 {
			t.Errorf("search before the decision: %d traces, %v; want 60", len(found), err)
		}
		time.Sleep(12 * time.Second)
		check := func(extra int) {
			t.Helper()
			for _, tr := range all {
				want := 0
				if tr.want {
					want = 2 + extra
				}
				if n := spans(tr.id); n != want {
					t.Fatalf("after the decision: trace of %s (kept: %v) has %d spans; want %d", tr.rule, tr.want, n, want)
				}
			}
		}
		check(0)
		for _, rule := range []string{"errors", "slow", "rest"} {
			for i, verdict := range []string{"kept", "dropped"} {
				labels := fmt.Sprintf("{rule=%q,verdict=%q}", rule, verdict)
				n := counter(set, "binnacle_traces_sampling_traces_total"+labels)
				if n != counts[rule][i] {
					t.Errorf("traces %s: counted %d; want %d", labels, n, counts[rule][i])
				}
				if sp := counter(set, "binnacle_traces_sampling_spans_total"+labels); sp != 2*n {
					t.Errorf("spans %s: counted %d; want %d", labels, sp, 2*n)
				}
			}
		}
		// Late spans, errors among them, follow.
		for _, tr := range all {
			write(t, s, withID(make1(spec{service: "late", name: "late", id: 9, err: true}), tr.id))
		}
		time.Sleep(20 * time.Second)
		check(1)
		var kept uint64
		for _, c := range counts {
			kept += c[0]
		}
		if n := counter(set, `binnacle_traces_sampling_late_spans_total{verdict="dropped"}`); n != uint64(len(all))-kept {
			t.Errorf("late spans dropped: counted %d; want %d", n, uint64(len(all))-kept)
		}
		if len(s.undecided) != 0 || s.undecidedBytes != 0 || len(s.docket.open) != 0 {
			t.Errorf("left over: %d blocks, %d bytes, %d traces", len(s.undecided), s.undecidedBytes, len(s.docket.open))
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if err := s.Close(); err != nil { // its goroutines end within the bubble
			t.Error(err)
		}
	})
}

// TestSamplingSurvivesCrash: what waits for its verdict is on disk, is readable
// after a crash and gets the verdict that it would have got. Without rules all of
// it is kept.
func TestSamplingSurvivesCrash(t *testing.T) {
	rules, now := mustRules(t, testRules), base
	fs := vfs.NewCrashableMem()
	clock := func(o *Options) {
		o.Sampling = Sampling{Rules: rules}
		o.now = func() time.Time { return now }
	}
	s := openStore(t, fs, &now, clock)
	r := rand.New(rand.NewPCG(8, 8))
	var ids []pcommon.TraceID
	for i := range 200 {
		ids = append(ids, randomTrace(r))
		write(t, s, withID(make1(spec{service: "a", name: "b", id: 1, err: i%10 == 0}), ids[i]))
		if i == 100 {
			flush(t, s)
		}
	}
	flush(t, s)
	crash := func() vfs.FS {
		return fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 0, RNG: rand.New(rand.NewPCG(1, 1))})
	}
	withRules, without := crash(), crash()
	kept := func(s *Store) (n int) {
		for i, id := range ids {
			_, err := s.Trace(t.Context(), id)
			if err == nil {
				n++
			} else if i%10 == 0 || inShare(id, 0.1) {
				t.Errorf("trace %d: %v; want it kept", i, err)
			}
		}
		return n
	}
	want := 0
	for i, id := range ids {
		if i%10 == 0 || inShare(id, 0.1) {
			want++
		}
	}
	after := openStore(t, withRules, &now, clock)
	if n := kept(after); n != len(ids) {
		t.Errorf("after the crash: %d of %d traces readable; want all", n, len(ids))
	}
	now = now.Add(time.Minute)
	if err := after.decide(); err != nil {
		t.Fatal(err)
	}
	if n := kept(after); n != want {
		t.Errorf("after the decision: %d traces; want %d", n, want)
	}
	if err := after.Close(); err != nil {
		t.Fatal(err)
	}
	after = openStore(t, withRules, &now, clock)
	if n := kept(after); n != want || len(after.undecided) != 0 {
		t.Errorf("after another start: %d traces, %d blocks undecided; want %d, 0", n, len(after.undecided), want)
	}

	off := openStore(t, without, &now)
	if err := off.decide(); err != nil {
		t.Fatal(err)
	}
	if n := kept(off); n != len(ids) || len(off.undecided) != 0 {
		t.Errorf("sampling turned off: %d traces, %d blocks undecided; want %d, 0", n, len(off.undecided), len(ids))
	}
}

// TestSamplingBoundsMemory: beyond MaxBytes the oldest are decided early, and
// where that cannot be written spans are refused.
func TestSamplingBoundsMemory(t *testing.T) {
	rules, set, now := mustRules(t, "rest: keep=50%"), metrics.NewSet(), base
	s := openStore(t, vfs.NewMem(), &now, func(o *Options) {
		o.Sampling = Sampling{Rules: rules, MaxBytes: 256 << 10}
		o.Metrics = set
	})
	r := rand.New(rand.NewPCG(8, 8))
	for range 20 {
		write(t, s, gatewayTraces(r, 100, base))
		flush(t, s)
		if err := s.decide(); err != nil {
			t.Fatal(err)
		}
		if s.undecidedBytes > 256<<10 {
			t.Fatalf("%d bytes wait; want at most %d", s.undecidedBytes, 256<<10)
		}
	}
	if len(s.undecided) == 0 || counter(set, "binnacle_traces_sampling_early_blocks_total") == 0 {
		t.Errorf("%d blocks wait, %d decided early; want some of both", len(s.undecided), counter(set, "binnacle_traces_sampling_early_blocks_total"))
	}
	var err error
	for range 50 { // nobody decides
		if _, _, err = writeTo(t.Context(), s, gatewayTraces(r, 100, base)); err != nil {
			break
		}
		flush(t, s)
	}
	if !errors.Is(err, ErrReadOnly) {
		t.Errorf("with nobody deciding: got %v; want ErrReadOnly", err)
	}
}

// TestSamplingConcurrent writes, decides and reads at once: a trace that is to
// be kept is whole at every moment.
func TestSamplingConcurrent(t *testing.T) {
	rules := mustRules(t, "all: keep=100%")
	s := openStore(t, vfs.NewMem(), nil, func(o *Options) {
		o.Sampling = Sampling{Rules: rules, Window: time.Millisecond}
		o.now = time.Now
		o.Log = nil
	})
	ctx, cancel := context.WithCancel(t.Context())
	var writers, rounds sync.WaitGroup
	rounds.Go(func() {
		for ctx.Err() == nil {
			if err := errors.Join(s.flush(), s.decide()); err != nil {
				t.Error(err)
			}
		}
	})
	for w := range 4 {
		writers.Go(func() {
			r := rand.New(rand.NewPCG(uint64(w), 7))
			var mine []pcommon.TraceID
			for range 100 {
				td := gatewayTraces(r, 10, base)
				if _, _, err := writeTo(ctx, s, td); err != nil {
					t.Error(err)
					return
				}
				mine = append(mine, td.ResourceSpans().At(0).ScopeSpans().At(0).Spans().At(r.IntN(30)).TraceID())
				id := mine[r.IntN(len(mine))]
				if got, err := s.Trace(ctx, id); err != nil || got.SpanCount() != 3 {
					t.Errorf("trace %s after it was acknowledged: %v", id, err)
					return
				}
			}
		})
	}
	writers.Wait()
	cancel()
	rounds.Wait()
}

// TestCopyTraces: a copy says what the original does.
func TestCopyTraces(t *testing.T) {
	for seed := range uint64(100) {
		r := rand.New(rand.NewPCG(seed, 5))
		to := newBlock()
		add(to, wildTraces(r))
		want := canonical(t, all(to))
		for range 2 {
			from := newBlock()
			add(from, wildTraces(r))
			keep := make([]bool, len(from.traces))
			for i := range keep {
				keep[i] = r.IntN(2) == 0
				if keep[i] {
					part := newBlock()
					one := make([]bool, len(keep))
					one[i] = true
					part.copyTraces(from, one)
					want = append(want, canonical(t, all(part))...)
				}
			}
			to.copyTraces(from, keep)
			whole := newBlock()
			for i := range keep {
				keep[i] = true
			}
			whole.copyTraces(from, keep)
			if got, want := canonical(t, all(whole)), canonical(t, all(from)); !slices.Equal(got, want) {
				t.Fatalf("seed %d: whole copy differs\n got %v\nwant %v", seed, got, want)
			}
		}
		slices.Sort(want)
		if got := canonical(t, all(to)); !slices.Equal(got, want) {
			t.Fatalf("seed %d: got %d spans; want %d, or they differ", seed, len(got), len(want))
		}
	}
}

// BenchmarkSampling is BenchmarkIngest's load with a decision: what the store
// spends on a span of which one trace in ten is kept.
func BenchmarkSampling(b *testing.B) {
	for _, keep := range []string{"1%", "10%", "100%"} {
		b.Run(keep, func(b *testing.B) {
			r := rand.New(rand.NewPCG(1, 2))
			load := newWireLoad(r, 60)
			s, err := Open(Options{Dir: b.TempDir(), Sampling: Sampling{Rules: mustRules(b, "errors: status=error keep=100%; slow: duration>=1s keep=100%; rest: keep="+keep), Window: time.Nanosecond}})
			if err != nil {
				b.Fatal(err)
			}
			defer s.Close()
			spans, n := 0, 0
			start := cpu()
			for b.Loop() {
				t := load.next(r)
				if _, _, err := s.WriteTraces(b.Context(), binnacle.Origin{}, t); err != nil {
					b.Fatal(err)
				}
				spans += t.Spans()
				if n++; n%100 == 0 {
					if err := s.decide(); err != nil {
						b.Fatal(err)
					}
				}
			}
			b.ReportMetric(float64(cpu()-start)/float64(spans)/1e3, "cpu-us/span")
		})
	}
}
