package licensing

import (
	"fmt"
	"time"

	"github.com/binnacle-project/binnacle/api"
)

// Scenario is what Simulate plays through. One of its fields is set.
type Scenario struct {
	// ExpireIn lets the license expire that long from now.
	ExpireIn *time.Duration
	// ManagerGone takes all managers away from now on, for that long.
	ManagerGone *time.Duration
}

// Simulate says what a scenario would do to each node at what time. It is a
// function of what it is given and changes nothing. nodes have their leases and
// activity; those that are not managed are passed over. l may be nil.
//
// An outage is played until its end, an expiry until the last node has fallen.
// It assumes that nodes go on renewing their leases until then as they do now,
// that nobody installs another license, and that traffic stays as it is.
func Simulate(l *License, s Scenario, nodes []api.Node, now time.Time) api.Simulation {
	out := api.Simulation{Now: now, Nodes: []api.SimulatedNode{}}
	rate := DefaultFallbackRate
	out.FallbackRate = &rate
	if l != nil {
		out.FallbackRate = l.FallbackRate
	}
	var lastLease time.Time // when the last lease would end that is given; zero: none is given any more
	switch {
	case s.ExpireIn != nil:
		expires := now.Add(*s.ExpireIn)
		grace := time.Duration(0)
		if l != nil {
			grace = l.Grace
		}
		lastLease = expires.Add(grace)
		out.Until = lastLease
		out.Scenario = fmt.Sprintf("the license expires at %s, and leases are given for another %s of grace", stamp(expires), words(grace))
		if grace == 0 {
			out.Scenario = fmt.Sprintf("the license expires at %s and has no grace", stamp(expires))
		}
	case s.ManagerGone != nil:
		out.Until = now.Add(*s.ManagerGone)
		out.Scenario = fmt.Sprintf("no manager answers from now until %s", stamp(out.Until))
	}
	for _, n := range nodes {
		if !n.Managed {
			continue
		}
		out.Nodes = append(out.Nodes, holds(n, lastLease, now))
		if falls := out.Nodes[len(out.Nodes)-1].Falls; s.ExpireIn != nil && falls.After(out.Until) {
			out.Until = falls
		}
	}
	for i := range out.Nodes {
		decide(&out.Nodes[i], &out)
	}
	out.Summary = summary(out)
	return out
}

// holds says what lease a node holds, and when its last one would end.
func holds(n api.Node, lastLease, now time.Time) api.SimulatedNode {
	r := api.SimulatedNode{ID: n.ID, Name: n.Name, Group: n.Group, State: LeaseNone}
	if n.Activity != nil {
		r.RequestsPerSecond = n.Activity.RequestsPerSecond
	}
	switch {
	case n.State == api.Down || n.State == api.Left && !ended(n):
		r.Effect = fmt.Sprintf("it is %s: nothing of it serves now", n.State)
		return r
	case ended(n):
		r.State = LeaseFallen
		r.Effect = "its lease has ended already: nothing changes until a manager gives another"
		return r
	case n.Lease == nil:
		r.Effect = "it has not polled since this manager started: its lease is not known here"
		return r
	}
	held := *n.Lease
	issued, end := held.Issued, held.Expires
	if lastLease.After(end) { // it renews until then
		end, issued = lastLease, lastLease.Add(-held.Expires.Sub(held.Issued))
	}
	r.LeaseExpires, r.Falls = held.Expires, end
	r.Warns = issued.Add(firstWarning(end.Sub(issued)))
	if r.Warns.Before(now) {
		r.Warns = now
	}
	return r
}

// decide says what has become of a node at the end of the scenario.
func decide(r *api.SimulatedNode, sim *api.Simulation) {
	limit := sim.FallbackRate
	if limit != nil {
		r.LimitedPerSecond = max(r.RequestsPerSecond-*limit, 0)
	}
	if r.Effect != "" {
		return
	}
	switch {
	case sim.Until.Before(r.Warns):
		r.State, r.Effect = LeaseValid, "it stays a full member without a limit"
		return
	case sim.Until.Before(r.Falls):
		r.State, r.Effect = LeaseWarning, "it stays a full member without a limit, and warns"
		return
	}
	r.State = LeaseFallen
	sim.Falls++
	sim.LimitedPerSecond += r.LimitedPerSecond
	switch {
	case limit == nil:
		r.Effect = "it leaves the gossip and takes no configuration, and serves on without a limit"
	case r.LimitedPerSecond > 0:
		r.Effect = fmt.Sprintf("it leaves the gossip, takes no configuration, and serves on at %g requests per second: of the %.0f that come now, %.0f would get 429", *limit, r.RequestsPerSecond, r.LimitedPerSecond)
	default:
		r.Effect = fmt.Sprintf("it leaves the gossip, takes no configuration, and serves on at up to %g requests per second: no request would be refused at the %.0f that come now", *limit, r.RequestsPerSecond)
	}
}

// ended reports whether the node itself said that its lease has ended.
func ended(n api.Node) bool {
	for _, c := range n.Conditions {
		if c.Kind == api.CondLeaseEnded {
			return true
		}
	}
	return false
}

func summary(s api.Simulation) string {
	if s.Falls == 0 {
		return fmt.Sprintf("no node of %d falls by %s: no request is refused and nothing is lost", len(s.Nodes), stamp(s.Until))
	}
	var first, last time.Time
	for _, n := range s.Nodes {
		if n.State != LeaseFallen || n.Falls.IsZero() {
			continue
		}
		if first.IsZero() || n.Falls.Before(first) {
			first = n.Falls
		}
		if n.Falls.After(last) {
			last = n.Falls
		}
	}
	at := "at " + stamp(first)
	if last.Sub(first) >= time.Second {
		at = fmt.Sprintf("the first at %s, the last at %s", stamp(first), stamp(last))
	}
	out := fmt.Sprintf("%d of %d nodes fall, %s; all of them serve on", s.Falls, len(s.Nodes), at)
	if s.LimitedPerSecond > 0 {
		return out + fmt.Sprintf(", and %.0f requests per second of today's traffic would get 429", s.LimitedPerSecond)
	}
	return out + ", and at today's traffic no request is refused"
}

// words writes a period of days as people count it.
func words(d time.Duration) string {
	const day = 24 * time.Hour
	if d >= day && d%day == 0 {
		return fmt.Sprintf("%d days", d/day)
	}
	return d.String()
}

// Simulate plays a scenario through with the license in force.
func (k *Keeper) Simulate(s Scenario, nodes []api.Node, now time.Time) api.Simulation {
	return Simulate(k.current.Load().license, s, nodes, now)
}
