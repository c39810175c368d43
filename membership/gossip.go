package membership

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"log"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/VictoriaMetrics/metrics"
	"github.com/hashicorp/memberlist"

	"github.com/binnacle-project/binnacle"
	"github.com/binnacle-project/binnacle/api"
)

// GossipOptions say how a member takes part in the gossip.
type GossipOptions struct {
	// Identity is who the member is; its id is the name in gossip.
	Identity Identity
	Cluster  binnacle.ClusterID
	// CAPub is the cluster key, against which all others are checked.
	CAPub ed25519.PublicKey

	// Bind is host:port for UDP and TCP. An empty host means all IPv4
	// addresses, port 0 any free one.
	Bind string
	// Advertise is the address that others use, "host" or "host:port". Empty
	// means the bind address or, if that is unspecified, the first private
	// address of the machine.
	Advertise string
	// Label keeps clusters on one network apart; empty means GossipLabel(Cluster).
	Label string
	// Keys is the keyring, at most two, the one to use first.
	Keys []api.GossipKey
	// Meta is what the member says of itself at first.
	Meta Metadata

	// PeersFile is where the peers that were seen are kept, so that a restart
	// finds the others without the manager. Empty keeps none.
	PeersFile string
	// Seeds returns host:port of managers to join through. It may be nil, and
	// its answer may change.
	Seeds func() []string
	// OnEvent is called, one call at a time and never under a lock, for what
	// happens to others. It may take its time: only the newest event of each
	// member waits. It may be nil.
	OnEvent func(GossipEvent)
	// Allow, if not nil, may refuse a member that proves its membership, such
	// as one that was forgotten. It is called under memberlist's lock and has
	// to return at once.
	Allow func(binnacle.NodeID, ed25519.PublicKey) error
	// Manager sizes queues for one who hears of all nodes at once.
	Manager bool

	// Log and Metrics (binnacle_gossip_*) may be nil.
	Log     *slog.Logger
	Metrics *metrics.Set

	// tune changes memberlist's configuration, rejoin the time between rounds,
	// and network takes the place of sockets, in tests.
	tune    func(*memberlist.Config)
	rejoin  time.Duration
	network func(*log.Logger) (memberlist.NodeAwareTransport, netip.AddrPort, error)
}

// GossipLabel returns the label that keeps the gossip of a cluster apart from
// that of others.
func GossipLabel(c binnacle.ClusterID) string { return "binnacle/" + string(c) }

// GossipKind is what gossip tells of a member.
type GossipKind string

// The kinds of gossip events.
const (
	GossipAlive   GossipKind = "alive"
	GossipSuspect GossipKind = "suspect"
	GossipDead    GossipKind = "dead"
	GossipLeft    GossipKind = "left"
	// GossipUDPBlocked says that the member answers over TCP only, and
	// GossipUDPOpen that it answers over UDP again.
	GossipUDPBlocked GossipKind = "udp_blocked"
	GossipUDPOpen    GossipKind = "udp_open"
	// GossipConflict says that somebody at another address uses its id.
	GossipConflict GossipKind = "conflict"
)

// GossipEvent is a hint about one member.
type GossipEvent struct {
	Kind   GossipKind
	Member Member
	At     time.Time
	// Cause is a sentence for people, empty when the kind says it all.
	Cause string
}

// Member is another member of the gossip, as this one sees it.
type Member struct {
	ID      binnacle.NodeID
	Manager bool
	// Gossip is its signed gossip address.
	Gossip netip.AddrPort
	Meta   Metadata
	// State is GossipAlive, GossipSuspect, GossipDead or GossipLeft.
	State GossipKind
	Since time.Time
	// UDPBlocked is when it was last found to answer over TCP only, zero if
	// UDP works.
	UDPBlocked time.Time

	condemned time.Time // called dead by others, not yet by this one
}

// Gossip is one life of one member: it starts, leaves or closes, and is then
// done for. To come back, start another: an instance of memberlist that left
// says that it joined again, and nobody sees it. Gossip is safe for concurrent
// use.
type Gossip struct {
	opts   GossipOptions
	log    *slog.Logger
	list   *memberlist.Memberlist
	ring   *memberlist.Keyring
	verify *verifier
	self   netip.AddrPort
	queue  *eventQueue
	// probeInterval is memberlist's.
	probeInterval time.Duration
	peers         *peerBook
	count         gossipCounters

	sealed   atomic.Pointer[[]byte] // what NodeMeta gives
	announce chan struct{}          // SetMeta was called
	calls    chan netip.AddrPort    // members to call upon
	ctx      context.Context        // ends with Close
	cancel   context.CancelFunc
	wg       sync.WaitGroup

	sealMu   sync.Mutex // held while metadata are sealed, so that the newest stay
	updateMu sync.Mutex // held while memberlist announces a change

	keysMu sync.Mutex // guards keys and changes of ring
	keys   []api.GossipKey

	mu      sync.Mutex // guards what follows; nothing else is locked under it
	members map[binnacle.NodeID]Member
	meta    Metadata
	closed  bool
	// tcpOnly are those who answered over TCP only since anyone last answered
	// over UDP.
	tcpOnly       map[binnacle.NodeID]bool
	ownUDPBlocked bool
}

// maxGossipKeys is two: memberlist moves keys of a longer ring under readers.
const maxGossipKeys = 2

// StartGossip begins a life: it binds, announces itself and goes on to join
// seeds and remembered peers until Leave or Close. ctx bounds only the start.
// That nobody can be joined yet is no error.
func StartGossip(ctx context.Context, o GossipOptions) (*Gossip, error) {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Label == "" {
		o.Label = GossipLabel(o.Cluster)
	}
	if o.Metrics == nil {
		o.Metrics = metrics.NewSet()
	}
	if o.rejoin == 0 {
		o.rejoin = rejoinEvery
	}
	if err := checkGossipKeys(o.Keys); err != nil {
		return nil, err
	}
	if _, _, err := VerifyMembership(o.CAPub, o.Cluster, o.Identity.Cert); err != nil {
		return nil, fmt.Errorf("own identity for gossip: %w", err)
	}
	g := &Gossip{
		opts:     o,
		log:      o.Log.With("component", "gossip", "self", string(o.Identity.ID)),
		verify:   newVerifier(o.CAPub, o.Cluster),
		announce: make(chan struct{}, 1),
		calls:    make(chan netip.AddrPort, maxCalls),
		members:  make(map[binnacle.NodeID]Member),
		tcpOnly:  make(map[binnacle.NodeID]bool),
		keys:     slices.Clone(o.Keys),
		meta:     o.Meta,
		count:    newGossipCounters(o.Metrics),
	}
	g.queue = newEventQueue(maxQueuedEvents, g.count.dropped)
	g.peers = openPeerBook(o.PeersFile, g.log)
	g.ctx, g.cancel = context.WithCancel(context.WithoutCancel(ctx))
	if err := g.start(ctx); err != nil {
		g.cancel()
		return nil, fmt.Errorf("start gossip on %s: %w", o.Bind, err)
	}
	g.registerGauges(o.Metrics)
	g.wg.Go(g.deliver)
	g.wg.Go(g.announceChanges)
	g.wg.Go(g.rejoin)
	for range callers {
		g.wg.Go(g.call)
	}
	g.log.Info("gossip started", "address", g.self)
	return g, nil
}

// start opens the sockets and creates the memberlist.
func (g *Gossip) start(ctx context.Context) error {
	ring, err := memberlist.NewKeyring(nil, g.keys[0].Key)
	if err != nil {
		return fmt.Errorf("key %s: %w", g.keys[0].ID, err)
	}
	for _, k := range g.keys[1:] {
		if err := ring.AddKey(k.Key); err != nil {
			return fmt.Errorf("key %s: %w", k.ID, err)
		}
	}
	g.ring = ring

	logger := log.New(&logBridge{g: g}, "", 0)
	open := g.opts.network
	if open == nil {
		open = func(l *log.Logger) (memberlist.NodeAwareTransport, netip.AddrPort, error) { return g.listen(ctx, l) }
	}
	transport, self, err := open(logger)
	if err != nil {
		return err
	}
	g.self = self
	if err := g.seal(g.meta); err != nil {
		return errors.Join(err, transport.Shutdown())
	}
	config := g.config(transport, logger)
	g.probeInterval = config.ProbeInterval
	g.list, err = memberlist.Create(config)
	if err != nil {
		return errors.Join(err, transport.Shutdown())
	}
	return nil
}

// listen opens the sockets and decides on the address that others use.
func (g *Gossip) listen(ctx context.Context, logger *log.Logger) (memberlist.NodeAwareTransport, netip.AddrPort, error) {
	bind, err := parseBind(ctx, g.opts.Bind)
	if err != nil {
		return nil, netip.AddrPort{}, err
	}
	t, err := listenGossip(bind, logger)
	if err != nil {
		return nil, netip.AddrPort{}, err
	}
	self, err := advertised(ctx, t, g.opts.Advertise)
	if err != nil {
		return nil, netip.AddrPort{}, errors.Join(err, t.Shutdown())
	}
	if self.Addr().IsLoopback() && !bind.Addr().IsLoopback() {
		g.log.Warn("gossip advertises a loopback address: other machines cannot reach it; set an address to advertise", "address", self)
	}
	return &netTransport{NetTransport: t, ctx: g.ctx}, self, nil
}

// config is memberlist's profile for local networks with our differences.
func (g *Gossip) config(t memberlist.Transport, logger *log.Logger) *memberlist.Config {
	c := memberlist.DefaultLANConfig()
	c.Name = string(g.opts.Identity.ID)
	c.Label = g.opts.Label
	c.Keyring = g.ring
	c.Transport = t
	c.AdvertiseAddr = g.self.Addr().String()
	c.AdvertisePort = int(g.self.Port())
	c.Logger = logger
	hooks := &gossipHooks{g}
	c.Delegate, c.Events, c.Alive, c.Conflict, c.Ping = hooks, hooks, hooks, hooks, hooks
	// Most of a record is signatures, which do not compress, and a receiver
	// that inflates nothing cannot be made to.
	c.EnableCompression = false
	// Twice the sends of each piece of news: with 30 % loss every member hears
	// nearly all of it. News is rare, so this costs next to nothing.
	c.RetransmitMult = 8
	// A node that died and comes back at another address takes its name again
	// after this; without it never.
	c.DeadNodeReclaimTime = 5 * time.Second
	// A dial that hangs holds up one round of the rejoin loop.
	c.TCPTimeout = 5 * time.Second
	// 1024, the default, loses most of a burst of joins.
	c.HandoffQueueDepth = 4096
	if g.opts.Manager {
		c.HandoffQueueDepth = 65536
	}
	if g.opts.tune != nil {
		g.opts.tune(c)
	}
	return c
}

// Addr returns the advertised gossip address.
func (g *Gossip) Addr() netip.AddrPort { return g.self }

// Members returns the others, whatever their state, ordered by id. The caller
// owns the slice.
func (g *Gossip) Members() []Member {
	g.mu.Lock()
	defer g.mu.Unlock()
	return slices.SortedFunc(maps.Values(g.members), func(a, b Member) int { return strings.Compare(string(a.ID), string(b.ID)) })
}

// SetMeta changes what the member says of itself. It returns at once; the news
// spreads within a second or so. An address that is too long is refused.
func (g *Gossip) SetMeta(m Metadata) error {
	g.mu.Lock()
	old := g.meta
	g.meta = m
	g.mu.Unlock()
	if m == old {
		return nil
	}
	if err := g.reseal(); err != nil {
		g.mu.Lock()
		g.meta = old
		g.mu.Unlock()
		return err
	}
	g.announceSoon()
	return nil
}

// reseal makes the newest metadata what NodeMeta gives.
func (g *Gossip) reseal() error {
	g.sealMu.Lock()
	defer g.sealMu.Unlock()
	g.mu.Lock()
	m := g.meta
	m.udpBlocked = g.ownUDPBlocked
	g.mu.Unlock()
	return g.seal(m)
}

func (g *Gossip) announceSoon() {
	select {
	case g.announce <- struct{}{}:
	default:
	}
}

func (g *Gossip) seal(m Metadata) error {
	b, err := sealMetadata(m, g.self, g.opts.Identity)
	if err != nil {
		return err
	}
	g.sealed.Store(&b)
	return nil
}

// announceTimeout bounds the wait until a change has been told to somebody,
// and with it how long Close takes at worst.
const announceTimeout = 500 * time.Millisecond

func (g *Gossip) announceChanges() {
	for {
		select {
		case <-g.announce:
			if err := g.update(announceTimeout); err != nil {
				g.log.Debug("gossip told nobody of a change yet", "error", err)
			}
			if g.UDPBlocked() {
				g.tellManagers()
			}
		case <-g.ctx.Done():
			return
		}
	}
}

// update announces the sealed metadata. memberlist bears only one at a time.
func (g *Gossip) update(timeout time.Duration) error {
	g.updateMu.Lock()
	defer g.updateMu.Unlock()
	return g.list.UpdateNode(timeout)
}

// SetKeys replaces the keyring by keys, at most two, the one to use first.
// Nothing is interrupted as long as members share a key.
func (g *Gossip) SetKeys(keys []api.GossipKey) error {
	if err := checkGossipKeys(keys); err != nil {
		return err
	}
	g.keysMu.Lock()
	defer g.keysMu.Unlock()
	if GossipKeyID(keys) == GossipKeyID(g.keys) {
		return nil
	}
	if err := setRing(g.ring, keys); err != nil {
		return fmt.Errorf("change gossip keys to %s: %w", GossipKeyID(keys), err)
	}
	g.log.Info("gossip keys changed", "from", GossipKeyID(g.keys), "to", GossipKeyID(keys))
	g.keys = slices.Clone(keys)
	return nil
}

// KeyID names the keys installed, as a node's status reports them.
func (g *Gossip) KeyID() string {
	g.keysMu.Lock()
	defer g.keysMu.Unlock()
	return GossipKeyID(g.keys)
}

// setRing brings ring to keys without ever holding a third key, and removes
// only last ones: memberlist shifts keys in place, under its readers.
func setRing(ring *memberlist.Keyring, keys []api.GossipKey) error {
	wanted := func(k []byte) bool {
		return slices.ContainsFunc(keys, func(w api.GossipKey) bool { return bytes.Equal(w.Key, k) })
	}
	drop := func() error {
		for _, k := range slices.Backward(slices.Clone(ring.GetKeys())) {
			if !wanted(k) && !bytes.Equal(k, ring.GetPrimaryKey()) {
				if err := ring.RemoveKey(k); err != nil {
					return err
				}
			}
		}
		return nil
	}
	if err := drop(); err != nil {
		return err
	}
	primaryKnown := slices.ContainsFunc(ring.GetKeys(), func(k []byte) bool { return bytes.Equal(k, keys[0].Key) })
	if !primaryKnown {
		if err := ring.AddKey(keys[0].Key); err != nil {
			return err
		}
	}
	if err := ring.UseKey(keys[0].Key); err != nil {
		return err
	}
	if err := drop(); err != nil {
		return err
	}
	for _, k := range keys[1:] {
		if err := ring.AddKey(k.Key); err != nil {
			return err
		}
	}
	return nil
}

func checkGossipKeys(keys []api.GossipKey) error {
	if len(keys) == 0 || len(keys) > maxGossipKeys {
		return fmt.Errorf("gossip needs 1 or 2 keys: have %d", len(keys))
	}
	for _, k := range keys {
		if len(k.Key) != gossipKeyBytes {
			return fmt.Errorf("gossip key %q has %d bytes; want %d", k.ID, len(k.Key), gossipKeyBytes)
		}
	}
	return nil
}

// Leave says good-bye, so that the others know of it at once, and ends this
// life as Close does. It waits at most timeout for the news to be sent.
func (g *Gossip) Leave(timeout time.Duration) error {
	g.mu.Lock()
	closed := g.closed
	g.meta.Leaving = true
	g.mu.Unlock()
	if closed {
		return nil
	}
	err := g.reseal()
	// First the record that says so, for those who ask why it is gone, then
	// the message that takes it off the list.
	err = errors.Join(err, g.update(timeout/2), g.list.Leave(timeout/2))
	if cerr := g.Close(); cerr != nil || err != nil {
		return fmt.Errorf("leave gossip: %w", errors.Join(err, cerr))
	}
	return nil
}

// Close ends this life without a good-bye: the others find out. It may be
// called twice and returns after the last goroutine has, but for a probe of
// memberlist's that is under way, which ends by itself within seconds.
func (g *Gossip) Close() error {
	g.mu.Lock()
	closed := g.closed
	g.closed = true
	g.mu.Unlock()
	if closed {
		return nil
	}
	g.cancel()
	err := g.list.Shutdown()
	g.wg.Wait()
	return errors.Join(err, g.peers.save())
}

// listenGossip opens the UDP and TCP sockets. With port 0 the kernel chooses a
// port for TCP that UDP may not have: it tries again.
func listenGossip(bind netip.AddrPort, logger *log.Logger) (*memberlist.NetTransport, error) {
	var err error
	for range 10 {
		var t *memberlist.NetTransport
		t, err = memberlist.NewNetTransport(&memberlist.NetTransportConfig{
			BindAddrs: []string{bind.Addr().String()},
			BindPort:  int(bind.Port()),
			Logger:    logger,
		})
		if err == nil {
			return t, nil
		}
		if bind.Port() != 0 {
			break
		}
	}
	return nil, err
}

// advertised decides on the address that others use.
func advertised(ctx context.Context, t *memberlist.NetTransport, advertise string) (netip.AddrPort, error) {
	port := uint16(t.GetAutoBindPort())
	if advertise != "" {
		return parseAdvertise(ctx, advertise, port)
	}
	ip, _, err := t.FinalAdvertiseAddr("", 0)
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("%w; set an address to advertise", err)
	}
	addr, ok := netip.AddrFromSlice(ip)
	if addr = addr.Unmap(); !ok || addr.IsUnspecified() {
		return netip.AddrPort{}, fmt.Errorf("bound to all addresses (%s): set an address to advertise", ip)
	}
	return netip.AddrPortFrom(addr, port), nil
}
