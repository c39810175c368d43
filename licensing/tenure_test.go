package licensing

import (
	"errors"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// machine is a computer whose clocks a test sets. now is the truth, which
// nobody in the machine sees.
type machine struct {
	now    time.Time
	skew   time.Duration // of the wall clock
	boot   string
	booted time.Time
}

func newMachine() *machine { return &machine{now: testNow, boot: "a", booted: testNow.Add(-time.Hour)} }

func (m *machine) clocks() Clocks {
	return Clocks{Wall: m.now.Add(m.skew), Boot: m.boot, Up: m.now.Sub(m.booted)}
}

func (m *machine) pass(d time.Duration) { m.now = m.now.Add(d) }

// reboot takes the machine off for a time, after which it needs 30 s to come up.
func (m *machine) reboot(off time.Duration) {
	m.pass(off)
	m.boot, m.booted = m.boot+"'", m.now
	m.pass(30 * time.Second)
}

func testLease(life time.Duration) Lease {
	rate := 250.0
	return Lease{ID: "l1", Issued: testNow, Expires: testNow.Add(life), FallbackRate: &rate}
}

// TestClockScenarios wants no clock that anybody can set to end a lease or to
// make it longer.
func TestClockScenarios(t *testing.T) {
	const life = 5 * day
	l := testLease(life)
	for _, tc := range []struct {
		name string
		do   func(m *machine, t Tenure) Tenure
		left time.Duration // afterwards
		fell bool
	}{
		{"1 four days pass", func(m *machine, t Tenure) Tenure {
			m.pass(4 * day)
			return t.At(m.clocks())
		}, day, false},
		{"2 five days pass", func(m *machine, t Tenure) Tenure {
			m.pass(5 * day)
			return t.At(m.clocks())
		}, 0, true},
		{"3 the wall clock is set a year forward while the agent runs", func(m *machine, t Tenure) Tenure {
			m.pass(day)
			m.skew = 365 * day
			return t.At(m.clocks())
		}, 4 * day, false},
		{"4 the wall clock is set a year forward while the agent is stopped", func(m *machine, t Tenure) Tenure {
			t = t.At(m.clocks())
			m.pass(time.Hour)
			m.skew = 365 * day
			return t.At(m.clocks())
		}, life - time.Hour, false},
		{"5 the wall clock is set a year forward while the machine is off", func(m *machine, t Tenure) Tenure {
			m.pass(day)
			t = t.At(m.clocks())
			m.skew = 365 * day
			m.reboot(time.Hour)
			return t.At(m.clocks())
		}, 4*day - 30*time.Second, false},
		{"6 set back each hour, the agent running", func(m *machine, t Tenure) Tenure {
			for range 5 * 24 {
				m.pass(time.Hour)
				m.skew -= time.Hour
				t = t.At(m.clocks())
			}
			return t
		}, 0, true},
		{"7 set back at each restart of the agent", func(m *machine, t Tenure) Tenure {
			for range 10 {
				m.pass(6 * time.Hour)
				t = t.At(m.clocks())
				m.pass(6 * time.Hour) // stopped
				m.skew -= 12 * time.Hour
				t = t.At(m.clocks())
			}
			return t
		}, 0, true},
		{"8 set back by ten years and on again", func(m *machine, t Tenure) Tenure {
			m.pass(day)
			m.skew = -10 * 365 * day
			t = t.At(m.clocks())
			m.pass(day)
			m.skew = 0
			return t.At(m.clocks())
		}, 3 * day, false},
		{"9 the machine is off for three days", func(m *machine, t Tenure) Tenure {
			m.pass(day)
			t = t.At(m.clocks())
			m.reboot(3 * day)
			return t.At(m.clocks())
		}, 4*day - 30*time.Second, false},
		{"10 the machine is off for three days, and the manager's clock confirms it", func(m *machine, t Tenure) Tenure {
			m.pass(day)
			t = t.At(m.clocks())
			m.reboot(3 * day)
			return t.At(m.clocks()).Confirm(l, m.now)
		}, day - 30*time.Second, false},
		{"11 the manager's clock is a year ahead, the machine was off for a day", func(m *machine, t Tenure) Tenure {
			t = t.At(m.clocks())
			m.reboot(day)
			return t.At(m.clocks()).Confirm(l, m.now.Add(365*day))
		}, 4*day - 30*time.Second, false},
		{"12 the machine is off for a month, and the manager's clock confirms it", func(m *machine, t Tenure) Tenure {
			t = t.At(m.clocks())
			m.reboot(30 * day)
			return t.At(m.clocks()).Confirm(l, m.now)
		}, 0, true},
		{"13 the manager's clock is a year ahead, the machine was never off", func(m *machine, t Tenure) Tenure {
			m.pass(day)
			return t.At(m.clocks()).Confirm(l, m.now.Add(365*day))
		}, 4 * day, false},
		{"14 the state moves to a machine that has run for a year", func(m *machine, t Tenure) Tenure {
			m.pass(day)
			t = t.At(m.clocks())
			m.pass(time.Hour)
			m.boot, m.booted = "b", m.now.Add(-365*day)
			return t.At(m.clocks())
		}, 4*day - time.Hour, false},
		{"15 no clock but the process's own, restarted twice", func(m *machine, t Tenure) Tenure {
			for range 2 {
				m.pass(day)
				t = t.At(m.clocks())
				m.boot, m.booted = m.boot+"'", m.now
			}
			m.pass(day)
			return t.At(m.clocks())
		}, 2 * day, false},
		{"16 the machine is suspended for three days: that time counts, too", func(m *machine, t Tenure) Tenure {
			m.pass(day)
			t = t.At(m.clocks())
			m.pass(3 * day) // Up goes on, unlike a process's own clock
			return t.At(m.clocks())
		}, day, false},
		{"17 suspended, and the wall clock is set back to before it", func(m *machine, t Tenure) Tenure {
			m.pass(3 * day)
			m.skew = -3 * day
			return t.At(m.clocks())
		}, 2 * day, false},
	} {
		m := newMachine()
		tenure := tc.do(m, Begin(l, m.clocks(), false))
		got := StandingOf(&l, tenure, m.clocks())
		if got.Left != tc.left || got.Member() == tc.fell {
			t.Errorf("%s: got %s with %v left; want %v left, fallen %v", tc.name, got.State, got.Left, tc.left, tc.fell)
		}
	}
}

func TestStandingOf(t *testing.T) {
	m := newMachine()
	long, short := testLease(5*day), testLease(10*time.Second)
	for _, tc := range []struct {
		name   string
		l      *Lease
		run    time.Duration
		fell   bool
		lease  string
		state  string
		notice int
		next   time.Duration
	}{
		{"new", &long, 0, false, "l1", LeaseValid, 0, 60 * time.Hour},
		{"just before half", &long, 60*time.Hour - 1, false, "l1", LeaseValid, 0, 1},
		{"half gone", &long, 60 * time.Hour, false, "l1", LeaseWarning, 1, 30 * time.Hour},
		{"three quarters gone", &long, 90 * time.Hour, false, "l1", LeaseWarning, 2, 6 * time.Hour},
		{"the last day", &long, 96 * time.Hour, false, "l1", LeaseWarning, 3, day},
		{"the last moment", &long, 5*day - 1, false, "l1", LeaseWarning, 3, 1},
		{"its end", &long, 5 * day, false, "l1", LeaseFallen, 4, 0},
		{"long over", &long, 50 * day, false, "l1", LeaseFallen, 4, 0},
		{"back", &long, 0, true, "l1", LeaseRestored, 0, 10 * time.Minute},
		{"back for long", &long, 10 * time.Minute, true, "l1", LeaseValid, 0, 60*time.Hour - 10*time.Minute},
		{"a short one", &short, 0, false, "l1", LeaseValid, 0, 5 * time.Second},
		{"a short one, back", &short, 0, true, "l1", LeaseRestored, 0, time.Second},
		{"a short one, three quarters gone", &short, 8 * time.Second, false, "l1", LeaseWarning, 2, 2 * time.Second},
		{"no tenure", &long, 0, false, "", LeaseFallen, 4, 0},
		{"the tenure of another lease", &long, 0, false, "l0", LeaseFallen, 4, 0},
		{"no lease", nil, 0, false, "", LeaseNone, 0, 0},
	} {
		tenure := Tenure{Lease: tc.lease, Run: tc.run, Fell: tc.fell, High: m.now, Seen: m.clocks()}
		got := StandingOf(tc.l, tenure, m.clocks())
		if got.State != tc.state || got.Notice != tc.notice || got.Next != tc.next {
			t.Errorf("%s: got %+v; want %s, notice %d, next %v", tc.name, got, tc.state, tc.notice, tc.next)
		}
		if member := got.State != LeaseFallen && got.State != LeaseNone; got.Member() != member || member != (got.Limit == nil) {
			t.Errorf("%s: got member %v, limit %v", tc.name, got.Member(), got.Limit)
		}
	}
	if s := StandingOf(nil, Tenure{}, m.clocks()); s.Limit == nil || *s.Limit != DefaultFallbackRate {
		t.Errorf("without a lease: got %v; want the free limit", s.Limit)
	}
	unlimited := testLease(day)
	unlimited.FallbackRate = nil
	if s := StandingOf(&unlimited, Tenure{}, m.clocks()); s.Limit != nil || s.Member() {
		t.Errorf("a license without a fallback rate: got %+v; want no limit", s)
	}
}

func TestSupersedes(t *testing.T) {
	held := Standing{State: LeaseValid, Left: 3 * day}
	for _, tc := range []struct {
		name  string
		life  time.Duration
		epoch uint64
		held  Standing
		want  error
	}{
		{"a fresh one", 5 * day, 2, held, nil},
		{"of a later epoch", 5 * day, 3, held, nil},
		{"of an earlier epoch", 5 * day, 1, held, ErrOldEpoch},
		{"of an earlier epoch, held none", 5 * day, 1, Standing{State: LeaseNone}, ErrOldEpoch},
		{"a shorter one", 2 * day, 2, held, ErrShorter},
		{"as long, within the difference of clocks", 3*day - time.Minute, 2, held, nil},
		{"a short one after the fall", time.Minute, 2, Standing{State: LeaseFallen}, nil},
		{"a short one, held none", time.Minute, 2, Standing{State: LeaseNone}, nil},
	} {
		l := testLease(tc.life)
		l.Epoch = tc.epoch
		if err := l.Supersedes(tc.held, 2); !errors.Is(err, tc.want) || tc.want == nil && err != nil {
			t.Errorf("%s: got %v; want %v", tc.name, err, tc.want)
		}
	}
}

func TestLeaseState(t *testing.T) {
	f := func(life, after time.Duration, want string) {
		t.Helper()
		if got := LeaseState(testNow, testNow.Add(life), testNow.Add(after)); got != want {
			t.Errorf("LeaseState after %v of %v: got %s; want %s", after, life, got, want)
		}
	}
	f(5*day, 0, LeaseValid)
	f(5*day, 60*time.Hour, LeaseWarning)
	f(5*day, 5*day, LeaseFallen)
	f(10*time.Second, time.Second, LeaseValid)
	f(10*time.Second, 6*time.Second, LeaseWarning)
	if got := LeaseState(time.Time{}, time.Time{}, testNow); got != LeaseNone {
		t.Errorf("LeaseState of no lease: got %s; want %s", got, LeaseNone)
	}
}

// TestNoSequenceGivesMoreOrTakesAway draws sequences of everything that can
// happen to a node and its clocks. Whatever happens: a lease gives no more time
// than its life; it ends no sooner than its life has passed; a member has no
// limit; and without membership the limit is the fallback rate, never less, so
// that no request below it is refused.
func TestNoSequenceGivesMoreOrTakesAway(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := newMachine()
		var l *Lease
		var saved, tenure Tenure
		var taken time.Time      // when the lease was taken, in truth
		var unseen time.Duration // since then that the machine cannot have counted
		var lastSaved time.Time  // in truth
		var deleted bool         // the state was, since then
		span := rapid.Int64Range(0, int64(3*day))
		draw := func(what string) time.Duration { return time.Duration(span.Draw(t, what)) }
		check := func() {
			s := StandingOf(l, tenure, m.clocks())
			switch {
			case s.Member() && s.Limit != nil:
				t.Fatalf("a member is limited to %v", *s.Limit)
			case !s.Member() && l == nil && *s.Limit != DefaultFallbackRate:
				t.Fatalf("without a lease the limit is %v", *s.Limit)
			case !s.Member() && l != nil && s.Limit != l.FallbackRate:
				t.Fatal("after the fall another limit than the lease's applies")
			}
			if l == nil {
				return
			}
			gone := m.now.Sub(taken)
			if s.Member() && gone-unseen >= l.Life() {
				t.Fatalf("a member %v after a lease of %v was taken, of which %v were uncounted", gone, l.Life(), unseen)
			}
			if !s.Member() && !deleted && gone < l.Life() {
				t.Fatalf("fell %v after a lease of %v was taken", gone, l.Life())
			}
		}
		save := func() { tenure = tenure.At(m.clocks()); saved, lastSaved = tenure, m.now }
		start := func() { tenure = saved; save() } // as each start of an agent does
		t.Repeat(map[string]func(*rapid.T){
			"time passes": func(t *rapid.T) {
				m.pass(draw("for"))
				tenure = tenure.At(m.clocks())
			},
			"the wall clock is set": func(t *rapid.T) {
				m.skew = time.Duration(rapid.Int64Range(-int64(2*365*day), int64(2*365*day)).Draw(t, "to"))
			},
			"the agent restarts": func(t *rapid.T) {
				save()
				m.pass(draw("stopped for"))
				start()
			},
			"the agent crashes": func(t *rapid.T) {
				m.pass(draw("after"))
				start() // what was counted since is lost, but the machine's clock knows
			},
			"the machine restarts": func(t *rapid.T) {
				save()
				m.skew += time.Duration(rapid.Int64Range(0, int64(365*day)).Draw(t, "set forward"))
				before := m.now
				m.reboot(draw("off for"))
				start()
				unseen += m.now.Sub(before)
			},
			"the machine fails": func(t *rapid.T) {
				before := lastSaved
				m.reboot(draw("off for"))
				start()
				unseen += m.now.Sub(before)
			},
			"a lease is taken": func(t *rapid.T) {
				next := testLease(time.Duration(rapid.Int64Range(int64(time.Second), int64(10*day)).Draw(t, "life")))
				next.ID = rapid.StringMatching(`[a-z]{8}`).Draw(t, "id")
				next.Issued, next.Expires = m.now, m.now.Add(next.Life())
				held := StandingOf(l, tenure, m.clocks())
				if next.Supersedes(held, 0) != nil {
					return
				}
				l, taken, unseen, deleted = &next, m.now, 0, false
				tenure = Begin(next, m.clocks(), !held.Member())
				save()
			},
			"the manager's clock is heard": func(t *rapid.T) {
				if l != nil {
					tenure = tenure.Confirm(*l, m.now)
				}
			},
			"the state is deleted": func(t *rapid.T) {
				tenure, saved, deleted = Tenure{}, Tenure{}, true
			},
			"": func(*rapid.T) { check() },
		})
	})
}
