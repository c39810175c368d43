package licensing

import (
	"testing"
	"time"
)

// TestLeaseDueIn walks the cases in which a lease is due besides the plain one.
func TestLeaseDueIn(t *testing.T) {
	const life = 5 * day
	k := &Keeper{o: KeeperOptions{LeaseLife: life}}
	now := testNow
	lic := &License{ID: "lic-2"}
	f := &inForce{license: lic, installed: now.Add(-30 * day)}
	fresh := now.Add(life - time.Hour)
	given := func(license string, expires, before time.Time, ago time.Duration) *givenLease {
		return &givenLease{license: license, issued: expires.Add(-life), expires: expires, before: before, at: now.Add(-ago)}
	}
	for _, tc := range []struct {
		name  string
		f     *inForce
		given *givenLease
		held  time.Time
		due   bool
	}{
		{"none held", f, nil, time.Time{}, true},
		{"fresh", f, given("lic-2", fresh, time.Time{}, time.Hour), fresh, false},
		{"fresh, the manager restarted", f, nil, fresh, false},
		{"fresh, under another license", f, given("lic-1", fresh, time.Time{}, time.Hour), fresh, true},
		{"fresh, the manager restarted and has another license since", &inForce{license: lic, installed: now.Add(-time.Minute)}, nil, fresh, true},
		{"a tenth gone", f, nil, now.Add(life - life/10), true},
		{"given a moment ago, the answer was lost", f, given("lic-2", fresh, time.Time{}, time.Second), time.Time{}, false},
		{"given some time ago, the answer was lost", f, given("lic-2", fresh, time.Time{}, again), time.Time{}, true},
		{"ends years ahead, by a clock that was wrong", f, nil, now.Add(1000 * day), true},
		{"ends years ahead, and the node keeps it", f, given("lic-2", fresh, now.Add(1000*day), time.Hour), now.Add(1000 * day), false},
		{"no license", &inForce{}, nil, time.Time{}, false},
		{"the license and its grace are over", &inForce{license: &License{Claims: Claims{Expires: now.Add(-2 * day), Grace: day}}}, nil, time.Time{}, false},
	} {
		var g givenLease
		if tc.given != nil {
			g = *tc.given
		}
		if got := k.dueIn(tc.f, g, tc.given != nil, tc.held, now); (got == 0) != tc.due {
			t.Errorf("%s: due in %v; want due %v", tc.name, got, tc.due)
		}
	}
}

// TestALeaseIsHonoredToItsEnd: a license that ends sooner comes into force, and
// what nodes hold is not cut short.
func TestALeaseIsHonoredToItsEnd(t *testing.T) {
	r := newRig(t)
	issuer := r.issuerOf(t)
	k := r.open(t)
	now := time.Now()
	if err := k.Install(t.Context(), issue(t, issuer, Claims{}), "admin"); err != nil {
		t.Fatal(err)
	}
	_, first, _, err := k.Lease("n1", "fp", time.Time{}, now)
	if err != nil {
		t.Fatal(err)
	}
	if err := k.Install(t.Context(), issue(t, issuer, Claims{Expires: now.Add(day), Features: []string{"new"}}), "admin"); err != nil {
		t.Fatal(err)
	}
	_, second, due, err := k.Lease("n1", "fp", first.Expires, now.Add(time.Minute))
	if err != nil || !due || !second.Expires.Equal(first.Expires) {
		t.Errorf("after a shorter license: got %+v, due %v, %v; want one that ends at %v, too", second, due, err, first.Expires)
	}
	if _, other, _, _ := k.Lease("n2", "fp", time.Time{}, now); other.Expires.After(now.Add(day)) {
		t.Errorf("a node that held none: got %v; want no more than the license's day", other.Expires)
	}
}
