package rollout

import (
	"strings"
	"testing"
	"time"

	"github.com/binnacle-project/binnacle"
	"github.com/binnacle-project/binnacle/api"
)

func TestNext(t *testing.T) {
	type ids = []binnacle.NodeID
	type away = map[binnacle.NodeID]bool
	refused := map[binnacle.NodeID]string{"b": "no such plugin", "c": "x"}
	for _, tc := range []struct {
		name   string
		view   view
		want   api.RolloutState
		reason string
	}{
		{"no node", view{}, api.RolloutCompleted, ""},
		{"nobody yet", view{Pending: ids{"a", "b"}}, api.RolloutRunning, ""},
		{"some", view{Confirmed: 1, Pending: ids{"b"}}, api.RolloutRunning, ""},
		{"all", view{Confirmed: 2}, api.RolloutCompleted, ""},
		{"a refusal waits for the others", view{Confirmed: 1, Refused: refused, Pending: ids{"d"}}, api.RolloutRunning, ""},
		{"refusals", view{Confirmed: 1, Refused: refused}, api.RolloutFailed, "2 of 3 nodes refused, the first, b: no such plugin"},
		{"one away", view{Confirmed: 1, Pending: ids{"d"}, Away: away{"d": true}}, api.RolloutCompleted, "1 of the nodes"},
		{"not away for long", view{Confirmed: 1, Pending: ids{"d"}, Away: away{"d": false}}, api.RolloutRunning, ""},
		{"refused and away", view{Refused: refused, Pending: ids{"d"}, Away: away{"d": true}}, api.RolloutFailed, "2 of 3 nodes refused"},
		{"all away", view{Pending: ids{"d"}, Away: away{"d": true}}, api.RolloutRunning, "1 of the nodes"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got := next(tc.view)
			if got.State != tc.want || !strings.Contains(got.Reason, tc.reason) || tc.reason == "" && got.Reason != "" {
				t.Errorf("next: got %+v; want %s, %q", got, tc.want, tc.reason)
			}
		})
	}
}

func TestAnswerOf(t *testing.T) {
	at := time.Unix(1000, 0)
	entry := func(sha, err string) *api.LedgerEntry {
		return &api.LedgerEntry{RevisionRef: api.RevisionRef{SHA256: sha}, Time: at, Error: err}
	}
	f := func(attempted, applied *api.LedgerEntry, stale time.Time, want answer) {
		t.Helper()
		if got := answerOf("new", attempted, applied, stale); got != want {
			t.Errorf("answerOf(%+v, %+v): got %d; want %d", attempted, applied, got, want)
		}
	}
	never := time.Time{}
	f(nil, nil, never, pending)
	f(nil, entry("old", ""), never, pending)
	f(entry("new", ""), entry("old", ""), never, pending) // under way
	f(entry("new", ""), entry("new", ""), never, confirmed)
	f(entry("new", "bad"), entry("old", ""), never, refused)
	f(entry("new", "bad"), entry("old", ""), at, pending) // that was before
	f(entry("new", "bad"), entry("old", ""), at.Add(-time.Second), refused)
	f(entry("other", "bad"), entry("old", ""), never, pending)
	f(entry("other", "bad"), entry("new", ""), never, confirmed)
}

func TestRollbackTarget(t *testing.T) {
	done := func(from, to binnacle.Revision) past { return past{From: from, To: to, Completed: true} }
	back := func(from, to binnacle.Revision) past {
		return past{From: from, To: to, Completed: true, Rollback: true}
	}
	failed := func(from, to binnacle.Revision) past { return past{From: from, To: to} }
	f := func(desired, want binnacle.Revision, history ...past) {
		t.Helper()
		if got := rollbackTarget(history, desired); got != want {
			t.Errorf("rollbackTarget(%v, %d): got %d; want %d", history, desired, got, want)
		}
	}
	f(0, 0)
	f(1, 0, done(0, 1))
	f(2, 1, done(0, 1), done(1, 2))
	f(2, 1, done(0, 1), failed(1, 2))
	f(3, 1, done(0, 1), failed(1, 2), done(2, 3))
	f(1, 0, done(0, 1), done(1, 2), back(2, 1))             // 2 was rolled back: not forward again
	f(2, 1, done(0, 1), done(1, 2), done(2, 3), back(3, 2)) // further back
	f(1, 0, done(0, 1), done(1, 2), done(2, 3), back(3, 2), back(2, 1))
	f(3, 2, done(0, 1), done(1, 2), back(2, 1), done(1, 2), done(2, 3)) // 2 was tried again and held
}
