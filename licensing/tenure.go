package licensing

import (
	"errors"
	"fmt"
	"time"
)

// The states of a node by its lease.
const (
	// LeaseNone: the node never had a lease, or its state was deleted.
	LeaseNone = "none"
	// LeaseValid: a full member.
	LeaseValid = "valid"
	// LeaseWarning: a full member, and half of the lease's life is gone or its
	// last 24 hours run: no manager has renewed it for long.
	LeaseWarning = "warning"
	// LeaseFallen: the lease has ended. The node serves under its fallback rate
	// and goes on asking.
	LeaseFallen = "fallen"
	// LeaseRestored: a full member again, a short time after a fall.
	LeaseRestored = "restored"
)

// Clocks is what the clocks of a machine show at one moment. They are trusted
// differently: the wall clock is anybody's to set, the time since the machine
// started is nobody's.
type Clocks struct {
	Wall time.Time `json:"wall"`
	// Boot names this start of the machine; Up is the time since, in
	// nanoseconds, suspended time included. Up compares only under one Boot.
	Boot string        `json:"boot"`
	Up   time.Duration `json:"up_ns"`
}

// Tenure is what a node remembers of its lease over restarts: how much of the
// lease's life has passed. It is a value; its methods return the next one.
//
// A lease's life is counted, not compared with the wall clock. A lease is worth
// Expires-Issued from the moment it is taken, and only time that can be proved
// takes from that: time that this machine counted, also while the agent was
// stopped. Time that the wall clock alone claims (the machine was off, or
// somebody set its clock) is kept as Doubt until a manager's clock confirms it,
// so that two clocks must agree. A wall clock set forward alone therefore never
// ends a lease, and one set back gives nothing.
type Tenure struct {
	// Lease is the id of the lease that it counts for.
	Lease string `json:"lease"`
	// Run is the time that has passed since the lease was taken.
	Run time.Duration `json:"run_ns"`
	// Doubt is time that the wall clock alone says has passed.
	Doubt time.Duration `json:"doubt_ns,omitempty"`
	// High is the wall clock's high-water mark, Seen the last reading.
	High time.Time `json:"high"`
	Seen Clocks    `json:"seen"`
	// Fell is true when the lease before this one had ended.
	Fell bool `json:"fell,omitempty"`
}

// Begin returns the tenure of a lease that is taken at c.
func Begin(l Lease, c Clocks, fell bool) Tenure {
	return Tenure{Lease: l.ID, High: c.Wall, Seen: c, Fell: fell}
}

// maxGap bounds one stretch of time, so that sums of them cannot overflow.
const maxGap = 10 * 365 * 24 * time.Hour

// At returns the tenure when the clocks show c.
func (t Tenure) At(c Clocks) Tenure {
	proved, claimed := passed(t.Seen, t.High, c)
	t.Run = min(t.Run+proved, maxGap)
	t.Doubt = min(t.Doubt+claimed, maxGap)
	if c.Wall.After(t.High) {
		t.High = c.Wall
	}
	t.Seen = c
	return t
}

// passed returns how much time has passed since the clocks showed seen, with
// the wall clock never above high: what is proved, and what the wall clock
// claims beyond that.
func passed(seen Clocks, high time.Time, c Clocks) (proved, claimed time.Duration) {
	if c.Boot == seen.Boot && c.Up >= seen.Up {
		return min(c.Up-seen.Up, maxGap), 0
	}
	gap := min(max(c.Wall.Sub(high), 0), maxGap)
	// The machine was started since: it has run for Up at least, unless this is
	// another machine, which the wall clock would tell.
	proved = min(max(c.Up, 0), gap)
	return proved, gap - proved
}

// Confirm takes the word of the manager's clock, which came with an answer that
// it proved itself by. It turns doubt into time that has passed, and never
// more: a manager's clock alone ends no lease either.
func (t Tenure) Confirm(l Lease, manager time.Time) Tenure {
	if manager.IsZero() || t.Doubt == 0 {
		return t
	}
	if missing := manager.Sub(l.Issued) - t.Run; missing > 0 {
		t.Run += min(missing, t.Doubt)
	}
	t.Doubt = 0
	return t
}

// Standing is what a node may do by its lease at one moment.
type Standing struct {
	// State is one of the Lease constants.
	State string
	// Left is what is left of the lease's life, 0 once it has ended.
	Left time.Duration
	// Notice rises while a lease that is not renewed runs out: 1 at half of its
	// life, 2 at three quarters, 3 in its last 24 hours, 4 at its end.
	Notice int
	// Next is the time until something of this changes; 0 is never.
	Next time.Duration
	// Limit is the fallback rate that applies, in requests per second; nil is
	// no limit.
	Limit *float64
}

// Member reports whether the node is a full member: gossip, remote
// configuration, no limit.
func (s Standing) Member() bool {
	return s.State != LeaseNone && s.State != LeaseFallen
}

const (
	// lastDay is how long before the end of a lease the last warning begins.
	lastDay = 24 * time.Hour
	// restoredFor is how long a return from a fall is shown, or a tenth of the
	// lease's life if that is less.
	restoredFor = 10 * time.Minute
)

// StandingOf decides what a node with lease l and tenure t may do when the
// clocks show c. l is nil without a lease. A lease without its tenure has
// ended: nothing proves that any of it is left. Nothing else decides, and
// nothing of it ever refuses a request below the fallback rate.
func StandingOf(l *Lease, t Tenure, c Clocks) Standing {
	if l == nil {
		rate := DefaultFallbackRate
		return Standing{State: LeaseNone, Limit: &rate}
	}
	life := l.Life()
	run := t.At(c).Run
	if t.Lease != l.ID || run >= life {
		return Standing{State: LeaseFallen, Notice: 4, Limit: l.FallbackRate}
	}
	left := life - run
	s := Standing{State: LeaseValid, Left: left, Next: left}
	back := min(restoredFor, life/10)
	if t.Fell && run < back {
		s.State = LeaseRestored
		s.Next = min(s.Next, back-run)
	}
	for i, at := range warnings(life) {
		switch {
		case at <= 0: // it never was longer
		case run >= at:
			s.State, s.Notice = LeaseWarning, max(s.Notice, i+1)
		default:
			s.Next = min(s.Next, at-run)
		}
	}
	return s
}

// warnings returns after which time of a lease's life each notice comes.
func warnings(life time.Duration) [3]time.Duration {
	return [3]time.Duration{life / 2, life - life/4, life - lastDay}
}

// firstWarning returns after which time of a lease's life its holder warns.
func firstWarning(life time.Duration) time.Duration {
	first := life
	for _, at := range warnings(life) {
		if at > 0 {
			first = min(first, at)
		}
	}
	return first
}

// Life is what the lease is worth from the moment it is taken.
func (l Lease) Life() time.Duration { return l.Expires.Sub(l.Issued) }

// Why an offered lease does not replace the one held.
var (
	// ErrOldEpoch: control state was restored since it was given.
	ErrOldEpoch = errors.New("it is of an earlier epoch")
	// ErrShorter: it ends before the one held, which is honored to its end.
	ErrShorter = errors.New("it ends sooner than the one held")
)

// shorterBy is how much sooner an offered lease may end: the clocks of node and
// manager do not run alike, and ends are whole seconds.
const shorterBy = time.Minute

// Supersedes says whether an offered lease, verified, replaces the one that a
// node holds with the given standing: nil, or why not. epoch is the newest that
// the node knows. A held lease is honored in later epochs, but no lease of an
// earlier epoch is taken any more: it comes from a manager that is behind.
func (l Lease) Supersedes(held Standing, epoch uint64) error {
	if l.Epoch < epoch {
		return fmt.Errorf("the lease is not taken: %w: %d, and the cluster is at %d", ErrOldEpoch, l.Epoch, epoch)
	}
	if held.Member() && l.Life() < held.Left-min(shorterBy, held.Left/10) {
		return fmt.Errorf("the lease is not taken: %w, which has %v left: the one held is honored to its end", ErrShorter, held.Left.Round(time.Second))
	}
	return nil
}

// LeaseState is the state of a lease by the clock that gave it, for lists: the
// node's own account is exact. The zero end is that of a node without one.
func LeaseState(issued, expires, now time.Time) string {
	switch {
	case expires.IsZero():
		return LeaseNone
	case !now.Before(expires):
		return LeaseFallen
	case now.Sub(issued) >= firstWarning(expires.Sub(issued)):
		return LeaseWarning
	}
	return LeaseValid
}
