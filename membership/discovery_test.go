package membership

import (
	"encoding/json"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/binnacle-project/binnacle"
	"github.com/binnacle-project/binnacle/api"
	"github.com/binnacle-project/binnacle/state/statetest"
)

func TestServesRight(t *testing.T) {
	now := time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)
	ago := func(d time.Duration) time.Time { return now.Add(-d) }
	entry := func(n binnacle.Revision, at time.Time, err string) *api.LedgerEntry {
		return &api.LedgerEntry{RevisionRef: api.RevisionRef{Number: n, SHA256: string('a' + rune(n))}, Time: at, Error: err}
	}
	old := api.Node{State: api.Alive, Enrolled: ago(24 * time.Hour), StateSince: ago(24 * time.Hour)}
	back := api.Node{State: api.Alive, Enrolled: ago(24 * time.Hour), StateSince: ago(5 * time.Second)}
	fresh := api.Node{State: api.Alive, Enrolled: ago(time.Second), StateSince: ago(time.Second)}
	freshLong := api.Node{State: api.Alive, Enrolled: ago(time.Hour), StateSince: ago(time.Hour)}
	wanted := entry(3, ago(time.Minute), "")
	long := entry(3, ago(12*time.Hour), "")
	tests := []struct {
		name   string
		node   api.Node
		ledger *api.Ledger
		want   bool
	}{
		{"no ledger", old, nil, true},
		{"nothing wanted", fresh, &api.Ledger{}, true},
		{"its own file wanted", fresh, &api.Ledger{Desired: entry(0, now, "")}, true},
		{"confirmed", old, &api.Ledger{Desired: wanted, Applied: entry(3, now, "")}, true},
		{"in the middle of a rollout", old, &api.Ledger{Desired: wanted, Applied: entry(2, ago(time.Hour), "")}, true},
		{"first rollout, from its own file", old, &api.Ledger{Desired: wanted}, true},
		{"refused, serves the old one", old, &api.Ledger{Desired: wanted, Applied: entry(2, ago(time.Hour), ""), Attempted: entry(3, now, "no")}, true},
		{"drifted for long", old, &api.Ledger{Desired: long, Applied: entry(1, ago(20*time.Hour), "")}, true},
		{"new, with its own file", fresh, &api.Ledger{Desired: wanted}, false},
		{"new, its own file said to be applied", fresh, &api.Ledger{Desired: wanted, Applied: entry(0, now, "")}, false},
		{"new, refused, with its own file for long", freshLong, &api.Ledger{Desired: long, Attempted: entry(3, now, "no")}, false},
		{"new and confirmed", fresh, &api.Ledger{Desired: wanted, Applied: entry(3, now, "")}, true},
		{"came back with an old one", back, &api.Ledger{Desired: wanted, Applied: entry(1, ago(time.Hour), "")}, false},
		{"came back and refused", back, &api.Ledger{Desired: wanted, Applied: entry(1, ago(time.Hour), ""), Attempted: entry(3, now, "no")}, true},
		{"came back before it was wanted", old, &api.Ledger{Desired: entry(3, now, ""), Applied: entry(1, ago(time.Hour), "")}, true},
	}
	for _, tt := range tests {
		tt.node.Ledger = tt.ledger
		got, why := ServesRight(tt.node, now)
		if got != tt.want || got == (why != "") {
			t.Errorf("%s: got %v, %q; want %v", tt.name, got, why, tt.want)
		}
	}
	back.StateSince = ago(settleFor)
	back.Ledger = &api.Ledger{Desired: wanted, Applied: entry(1, ago(time.Hour), "")}
	if ok, why := ServesRight(back, now); !ok {
		t.Errorf("back for %v: %s; want right", settleFor, why)
	}
}

func TestChooseTraffic(t *testing.T) {
	now := time.Now()
	node := func(id, group string, ready, wrong bool) candidate {
		n := api.Node{ID: binnacle.NodeID(id), Group: binnacle.Group(group), Enrolled: now}
		if wrong {
			n.Ledger = &api.Ledger{Desired: &api.LedgerEntry{RevisionRef: api.RevisionRef{Number: 1, SHA256: "x"}, Time: now.Add(-time.Hour)}}
		}
		return candidate{n, ready}
	}
	f := func(name, want string, all ...candidate) {
		var ids []string
		for _, n := range chooseTraffic(all, now) {
			ids = append(ids, string(n.ID))
		}
		if got := strings.Join(ids, " "); got != want {
			t.Errorf("%s: got %q; want %q", name, got, want)
		}
	}
	f("nobody", "")
	f("the ready", "a b", node("a", "g", true, false), node("b", "g", true, false))
	f("the lost go while others are ready", "a", node("a", "g", true, false), node("b", "g", false, false))
	f("the lost stay when all are lost", "a b", node("a", "g", false, false), node("b", "g", false, false))
	f("groups count apart", "a b", node("a", "g", true, false), node("b", "h", false, false))
	f("who is new waits", "a", node("a", "g", true, false), node("b", "g", true, true))
	f("who is new waits alone, too", "", node("b", "g", true, true))
}

// A registry's nodes come into traffic when they serve and go when they drain,
// leave, or are lost while others are there.
func TestInTraffic(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, statetest.Memory(t), nil)
		one, _ := c.enroll("gw-1")
		two, _ := c.enroll("gw-2")
		want := func(what string, names ...string) {
			t.Helper()
			var got []string
			for _, n := range c.reg.InTraffic(time.Now(), func(binnacle.NodeID) *api.Ledger { return nil }) {
				got = append(got, n.Name)
			}
			if strings.Join(got, " ") != strings.Join(names, " ") {
				t.Errorf("%s: got %v; want %v", what, got, names)
			}
		}
		want("both serve", "gw-1", "gw-2")
		c.report(two.ID, func(s *api.Status) { s.Draining = true })
		want("gw-2 drains", "gw-1")
		c.report(two.ID, func(*api.Status) {})
		want("gw-2 does not drain any more", "gw-1", "gw-2")
		for range 10 {
			time.Sleep(10 * time.Second)
			c.report(one.ID, func(*api.Status) {})
		}
		want("gw-2 is silent", "gw-1")
		time.Sleep(10 * time.Minute)
		want("all are silent: those who served stay", "gw-1", "gw-2")
		c.report(one.ID, func(s *api.Status) { s.Leaving = true })
		want("gw-1 left, gw-2 is lost", "gw-2")
	})
}

// Nodes that are gone for long are forgotten, and their key may enroll anew.
func TestGhosts(t *testing.T) {
	const after = 7 * 24 * time.Hour
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, statetest.Memory(t), nil)
		left, _ := c.enroll("gw-left")
		down, _ := c.enroll("gw-down")
		here, _ := c.enroll("gw-here")
		c.report(left.ID, func(s *api.Status) { s.Leaving = true })
		for range int(after/time.Hour) - 1 {
			time.Sleep(time.Hour)
			c.report(here.ID, func(*api.Status) {})
		}
		if g := c.reg.Ghosts(time.Now(), after); len(g) != 0 {
			t.Errorf("too early: %v", g)
		}
		time.Sleep(2 * time.Hour)
		c.report(here.ID, func(*api.Status) {})
		if g := c.reg.Ghosts(time.Now(), 0); g != nil {
			t.Errorf("never forget: got %v", g)
		}
		ghosts := c.reg.Ghosts(time.Now(), after)
		if len(ghosts) != 2 {
			t.Fatalf("got %v; want %s and %s", ghosts, left.ID, down.ID)
		}
		// One comes back at the last moment.
		c.report(down.ID, func(*api.Status) {})
		synctest.Wait()
		c.events.take()
		for _, id := range ghosts {
			did, err := c.reg.ForgetGhost(t.Context(), id, after)
			if err != nil || did != (id == left.ID) {
				t.Errorf("ForgetGhost(%s): got %v, %v", id, did, err)
			}
		}
		if c.reg.IsNode(left.ID) || !c.reg.IsNode(down.ID) || !c.reg.IsNode(here.ID) {
			t.Error("the wrong nodes were forgotten")
		}
		if got := strings.Join(c.events.take(), " "); got != "node.forgotten" {
			t.Errorf("events: %s", got)
		}
		if n := c.reg.HeldSeats(time.Now()); n != 2 {
			t.Errorf("%d seats held; want 2", n)
		}
	})
}

func TestTraefikConfig(t *testing.T) {
	nodes := []api.Node{{Group: "default", Address: "10.0.0.1:8080"}, {Group: "default", Address: "[2001:db8::1]:8080"}, {Group: "b", Address: "10.0.0.3:80"}}
	f := func(want string, got Traefik) {
		t.Helper()
		b, err := json.Marshal(got)
		if err != nil {
			t.Fatal(err)
		}
		if string(b) != want {
			t.Errorf("got  %s\nwant %s", b, want)
		}
	}
	f(`{"http":{"services":{}}}`, TraefikConfig(nil, nil, "http", ""))
	f(`{"http":{"services":{"binnacle-default":{"loadBalancer":{"servers":[]}}}}}`, TraefikConfig(nil, []string{"default"}, "http", ""))
	f(`{"http":{"services":{"binnacle-b":{"loadBalancer":{"servers":[{"url":"https://10.0.0.3:80"}],"healthCheck":{"path":"/__health","interval":"2s","timeout":"1s"}}},`+
		`"binnacle-default":{"loadBalancer":{"servers":[{"url":"https://10.0.0.1:8080"},{"url":"https://[2001:db8::1]:8080"}],"healthCheck":{"path":"/__health","interval":"2s","timeout":"1s"}}}}}}`,
		TraefikConfig(nodes, []string{"default"}, "https", "/__health"))
}
