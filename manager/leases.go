package manager

import (
	"context"
	"math"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"time"

	"github.com/binnacle-project/binnacle"
	"github.com/binnacle-project/binnacle/api"
	"github.com/binnacle-project/binnacle/licensing"
	"github.com/binnacle-project/binnacle/membership"
)

// leases remembers what each node holds, for lists. The truth is at the node: its
// polls say when its lease ends.
type leases struct {
	mu sync.Mutex // guards by
	by map[binnacle.NodeID]api.LeaseInfo
}

func newLeases() *leases { return &leases{by: map[binnacle.NodeID]api.LeaseInfo{}} }

func (l *leases) set(id binnacle.NodeID, info api.LeaseInfo) {
	if info.Expires.IsZero() {
		return // it holds none: what it held last is worth showing
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.by[id] = info
}

func (l *leases) of(id binnacle.NodeID) *api.LeaseInfo {
	l.mu.Lock()
	defer l.mu.Unlock()
	info, ok := l.by[id]
	if !ok {
		return nil
	}
	return &info
}

func (l *leases) forget(id binnacle.NodeID) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.by, id)
}

// followLicense makes each change of the license reach the nodes with the polls
// that they hold.
func (m *Manager) followLicense(ctx context.Context) error {
	changed := m.keeper.Changed()
	for {
		select {
		case <-changed:
			changed = m.keeper.Changed()
			nodes := m.registry.Count()
			m.polls.licenseChanged(func(phase float64) time.Duration { return licenseSpread.of(phase, nodes) })
		case <-ctx.Done():
			return nil
		}
	}
}

// A spreading is the time over which nodes are told of what concerns all of them:
// so much for each node, up to a bound.
type spreading struct{ perNode, most time.Duration }

var (
	// licenseSpread keeps a thousand nodes from coming for leases, and back into
	// the gossip, in one moment.
	licenseSpread = spreading{10 * time.Millisecond, 10 * time.Second}
	// planSpread keeps ten thousand from fetching a configuration in one moment. It
	// is about what the answers cost anyway, so that it delays hardly anybody.
	planSpread = spreading{50 * time.Microsecond, time.Second}
)

// phaseMost is the largest phase of a plan, in seconds; see rollout.
const phaseMost = 30

// of is how long after the change a node's poll is answered: its share of a time
// that grows with the cluster. phase is that of its plan, in seconds.
func (s spreading) of(phase float64, nodes int) time.Duration {
	window := min(time.Duration(nodes)*s.perNode, s.most)
	return time.Duration(math.Mod(math.Abs(phase), phaseMost) / phaseMost * float64(window))
}

// leaseFor gives a node a fresh lease if one is due and it has a seat; token is
// empty otherwise. in is how long its poll may wait before it is to be asked
// again, negative for no bound. A node without a seat is asked with each poll.
func (m *Manager) leaseFor(n membership.Record, held, now time.Time) (token string, in time.Duration, err error) {
	in = m.keeper.RenewIn(n.ID, held, now)
	if in != 0 || !m.registry.TakeSeat(n.ID, m.keeper.Seats(), now) {
		m.leases.set(n.ID, m.keeper.Held(n.ID, held))
		if in == 0 {
			in = -1
		}
		return "", in, nil
	}
	token, info, _, err := m.keeper.Lease(n.ID, n.KeyFP, held, now)
	if err != nil {
		return "", -1, err
	}
	m.leases.set(n.ID, info)
	return token, 0, nil
}

// license answers GET /v1/license.
func (m *Manager) license() api.License {
	l := m.keeper.License()
	l.Leases = map[string]int{}
	for _, n := range m.nodes(time.Now(), shortWindow) {
		if n.Lease != nil {
			l.Leases[n.Lease.State]++
		}
		if slices.ContainsFunc(n.Conditions, func(c api.Condition) bool { return c.Kind == api.CondOverSeats }) {
			l.OverSeats++
		}
	}
	return l
}

// maxScenario bounds what is played through: a hundred years.
const maxScenario = 100 * 365 * 24 * time.Hour

// scenario reads ?expire_in= or ?manager_gone=, as Go writes durations.
func scenario(q url.Values) (licensing.Scenario, error) {
	var s licensing.Scenario
	for _, p := range []struct {
		name string
		into **time.Duration
	}{{"expire_in", &s.ExpireIn}, {"manager_gone", &s.ManagerGone}} {
		if !q.Has(p.name) {
			continue
		}
		d, err := time.ParseDuration(q.Get(p.name))
		if err != nil || d < 0 || d > maxScenario {
			return s, fail(http.StatusBadRequest, "%s=%.40q: want a duration such as 0s or 144h, and not a negative one", p.name, q.Get(p.name))
		}
		*p.into = &d
	}
	if (s.ExpireIn == nil) == (s.ManagerGone == nil) {
		return s, fail(http.StatusBadRequest, "give one of expire_in and manager_gone")
	}
	return s, nil
}

// showLease completes a node's lease and its conditions. over are the nodes
// over the license's seats.
func showLease(n *api.Node, over map[binnacle.NodeID]time.Time, now time.Time) {
	if n.Lease != nil {
		n.Lease.State = licensing.LeaseState(n.Lease.Issued, n.Lease.Expires, now)
		for _, c := range n.Conditions {
			if c.Kind == api.CondLeaseEnded { // by its own account, which is exact
				n.Lease.State = licensing.LeaseFallen
			}
		}
	}
	if since, ok := over[n.ID]; ok {
		n.Conditions = append(n.Conditions, api.Condition{
			Kind: api.CondOverSeats, Since: since,
			Cause: "it came back when all seats were taken: it keeps its lease to the end, and gets another when a seat is free",
		})
	}
}
