package gossip

import (
	"crypto/ed25519"
	"errors"
	"log"
	"log/slog"
	"net"
	"net/netip"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/memberlist"
	"go.uber.org/goleak"

	"github.com/binnacle-project/binnacle"
	"github.com/binnacle-project/binnacle/api"
	"github.com/binnacle-project/binnacle/membership/pki"
)

// quick is a profile in which a death is found within a second.
func quick(c *memberlist.Config) {
	c.ProbeInterval = 200 * time.Millisecond
	c.ProbeTimeout = 100 * time.Millisecond
	c.GossipInterval = 20 * time.Millisecond
	c.SuspicionMult = 2
	c.SuspicionMaxTimeoutMult = 2
	c.DeadNodeReclaimTime = 100 * time.Millisecond
}

// heardEvents keeps the events of one member.
type heardEvents struct {
	mu   sync.Mutex
	list []Event
}

func (h *heardEvents) add(e Event) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.list = append(h.list, e)
}

func (h *heardEvents) has(id binnacle.NodeID, kind Kind) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.ContainsFunc(h.list, func(e Event) bool { return e.Member.ID == id && e.Kind == kind })
}

// gossipTest starts members of one cluster on loopback.
type gossipTest struct {
	t    *testing.T
	a    *pki.Authority
	keys []api.GossipKey
}

func newGossipTest(t *testing.T) *gossipTest {
	opts := goleak.IgnoreCurrent()
	// A probe that is under way ends some probe intervals after Close.
	t.Cleanup(func() { eventually(t, "all goroutines end", func() bool { return goleak.Find(opts) == nil }) })
	return &gossipTest{t: t, a: newAuthority(t), keys: []api.GossipKey{NewKey()}}
}

func (gt *gossipTest) options(id pki.Identity, change func(*Options)) Options {
	o := Options{
		Identity: id, Cluster: gt.a.Cluster(), CAPub: gt.a.PublicKey(),
		Bind: "127.0.0.1:0", Keys: gt.keys, Meta: Metadata{Address: "127.0.0.1:8080", Serving: true},
		Log:  slog.New(slog.NewTextHandler(gt.t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug})),
		tune: quick, rejoin: 500 * time.Millisecond,
	}
	if change != nil {
		change(&o)
	}
	return o
}

func (gt *gossipTest) start(id pki.Identity, change func(*Options)) *Gossip {
	gt.t.Helper()
	g, err := Start(gt.t.Context(), gt.options(id, change))
	if err != nil {
		gt.t.Fatalf("Start(%s): %v", id.ID, err)
	}
	gt.t.Cleanup(func() {
		if err := g.Close(); err != nil {
			gt.t.Errorf("Close(%s): %v", id.ID, err)
		}
	})
	return g
}

func (gt *gossipTest) manager(change func(*Options)) (*Gossip, *heardEvents) {
	gt.t.Helper()
	id, err := gt.a.ManagerIdentity("test")
	if err != nil {
		gt.t.Fatal(err)
	}
	heard := &heardEvents{}
	return gt.start(id, func(o *Options) {
		o.Manager, o.OnEvent = true, heard.add
		if change != nil {
			change(o)
		}
	}), heard
}

// metaOnly is a delegate that gives metadata and does nothing else.
type metaOnly struct {
	hooks
	meta []byte
}

func (m *metaOnly) NodeMeta(int) []byte { return m.meta }

// forge joins g with a bare memberlist that follows none of our rules.
func (gt *gossipTest) forge(g *Gossip, name string, id pki.Identity, portOff int) {
	gt.t.Helper()
	logger := log.New(gt.t.Output(), name+" ", 0)
	nt, err := listenGossip(netip.MustParseAddrPort("127.0.0.1:0"), logger)
	if err != nil {
		gt.t.Fatal(err)
	}
	meta, err := sealMetadata(Metadata{}, netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), uint16(nt.GetAutoBindPort())), id)
	if err != nil {
		gt.t.Fatal(err)
	}
	c := memberlist.DefaultLANConfig()
	quick(c)
	c.Name, c.Label, c.SecretKey = name, Label(gt.a.Cluster()), gt.keys[0].Key
	c.Transport, c.Logger, c.Delegate = nt, logger, &metaOnly{meta: meta}
	c.AdvertiseAddr, c.AdvertisePort = "127.0.0.1", nt.GetAutoBindPort()+portOff
	forger, err := memberlist.Create(c)
	if err != nil {
		gt.t.Fatal(err)
	}
	gt.t.Cleanup(func() {
		if err := forger.Shutdown(); err != nil {
			gt.t.Error(err)
		}
	})
	if _, err := forger.Join([]string{g.Addr().String()}); err != nil {
		gt.t.Fatal(err)
	}
}

func seedOf(g *Gossip) func(*Options) {
	return func(o *Options) { o.Seeds = func() []string { return []string{g.Addr().String()} } }
}

// eventually waits until ok, and fails the test after ten seconds.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("after 10 s still not: %s", what)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// sees reports whether g sees the member id in that state.
func sees(g *Gossip, id binnacle.NodeID, s Kind) bool {
	return slices.ContainsFunc(g.Members(), func(m Member) bool { return m.ID == id && m.State == s })
}

func TestGossipLife(t *testing.T) {
	gt := newGossipTest(t)
	m, heard := gt.manager(nil)
	one, two := identity(t, gt.a, "n-one"), identity(t, gt.a, "n-two")
	g1, g2 := gt.start(one, seedOf(m)), gt.start(two, seedOf(m))
	eventually(t, "all three see each other", func() bool {
		return sees(m, "n-one", Alive) && sees(m, "n-two", Alive) && sees(g1, "n-two", Alive) && sees(g2, "n-one", Alive)
	})
	if members := g1.Members(); len(members) != 2 || !members[0].Manager || members[1].Manager || members[1].Meta.Address != "127.0.0.1:8080" {
		t.Errorf("n-one sees %+v; want the manager and n-two", members)
	}

	// News spreads.
	if err := g1.SetMeta(Metadata{Address: "127.0.0.1:8080", Revision: 7, Draining: true}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "n-two knows the new revision of n-one", func() bool {
		return slices.ContainsFunc(g2.Members(), func(m Member) bool { return m.ID == "n-one" && m.Meta.Revision == 7 && m.Meta.Draining })
	})

	// A crash is found out.
	if err := g1.Close(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "n-one is dead to all", func() bool { return sees(m, "n-one", Dead) && sees(g2, "n-one", Dead) })
	if !heard.has("n-one", Dead) || heard.has("n-one", Left) {
		t.Error("the manager did not hear of a death, or of a good-bye")
	}

	// It comes back at another address with a new life.
	g1 = gt.start(one, seedOf(m))
	eventually(t, "n-one is back at its new address", func() bool {
		return slices.ContainsFunc(g2.Members(), func(m Member) bool { return m.ID == "n-one" && m.State == Alive && m.Gossip == g1.Addr() })
	})

	// A good-bye is no death.
	if err := g1.Leave(5 * time.Second); err != nil {
		t.Errorf("Leave: %v", err)
	}
	eventually(t, "n-one left for all", func() bool { return sees(m, "n-one", Left) && sees(g2, "n-one", Left) })
	eventually(t, "the manager heard of it", func() bool { return heard.has("n-one", Left) })
	if err := g1.Close(); err != nil {
		t.Errorf("Close after Leave: %v", err)
	}

	// And it can come back from that, too.
	g1 = gt.start(one, seedOf(m))
	eventually(t, "n-one is back", func() bool { return sees(m, "n-one", Alive) && sees(g1, "n-two", Alive) })
}

// A gossip key makes no member: strangers, thieves and the forgotten are not
// listed.
func TestGossipRefusesStrangers(t *testing.T) {
	gt := newGossipTest(t)
	banned := errors.New("forgotten")
	m, _ := gt.manager(func(o *Options) {
		o.Allow = func(id binnacle.NodeID, key ed25519.PublicKey) error {
			if id == "n-forgotten" {
				return banned
			}
			return nil
		}
	})
	good := gt.start(identity(t, gt.a, "n-good"), seedOf(m))

	other := newAuthority(t)
	stranger := gt.start(identity(t, other, "n-stranger"), func(o *Options) {
		seedOf(m)(o)
		o.Label = Label(gt.a.Cluster())
		o.Cluster, o.CAPub = other.Cluster(), other.PublicKey()
	})
	gt.start(identity(t, gt.a, "n-forgotten"), seedOf(m))
	// A member that goes by another's name, and one that says it is elsewhere
	// than its key signed.
	gt.forge(m, "n-good", identity(t, gt.a, "n-thief"), 0)
	gt.forge(m, "n-mover", identity(t, gt.a, "n-mover"), 1)

	last := gt.start(identity(t, gt.a, "n-last"), seedOf(m))
	eventually(t, "the good ones see each other", func() bool {
		return sees(m, "n-good", Alive) && sees(good, "n-last", Alive) && sees(last, "n-good", Alive)
	})
	eventually(t, "all refusals are counted", func() bool {
		return m.count.refused("certificate").Get() > 0 && m.count.refused("name").Get() > 0 &&
			m.count.refused("address").Get() > 0 && m.count.refused("not_allowed").Get() > 0
	})
	for _, x := range m.Members() {
		if x.ID != "n-good" && x.ID != "n-last" {
			t.Errorf("the manager lists %s", x.ID)
		}
		if x.ID == "n-good" && x.Gossip != good.Addr() {
			t.Errorf("n-good was moved to %s; want %s", x.Gossip, good.Addr())
		}
	}
	if n := len(stranger.Members()); n != 0 {
		t.Errorf("the stranger lists %d members as of its cluster; want none", n)
	}
}

// Two clusters with one key on one network stay two.
func TestLabelsKeepClustersApart(t *testing.T) {
	gt := newGossipTest(t)
	m, _ := gt.manager(nil)
	g := gt.start(identity(t, gt.a, "n-one"), func(o *Options) { seedOf(m)(o); o.Label = "binnacle/c-other" })
	eventually(t, "the foreign label is counted", func() bool { return m.count.foreign.Get() > 0 || g.count.joinFailures.Get() > 0 })
	if len(m.Members())+len(g.Members()) != 0 {
		t.Errorf("manager sees %v, node sees %v; want nothing", m.Members(), g.Members())
	}
}

func TestGossipKeyRotation(t *testing.T) {
	gt := newGossipTest(t)
	old, next := gt.keys[0], NewKey()
	m, heard := gt.manager(nil)
	nodes := []*Gossip{m}
	for _, id := range []binnacle.NodeID{"n-one", "n-two"} {
		nodes = append(nodes, gt.start(identity(t, gt.a, id), seedOf(m)))
	}
	whole := func() bool {
		return sees(m, "n-one", Alive) && sees(m, "n-two", Alive) && sees(nodes[1], "n-two", Alive)
	}
	eventually(t, "whole", whole)
	for _, keys := range [][]api.GossipKey{{old, next}, {next, old}, {next}} {
		for _, g := range nodes {
			if err := g.SetKeys(keys); err != nil {
				t.Fatalf("SetKeys(%s): %v", KeyID(keys), err)
			}
			if g.KeyID() != KeyID(keys) {
				t.Errorf("KeyID is %s; want %s", g.KeyID(), KeyID(keys))
			}
			time.Sleep(300 * time.Millisecond) // members hold different rings for a while
		}
	}
	if heard.has("n-one", Dead) || heard.has("n-two", Dead) || !whole() {
		t.Error("a member was lost while the key changed")
	}
	// Who has only the old key stays out.
	late := gt.start(identity(t, gt.a, "n-late"), seedOf(m))
	eventually(t, "the old key is refused", func() bool { return late.count.joinFailures.Get() > 0 })
	if sees(m, "n-late", Alive) {
		t.Error("a member with the removed key joined")
	}
	if err := m.SetKeys([]api.GossipKey{old, next, NewKey()}); err == nil {
		t.Error("three keys were accepted")
	}
	if err := m.SetKeys(nil); err == nil {
		t.Error("no key was accepted")
	}
}

// Every change of a ring ends with the keys asked for, first the one in use.
func TestSetRing(t *testing.T) {
	a, b, c := NewKey(), NewKey(), NewKey()
	sets := [][]api.GossipKey{{a}, {b}, {a, b}, {b, a}, {b, c}, {c, b}, {a, c}}
	for _, from := range sets {
		for _, to := range sets {
			ring, err := memberlist.NewKeyring([][]byte{from[len(from)-1].Key}, from[0].Key)
			if err != nil {
				t.Fatal(err)
			}
			if err := setRing(ring, to); err != nil {
				t.Fatalf("%s to %s: %v", KeyID(from), KeyID(to), err)
			}
			got := ring.GetKeys()
			if len(got) != len(to) || !slices.EqualFunc(got, to, func(k []byte, w api.GossipKey) bool { return string(k) == string(w.Key) }) {
				t.Errorf("%s to %s: got %d keys in another order", KeyID(from), KeyID(to), len(got))
			}
		}
	}
}

// udpSwitch is a transport whose packets can be dropped, both ways.
type udpSwitch struct {
	memberlist.NodeAwareTransport
	off *atomic.Bool
	in  chan *memberlist.Packet
}

func newUDPSwitch(t memberlist.Transport, off *atomic.Bool, done <-chan struct{}) *udpSwitch {
	s := &udpSwitch{NodeAwareTransport: t.(memberlist.NodeAwareTransport), off: off, in: make(chan *memberlist.Packet)}
	go func() {
		for {
			select {
			case p := <-t.PacketCh():
				if !off.Load() {
					select {
					case s.in <- p:
					case <-done:
						return
					}
				}
			case <-done:
				return
			}
		}
	}()
	return s
}

func (s *udpSwitch) PacketCh() <-chan *memberlist.Packet { return s.in }

func (s *udpSwitch) WriteToAddress(b []byte, a memberlist.Address) (time.Time, error) {
	if s.off.Load() {
		return time.Now(), nil
	}
	return s.NodeAwareTransport.WriteToAddress(b, a)
}

// Blocked UDP is reported as such, and its end too. This holds memberlist to
// the wording of its log, which is the only place where it says so.
func TestGossipFindsBlockedUDP(t *testing.T) {
	gt := newGossipTest(t)
	m, heard := gt.manager(nil)
	var off atomic.Bool
	done := make(chan struct{})
	t.Cleanup(func() { close(done) }) // after the member: its transport waits for a reader
	gt.start(identity(t, gt.a, "n-one"), func(o *Options) {
		seedOf(m)(o)
		o.tune = func(c *memberlist.Config) { quick(c); c.Transport = newUDPSwitch(c.Transport, &off, done) }
	})
	eventually(t, "n-one joined", func() bool { return sees(m, "n-one", Alive) })
	off.Store(true)
	eventually(t, "blocked UDP is heard of", func() bool { return heard.has("n-one", UDPBlocked) })
	off.Store(false)
	eventually(t, "its end is heard of", func() bool { return heard.has("n-one", UDPOpen) })
	if heard.has("n-one", Dead) {
		t.Error("a member that answers over TCP was called dead")
	}
}

// The first doubt is heard of before the death. This too holds memberlist to
// its wording.
func TestGossipTellsSuspicion(t *testing.T) {
	gt := newGossipTest(t)
	m, heard := gt.manager(func(o *Options) {
		o.tune = func(c *memberlist.Config) { quick(c); c.SuspicionMult = 10 }
	})
	g := gt.start(identity(t, gt.a, "n-one"), seedOf(m))
	eventually(t, "n-one joined", func() bool { return sees(m, "n-one", Alive) })
	if err := g.Close(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "n-one is suspect", func() bool { return heard.has("n-one", Suspect) })
	eventually(t, "n-one is dead", func() bool { return heard.has("n-one", Dead) })
}

// Without the manager, a restarted node finds the others by what it remembers.
func TestGossipRejoinsByMemory(t *testing.T) {
	gt := newGossipTest(t)
	m, _ := gt.manager(nil)
	file := filepath.Join(t.TempDir(), "peers.json")
	one := identity(t, gt.a, "n-one")
	remember := func(o *Options) { seedOf(m)(o); o.PeersFile = file }
	g1, g2 := gt.start(one, remember), gt.start(identity(t, gt.a, "n-two"), seedOf(m))
	eventually(t, "they know each other", func() bool { return sees(g1, "n-two", Alive) && sees(g2, "n-one", Alive) })
	if err := errors.Join(g1.Close(), m.Close()); err != nil {
		t.Fatal(err)
	}
	eventually(t, "n-two is alone", func() bool { return sees(g2, "n-one", Dead) })
	g1 = gt.start(one, remember)
	eventually(t, "n-one and n-two are together", func() bool { return sees(g1, "n-two", Alive) && sees(g2, "n-one", Alive) })
}

func TestGossipRefusesToStart(t *testing.T) {
	gt := newGossipTest(t)
	good := identity(t, gt.a, "n-one")
	running := gt.start(good, nil)
	for name, change := range map[string]func(*Options){
		"no key":          func(o *Options) { o.Keys = nil },
		"short key":       func(o *Options) { o.Keys = []api.GossipKey{{ID: "x", Key: make([]byte, 16)}} },
		"no certificate":  func(o *Options) { o.Identity.Cert = nil },
		"foreign":         func(o *Options) { o.Identity = identity(t, newAuthority(t), "n-one") },
		"no bind":         func(o *Options) { o.Bind = "" },
		"port taken":      func(o *Options) { o.Bind = running.Addr().String() },
		"advertises zero": func(o *Options) { o.Advertise = "0.0.0.0" },
		"long address":    func(o *Options) { o.Meta.Address = string(make([]byte, maxAddress+1)) },
	} {
		if g, err := Start(t.Context(), gt.options(good, change)); err == nil {
			t.Errorf("%s: started", name)
			g.Close()
		} else {
			t.Logf("%s: %v", name, err)
		}
	}
}

func TestGossipClosesWhileItDials(t *testing.T) {
	gt := newGossipTest(t)
	ln, err := net.Listen("tcp", "127.0.0.1:0") // accepts nothing, answers nothing
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	g := gt.start(identity(t, gt.a, "n-one"), func(o *Options) {
		o.Seeds = func() []string { return []string{ln.Addr().String(), "192.0.2.1:9898", "not an address"} }
		o.tune = func(c *memberlist.Config) { quick(c); c.TCPTimeout = time.Second }
	})
	begin := time.Now()
	if err := g.Close(); err != nil {
		t.Error(err)
	}
	if d := time.Since(begin); d > 5*time.Second {
		t.Errorf("Close took %v", d)
	}
}

func TestJoinTargets(t *testing.T) {
	ap := func(port uint16) netip.AddrPort { return netip.AddrPortFrom(netip.MustParseAddr("10.0.0.1"), port) }
	self := ap(1)
	members := []Member{
		{ID: "alive", State: Alive, Gossip: ap(2)},
		{ID: "suspect", State: Suspect, Gossip: ap(3)},
		{ID: "dead", State: Dead, Gossip: ap(4)},
		{ID: "left", State: Left, Gossip: ap(5)},
	}
	peers := []peer{
		{ID: "alive", Addr: ap(20)}, // its old address
		{ID: "left", Addr: ap(5)},
		{ID: "dead", Addr: ap(4)},
		{ID: "self", Addr: self},
		{ID: "unheard", Addr: ap(6)},
	}
	reverse := func(n int) []int {
		var p []int
		for i := range n {
			p = append(p, n-1-i)
		}
		return p
	}
	tests := []struct {
		name    string
		seeds   []netip.AddrPort
		members []Member
		peers   []peer
		limit   int
		want    []netip.AddrPort
	}{
		{"nobody is known", nil, nil, nil, 4, nil},
		{"seeds come first", []netip.AddrPort{ap(9), self}, members, peers, 4, []netip.AddrPort{ap(9), ap(6), ap(4)}},
		{"a seed that lives is passed over", []netip.AddrPort{ap(2)}, members, nil, 4, []netip.AddrPort{ap(4)}},
		{"at most so many", []netip.AddrPort{ap(9)}, members, peers, 2, []netip.AddrPort{ap(9), ap(6)}},
		{"everyone is there", nil, members[:2], peers[:1], 4, nil},
	}
	for _, tt := range tests {
		if got := joinTargets(tt.seeds, tt.members, tt.peers, self, tt.limit, reverse); !slices.Equal(got, tt.want) {
			t.Errorf("%s: got %v; want %v", tt.name, got, tt.want)
		}
	}
}

func TestEventQueue(t *testing.T) {
	dropped := newGossipCounters(newSet()).dropped
	q := newEventQueue(2, dropped)
	e := func(id binnacle.NodeID, k Kind) Event {
		return Event{Kind: k, Member: Member{ID: id}}
	}
	q.put(e("a", Alive))
	q.put(e("b", Alive))
	q.put(e("a", Dead))
	q.put(e("a", UDPBlocked)) // another subject, and no room
	got := q.take()
	if len(got) != 2 || got[0].Kind != Dead || got[1].Member.ID != "b" || dropped.Get() != 1 {
		t.Errorf("got %+v, %d dropped; want the newest of a and b, 1 dropped", got, dropped.Get())
	}
	q.put(e("a", Alive))
	if got := q.take(); len(got) != 1 || got[0].Kind != Alive {
		t.Errorf("after taking: got %+v", got)
	}
}
