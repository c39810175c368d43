package histsum

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb"
)

// sender is a series that goes on.
type sender struct {
	l      labels.Labels
	counts [12]int64
}

func (s *sender) send(t *testing.T, db *tsdb.DB, r *rand.Rand, at time.Time) {
	t.Helper()
	h := &histogram.Histogram{Schema: 3, PositiveSpans: []histogram.Span{{Offset: 2, Length: uint32(len(s.counts))}}}
	prev := int64(0)
	for i := range s.counts {
		s.counts[i] += r.Int64N(30)
		h.Count += uint64(s.counts[i])
		h.PositiveBuckets = append(h.PositiveBuckets, s.counts[i]-prev)
		prev = s.counts[i]
	}
	h.Sum = float64(h.Count) / 7
	app := db.Appender(t.Context())
	if _, err := app.AppendHistogram(0, s.l, at.UnixMilli(), h, nil); err != nil {
		t.Fatal(err)
	}
	if err := app.Commit(); err != nil {
		t.Fatal(err)
	}
}

// TestRefresh asks for the same panels again and again while samples arrive, in
// time and late, series begin and end, samples are deleted and chunks become
// blocks, and wants the engine's answer, to the bit, each time; and that little
// is computed twice.
func TestRefresh(t *testing.T) {
	plain, ours := newEngines(t)
	o := tsdb.DefaultOptions()
	o.OutOfOrderTimeWindow = time.Hour.Milliseconds()
	db, err := tsdb.Open(t.TempDir(), nil, nil, o, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	r := rand.New(rand.NewPCG(11, 12))
	var senders []*sender
	join := func() {
		n := len(senders)
		senders = append(senders, &sender{l: labels.FromStrings("__name__", "x", "a", fmt.Sprint(n%3), "n", fmt.Sprint(n))})
	}
	for range 6 {
		join()
	}
	now := begin
	pass := func(d time.Duration) {
		for end := now.Add(d); now.Before(end); now = now.Add(10 * time.Second) {
			for _, s := range senders {
				s.send(t, db, r, now)
			}
		}
	}
	pass(40 * time.Minute)
	const step = 15 * time.Second
	refresh := func(what string) {
		t.Helper()
		end := now.Truncate(step)
		for _, expr := range []string{
			`histogram_quantile(0.9, sum by (a) (rate(x[1m])))`,
			`histogram_count(sum(increase(x[5m])))`,
			`histogram_sum(sum by (n) (rate(x[1m])))`,
		} {
			want := ask(t, plain, db, expr, end.Add(-30*time.Minute), end, step)
			taken := ours.taken.Load()
			if got := ask(t, ours, db, expr, end.Add(-30*time.Minute), end, step); got != want {
				t.Fatalf("%s: %s\n got %.3000s\nwant %.3000s", what, expr, got, want)
			}
			if ours.taken.Load() == taken {
				t.Fatalf("%s: %s was left to the engine", what, expr)
			}
		}
	}
	refresh("first")
	for range 20 {
		pass(30 * time.Second)
		refresh("a little later")
	}
	_, reused, computed := ours.Kept()
	if reused < 3*computed {
		t.Errorf("%d steps were taken again and %d computed; want most of them taken again", reused, computed)
	}
	senders[2].counts = [12]int64{} // a restart
	pass(time.Minute)
	refresh("after a restart")
	for i := range 5 { // late samples, each in the middle of what is kept
		late := sender{l: labels.FromStrings("__name__", "x", "a", "0", "n", fmt.Sprint(3*i))}
		late.send(t, db, r, now.Add(-time.Duration(5+4*i)*time.Minute).Add(time.Millisecond))
		refresh("after a late sample")
	}
	join()
	pass(time.Minute)
	refresh("with one more")
	senders = senders[1:]
	pass(2 * time.Minute)
	refresh("without one")
	if err := db.Delete(t.Context(), now.Add(-12*time.Minute).UnixMilli(), now.Add(-11*time.Minute).UnixMilli(), labels.MustNewMatcher(labels.MatchEqual, "n", "4")); err != nil {
		t.Fatal(err)
	}
	refresh("after samples were deleted")
	now = now.Add(20 * time.Minute)
	pass(3 * time.Hour)
	refresh("before compaction")
	if err := db.Compact(t.Context()); err != nil {
		t.Fatal(err)
	}
	if len(db.Blocks()) == 0 {
		t.Fatal("no block was made")
	}
	refresh("after compaction")
	pass(2 * time.Minute)
	refresh("half of it in a block")
}

// TestRefreshWhileWritten asks from several sides while samples arrive. What is
// kept then is held against the engine when all is quiet.
func TestRefreshWhileWritten(t *testing.T) {
	plain, ours := newEngines(t)
	db, err := tsdb.Open(t.TempDir(), nil, nil, tsdb.DefaultOptions(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	r := rand.New(rand.NewPCG(11, 12))
	var senders []*sender
	for n := range 12 {
		senders = append(senders, &sender{l: labels.FromStrings("__name__", "x", "n", fmt.Sprint(n))})
	}
	const expr = `histogram_quantile(0.9, sum by (n) (rate(x[1m])))`
	end := begin.Add(20 * time.Minute)
	done := make(chan struct{})
	var wg sync.WaitGroup
	for range 3 {
		wg.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
					ask(t, ours, db, expr, begin, end, 15*time.Second)
				}
			}
		})
	}
	for now := begin; now.Before(end); now = now.Add(10 * time.Second) {
		for _, s := range senders {
			s.send(t, db, r, now)
		}
	}
	close(done)
	wg.Wait()
	if got, want := ask(t, ours, db, expr, begin, end, 15*time.Second), ask(t, plain, db, expr, begin, end, 15*time.Second); got != want {
		t.Errorf("got %.2000s\nwant %.2000s", got, want)
	}
}

// TestKeptIsBounded checks that results make place for newer ones, by size and
// by age.
func TestKeptIsBounded(t *testing.T) {
	k := newKept(10_000)
	of := func(text string, steps int) *panel {
		return &panel{key: keptKey{text: text}, groups: map[string]*keptGroup{"{}": {make([]uint64, steps), make(numbers, steps)}}}
	}
	has := func(text string) bool { return k.get(keptKey{text: text}).groups != nil }
	k.put(of("a", 100))
	k.put(of("b", 100))
	k.put(of("a", 100)) // in place of the first
	if !has("b") || !has("a") || k.bytes.Load() > 2*(2400+130) {
		t.Errorf("two panels: a %v, b %v, %d bytes", has("a"), has("b"), k.bytes.Load())
	}
	has("b") // b was used last
	k.put(of("c", 250))
	if has("a") || !has("b") || !has("c") {
		t.Errorf("with c: a %v, b %v, c %v; want b and c", has("a"), has("b"), has("c"))
	}
	k.put(of("d", 1000)) // larger than all that is allowed
	if has("d") || k.bytes.Load() > 10_000 {
		t.Errorf("d is kept %v, %d bytes", has("d"), k.bytes.Load())
	}
	k.put(of("e", 1))
	for e := k.order.Front(); e != nil; e = e.Next() {
		e.Value.(*panel).used = time.Now().Add(-keptFor)
	}
	k.put(of("f", 1))
	if has("e") || !has("f") || len(k.byKey) != 1 || k.order.Len() != 1 {
		t.Errorf("long after: e %v, f %v, %d panels", has("e"), has("f"), len(k.byKey))
	}
}
