package gossip

import (
	"errors"
	"log"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"
)

// simNet is a network in memory for whole members in a synctest bubble, with
// what goes wrong in real ones: loss, delay, cuts one way or both, machines
// that stall or die. Its dice have a seed; what the Go scheduler does has none,
// so that a seed repeats the faults and not each step.
type simNet struct {
	mu    sync.Mutex // guards what follows
	dice  *rand.Rand
	hosts map[netip.AddrPort]*simHost
	loss  float64 // share of packets that are lost
	// pass, if not nil, says whether anything gets from one host to another.
	pass func(from, to *simHost, udp bool) bool

	packets, lost, overflow int
}

func newSimNet(seed uint64) *simNet {
	return &simNet{dice: rand.New(rand.NewPCG(seed, seed)), hosts: make(map[netip.AddrPort]*simHost)}
}

// simHost is one machine: a memberlist.NodeAwareTransport.
type simHost struct {
	net     *simNet
	addr    netip.AddrPort
	packets chan *memberlist.Packet
	streams chan net.Conn
	closed  chan struct{}
	once    sync.Once

	// stub, if not nil, takes packets in place of a memberlist.
	stub       func(b []byte, from netip.AddrPort)
	side       int       // for cuts
	stallUntil time.Time // guarded by net.mu
}

// host plugs a machine in; one that had the address is gone.
func (n *simNet) host(addr netip.AddrPort) *simHost {
	h := &simHost{
		net: n, addr: addr, closed: make(chan struct{}),
		// As much as a socket buffer of 2 MiB holds.
		packets: make(chan *memberlist.Packet, 4096), streams: make(chan net.Conn),
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.hosts[addr] = h
	return h
}

// stub plugs in a machine that answers packets by f and nothing else.
func (n *simNet) stub(addr netip.AddrPort, f func(b []byte, from netip.AddrPort)) *simHost {
	h := &simHost{net: n, addr: addr, closed: make(chan struct{}), streams: make(chan net.Conn), stub: f}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.hosts[addr] = h
	return h
}

// unplug takes a machine off the network: nothing refuses, all is silence.
func (n *simNet) unplug(addr netip.AddrPort) {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.hosts, addr)
}

// rule sets loss and cuts.
func (n *simNet) rule(loss float64, pass func(from, to *simHost, udp bool) bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.loss, n.pass = loss, pass
}

// stall stops a machine's sends and receipts for d.
func (n *simNet) stall(addr netip.AddrPort, d time.Duration) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if h := n.hosts[addr]; h != nil {
		h.stallUntil = time.Now().Add(d)
	}
}

// way returns the host at an address if a packet gets there now, and how long
// that takes: a third to one millisecond, and to the end of its stall.
func (n *simNet) way(from *simHost, to netip.AddrPort, udp bool) (*simHost, time.Duration) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.packets++
	h := n.hosts[to]
	if h == nil || n.hosts[from.addr] != from || n.pass != nil && !n.pass(from, h, udp) || n.loss > 0 && n.dice.Float64() < n.loss {
		n.lost++
		return nil, 0
	}
	d := time.Millisecond/3 + time.Duration(n.dice.Int64N(int64(time.Millisecond*2/3)))
	return h, max(d, time.Until(h.stallUntil))
}

// wait returns when the host does not stall.
func (h *simHost) wait() {
	h.net.mu.Lock()
	d := time.Until(h.stallUntil)
	h.net.mu.Unlock()
	if d > 0 {
		time.Sleep(d)
	}
}

func (h *simHost) WriteTo(b []byte, to string) (time.Time, error) {
	h.wait()
	now := time.Now()
	addr, err := netip.ParseAddrPort(to)
	if err != nil {
		return now, err
	}
	dst, delay := h.net.way(h, addr, true)
	if dst == nil {
		return now, nil
	}
	p := &memberlist.Packet{Buf: append([]byte(nil), b...), From: net.UDPAddrFromAddrPort(h.addr)}
	time.AfterFunc(delay, func() {
		if dst.stub != nil {
			dst.stub(p.Buf, h.addr)
			return
		}
		p.Timestamp = time.Now()
		select {
		case <-dst.closed:
		case dst.packets <- p:
		default:
			dst.net.mu.Lock()
			dst.net.overflow++
			dst.net.mu.Unlock()
		}
	})
	return now, nil
}

func (h *simHost) WriteToAddress(b []byte, a memberlist.Address) (time.Time, error) {
	return h.WriteTo(b, a.Addr)
}

var errSimTimeout = &net.OpError{Op: "dial", Net: "sim", Err: os.ErrDeadlineExceeded}

// DialTimeout tries as TCP does: again after 1, 2, 4 s, each try there and back.
func (h *simHost) DialTimeout(to string, timeout time.Duration) (net.Conn, error) {
	h.wait()
	addr, err := netip.ParseAddrPort(to)
	if err != nil {
		return nil, err
	}
	end := time.Now().Add(timeout)
	for again := time.Second; ; again *= 2 {
		if dst, there := h.net.way(h, addr, false); dst != nil {
			if back, d := h.net.way(dst, h.addr, false); back == h {
				return h.connect(dst, there+d, end)
			}
		}
		wait := min(again, time.Until(end))
		select {
		case <-time.After(wait):
		case <-h.closed:
			return nil, net.ErrClosed
		}
		if !time.Now().Before(end) {
			return nil, errSimTimeout
		}
	}
}

func (h *simHost) DialAddressTimeout(a memberlist.Address, timeout time.Duration) (net.Conn, error) {
	return h.DialTimeout(a.Addr, timeout)
}

// connect hands one end of a connection to dst.
func (h *simHost) connect(dst *simHost, after time.Duration, end time.Time) (net.Conn, error) {
	time.Sleep(min(after, time.Until(end)))
	here, there := net.Pipe()
	select {
	case dst.streams <- &simConn{Conn: there, from: dst, to: h}:
		return &simConn{Conn: here, from: h, to: dst}, nil
	case <-dst.closed:
		return nil, errors.New("connection refused")
	case <-h.closed:
		return nil, net.ErrClosed
	case <-time.After(time.Until(end)):
		return nil, errSimTimeout
	}
}

func (h *simHost) FinalAdvertiseAddr(string, int) (net.IP, int, error) {
	return h.addr.Addr().AsSlice(), int(h.addr.Port()), nil
}

func (h *simHost) PacketCh() <-chan *memberlist.Packet { return h.packets }
func (h *simHost) StreamCh() <-chan net.Conn           { return h.streams }

func (h *simHost) Shutdown() error {
	h.once.Do(func() { close(h.closed) })
	return nil
}

// network is what Options.network wants.
func (h *simHost) network(*log.Logger) (memberlist.NodeAwareTransport, netip.AddrPort, error) {
	return h, h.addr, nil
}

// simConn is one end of a connection. What is lost or cut is sent again after
// 200 ms, 400 ms … as TCP would, until a deadline.
type simConn struct {
	net.Conn
	from, to *simHost

	mu       sync.Mutex // guards deadline
	deadline time.Time
}

func (c *simConn) Write(b []byte) (int, error) {
	c.from.wait()
	for again := 200 * time.Millisecond; ; again = min(2*again, 5*time.Second) {
		if dst, delay := c.from.net.way(c.from, c.to.addr, false); dst == c.to {
			time.Sleep(delay)
			return c.Conn.Write(b)
		}
		c.mu.Lock()
		end := c.deadline
		c.mu.Unlock()
		if !end.IsZero() && time.Until(end) <= again {
			time.Sleep(time.Until(end))
			return 0, os.ErrDeadlineExceeded
		}
		select {
		case <-time.After(again):
		case <-c.from.closed:
			return 0, net.ErrClosed
		}
	}
}

func (c *simConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.from.wait()
	return n, err
}

func (c *simConn) SetDeadline(t time.Time) error {
	c.mu.Lock()
	c.deadline = t
	c.mu.Unlock()
	return c.Conn.SetDeadline(t)
}

func (c *simConn) LocalAddr() net.Addr  { return net.TCPAddrFromAddrPort(c.from.addr) }
func (c *simConn) RemoteAddr() net.Addr { return net.TCPAddrFromAddrPort(c.to.addr) }
