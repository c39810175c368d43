package agent

import (
	"net"
	"net/netip"
	"strconv"
)

// advertised is host:port under which others reach the node's traffic: what the
// block says, else the listening address, else the address from which this
// machine talks to its manager.
func (a *Agent) advertised() string {
	port := a.trafficPort.Load()
	host, p, err := net.SplitHostPort(a.opts.Advertise)
	if err == nil {
		return net.JoinHostPort(host, p)
	}
	return net.JoinHostPort(a.advertisedHost(), strconv.Itoa(int(port)))
}

// advertisedHost is the host of advertised.
func (a *Agent) advertisedHost() string {
	if host, _, err := net.SplitHostPort(a.opts.Advertise); err == nil {
		return host
	}
	if a.opts.Advertise != "" {
		return a.opts.Advertise
	}
	if ip, err := netip.ParseAddr(a.listenIP); err == nil && !ip.IsUnspecified() {
		return ip.String()
	}
	a.ownIPOnce.Do(func() { a.ownIP = outboundIP(a.opts.Managers) })
	return a.ownIP
}

// outboundIP asks the kernel which of our addresses it would talk to a manager
// from. No packet is sent.
func outboundIP(managers []string) string {
	for _, m := range managers {
		host, port, err := net.SplitHostPort(m)
		if err != nil {
			continue
		}
		c, err := net.Dial("udp", net.JoinHostPort(host, port))
		if err != nil {
			continue
		}
		defer c.Close()
		if u, ok := c.LocalAddr().(*net.UDPAddr); ok {
			return u.IP.String()
		}
	}
	return "127.0.0.1"
}

// gossipHost is what gossip shall advertise: empty leaves it to the bind
// address, if that is a definite one.
func (a *Agent) gossipHost() string {
	if host, _, err := net.SplitHostPort(a.opts.Gossip); err == nil {
		if ip, err := netip.ParseAddr(host); err == nil && !ip.IsUnspecified() {
			return ""
		}
	}
	return a.advertisedHost()
}

// gossipAdvertised is host:port of the node's gossip, empty when it is off.
func (a *Agent) gossipAdvertised() string {
	if a.opts.Gossip == GossipOff {
		return ""
	}
	if addr, ok := a.gossip.addr(); ok {
		return addr
	}
	host, port, err := net.SplitHostPort(a.opts.Gossip)
	if err != nil || port == "0" { // known once it runs
		return ""
	}
	if ip, err := netip.ParseAddr(host); err != nil || ip.IsUnspecified() {
		host = a.advertisedHost()
	}
	return net.JoinHostPort(host, port)
}

// addr is where the running gossip is reached.
func (g *gossiper) addr() (string, bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.life == nil {
		return "", false
	}
	return g.life.Addr().String(), true
}
