package manager

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"
)

// listen opens every socket; an address in use is told with its flag.
func (m *Manager) listen() error {
	for _, l := range []struct {
		flag, addr string
		ln         *net.Listener
	}{
		{"--http-addr", m.opts.HTTPAddr, &m.httpLn},
		{"--node-addr", m.opts.NodeAddr, &m.nodeLn},
		{"--otlp-grpc-addr", m.opts.OTLPGRPCAddr, &m.grpcLn},
		{"--otlp-http-addr", m.opts.OTLPHTTPAddr, &m.otlpLn},
	} {
		if l.addr == "" {
			continue
		}
		ln, err := net.Listen("tcp", l.addr)
		if err != nil {
			return listenError(l.flag, l.addr, err)
		}
		*l.ln = ln
		m.onStop("listener "+l.flag, func(context.Context) error {
			if err := ln.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
				return err
			}
			return nil
		})
	}
	return m.listenDNS()
}

// HTTPAddr, NodeAddr, OTLPGRPCAddr and OTLPHTTPAddr return the addresses that
// are listened on, "" for a receiver that is off.
func (m *Manager) HTTPAddr() string { return addrOf(m.httpLn) }

func (m *Manager) NodeAddr() string { return addrOf(m.nodeLn) }

func (m *Manager) OTLPGRPCAddr() string { return addrOf(m.grpcLn) }

func (m *Manager) OTLPHTTPAddr() string { return addrOf(m.otlpLn) }

func addrOf(ln net.Listener) string {
	if ln == nil {
		return ""
	}
	return ln.Addr().String()
}

// listenError says which address, which flag, and what to do.
func listenError(flag, addr string, err error) error {
	if errors.Is(err, syscall.EADDRINUSE) {
		return fmt.Errorf("%s %s is in use: stop what holds the port, or choose another with %s", flag, addr, flag)
	}
	return fmt.Errorf("listen on %s %s: %w", flag, addr, err)
}

func loopback(a net.Addr) bool {
	ap, err := netip.ParseAddrPort(a.String())
	return err == nil && ap.Addr().Unmap().IsLoopback()
}
