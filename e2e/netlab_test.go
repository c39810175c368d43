package e2e

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// netLab is a network of its own: each host is a network namespace with one
// interface, all on one bridge, which is in a namespace, too. Nothing of it is
// connected with the machine's own network.
type netLab struct {
	t     *testing.T
	hub   string // the namespace of the bridge
	hosts int
}

// netHost is one machine of a lab. Methods of a nil host act here.
type netHost struct {
	lab    *netLab
	ns     string
	ip     string
	port   string       // its end of the cable at the bridge
	client *http.Client // dials from the host
}

// newNetLab skips the test where namespaces cannot be made or were not asked
// for.
func newNetLab(t *testing.T) *netLab {
	t.Helper()
	if os.Getenv("BINNACLE_NET") == "" {
		t.Skip("runs in network namespaces, as root: make test-net")
	}
	if os.Geteuid() != 0 {
		t.Fatal("network namespaces need root")
	}
	l := &netLab{t: t, hub: fmt.Sprintf("bnc%d-hub", os.Getpid())}
	l.namespace(l.hub)
	l.ip("-n", l.hub, "link", "add", "br0", "type", "bridge")
	l.ip("-n", l.hub, "link", "set", "br0", "up")
	return l
}

func (l *netLab) ip(args ...string) {
	l.t.Helper()
	if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
		l.t.Fatalf("ip %s: %v: %s", strings.Join(args, " "), err, out)
	}
}

// namespace makes one until the test ends. Its processes are stopped before:
// they were started later.
func (l *netLab) namespace(name string) {
	l.t.Helper()
	l.ip("netns", "add", name)
	l.t.Cleanup(func() { l.ip("netns", "del", name) })
	l.ip("-n", name, "link", "set", "lo", "up")
}

// host adds a machine with the next address of 10.77.0.0/24.
func (l *netLab) host() *netHost {
	l.t.Helper()
	l.hosts++
	h := &netHost{
		lab: l, ns: fmt.Sprintf("bnc%d-h%d", os.Getpid(), l.hosts), ip: fmt.Sprintf("10.77.0.%d", l.hosts), port: fmt.Sprintf("p%d", l.hosts),
	}
	l.namespace(h.ns)
	l.ip("-n", l.hub, "link", "add", h.port, "type", "veth", "peer", "name", "eth0", "netns", h.ns)
	l.ip("-n", l.hub, "link", "set", h.port, "master", "br0", "up")
	l.ip("-n", h.ns, "addr", "add", h.ip+"/24", "dev", "eth0")
	l.ip("-n", h.ns, "link", "set", "eth0", "up")
	h.client = &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{DialContext: h.dial, DisableKeepAlives: true}}
	return h
}

// behindNAT adds a machine in a network of its own, behind a router that hides
// it: it reaches the others, and they do not reach it.
func (l *netLab) behindNAT() *netHost {
	l.t.Helper()
	router := l.host()
	h := &netHost{lab: l, ns: router.ns + "n", ip: "192.168.77.2", port: router.port}
	l.namespace(h.ns)
	l.ip("-n", router.ns, "link", "add", "inside", "type", "veth", "peer", "name", "eth0", "netns", h.ns)
	l.ip("-n", router.ns, "addr", "add", "192.168.77.1/24", "dev", "inside")
	l.ip("-n", router.ns, "link", "set", "inside", "up")
	l.ip("-n", h.ns, "addr", "add", h.ip+"/24", "dev", "eth0")
	l.ip("-n", h.ns, "link", "set", "eth0", "up")
	l.ip("-n", h.ns, "route", "add", "default", "via", "192.168.77.1")
	router.run("sysctl", "-qw", "net.ipv4.ip_forward=1")
	router.run("iptables", "-t", "nat", "-A", "POSTROUTING", "-o", "eth0", "-j", "MASQUERADE")
	h.client = &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{DialContext: h.dial, DisableKeepAlives: true}}
	return h
}

// run runs a command on the host.
func (h *netHost) run(args ...string) {
	h.lab.t.Helper()
	if out, err := exec.Command("ip", append([]string{"netns", "exec", h.ns}, args...)...).CombinedOutput(); err != nil {
		h.lab.t.Fatalf("on %s: %s: %v: %s", h.ns, strings.Join(args, " "), err, out)
	}
}

// start runs one of our binaries on the host until the test ends.
func (h *netHost) start(t *testing.T, name, binary string, args ...string) *process {
	t.Helper()
	path := filepath.Join(bin, binary)
	if h == nil {
		return startCommand(t, name, path, args...)
	}
	return startCommand(t, name, "ip", append([]string{"netns", "exec", h.ns, path}, args...)...)
}

// inside runs f in the host's namespace. Sockets that it makes stay there.
func (h *netHost) inside(f func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with us
		ns, err := os.Open("/run/netns/" + h.ns)
		if err != nil {
			done <- err
			return
		}
		defer ns.Close()
		if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
			done <- fmt.Errorf("enter namespace %s: %w", h.ns, err)
			return
		}
		done <- f()
	}()
	return <-done
}

func (h *netHost) dial(ctx context.Context, network, addr string) (conn net.Conn, err error) {
	err = h.inside(func() error {
		var err error
		conn, err = new(net.Dialer).DialContext(ctx, network, addr)
		return err
	})
	return conn, err
}

func (h *netHost) listen(addr string) (ln net.Listener, err error) {
	err = h.inside(func() error {
		var err error
		ln, err = net.Listen("tcp", addr)
		return err
	})
	return ln, err
}

// cable plugs the host in, or takes it off the network: nothing is refused then,
// nothing answers.
func (h *netHost) cable(in bool) {
	h.lab.t.Helper()
	state := "down"
	if in {
		state = "up"
	}
	h.lab.ip("-n", h.lab.hub, "link", "set", h.port, state)
}

// drop throws away what comes from and goes to others and matches, until heal.
func (h *netHost) drop(match ...string) {
	h.lab.t.Helper()
	for _, chain := range [][]string{{"INPUT", "!", "-i", "lo"}, {"OUTPUT", "!", "-o", "lo"}} {
		h.run(append(append(append([]string{"iptables", "-A"}, chain...), match...), "-j", "DROP")...)
	}
}

// cut throws away what goes between the host and those others.
func (h *netHost) cut(others ...*netHost) {
	h.lab.t.Helper()
	for _, o := range others {
		h.run("iptables", "-A", "INPUT", "-s", o.ip, "-j", "DROP")
		h.run("iptables", "-A", "OUTPUT", "-d", o.ip, "-j", "DROP")
	}
}

func (h *netHost) heal() {
	h.lab.t.Helper()
	h.run("iptables", "-F")
}
