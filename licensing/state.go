package licensing

import "time"

// The states of a license.
const (
	StateValid   = "valid"
	StateWarning = "warning" // it ends soon
	StateExpired = "expired" // leases go on to the end of the grace
	StateMissing = "missing"
)

// warnAhead is how long before its end a license is in warning; a short one
// from the middle of its life.
const warnAhead = 30 * 24 * time.Hour

// State returns the state of a license at time t; l may be nil.
func State(l *License, t time.Time) string {
	switch {
	case l == nil:
		return StateMissing
	case l.Expires.IsZero():
		return StateValid
	case !t.Before(l.Expires):
		return StateExpired
	}
	left := l.Expires.Sub(t)
	if life := l.Expires.Sub(l.begin()); left <= warnAhead && left <= life/2 {
		return StateWarning
	}
	return StateValid
}

// begin returns when the license's life began.
func (l *License) begin() time.Time {
	if l.NotBefore.After(l.Issued) {
		return l.NotBefore
	}
	return l.Issued
}

// End returns when the license gives no leases any more: its expiry and the
// grace. It is zero for one that does not end.
func (l *License) End() time.Time {
	if l.Expires.IsZero() {
		return time.Time{}
	}
	return l.Expires.Add(l.Grace)
}

// gives reports whether leases are given under l at time t.
func (l *License) gives(t time.Time) bool {
	return l != nil && (l.Expires.IsZero() || t.Before(l.End()))
}

// notices are how many days ahead of the end an event tells of it; 0 is the
// end itself.
var notices = []int{90, 30, 7, 1, 0}

// noticeDue returns the latest notice that is due at time t, when told was the
// last one given (or firstNotice). Notices that a license was too short for
// are passed over.
func noticeDue(l *License, told int, t time.Time) (days int, due bool) {
	if l == nil || l.Expires.IsZero() {
		return 0, false
	}
	left, life := l.Expires.Sub(t), l.Expires.Sub(l.begin())
	for i := len(notices) - 1; i >= 0; i-- {
		ahead := time.Duration(notices[i]) * 24 * time.Hour
		if left <= ahead && (ahead < life || notices[i] == 0) {
			return notices[i], notices[i] < told
		}
	}
	return 0, false
}

// firstNotice is before all notices.
const firstNotice = 1 << 30

// leaseExpiry returns when a lease that is given at time t ends; ok is false
// when none can be given.
//
// Source: DESIGN "Lease": min(now + lease_life, license expiry + license_grace).
func leaseExpiry(l *License, life time.Duration, t time.Time) (end time.Time, ok bool) {
	if !l.gives(t) {
		return time.Time{}, false
	}
	end = t.Add(life)
	if last := l.End(); !last.IsZero() && last.Before(end) {
		end = last
	}
	end = end.Truncate(time.Second)
	return end, end.After(t)
}

// leaseDue reports whether at time t a node whose lease ends at held should get
// one that ends at end: it holds none, it gains a tenth of a lease's life, or a
// tenth is gone and it gains what the license has left. So the last lease of a
// license lasts to the license's end, is given once, and to each node at its own
// time.
func leaseDue(held, end, t time.Time, life time.Duration) bool {
	return held.IsZero() || end.Sub(held) >= life/10 || end.After(held) && !t.Before(renewAt(held, life))
}

// renewAt is when a tenth of a lease's life is gone that ends at held.
func renewAt(held time.Time, life time.Duration) time.Time { return held.Add(life/10 - life) }
