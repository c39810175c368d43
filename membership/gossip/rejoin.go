package gossip

import (
	"context"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/binnacle-project/binnacle"
)

// Memberlist does not heal a partition by itself, and forgets the other side
// after 30 s. So each member tries again to join whom it misses, for ever.
const (
	// rejoinEvery is the time between rounds once it has company; with jitter
	// up to a quarter more. A round costs nothing while nobody is missing.
	rejoinEvery = 10 * time.Second
	// aloneFaster is how many times faster rounds follow while it has none.
	aloneFaster = 5
	// maxJoins is how many addresses one round tries.
	maxJoins = 4
	// settleRounds is the number of rounds at the beginning of a life that join
	// one of the living, too. Who comes back at a new address soon after a
	// crash is refused at first by those who still hold its old one, and would
	// not learn of it.
	settleRounds = 5
)

func (g *Gossip) rejoin() {
	for round := 0; ; round++ {
		g.joinRound(g.ctx, round < settleRounds)
		g.rememberLiving()
		g.peers.saveIfDue(time.Now())
		wait := g.opts.rejoin
		if g.alone() {
			wait /= aloneFaster
		}
		wait += rand.N(wait / 4)
		select {
		case <-time.After(wait):
		case <-g.ctx.Done():
			return
		}
	}
}

// joinRound tries those whom joinTargets names, together, and returns when all
// have answered or timed out. While the life settles, one of the living is
// among them.
func (g *Gossip) joinRound(ctx context.Context, settling bool) {
	var seeds []netip.AddrPort
	if !g.knowsManager() {
		seeds = g.resolveSeeds(ctx)
	}
	members := g.Members()
	targets := joinTargets(seeds, members, g.peers.list(), g.self, maxJoins, rand.Perm)
	if living := slices.DeleteFunc(members, func(m Member) bool { return m.State != Alive }); settling && len(living) > 0 {
		targets = append(targets, living[rand.N(len(living))].Gossip)
	}
	var wg sync.WaitGroup
	for _, a := range targets {
		wg.Go(func() { g.join(a) })
	}
	wg.Wait()
}

// join exchanges all that is known with the member at a, over TCP.
func (g *Gossip) join(a netip.AddrPort) {
	if _, err := g.list.Join([]string{a.String()}); err != nil {
		g.count.joinFailures.Inc()
		g.log.Debug("gossip join failed", "address", a, "error", err)
		return
	}
	g.count.joins.Inc()
}

// joinTargets chooses at most limit addresses to join: seeds first, if none of
// the members is a manager that lives, then missing members and remembered
// peers in an order that perm shuffles. Those who are alive, who left, and self
// are passed over. It changes nothing.
func joinTargets(seeds []netip.AddrPort, members []Member, peers []peer, self netip.AddrPort, limit int, perm func(int) []int) []netip.AddrPort {
	skip := map[netip.AddrPort]bool{self: true}
	gone := map[binnacle.NodeID]bool{}
	var missing []netip.AddrPort
	for _, m := range members {
		switch m.State {
		case Alive, Suspect:
			skip[m.Gossip] = true
			gone[m.ID] = true
		case Left:
			gone[m.ID] = true
		case Dead:
			missing = append(missing, m.Gossip)
		}
	}
	for _, p := range peers {
		if !gone[p.ID] {
			missing = append(missing, p.Addr)
		}
	}
	shuffled := make([]netip.AddrPort, len(missing))
	for i, j := range perm(len(missing)) {
		shuffled[i] = missing[j]
	}
	var out []netip.AddrPort
	for _, a := range slices.Concat(seeds, shuffled) {
		if len(out) == limit {
			break
		}
		if !skip[a] {
			skip[a] = true
			out = append(out, a)
		}
	}
	return out
}

// resolveSeeds returns the addresses of the seeds. A name that does not resolve
// is passed over; the next round asks again.
func (g *Gossip) resolveSeeds(ctx context.Context) []netip.AddrPort {
	if g.opts.Seeds == nil {
		return nil
	}
	var out []netip.AddrPort
	for _, s := range g.opts.Seeds() {
		host, port, err := splitHostPort(s)
		if err != nil {
			g.log.Warn("gossip seed is no host:port", "seed", s, "error", err)
			continue
		}
		ips, err := resolve(ctx, host)
		if err != nil {
			g.log.Debug("gossip seed does not resolve", "seed", s, "error", err)
			continue
		}
		for _, ip := range ips {
			out = append(out, netip.AddrPortFrom(ip, port))
		}
	}
	return out
}

// rememberLiving keeps peers fresh that have lived long without news.
func (g *Gossip) rememberLiving() {
	for _, m := range g.Members() {
		if m.State == Alive {
			g.peers.alive(m.ID, m.Gossip, time.Now())
		}
	}
}

// knowsManager reports whether a manager is among the living. Others then need
// no seeds: what is missing is known by name.
func (g *Gossip) knowsManager() bool {
	return slices.ContainsFunc(g.Members(), func(m Member) bool { return m.Manager && m.State == Alive })
}

func (g *Gossip) alone() bool {
	return !slices.ContainsFunc(g.Members(), func(m Member) bool { return m.State == Alive })
}
