package licensing

import (
	"strings"
	"testing"
	"time"

	"github.com/binnacle-project/binnacle"
	"github.com/binnacle-project/binnacle/api"
)

func TestSimulate(t *testing.T) {
	rate := 1000.0
	lic := &License{Claims: Claims{Expires: testNow.Add(365 * day), Grace: 7 * day, FallbackRate: &rate}}
	node := func(name string, rps float64, expires time.Duration) api.Node {
		n := api.Node{ID: binnacle.NodeID(name), Name: name, Managed: true, State: api.Alive, Activity: &api.Activity{RequestsPerSecond: rps}}
		if expires != 0 {
			n.Lease = &api.LeaseInfo{Issued: testNow.Add(expires - 5*day), Expires: testNow.Add(expires)}
		}
		return n
	}
	gone := node("gone", 0, 4*day)
	gone.State = api.Down
	fallen := node("fallen", 100, -day)
	fallen.State, fallen.Conditions = api.Left, []api.Condition{{Kind: api.CondLeaseEnded}}
	nodes := []api.Node{
		node("busy", 1200, 5*day), node("idle", 10, 4*day), node("unheard", 10, 0), gone, fallen,
		{ID: "stock", Name: "stock", State: api.Alive},
	}
	in := func(d time.Duration) Scenario { return Scenario{ExpireIn: &d} }
	away := func(d time.Duration) Scenario { return Scenario{ManagerGone: &d} }
	unlimited := &License{Claims: Claims{Expires: testNow.Add(day)}}
	for _, tc := range []struct {
		name    string
		l       *License
		s       Scenario
		states  string // of busy and idle
		falls   time.Duration
		limited float64
	}{
		{"no manager for six days", lic, away(6 * day), "fallen fallen", 5 * day, 200},
		{"no manager for four and a half", lic, away(108 * time.Hour), "warning fallen", 5 * day, 0},
		{"no manager for three", lic, away(3 * day), "warning warning", 5 * day, 0},
		{"no manager for an hour", lic, away(time.Hour), "valid valid", 5 * day, 0},
		{"expires now, a week of grace", lic, in(0), "fallen fallen", 7 * day, 200},
		{"expires now, no grace: leases are honored", unlimited, in(0), "fallen fallen", 5 * day, 0},
		{"expires in ten days", unlimited, in(10 * day), "fallen fallen", 10 * day, 0},
	} {
		got := Simulate(tc.l, tc.s, nodes, testNow)
		if len(got.Nodes) != 5 {
			t.Fatalf("%s: %d nodes; want the 5 managed ones", tc.name, len(got.Nodes))
		}
		if states := got.Nodes[0].State + " " + got.Nodes[1].State; states != tc.states {
			t.Errorf("%s: got %s; want %s", tc.name, states, tc.states)
		}
		if at := got.Nodes[0].Falls.Sub(testNow); at != tc.falls {
			t.Errorf("%s: busy falls after %v; want %v", tc.name, at, tc.falls)
		}
		if got.LimitedPerSecond != tc.limited {
			t.Errorf("%s: %g requests a second limited; want %g", tc.name, got.LimitedPerSecond, tc.limited)
		}
		if tc.s.ExpireIn != nil && !strings.Contains(got.Summary, "2 of 5 nodes fall") {
			t.Errorf("%s: summary %q; want it played until both that can have fallen", tc.name, got.Summary)
		}
		if got.Scenario == "" || got.Summary == "" || got.Nodes[2].LeaseExpires != (time.Time{}) {
			t.Errorf("%s: got %+v", tc.name, got)
		}
		for _, n := range got.Nodes {
			if n.Effect == "" || strings.Contains(n.Effect, "%!") {
				t.Errorf("%s: %s: effect %q", tc.name, n.Name, n.Effect)
			}
		}
	}
}
