package gossip

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/binnacle-project/binnacle"
	"github.com/binnacle-project/binnacle/api"
	"github.com/binnacle-project/binnacle/membership/pki"
)

// The simulations: whole members, the manager among them, on a network in
// memory and in virtual time. Each prints its seed and its figure.
//
//	go test ./membership -run TestSim -v -sim.seed 42
//	BINNACLE_HEAVY=1 go test ./membership -run TestSim -v    300 members too
var simSeed = flag.Uint64("sim.seed", 0, "seed of the simulated network's faults; 0 draws one")

// heavy skips what takes minutes, unless it is asked for.
func heavy(t *testing.T) {
	t.Helper()
	if os.Getenv("BINNACLE_HEAVY") == "" {
		t.Skip("takes minutes: set BINNACLE_HEAVY=1")
	}
}

// sim is one simulated cluster.
type sim struct {
	t       *testing.T
	net     *simNet
	a       *pki.Authority
	keys    []api.GossipKey
	dir     string
	dice    *rand.Rand   // of the seed
	members []*simMember // the manager first
	doomed  sync.Map     // ids whose death is no mistake
}

type simMember struct {
	s       *sim
	id      pki.Identity
	addr    netip.AddrPort
	manager bool
	down    bool
	g       *Gossip

	mu     sync.Mutex // guards what follows
	deaths []Event
	heard  map[Kind]int
	saw    map[eventKey]time.Time // when this kind was first heard of
}

// simulate runs f in a bubble with a cluster of n members that see each other.
func simulate(t *testing.T, n int, f func(s *sim)) {
	t.Helper()
	if testing.Short() {
		t.Skip("simulations are not short")
	}
	seed := *simSeed
	if seed == 0 {
		seed = rand.Uint64() >> 16
	}
	t.Logf("seed %d", seed)
	a, dir := newAuthority(t), t.TempDir()
	begin := time.Now()
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		s := newSim(t, a, newSimNet(seed), dir, n, 0)
		s.dice = rand.New(rand.NewPCG(seed, 1))
		f(s)
		s.net.mu.Lock()
		t.Logf("%d members, %v simulated: %d packets and segments, %d lost, %d did not fit", n, time.Since(start).Round(time.Second), s.net.packets, s.net.lost, s.net.overflow)
		s.net.mu.Unlock()
	})
	t.Logf("it took %v", time.Since(begin).Round(time.Millisecond))
}

// newSim starts a cluster in network number part and waits until it is whole.
func newSim(t *testing.T, a *pki.Authority, n *simNet, dir string, size int, part byte) *sim {
	t.Helper()
	s := &sim{t: t, net: n, a: a, keys: []api.GossipKey{NewKey()}, dir: dir}
	t.Cleanup(s.close)
	for i := range size {
		m := &simMember{
			s: s, manager: i == 0, addr: simAddr(part, i),
			heard: make(map[Kind]int), saw: make(map[eventKey]time.Time),
		}
		if m.manager {
			id, err := a.ManagerIdentity("m")
			if err != nil {
				t.Fatal(err)
			}
			m.id = id
		} else {
			m.id = identity(t, a, binnacle.NodeID(fmt.Sprintf("n-%d-%03d", part, i)))
		}
		s.members = append(s.members, m)
		m.start(nil)
	}
	t.Logf("joined after %v", s.until(2*time.Minute, "all see each other", s.whole))
	return s
}

func simAddr(part byte, i int) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, part, byte(i >> 8), byte(i)}), binnacle.PortGossip)
}

// start begins a life of m.
func (m *simMember) start(change func(*Options)) {
	m.s.t.Helper()
	seed := m.s.members[0].addr.String()
	o := Options{
		Identity: m.id, Cluster: m.s.a.Cluster(), CAPub: m.s.a.PublicKey(), Keys: m.s.keys,
		Meta:      Metadata{Address: netip.AddrPortFrom(m.addr.Addr(), 8080).String(), Serving: true},
		PeersFile: filepath.Join(m.s.dir, fmt.Sprintf("%s.json", m.addr.Addr())),
		OnEvent:   m.hear, Manager: m.manager,
		network: m.s.net.host(m.addr).network,
	}
	if !m.manager {
		o.Seeds = func() []string { return []string{seed} }
	}
	if change != nil {
		change(&o)
	}
	g, err := Start(m.s.t.Context(), o)
	if err != nil {
		m.s.t.Fatalf("start %s: %v", m.id.ID, err)
	}
	m.g, m.down = g, false
}

// crash takes the machine away: no good-bye, no refused connection.
func (m *simMember) crash() {
	m.s.doomed.Store(m.id.ID, true)
	m.s.net.unplug(m.addr)
	m.stop()
}

// stop ends the process without a good-bye.
func (m *simMember) stop() {
	m.down = true
	if err := m.g.Close(); err != nil {
		m.s.t.Errorf("close %s: %v", m.id.ID, err)
	}
}

func (m *simMember) hear(e Event) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.heard[e.Kind]++
	k := eventKey{e.Member.ID, e.Kind}
	if _, ok := m.saw[k]; !ok {
		m.saw[k] = e.At
	}
	if e.Kind == Dead || e.Kind == Left {
		if _, ok := m.s.doomed.Load(e.Member.ID); !ok {
			m.deaths = append(m.deaths, e)
		}
	}
}

// first returns when m first heard that of id, the zero time for never.
func (m *simMember) first(id binnacle.NodeID, kind Kind) time.Time {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.saw[eventKey{id, kind}]
}

// count returns how many others m sees in that state.
func (m *simMember) count(state Kind) int {
	m.g.mu.Lock()
	defer m.g.mu.Unlock()
	n := 0
	for _, x := range m.g.members {
		if x.State == state {
			n++
		}
	}
	return n
}

func (m *simMember) sees(id binnacle.NodeID) Kind {
	m.g.mu.Lock()
	defer m.g.mu.Unlock()
	return m.g.members[id].State
}

// whole reports whether all who live see exactly each other alive.
func (s *sim) whole() bool {
	living := 0
	for _, m := range s.members {
		if !m.down {
			living++
		}
	}
	for _, m := range s.members {
		if !m.down && m.count(Alive)+m.count(Suspect) != living-1 {
			return false
		}
	}
	return true
}

// until waits for ok and returns how long that took, or fails after limit.
func (s *sim) until(limit time.Duration, what string, ok func() bool) time.Duration {
	s.t.Helper()
	begin := time.Now()
	for !ok() {
		if time.Since(begin) > limit {
			s.t.Fatalf("after %v still not: %s", limit, what)
		}
		time.Sleep(200 * time.Millisecond)
	}
	return time.Since(begin)
}

// falseDeaths lists deaths that members other than those excepted heard of
// and that were none.
func (s *sim) falseDeaths(except ...*simMember) []string {
	skip := map[*simMember]bool{}
	for _, m := range except {
		skip[m] = true
	}
	var out []string
	for _, m := range s.members {
		m.mu.Lock()
		for _, e := range m.deaths {
			if !skip[m] {
				out = append(out, fmt.Sprintf("%s says %s %s at %s", m.id.ID, e.Member.ID, e.Kind, e.At.Format(time.TimeOnly)))
			}
		}
		m.mu.Unlock()
	}
	return out
}

func (s *sim) heard(kind Kind) int {
	n := 0
	for _, m := range s.members {
		m.mu.Lock()
		n += m.heard[kind]
		m.mu.Unlock()
	}
	return n
}

func (s *sim) close() {
	s.net.rule(0, nil)
	var wg sync.WaitGroup
	for _, m := range s.members {
		if !m.down {
			wg.Go(m.stop)
		}
	}
	wg.Wait()
	time.Sleep(time.Minute) // probes that are under way end by themselves
}

// A machine that dies is known dead to all others soon.
func TestSimCrash(t *testing.T) {
	f := func(n int, limit time.Duration) func(t *testing.T) {
		return func(t *testing.T) {
			if n > 100 {
				heavy(t)
			}
			simulate(t, n, func(s *sim) {
				worst := time.Duration(0)
				for range 3 {
					m := s.members[1+s.dice.IntN(n-1)]
					if m.down {
						continue
					}
					time.Sleep(time.Duration(s.dice.IntN(5000)) * time.Millisecond)
					m.crash()
					worst = max(worst, s.until(limit, "all know of the crash", func() bool {
						for _, o := range s.members {
							if !o.down && o.sees(m.id.ID) != Dead {
								return false
							}
						}
						return true
					}))
				}
				t.Logf("%d members: a crash is known to all within %v; promised %v", n, worst, limit)
				if d := s.falseDeaths(); len(d) > 0 {
					t.Errorf("false deaths: %v", d)
				}
			})
		}
	}
	t.Run("50", f(50, 20*time.Second))
	t.Run("300", f(300, 30*time.Second))
}

// Loss alone kills nobody.
func TestSimLoss(t *testing.T) {
	simulate(t, 50, func(s *sim) {
		s.net.rule(0.3, nil)
		time.Sleep(10 * time.Minute)
		d := s.falseDeaths()
		t.Logf("50 members, 30%% loss for ten minutes: %d false deaths, %d suspicions; promised 0 deaths", len(d), s.heard(Suspect))
		if len(d) > 0 {
			t.Error(d)
		}
	})
}

// Members that stall take no healthy one with them.
func TestSimStall(t *testing.T) {
	simulate(t, 64, func(s *sim) {
		stalled := []*simMember{s.members[1+s.dice.IntN(31)], s.members[32+s.dice.IntN(32)]}
		for _, m := range stalled {
			s.doomed.Store(m.id.ID, true)
		}
		for begin := time.Now(); time.Since(begin) < 3*time.Minute; {
			for _, m := range stalled {
				s.net.stall(m.addr, 16*time.Second)
			}
			time.Sleep(16*time.Second + 16*time.Millisecond)
		}
		time.Sleep(time.Minute)
		d := s.falseDeaths(stalled...)
		t.Logf("2 of 64 members stall 16 s of each 16.016 s for three minutes: %d false deaths at healthy ones; promised 0", len(d))
		if len(d) > 0 {
			t.Error(d)
		}
		s.until(time.Minute, "whole again", s.whole)
	})
}

// Blocked UDP is told as such, also where the manager seldom probes.
func TestSimUDPBlocked(t *testing.T) {
	f := func(n int) func(t *testing.T) {
		return func(t *testing.T) {
			if n > 100 {
				heavy(t)
			}
			simulate(t, n, func(s *sim) {
				m, manager := s.members[n/2], s.members[0]
				s.net.rule(0, func(from, to *simHost, udp bool) bool {
					return !udp || from.addr != m.addr && to.addr != m.addr
				})
				d := s.until(time.Minute, "the manager knows that UDP is blocked", func() bool {
					return !manager.first(m.id.ID, UDPBlocked).IsZero()
				})
				t.Logf("%d members: blocked UDP is told after %v; promised 60 s", n, d)
				time.Sleep(2 * time.Minute)
				if d := s.falseDeaths(); len(d) > 0 {
					t.Errorf("deaths though TCP is open: %v", d)
				}
				for _, o := range s.members[1:] {
					if o != m && !manager.first(o.id.ID, UDPBlocked).IsZero() {
						t.Errorf("%s was blamed, too", o.id.ID)
					}
				}
				s.net.rule(0, nil)
				t.Logf("its end is told after %v", s.until(time.Minute, "the manager knows that UDP is open", func() bool {
					return !manager.first(m.id.ID, UDPOpen).IsZero()
				}))
			})
		}
	}
	t.Run("50", f(50))
	t.Run("300", f(300))
}

// A split heals by itself, whatever happened meanwhile.
func TestSimPartition(t *testing.T) {
	type split func(i, n int) int
	half := func(i, n int) int { return i * 2 / n }
	one := func(i, n int) int {
		if i == n-1 {
			return 1
		}
		return 0
	}
	manager := func(i, n int) int {
		if i == 0 {
			return 1
		}
		return 0
	}
	f := func(name string, n int, limit time.Duration, side split, restart bool) {
		t.Run(name, func(t *testing.T) {
			if n > 100 {
				heavy(t)
			}
			simulate(t, n, func(s *sim) {
				for i, m := range s.members {
					s.doomed.Store(m.id.ID, true)
					s.net.mu.Lock()
					s.net.hosts[m.addr].side = side(i, n)
					s.net.mu.Unlock()
				}
				s.net.rule(0, func(from, to *simHost, _ bool) bool { return from.side == to.side })
				time.Sleep(5 * time.Minute)
				if restart {
					m := s.members[0]
					m.stop()
					m.start(nil)
					s.net.mu.Lock()
					s.net.hosts[m.addr].side = side(0, n)
					s.net.mu.Unlock()
				}
				time.Sleep(5 * time.Minute)
				if s.whole() {
					t.Error("it is whole while it is split")
				}
				s.net.rule(0, nil)
				d := s.until(limit, "whole again", s.whole)
				t.Logf("%s of %d members for ten minutes: whole again after %v; promised %v", name, n, d, limit)
			})
		})
	}
	const minute = time.Minute
	f("half against half", 50, minute, half, false)
	f("one against the rest", 50, minute, one, false)
	f("the manager against the rest", 50, minute, manager, false)
	f("half against half with the manager restarted", 50, minute, half, true)
	f("the manager against the rest and restarted", 50, minute, manager, true)
	f("half against half of 300", 300, 2*minute, half, false)
	f("one against the rest of 300", 300, 2*minute, one, false)
	f("half against half of 300 with the manager restarted", 300, 2*minute, half, true)
}

// Cuts of one direction neither kill the healthy nor last beyond their end.
func TestSimOneWayCuts(t *testing.T) {
	simulate(t, 50, func(s *sim) {
		a, b := s.members[1], s.members[2]
		// One link, one way: others vouch.
		s.net.rule(0, func(from, to *simHost, _ bool) bool { return from.addr != a.addr || to.addr != b.addr })
		time.Sleep(5 * time.Minute)
		if d := s.falseDeaths(); len(d) > 0 {
			t.Errorf("one link cut one way: deaths %v", d)
		}
		t.Log("one link cut one way for five minutes: 0 deaths")
		// One member is heard by nobody: it goes, and comes back.
		s.doomed.Store(a.id.ID, true)
		s.net.rule(0, func(from, to *simHost, _ bool) bool { return from.addr != a.addr })
		gone := s.until(time.Minute, "the mute one is dead to the manager", func() bool { return s.members[0].sees(a.id.ID) == Dead })
		time.Sleep(5 * time.Minute)
		if d := s.falseDeaths(a); len(d) > 0 {
			t.Errorf("a mute member: the others hold each other for dead: %v", d)
		}
		s.net.rule(0, nil)
		back := s.until(time.Minute, "whole again", s.whole)
		t.Logf("a member that is heard by nobody is gone after %v, and back %v after it is heard again", gone, back)
	})
}

// Two clusters on one network stay two, also when one takes over addresses of
// the other, and when somebody gave them one key and one label.
func TestSimClustersStayApart(t *testing.T) {
	f := func(name string, mixed bool) {
		t.Run(name, func(t *testing.T) {
			other, dir := newAuthority(t), t.TempDir()
			simulate(t, 20, func(s *sim) {
				o := newSim(s.t, other, s.net, dir, 10, 1)
				change := func(g *Options) {}
				if mixed {
					change = func(g *Options) { g.Label, g.Keys = Label(s.a.Cluster()), s.keys }
				}
				// Three nodes of one die, and nodes of the other get their addresses.
				for i := range 3 {
					s.members[5+i].crash()
					m := o.members[5+i]
					m.crash()
					m.addr = s.members[5+i].addr
					m.start(func(g *Options) {
						change(g)
						g.Seeds = func() []string { return []string{s.members[0].addr.String(), o.members[0].addr.String()} }
					})
				}
				if mixed {
					for _, m := range o.members {
						m.stop()
						m.start(change)
					}
				}
				time.Sleep(10 * time.Minute)
				for _, c := range []*sim{s, o} {
					for _, m := range c.members {
						if m.down {
							continue
						}
						for _, x := range m.g.Members() {
							ours := x.ID[:4] == "n-0-" && c == s || x.ID[:4] == "n-1-" && c == o
							if !ours && x.Gossip != c.members[0].addr {
								t.Fatalf("%s sees %s of the other cluster", m.id.ID, x.ID)
							}
						}
					}
					if !c.whole() {
						t.Error("a cluster is not whole")
					}
				}
				t.Log("two clusters for ten minutes, three addresses changed hands: no member sees one of the other cluster")
			})
		})
	}
	f("as they are", false)
	f("with one key and label", true)
}
