package licensing

import (
	"testing"
	"time"
)

const day = 24 * time.Hour

func TestState(t *testing.T) {
	year := &License{Issued: testNow, Claims: Claims{Expires: testNow.Add(365 * day), Grace: 14 * day}}
	week := &License{Issued: testNow, Claims: Claims{Expires: testNow.Add(7 * day)}}
	for _, tc := range []struct {
		name  string
		l     *License
		after time.Duration
		want  string
	}{
		{"none", nil, 0, StateMissing},
		{"without end", &License{}, 100 * 365 * day, StateValid},
		{"new", year, 0, StateValid},
		{"31 days left", year, 334 * day, StateValid},
		{"30 days left", year, 335 * day, StateWarning},
		{"last moment", year, 365*day - 1, StateWarning},
		{"at its end", year, 365 * day, StateExpired},
		{"in its grace", year, 370 * day, StateExpired},
		{"a week, new", week, 0, StateValid},
		{"a week, half gone", week, 84 * time.Hour, StateWarning},
	} {
		if got := State(tc.l, testNow.Add(tc.after)); got != tc.want {
			t.Errorf("%s: got %s; want %s", tc.name, got, tc.want)
		}
	}
}

func TestNoticeDue(t *testing.T) {
	year := &License{Issued: testNow, Claims: Claims{Expires: testNow.Add(365 * day)}}
	short := &License{Issued: testNow, Claims: Claims{Expires: testNow.Add(10 * day)}}
	for _, tc := range []struct {
		name  string
		l     *License
		told  int
		after time.Duration
		days  int
		due   bool
	}{
		{"new", year, firstNotice, 0, 0, false},
		{"90 days ahead", year, firstNotice, 275 * day, 90, true},
		{"told", year, 90, 275*day + time.Hour, 90, false},
		{"30 days ahead", year, 90, 335 * day, 30, true},
		{"down for long: the latest only", year, firstNotice, 364 * day, 1, true},
		{"at the end", year, 1, 365 * day, 0, true},
		{"told of the end", year, 0, 366 * day, 0, false},
		{"a short one is not told what it never had", short, firstNotice, day, 0, false},
		{"a short one, 7 days ahead", short, firstNotice, 3 * day, 7, true},
		{"none", nil, firstNotice, 0, 0, false},
		{"without end", &License{}, firstNotice, 0, 0, false},
	} {
		days, due := noticeDue(tc.l, tc.told, testNow.Add(tc.after))
		if due != tc.due || due && days != tc.days {
			t.Errorf("%s: got %d, %v; want %d, %v", tc.name, days, due, tc.days, tc.due)
		}
	}
}

func TestLeaseExpiryAndDue(t *testing.T) {
	const life = 5 * day
	open := &License{}
	ends := func(in, grace time.Duration) *License {
		return &License{Claims: Claims{Expires: testNow.Add(in), Grace: grace}}
	}
	for _, tc := range []struct {
		name string
		l    *License
		held time.Duration // from now; 0 is none
		end  time.Duration
		ok   bool
		due  bool
	}{
		{"first lease", open, 0, life, true, true},
		{"just renewed", open, life - time.Minute, life, true, false},
		{"nearly a tenth gone", open, life - life/10 + time.Second, life, true, false},
		{"a tenth gone", open, life - life/10, life, true, true},
		{"long over", open, -day, life, true, true},
		{"cut short by the license", ends(day, day), 0, 2 * day, true, true},
		{"cut short again: nothing to gain", ends(day, day), 2 * day, 2 * day, true, false},
		{"cut short, and a tenth is not gone", ends(4*day, day-time.Hour), life - 2*time.Hour, 5*day - time.Hour, true, false},
		{"cut short, and a tenth is gone: the last one", ends(4*day, 15*time.Hour), life - life/10, 4*day + 15*time.Hour, true, true},
		{"license over, grace runs", ends(-day, 3*day), 0, 2 * day, true, true},
		{"license and grace over", ends(-day, day), 0, 0, false, false},
		{"no license", nil, 0, 0, false, false},
		{"held beyond what is given now", ends(day, 0), 4 * day, day, true, false},
	} {
		end, ok := leaseExpiry(tc.l, life, testNow)
		if ok != tc.ok || ok && !end.Equal(testNow.Add(tc.end)) {
			t.Errorf("%s: expiry: got %v, %v; want %v, %v", tc.name, end, ok, testNow.Add(tc.end), tc.ok)
			continue
		}
		var held time.Time
		if tc.held != 0 {
			held = testNow.Add(tc.held)
		}
		if got := ok && leaseDue(held, end, testNow, life); got != tc.due {
			t.Errorf("%s: due: got %v; want %v", tc.name, got, tc.due)
		}
	}
}
