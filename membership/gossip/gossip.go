package gossip

import (
	"context"
	"errors"
	"fmt"
	"log"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/VictoriaMetrics/metrics"
	"github.com/hashicorp/memberlist"

	"github.com/binnacle-project/binnacle"
	"github.com/binnacle-project/binnacle/api"
	"github.com/binnacle-project/binnacle/membership/pki"
)

// Gossip is one life of one member: it starts, leaves or closes, and is then
// done for. To come back, start another: an instance of memberlist that left
// says that it joined again, and nobody sees it. Gossip is safe for concurrent
// use.
type Gossip struct {
	opts   Options
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

// Start begins a life: it binds, announces itself and goes on to join
// seeds and remembered peers until Leave or Close. ctx bounds only the start.
// That nobody can be joined yet is no error.
func Start(ctx context.Context, o Options) (*Gossip, error) {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Label == "" {
		o.Label = Label(o.Cluster)
	}
	if o.Metrics == nil {
		o.Metrics = metrics.NewSet()
	}
	if o.rejoin == 0 {
		o.rejoin = rejoinEvery
	}
	if err := CheckKeys(o.Keys); err != nil {
		return nil, err
	}
	if _, _, err := pki.VerifyMembership(o.CAPub, o.Cluster, o.Identity.Cert); err != nil {
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
	hooks := &hooks{g}
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
