package demo

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"syscall"

	"github.com/binnacle-project/binnacle"
)

// Ports of the demo before the offset. The manager's are its defaults.
const (
	nodePort    = 8080 // and one more for each node
	gossipPort  = 7946 // likewise
	backendPort = 8061 // likewise for each backend
)

// backendNames in the order of their ports.
var backendNames = []string{"orders", "search", "billing", "stock"}

// layout says which address every part has.
type layout struct {
	offset, nodes int
}

func layoutOf(o Options) layout { return layout{offset: o.PortOffset, nodes: o.Nodes} }

func (l layout) addr(port int) string {
	return net.JoinHostPort("127.0.0.1", strconv.Itoa(port+l.offset))
}
func (l layout) http() string            { return l.addr(binnacle.PortHTTP) }
func (l layout) nodeAPI() string         { return l.addr(binnacle.PortNode) }
func (l layout) gossip() string          { return l.addr(binnacle.PortGossip) }
func (l layout) otlpGRPC() string        { return l.addr(binnacle.PortOTLPGRPC) }
func (l layout) otlpHTTP() string        { return l.addr(binnacle.PortOTLPHTTP) }
func (l layout) node(i int) string       { return l.addr(nodePort + i) }
func (l layout) nodeGossip(i int) string { return l.addr(gossipPort + i) }

func (l layout) backend(name string) string {
	for i, n := range backendNames {
		if n == name {
			return l.addr(backendPort + i)
		}
	}
	panic("BUG: no backend " + name)
}

func (l layout) tokensDir(o Options) string { return filepath.Join(o.Dir, "tokens") }

func (l layout) managerArgs(o Options) []string {
	return []string{
		"run",
		"--data-dir", filepath.Join(o.Dir, "manager"),
		"--tokens-dir", l.tokensDir(o),
		"--http-addr", l.http(),
		"--node-addr", l.nodeAPI(),
		"--gossip-addr", l.gossip(),
		"--otlp-grpc-addr", l.otlpGRPC(),
		"--otlp-http-addr", l.otlpHTTP(),
		"--gateway-binary", filepath.Join(o.BinDir, "binnacle-gateway"),
	}
}

// checkPorts finds every port that something else holds before anything is
// started, so that the message can name them all.
func (l layout) checkPorts() error {
	type port struct{ addr, what string }
	ports := []port{
		{l.http(), "page and API"}, {l.nodeAPI(), "node API"}, {l.gossip(), "gossip"},
		{l.otlpGRPC(), "OTLP over gRPC"}, {l.otlpHTTP(), "OTLP over HTTP"},
	}
	for i := range l.nodes {
		ports = append(ports, port{l.node(i), "node " + nodeName(i)}, port{l.nodeGossip(i), "gossip of " + nodeName(i)})
	}
	for _, b := range backendNames {
		ports = append(ports, port{l.backend(b), "backend " + b})
	}
	var errs []error
	for _, p := range ports {
		ln, err := net.Listen("tcp", p.addr)
		if errors.Is(err, syscall.EADDRINUSE) {
			errs = append(errs, fmt.Errorf("port %s (%s) is in use", p.addr, p.what))
			continue
		} else if err != nil {
			errs = append(errs, fmt.Errorf("port %s (%s): %w", p.addr, p.what, err))
			continue
		}
		ln.Close()
	}
	if len(errs) > 0 {
		return fmt.Errorf("%w\nstop what holds it, or shift every port with --port-offset, e.g. --port-offset %d", errors.Join(errs...), l.offset+100)
	}
	return nil
}

// lockDir makes sure that one demo at a time uses dir. The kernel drops the
// lock with the process, however that ends.
func lockDir(dir string) (unlock func(), err error) {
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := tryLock(f); err != nil {
		f.Close()
		return nil, fmt.Errorf("another demo uses %s: stop it, or name another folder with --dir (and --port-offset)", dir)
	}
	return func() { f.Close() }, nil
}
