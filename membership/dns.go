package membership

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/VictoriaMetrics/metrics"
	"github.com/miekg/dns"

	"github.com/binnacle-project/binnacle/api"
)

// DNSOptions say what a DNS server answers.
type DNSOptions struct {
	// Zone is the domain of all names; empty means "binnacle.".
	Zone string
	// TTL is how long answers may be kept; zero means 5 s. Load balancers may
	// use a node for so long after it is gone, and know of a new one so late.
	TTL time.Duration
	// Nodes returns the nodes in traffic. It is called at most once in
	// dnsFresh, by one query at a time.
	Nodes func() []api.Node
	// Log and Metrics (binnacle_dns_…) may be nil.
	Log     *slog.Logger
	Metrics *metrics.Set
}

const (
	defaultDNSZone = "binnacle."
	defaultDNSTTL  = 5 * time.Second
	// dnsFresh is how old the list of nodes may be that an answer is made of.
	dnsFresh = 250 * time.Millisecond
	// maxDNSPacket caps what a client may ask for over UDP, so that a forged
	// sender draws no more than that.
	maxDNSPacket = 8192
	// maxDNSConns bounds connections over TCP.
	maxDNSConns = 256
)

// DNS answers discovery queries over UDP and TCP. It is safe for concurrent use.
type DNS struct {
	o    DNSOptions
	udp  net.PacketConn
	tcp  net.Listener
	zone string
	set  *metrics.Set

	mu    sync.Mutex // guards what follows
	list  []dnsNode
	asked time.Time
}

// dnsNode is a node as DNS shows it.
type dnsNode struct {
	id, group string
	port      uint16
	addrs     []netip.Addr
	host      string // a name in place of addresses
}

// ListenDNS opens the sockets at addr, UDP and TCP on one port. Run serves.
func ListenDNS(addr string, o DNSOptions) (*DNS, error) {
	if o.Zone == "" {
		o.Zone = defaultDNSZone
	}
	if _, ok := dns.IsDomainName(o.Zone); !ok {
		return nil, fmt.Errorf("DNS zone %q is no domain name", o.Zone)
	}
	if o.TTL == 0 {
		o.TTL = defaultDNSTTL
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Metrics == nil {
		o.Metrics = metrics.NewSet()
	}
	d := &DNS{o: o, zone: dns.CanonicalName(o.Zone), set: o.Metrics}
	// With port 0 the kernel chooses one for TCP that UDP may not have.
	var err error
	for range 10 {
		if d.tcp, err = net.Listen("tcp", addr); err != nil {
			return nil, err
		}
		if d.udp, err = net.ListenPacket("udp", d.tcp.Addr().String()); err == nil {
			return d, nil
		}
		err = errors.Join(err, d.tcp.Close())
		if !strings.HasSuffix(addr, ":0") {
			break
		}
	}
	return nil, err
}

// Addr returns the address that is listened on.
func (d *DNS) Addr() string { return d.tcp.Addr().String() }

// Close closes the sockets. It is for a DNS that never ran; Run closes them
// itself.
func (d *DNS) Close() error {
	return errors.Join(ignoreClosed(d.udp.Close()), ignoreClosed(d.tcp.Close()))
}

func ignoreClosed(err error) error {
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

// Run answers until ctx ends and returns nil then.
func (d *DNS) Run(ctx context.Context) error {
	started := make(chan struct{}, 2)
	ready := func() { started <- struct{}{} }
	servers := []*dns.Server{
		{PacketConn: d.udp, Handler: dns.HandlerFunc(d.serve), NotifyStartedFunc: ready},
		{Listener: &boundedListener{Listener: d.tcp, slots: make(chan struct{}, maxDNSConns)}, Handler: dns.HandlerFunc(d.serve), NotifyStartedFunc: ready},
	}
	failed := make(chan error, len(servers))
	var wg sync.WaitGroup
	for _, s := range servers {
		wg.Go(func() { failed <- s.ActivateAndServe() })
	}
	defer wg.Wait()
	defer func() { _ = d.Close() }()
	for range servers {
		select {
		case <-started:
		case err := <-failed:
			return fmt.Errorf("DNS on %s: %w", d.Addr(), err)
		}
	}
	d.o.Log.Info("discovery by DNS", "address", d.Addr(), "zone", d.zone)
	select {
	case <-ctx.Done():
	case err := <-failed:
		return fmt.Errorf("DNS on %s: %w", d.Addr(), err)
	}
	stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
	defer cancel()
	for _, s := range servers {
		_ = s.ShutdownContext(stop) // what takes longer is cut by Close
	}
	return nil
}

// boundedListener accepts while slots are free.
type boundedListener struct {
	net.Listener
	slots chan struct{}
}

func (l *boundedListener) Accept() (net.Conn, error) {
	l.slots <- struct{}{} // each held for 8 s of silence at most
	c, err := l.Listener.Accept()
	if err != nil {
		<-l.slots
		return nil, err
	}
	return &boundedConn{Conn: c, free: sync.OnceFunc(func() { <-l.slots })}, nil
}

type boundedConn struct {
	net.Conn
	free func()
}

func (c *boundedConn) Close() error {
	defer c.free()
	return c.Conn.Close()
}

// serve answers one query.
func (d *DNS) serve(w dns.ResponseWriter, q *dns.Msg) {
	a := d.answer(q, d.nodes())
	size := dns.MaxMsgSize
	if _, udp := w.RemoteAddr().(*net.UDPAddr); udp {
		size = dns.MinMsgSize
		if opt := q.IsEdns0(); opt != nil {
			size = min(max(int(opt.UDPSize()), dns.MinMsgSize), maxDNSPacket)
		}
	}
	a.Truncate(size)
	d.set.GetOrCreateCounter(`binnacle_dns_answers_total{rcode="` + dns.RcodeToString[a.Rcode] + `"}`).Inc()
	if err := w.WriteMsg(a); err != nil {
		d.o.Log.Debug("DNS answer not sent", "peer", w.RemoteAddr(), "error", err)
	}
}

// nodes returns the list, made anew when it is older than dnsFresh.
func (d *DNS) nodes() []dnsNode {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.list == nil || time.Since(d.asked) >= dnsFresh {
		d.list, d.asked = dnsNodes(d.o.Nodes()), time.Now()
	}
	return d.list
}

func dnsNodes(nodes []api.Node) []dnsNode {
	out := make([]dnsNode, 0, len(nodes))
	for _, n := range nodes {
		host, port, err := net.SplitHostPort(n.Address)
		if err != nil {
			continue
		}
		p, err := strconv.ParseUint(port, 10, 16)
		if err != nil {
			continue
		}
		dn := dnsNode{id: string(n.ID), group: string(n.Group), port: uint16(p)}
		if ip, err := netip.ParseAddr(host); err == nil {
			dn.addrs = []netip.Addr{ip.Unmap().WithZone("")}
		} else {
			dn.host = dns.Fqdn(host)
		}
		out = append(out, dn)
	}
	return out
}

// CheckDNSZone reports whether zone can be the domain of discovery by DNS.
func CheckDNSZone(zone string) error {
	if _, ok := dns.IsDomainName(zone); !ok || strings.Trim(zone, ".") == "" {
		return fmt.Errorf("%s is no domain name", strconv.Quote(zone))
	}
	return nil
}
