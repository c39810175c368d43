package otlp

import (
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/VictoriaMetrics/metrics"
)

// Limits of connections for each listener. A sender needs one or two; a fleet
// behind one address, hundreds.
const (
	maxConnections        = 4096
	maxConnectionsPerPeer = 1024
)

// LimitConnections returns ln with bounds on the connections that are open at
// once, in all and from one address. One over them is closed before anything is
// read of it, and counted: senders take that for an outage, and try again.
// name is the value of the label listener.
func (r *Receiver) LimitConnections(ln net.Listener, name string) net.Listener {
	set := r.meters.set
	l := &limitedListener{
		Listener: ln, name: name, log: r.log, max: maxConnections, maxPerPeer: maxConnectionsPerPeer, peers: map[netip.Addr]int{},
		refused: set.GetOrCreateCounter(fmt.Sprintf("binnacle_otlp_connections_refused_total{listener=%q}", name)),
	}
	set.GetOrCreateGauge(fmt.Sprintf("binnacle_otlp_connections{listener=%q}", name), func() float64 { return float64(l.open.Load()) })
	return l
}

type limitedListener struct {
	net.Listener
	name            string
	log             *slog.Logger
	max, maxPerPeer int
	refused         *metrics.Counter
	open            atomic.Int64

	mu    sync.Mutex // guards the rest
	peers map[netip.Addr]int
	told  time.Time
}

// Accept waits for the next connection that may stay.
func (l *limitedListener) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		peer := addrPort(c.RemoteAddr()).Addr().Unmap()
		if l.admit(peer) {
			return &limitedConn{Conn: c, leave: sync.OnceFunc(func() { l.leave(peer) })}, nil
		}
		_ = c.Close()
	}
}

func (l *limitedListener) admit(peer netip.Addr) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if int(l.open.Load()) >= l.max || l.peers[peer] >= l.maxPerPeer {
		l.refused.Inc()
		if now := time.Now(); now.Sub(l.told) > time.Minute {
			l.told = now
			l.log.Warn("too many connections: the newest are closed", "listener", l.name, "open", l.open.Load(), "of_this_address", l.peers[peer], "address", peer)
		}
		return false
	}
	l.open.Add(1)
	l.peers[peer]++
	return true
}

func (l *limitedListener) leave(peer netip.Addr) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.open.Add(-1)
	if l.peers[peer]--; l.peers[peer] == 0 {
		delete(l.peers, peer)
	}
}

type limitedConn struct {
	net.Conn
	leave func()
}

// Close implements net.Conn.
func (c *limitedConn) Close() error {
	defer c.leave()
	return c.Conn.Close()
}
