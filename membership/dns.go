package membership

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/VictoriaMetrics/metrics"
	"github.com/miekg/dns"

	"github.com/binnacle-project/binnacle/api"
)

// The names that discovery by DNS answers, below the zone (binnacle. by default):
//
//	nodes.ZONE              A, AAAA   every node in traffic
//	_http._tcp.nodes.ZONE   SRV       the same with their ports
//	GROUP.nodes.ZONE, _http._tcp.GROUP.nodes.ZONE   those of one group
//	ID.node.ZONE            A, AAAA   one node: what the SRV records name
//
// Records live for the TTL only and their order is dealt anew for each answer.
// A name of this form without a node has no records; it is no error, so that a
// resolver does not remember it as one.

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
		host, port, err := splitHostPort(n.Address)
		if err != nil {
			continue
		}
		dn := dnsNode{id: string(n.ID), group: string(n.Group), port: port}
		if ip, err := netip.ParseAddr(host); err == nil {
			dn.addrs = []netip.Addr{ip.Unmap().WithZone("")}
		} else {
			dn.host = dns.Fqdn(host)
		}
		out = append(out, dn)
	}
	return out
}

// answer makes the answer to a query from the list of nodes. It depends on
// nothing else but dice for the order.
func (d *DNS) answer(q *dns.Msg, nodes []dnsNode) *dns.Msg {
	a := new(dns.Msg)
	a.SetReply(q)
	a.Authoritative = true
	if q.Opcode != dns.OpcodeQuery || len(q.Question) != 1 {
		a.Rcode = dns.RcodeNotImplemented
		return a
	}
	if opt := q.IsEdns0(); opt != nil {
		a.SetEdns0(maxDNSPacket, false)
	}
	question := q.Question[0]
	name := strings.ToLower(question.Name)
	if question.Qclass != dns.ClassINET || !dns.IsSubDomain(d.zone, name) {
		a.Authoritative = false
		a.Rcode = dns.RcodeRefused
		return a
	}
	if question.Qtype == dns.TypeANY || question.Qtype == dns.TypeAXFR || question.Qtype == dns.TypeIXFR {
		a.Rcode = dns.RcodeRefused
		return a
	}
	below := strings.TrimSuffix(strings.TrimSuffix(name, d.zone), ".")
	want := askedFor(below)
	header := func(t uint16) dns.RR_Header {
		return dns.RR_Header{Name: question.Name, Rrtype: t, Class: dns.ClassINET, Ttl: uint32(d.o.TTL / time.Second)}
	}
	switch {
	case below == "" && question.Qtype == dns.TypeSOA:
		a.Answer = []dns.RR{d.soa()}
		return a
	case below == "":
	case !want.known:
		a.Rcode = dns.RcodeNameError
	default:
		for _, n := range pick(nodes, want) {
			if want.srv != (question.Qtype == dns.TypeSRV) {
				continue
			}
			if want.srv {
				a.Answer = append(a.Answer, &dns.SRV{Hdr: header(dns.TypeSRV), Weight: 1, Port: n.port, Target: d.target(n)})
				a.Extra = append(a.Extra, d.glue(n)...)
				continue
			}
			a.Answer = append(a.Answer, addresses(n, question.Qtype, header)...)
		}
	}
	if len(a.Answer) == 0 {
		a.Ns = []dns.RR{d.soa()}
	}
	return a
}

// asked is what a name asks for.
type asked struct {
	known bool
	srv   bool
	group string // empty: all
	id    string // of one node
}

// askedFor reads the part of a name below the zone.
func askedFor(below string) asked {
	if rest, ok := strings.CutPrefix(below, "_http._tcp."); ok {
		a := askedFor(rest)
		a.known = a.known && a.id == "" && !a.srv
		a.srv = true
		return a
	}
	if id, ok := strings.CutSuffix(below, ".node"); ok {
		return asked{known: id != "" && !strings.Contains(id, "."), id: id}
	}
	if below == "nodes" {
		return asked{known: true}
	}
	if group, ok := strings.CutSuffix(below, ".nodes"); ok {
		return asked{known: group != "", group: group}
	}
	return asked{}
}

// pick returns the nodes asked for in an order of its own.
func pick(nodes []dnsNode, want asked) []dnsNode {
	out := slices.DeleteFunc(slices.Clone(nodes), func(n dnsNode) bool {
		return want.id != "" && n.id != want.id || want.group != "" && n.group != want.group
	})
	rand.Shuffle(len(out), func(i, j int) { out[i], out[j] = out[j], out[i] })
	return out
}

// target is what an SRV record names: the node's own name in the zone or, where
// the node has a name of its own, that.
func (d *DNS) target(n dnsNode) string {
	if n.host != "" {
		return n.host
	}
	return n.id + ".node." + d.zone
}

// glue gives the addresses that go with an SRV record.
func (d *DNS) glue(n dnsNode) []dns.RR {
	header := func(t uint16) dns.RR_Header {
		return dns.RR_Header{Name: d.target(n), Rrtype: t, Class: dns.ClassINET, Ttl: uint32(d.o.TTL / time.Second)}
	}
	return append(addresses(n, dns.TypeA, header), addresses(n, dns.TypeAAAA, header)...)
}

func addresses(n dnsNode, t uint16, header func(uint16) dns.RR_Header) []dns.RR {
	var out []dns.RR
	for _, ip := range n.addrs {
		switch {
		case t == dns.TypeA && ip.Is4():
			out = append(out, &dns.A{Hdr: header(t), A: ip.AsSlice()})
		case t == dns.TypeAAAA && ip.Is6():
			out = append(out, &dns.AAAA{Hdr: header(t), AAAA: ip.AsSlice()})
		}
	}
	return out
}

// soa says who answers, and that what is not there may be there in a second.
func (d *DNS) soa() dns.RR {
	return &dns.SOA{
		Hdr: dns.RR_Header{Name: d.zone, Rrtype: dns.TypeSOA, Class: dns.ClassINET, Ttl: 1},
		Ns:  "manager." + d.zone, Mbox: "nobody." + d.zone,
		Serial: 1, Refresh: 60, Retry: 10, Expire: 600, Minttl: 1,
	}
}

// CheckDNSZone reports whether zone can be the domain of discovery by DNS.
func CheckDNSZone(zone string) error {
	if _, ok := dns.IsDomainName(zone); !ok || strings.Trim(zone, ".") == "" {
		return fmt.Errorf("%s is no domain name", strconv.Quote(zone))
	}
	return nil
}
