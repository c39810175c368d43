package agent

import (
	"math/rand/v2"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/binnacle-project/binnacle"
	"github.com/binnacle-project/binnacle/api"
)

func TestJudgePlan(t *testing.T) {
	f := func(held *api.Plan, epoch, serial uint64, want verdict) {
		t.Helper()
		if got := judgePlan(held, api.Plan{Epoch: epoch, Serial: serial}); got != want {
			t.Errorf("judgePlan(%+v, %d.%d): got %v; want %v", held, epoch, serial, got, want)
		}
	}
	f(nil, 1, 0, planNew)
	held := &api.Plan{Epoch: 2, Serial: 7}
	f(held, 2, 7, planSame)
	f(held, 2, 8, planNew)
	f(held, 2, 6, planOlder)
	f(held, 1, 900, planOlder)
	f(held, 3, 1, planNew) // restored from a backup
}

func TestKillsWorker(t *testing.T) {
	t0 := time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)
	f := func(name string, want bool, crashes ...time.Duration) {
		t.Helper()
		var at []time.Time
		for _, c := range crashes {
			at = append(at, t0.Add(c))
		}
		if got := killsWorker(at, t0, at[len(at)-1]); got != want {
			t.Errorf("%s: killsWorker(%v after the apply): got %v; want %v", name, crashes, got, want)
		}
	}
	f("one crash at once", false, time.Second)
	f("two within a minute of the apply", true, time.Second, 59*time.Second)
	f("the second later", false, time.Second, 61*time.Second)
	f("two much later", false, time.Hour, time.Hour+time.Second)
	f("three in ten minutes", true, time.Hour, time.Hour+5*time.Minute, time.Hour+10*time.Minute)
	f("three in eleven", false, time.Hour, time.Hour+5*time.Minute, time.Hour+11*time.Minute)
}

func TestRestartDelay(t *testing.T) {
	now := time.Now()
	var crashes []time.Time
	var got []time.Duration
	for range 8 {
		crashes = append(crashes, now)
		got = append(got, restartDelay(crashes, now))
	}
	ms := time.Millisecond
	want := []time.Duration{0, 500 * ms, time.Second, 2 * time.Second, 4 * time.Second, 8 * time.Second, 10 * time.Second, 10 * time.Second}
	if !slices.Equal(got, want) {
		t.Errorf("delays: got %v; want %v", got, want)
	}
	if d := restartDelay(crashes, now.Add(time.Hour)); d != 0 {
		t.Errorf("an hour later: got %v; want 0", d)
	}
}

func TestRetryDelayStaysWithinBounds(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(0, 1000).Draw(t, "n")
		phase := time.Duration(rapid.Int64Range(0, int64(time.Hour)).Draw(t, "phase"))
		rnd := rapid.Float64Range(0, 0.999).Draw(t, "rnd")
		d := retryDelay(n, phase, rnd)
		if d < retryBase/2 || d > 2*retryCap {
			t.Fatalf("retryDelay(%d, %v, %v): got %v", n, phase, rnd, d)
		}
	})
}

// TestRetriesAreSpread has a thousand nodes lose a manager in one moment.
func TestRetriesAreSpread(t *testing.T) {
	perSecond := map[time.Duration]int{}
	for i := range 1000 {
		phase := time.Duration(i) * 30 * time.Second / 1000
		perSecond[retryDelay(0, phase, float64(i%7)/7).Truncate(time.Second)]++
	}
	for second, n := range perSecond {
		if n > 150 {
			t.Errorf("%d of 1000 nodes come back in second %v; want at most 150", n, second)
		}
	}
}

// TestReturnAfterOutage has ten thousand nodes try on for ten minutes. When the
// manager is back they come, and poll on, at no more than three times the rate
// of polls at rest.
func TestReturnAfterOutage(t *testing.T) {
	const nodes, outage = 10_000, 10 * time.Minute
	rnd := rand.New(rand.NewPCG(7, 7))
	perSecond := map[time.Duration]int{}
	back := time.Duration(0)
	for i := range nodes {
		phase := time.Duration(i) * pollWait / nodes
		at := time.Duration(0)
		for n := 0; at < outage; n++ {
			at += retryDelay(n, phase, rnd.Float64())
		}
		back = max(back, at-outage)
		for ; at < outage+4*pollWait; at += pollWait { // each poll is answered 304
			perSecond[(at-outage).Truncate(time.Second)]++
		}
	}
	peak := 0
	for _, n := range perSecond {
		peak = max(peak, n)
	}
	rest := float64(nodes) / pollWait.Seconds()
	t.Logf("all are back after %v; at most %d come in a second, %.2f times the %.0f of polls at rest", back, peak, float64(peak)/rest, rest)
	if float64(peak) > 3*rest {
		t.Errorf("%d polls in one second; want at most 3 times %.0f", peak, rest)
	}
}

func TestServedNeedsAnUnbrokenRow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var s served
		for i := range 25 {
			ok := i != 5
			want := i == 16 || i > 16 // ten seconds after the probe at 6
			if got := s.probe(ok, time.Now(), 10*time.Second); got != want {
				t.Errorf("probe %d: got %v; want %v", i, got, want)
			}
			time.Sleep(time.Second)
		}
	})
}

func TestLedger(t *testing.T) {
	ref := func(n binnacle.Revision) api.RevisionRef {
		return api.RevisionRef{Number: n, SHA256: hashOf([]byte{byte(n)})}
	}
	own := api.RevisionRef{SHA256: hashOf(nil)}
	order := func(l *ledger) []binnacle.Revision {
		var ns []binnacle.Revision
		for _, r := range l.bootOrder() {
			ns = append(ns, r.Number)
		}
		return ns
	}
	now := time.Now()
	l := new(ledger)
	f := func(what string, want ...binnacle.Revision) {
		t.Helper()
		if got := order(l); !slices.Equal(got, want) {
			t.Errorf("%s: boot order %v; want %v", what, got, want)
		}
	}
	f("new node", 0)
	l.good(own, now)
	f("its own file served", 0)
	l.good(ref(1), now)
	f("revision 1 served", 1, 0)
	l.good(ref(2), now)
	f("revision 2 served", 2, 1, 0)
	l.good(ref(3), now)
	f("two are kept", 3, 2, 0)
	if l.good(ref(3), now) {
		t.Error("revision 3 again: got news")
	}
	l.strike(ref(3))
	f("revision 3 crashed", 2, 0)
	l.good(ref(3), now)
	l.good(ref(2), now)
	f("rolled back", 2, 3, 0)
	l.good(own, now)
	f("back to the own file", 0)
}

func TestKillsNode(t *testing.T) {
	ref := api.RevisionRef{Number: 2, SHA256: hashOf([]byte("two"))}
	p := api.Plan{Epoch: 1, Serial: 5}
	l := new(ledger)
	f := func(what string, want bool) {
		t.Helper()
		if got := l.killsNode(ref, p); got != want {
			t.Errorf("%s: killsNode got %v; want %v", what, got, want)
		}
	}
	f("never started", false)
	l.start(ref, p)
	f("started once", false)
	l.start(ref, p)
	f("started twice without a clean stop between", true)
	p.Serial++
	f("a new plan", false)
	l.start(ref, p)
	f("started once under it", false)
	l.start(ref, p)
	l.good(ref, time.Now())
	f("served", false)
}
