package gossip

import (
	"context"
	"fmt"
	"log"
	"net"
	"net/netip"
	"strconv"
	"time"

	"github.com/hashicorp/memberlist"
)

// netTransport is memberlist's own transport with dials that end with ctx, so
// that Close does not wait for an address that swallows packets.
type netTransport struct {
	*memberlist.NetTransport
	ctx context.Context
}

func (t *netTransport) DialTimeout(addr string, timeout time.Duration) (net.Conn, error) {
	d := net.Dialer{Timeout: timeout}
	return d.DialContext(t.ctx, "tcp", addr)
}

func (t *netTransport) DialAddressTimeout(a memberlist.Address, timeout time.Duration) (net.Conn, error) {
	return t.DialTimeout(a.Addr, timeout)
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

// parseBind splits a bind address for gossip. An empty host means all IPv4
// addresses; a name is resolved.
func parseBind(ctx context.Context, bind string) (netip.AddrPort, error) {
	host, port, err := splitHostPort(bind)
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("gossip address %q: %w", bind, err)
	}
	if host == "" {
		return netip.AddrPortFrom(netip.IPv4Unspecified(), port), nil
	}
	ip, err := resolveOne(ctx, host)
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("gossip address %q: %w", bind, err)
	}
	return netip.AddrPortFrom(ip, port), nil
}

// parseAdvertise reads "host" or "host:port"; without a port it takes bound.
func parseAdvertise(ctx context.Context, advertise string, bound uint16) (netip.AddrPort, error) {
	host, port := advertise, bound
	if h, p, err := splitHostPort(advertise); err == nil {
		host, port = h, p
	}
	ip, err := resolveOne(ctx, host)
	if err == nil && ip.IsUnspecified() {
		err = fmt.Errorf("%s cannot be reached by others; name an address of this machine", ip)
	}
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("advertised gossip address %q: %w", advertise, err)
	}
	return netip.AddrPortFrom(ip, port), nil
}

func splitHostPort(s string) (string, uint16, error) {
	host, p, err := net.SplitHostPort(s)
	if err != nil {
		return "", 0, err
	}
	port, err := strconv.ParseUint(p, 10, 16)
	if err != nil {
		return "", 0, fmt.Errorf("port %q is not a number up to 65535", p)
	}
	return host, uint16(port), nil
}

// resolveTimeout bounds a look-up of a name.
const resolveTimeout = 5 * time.Second

func resolveOne(ctx context.Context, host string) (netip.Addr, error) {
	ips, err := resolve(ctx, host)
	if err != nil {
		return netip.Addr{}, err
	}
	return ips[0], nil
}

// resolve returns the addresses of host, at least one, IPv4 first. memberlist's
// own resolver would ask DNS over TCP for ANY.
func resolve(ctx context.Context, host string) ([]netip.Addr, error) {
	if ip, err := netip.ParseAddr(host); err == nil {
		return []netip.Addr{ip.Unmap()}, nil
	}
	ctx, cancel := context.WithTimeout(ctx, resolveTimeout)
	defer cancel()
	ips, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
	if err != nil {
		return nil, err
	}
	var v4, v6 []netip.Addr
	for _, ip := range ips {
		if ip = ip.Unmap(); ip.Is4() {
			v4 = append(v4, ip)
		} else {
			v6 = append(v6, ip)
		}
	}
	if v4 = append(v4, v6...); len(v4) == 0 {
		return nil, fmt.Errorf("%s has no address", host)
	}
	return v4, nil
}
