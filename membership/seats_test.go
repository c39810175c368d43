package membership

import (
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/binnacle-project/binnacle"
	"github.com/binnacle-project/binnacle/api"
	"github.com/binnacle-project/binnacle/events"
	"github.com/binnacle-project/binnacle/membership/pki"
	"github.com/binnacle-project/binnacle/state/statetest"
)

// poll keeps nodes alive for a time.
func (c *cluster) poll(d time.Duration, ids ...binnacle.NodeID) {
	for range d / (30 * time.Second) {
		for _, id := range ids {
			c.reg.Polled(id, testPeer)
		}
		time.Sleep(30 * time.Second)
	}
	for _, id := range ids {
		c.reg.Polled(id, testPeer)
	}
}

func (c *cluster) over(limit int, want ...binnacle.NodeID) {
	c.t.Helper()
	var got []binnacle.NodeID
	for id := range c.reg.OverSeats(limit, time.Now()) {
		got = append(got, id)
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		c.t.Errorf("over %d seats: got %v; want %v", limit, got, want)
	}
}

func (c *cluster) takes(id binnacle.NodeID, limit int, want bool) {
	c.t.Helper()
	if got := c.reg.TakeSeat(id, limit, time.Now()); got != want {
		c.t.Errorf("TakeSeat(%s, %d): got %v; want %v", id, limit, got, want)
	}
}

// TestSeatsOverTime is the story of three seats and four nodes: one goes away
// for longer than its seat is held, a fourth takes it, the first comes back.
func TestSeatsOverTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const limit = 3
		c := newCluster(t, statetest.Memory(t), func(o *RegistryOptions) { o.Seats = seats(limit) })
		refused := func(name string) {
			t.Helper()
			key, err := pki.NewNodeKey()
			if err != nil {
				t.Fatal(err)
			}
			_, _, err = c.reg.Enroll(t.Context(), c.request(key, name), testPeer)
			wantProblem(t, err, 403)
		}
		a, _ := c.enroll("a")
		time.Sleep(time.Second)
		b, _ := c.enroll("b")
		time.Sleep(time.Second)
		z, _ := c.enroll("z")
		c.over(limit)
		refused("d")

		// z is silent: unreachable after 45 s, down 5 minutes later, and its seat
		// is held for 10 more.
		c.poll(15*time.Minute, a.ID, b.ID)
		c.want(z.ID, api.Down)
		refused("d")
		c.poll(time.Minute, a.ID, b.ID)
		d, _ := c.enroll("d")
		time.Sleep(time.Second)

		// z returns: it counts, and is over the seats, having taken its own last.
		c.reg.Polled(z.ID, testPeer)
		c.want(z.ID, api.Alive)
		c.over(limit, z.ID)
		c.takes(z.ID, limit, false)
		c.takes(d.ID, limit, true)
		c.takes(z.ID, 4, true) // an upgraded license
		c.takes(z.ID, 0, true) // an unlimited one
		c.takes(a.ID, -1, false)

		// A restart of the manager forgets none of it.
		time.Sleep(time.Second)
		c.stop()
		c.start(func(o *RegistryOptions) { o.Seats = seats(limit) })
		c.over(limit, z.ID)

		// Its lease ends: it leaves, polls on, and keeps its place in the row for
		// as long as a seat is held. It precedes those who never had one.
		c.report(z.ID, func(s *api.Status) { s.LeaseEnded = true })
		c.want(z.ID, api.Left)
		c.poll(11*time.Minute, a.ID, b.ID, d.ID, z.ID)
		c.want(z.ID, api.Left)
		c.over(limit)
		c.takes(z.ID, limit, false)
		if err := c.reg.Forget(t.Context(), b.ID, "admin"); err != nil {
			t.Fatal(err)
		}
		refused("e")
		c.takes(z.ID, limit, true)
		refused("e") // the seat is promised
		c.report(z.ID, func(*api.Status) {})
		c.want(z.ID, api.Alive)
		c.over(limit)
		refused("e")
	})
}

// TestLeaseEnded: a node whose lease has ended has left, and is in traffic as
// long as it polls; its polls alone do not bring it back.
func TestLeaseEnded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, statetest.Memory(t), nil)
		rec, _ := c.enroll("gw-1")
		c.reg.Polled(rec.ID, testPeer)
		c.told(events.NodeEnrolled, events.NodeJoined)
		traffic := func(want int) {
			t.Helper()
			if got := c.reg.InTraffic(time.Now(), func(binnacle.NodeID) *api.Ledger { return nil }); len(got) != want {
				t.Errorf("load balancers are told of %+v; want %d nodes", got, want)
			}
		}
		c.report(rec.ID, func(s *api.Status) { s.LeaseEnded = true })
		c.told(events.NodeLeft)
		c.poll(time.Hour, rec.ID)
		n, _ := c.reg.Get(rec.ID, time.Now())
		if n.State != api.Left || n.StateCause != "its lease ended" || len(n.Conditions) != 1 || n.Conditions[0].Kind != api.CondLeaseEnded {
			t.Errorf("got %s (%s), %+v; want left, its lease ended, with that condition", n.State, n.StateCause, n.Conditions)
		}
		c.ready("gw-1")
		traffic(1)
		if ghosts := c.reg.Ghosts(time.Now(), 30*time.Minute); len(ghosts) != 0 {
			t.Errorf("ghosts: got %v; want none: it polls", ghosts)
		}

		time.Sleep(time.Second)
		c.stop()
		c.start(nil)
		c.want(rec.ID, api.Left)
		c.poll(time.Minute, rec.ID)
		c.ready("gw-1")
		time.Sleep(time.Minute) // and then it falls silent
		c.want(rec.ID, api.Left)
		c.ready()
		traffic(1) // the last one lost: nobody takes its place

		c.told()
		c.report(rec.ID, func(*api.Status) {})
		c.want(rec.ID, api.Alive)
		c.ready("gw-1")
		c.told(events.NodeJoined)

		// One that stops while it has no lease has left like any other.
		c.report(rec.ID, func(s *api.Status) { s.LeaseEnded = true })
		c.report(rec.ID, func(s *api.Status) { s.LeaseEnded, s.Leaving, s.Serving = true, true, false })
		c.ready()
		traffic(0)
	})
}
