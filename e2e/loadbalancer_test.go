package e2e

import (
	"bufio"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/binnacle-project/binnacle/api"
)

// The load balancers of docs/load-balancing.md, real ones, with the very
// configurations that stand there, in front of three real gateways under load.

// documented returns the fenced block of that language in the page, with the
// replacements made; each must be needed.
func documented(t *testing.T, language string, replace ...string) string {
	t.Helper()
	page, err := os.ReadFile("../docs/load-balancing.md")
	if err != nil {
		t.Fatal(err)
	}
	_, block, ok := strings.Cut(string(page), "```"+language+"\n")
	block, _, closed := strings.Cut(block, "```")
	if !ok || !closed {
		t.Fatalf("docs/load-balancing.md has no block of %s", language)
	}
	for i := 0; i < len(replace); i += 2 {
		if !strings.Contains(block, replace[i]) {
			t.Fatalf("the documented %s configuration has no %q", language, replace[i])
		}
		block = strings.ReplaceAll(block, replace[i], replace[i+1])
	}
	return block
}

// needCommand returns the path of a program that Debian has.
func needCommand(t *testing.T, name string) string {
	t.Helper()
	for _, p := range []string{name, "/usr/sbin/" + name, "/usr/local/sbin/" + name} {
		if found, err := exec.LookPath(p); err == nil {
			return found
		}
	}
	t.Skipf("%s is not here: install the Debian package %s to test with it", name, name)
	return ""
}

// balanced is a cluster behind a load balancer. Each gateway names itself in
// what it asks the backend, so that the backend knows who served what.
type balanced struct {
	*cluster
	backend *httptest.Server
	front   string
	dns     string

	mu     sync.Mutex // guards what follows
	served map[string]int
	broken map[string]int // requests whose connection broke
}

func startBalanced(t *testing.T) *balanced {
	ports := freePorts(t, 2)
	b := &balanced{front: fmt.Sprintf("127.0.0.1:%d", ports[0]), dns: fmt.Sprintf("127.0.0.1:%d", ports[1]), served: map[string]int{}, broken: map[string]int{}}
	b.backend = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		name := strings.Split(r.URL.Path, "/")[1]
		_, _ = io.Copy(io.Discard, r.Body) // or a break of the connection is not noticed
		b.mu.Lock()
		b.served[name]++
		b.mu.Unlock()
		select { // it takes its time, so that some requests are always in flight
		case <-time.After(20 * time.Millisecond):
		case <-r.Context().Done():
			b.mu.Lock()
			b.broken[name]++
			b.mu.Unlock()
			return
		}
		w.Header().Set("X-Node", name)
		fmt.Fprintln(w, name)
	}))
	t.Cleanup(b.backend.Close)
	b.cluster = startManager(t, "--dns-addr", b.dns)
	b.drainDelay = "5s" // the default
	return b
}

// config is a node's own file: one endpoint, whose backend hears the name.
func (b *balanced) config(name string) map[string]any {
	return map[string]any{"version": 3, "timeout": "10s", "endpoints": []any{map[string]any{
		"endpoint": "/x/{id}", "method": "POST", "output_encoding": "no-op",
		"backend": []any{map[string]any{"host": []string{b.backend.URL}, "method": "POST", "url_pattern": "/" + name + "/{id}", "encoding": "no-op"}},
	}}}
}

// take returns and forgets how many requests each node brought to the backend.
func (b *balanced) take() map[string]int {
	b.mu.Lock()
	defer b.mu.Unlock()
	s := b.served
	b.served = map[string]int{}
	return s
}

// frontLoad are clients of a load balancer: half keep their connections, half
// open one for each request; none tries twice.
type frontLoad struct {
	mu    sync.Mutex // guards calls
	calls []frontCall
	quit  chan struct{}
	wg    sync.WaitGroup
}

// frontCall is one request to a load balancer and how it ended.
type frontCall struct {
	began, ended time.Time
	err          error
}

const frontClients = 12

func startFrontLoad(url string) *frontLoad {
	l := &frontLoad{quit: make(chan struct{})}
	for i := range frontClients {
		l.wg.Go(func() {
			client := &http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{DisableKeepAlives: i%2 == 1}}
			defer client.CloseIdleConnections()
			for k := 0; ; k++ {
				select {
				case <-l.quit:
					return
				default:
				}
				c := frontCall{began: time.Now()}
				c.err = post(client, fmt.Sprintf("%s/x/%d-%d", url, i, k))
				c.ended = time.Now()
				l.mu.Lock()
				l.calls = append(l.calls, c)
				l.mu.Unlock()
			}
		})
	}
	return l
}

// post sends what Go's client does not try twice by itself where a kept
// connection breaks.
func post(c *http.Client, url string) error {
	req, err := http.NewRequest(http.MethodPost, url, strings.NewReader("x"))
	if err != nil {
		return err
	}
	return do(c, req)
}

func (l *frontLoad) stop() { close(l.quit); l.wg.Wait() }

// take returns and forgets what has ended.
func (l *frontLoad) take() []frontCall {
	l.mu.Lock()
	defer l.mu.Unlock()
	c := l.calls
	l.calls = nil
	return c
}

// failures returns how many of calls failed and the first reason.
func failures(calls []frontCall) (n int, first string) {
	for _, c := range calls {
		if c.err != nil {
			if n++; n == 1 {
				first = fmt.Sprintf("%s: %v", c.began.Format("15:04:05.000"), c.err)
			}
		}
	}
	return n, first
}

// steady runs the load until the backend served n requests more, and returns
// the shares.
func (b *balanced) steady(t *testing.T, n int) map[string]int {
	t.Helper()
	b.take()
	total := map[string]int{}
	eventually(t, 60*time.Second, fmt.Sprintf("%d requests are served", n), func() error {
		sum := 0
		for name, k := range b.take() {
			total[name] += k
		}
		for _, k := range total {
			sum += k
		}
		if sum < n {
			return fmt.Errorf("%d so far", sum)
		}
		return nil
	})
	return total
}

func imbalance(shares map[string]int) float64 {
	counts := []int{}
	for _, n := range shares {
		counts = append(counts, n)
	}
	return float64(slices.Max(counts)) / float64(slices.Min(counts))
}

// haproxy is a running HAProxy and its administration socket.
type haproxy struct {
	*process
	socket string
}

// documentedSocket is where the documented configuration has that socket.
const documentedSocket = "/run/haproxy/admin.sock"

// servers returns the state of each server that has an address, by address.
func (h *haproxy) servers() (map[string]string, error) {
	conn, err := net.DialTimeout("unix", h.socket, time.Second)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	if _, err := fmt.Fprintln(conn, "show stat -1 4 -1"); err != nil { // servers alone
		return nil, err
	}
	rows, err := csv.NewReader(bufio.NewReader(conn)).ReadAll()
	if err != nil || len(rows) == 0 {
		return nil, fmt.Errorf("show stat: %d rows, %w", len(rows), err)
	}
	status, addr := slices.Index(rows[0], "status"), slices.Index(rows[0], "addr")
	out := map[string]string{}
	for _, r := range rows[1:] {
		if r[addr] != "" {
			out[r[addr]] = r[status]
		}
	}
	return out, nil
}

// waitUp waits until exactly those nodes take traffic.
func (h *haproxy) waitUp(t *testing.T, nodes ...*node) {
	t.Helper()
	eventually(t, 30*time.Second, "HAProxy uses the right nodes", func() error {
		servers, err := h.servers()
		if err != nil {
			return err
		}
		up := 0
		for _, s := range servers {
			if strings.HasPrefix(s, "UP") {
				up++
			}
		}
		for _, n := range nodes {
			if !strings.HasPrefix(servers[n.addr], "UP") {
				return fmt.Errorf("%s at %s is not up: %v", n.name, n.addr, servers)
			}
		}
		if up != len(nodes) {
			return fmt.Errorf("%d servers are up: %v", up, servers)
		}
		return nil
	})
}

func startHAProxy(t *testing.T, conf string) *haproxy {
	t.Helper()
	dir := t.TempDir()
	h := &haproxy{socket: filepath.Join(dir, "admin.sock")}
	file := filepath.Join(dir, "haproxy.cfg")
	conf = strings.Replace(conf, documentedSocket, h.socket, 1)
	if err := os.WriteFile(file, []byte(conf), 0o600); err != nil {
		t.Fatal(err)
	}
	h.process = startCommand(t, "haproxy", needCommand(t, "haproxy"), "-db", "-f", file)
	return h
}

// TestHAProxy balances three gateways by SRV records from our DNS: evenly, with a
// killed node costing what was in flight on it and no more, and a drain, a
// rolling restart and a fourth node costing nothing.
func TestHAProxy(t *testing.T) {
	needCommand(t, "haproxy")
	b := startBalanced(t)
	for _, name := range []string{"gw-1", "gw-2", "gw-3"} {
		b.addNode(name, b.config(name))
	}
	alive := map[string]api.NodeState{"gw-1": api.Alive, "gw-2": api.Alive, "gw-3": api.Alive}
	b.waitStates(60*time.Second, alive)
	h := startHAProxy(t, documented(t, "haproxy", "10.0.0.5:53535", b.dns, "bind :8000", "bind "+b.front))
	h.waitUp(t, b.nodes...)
	load := startFrontLoad("http://" + b.front)
	defer load.stop()

	shares := b.steady(t, 3000)
	ratio := imbalance(shares)
	t.Logf("3 nodes under load: %v requests each: the busiest has %.3f times the idlest's; promised 1.05", shares, ratio)
	if n, first := failures(load.take()); n > 0 || len(shares) != 3 || ratio > 1.05 {
		t.Errorf("%d of 3 nodes served, ratio %.3f, %d failures: %s", len(shares), ratio, n, first)
	}

	b.killUnderLoad(t, load, b.nodes[1])
	b.runNode(b.nodes[1])
	h.waitUp(t, b.nodes...)
	b.waitStates(30*time.Second, alive)
	load.take()

	// A drained node leaves discovery, serves on, and then stops.
	n := b.nodes[2]
	ordered := time.Now()
	if _, stderr, code := b.cli("drain", n.name); code != 0 {
		t.Fatalf("drain: %s", stderr)
	}
	eventually(t, 10*time.Second, "the drained node is not discovered any more", func() error { return b.discovered(n, false) })
	gone := time.Since(ordered)
	if err := post(http.DefaultClient, "http://"+n.addr+"/x/1"); err != nil {
		t.Errorf("a drained node does not serve on: %v", err)
	}
	h.waitUp(t, b.nodes[0], b.nodes[1])
	b.steady(t, 100)
	if s := b.steady(t, 300); s[n.name] > 0 {
		t.Errorf("the drained node still gets traffic: %v", s)
	}
	t.Logf("a drained node left discovery %v after the order and served on; %s", gone.Round(time.Millisecond), none(t, load))
	b.restartNode(t, n)
	if _, stderr, code := b.cli("undrain", n.name); code != 0 {
		t.Fatalf("undrain: %s", stderr)
	}
	h.waitUp(t, b.nodes...)

	for _, n := range b.nodes {
		took := b.restartNode(t, n)
		h.waitUp(t, b.nodes...)
		t.Logf("%s stopped in %v under load and was started again", n.name, took.Round(10*time.Millisecond))
	}
	t.Logf("rolling restart of all three by SIGTERM: %s; promised none", none(t, load))

	fourth := b.addNode("gw-4", b.config("gw-4"))
	h.waitUp(t, b.nodes...)
	b.steady(t, 200)
	shares = b.steady(t, 2000)
	t.Logf("a fourth node: %s; promised none; %v requests each, ratio %.3f", none(t, load), shares, imbalance(shares))
	if shares[fourth.name] == 0 || imbalance(shares) > 1.05 {
		t.Errorf("with a fourth node the shares are %v", shares)
	}
}

// TestNginx balances three gateways by A records with the nginx of Debian, which
// asks again when an answer is a second old.
func TestNginx(t *testing.T) {
	path := needCommand(t, "nginx")
	b := startBalanced(t)
	port := freePorts(t, 1)[0]
	for i, name := range []string{"gw-1", "gw-2", "gw-3"} {
		conf := b.config(name)
		conf["listen_ip"], conf["port"] = fmt.Sprintf("127.0.1.%d", i+1), port
		b.addNode(name, conf)
	}
	b.waitStates(60*time.Second, map[string]api.NodeState{"gw-1": api.Alive, "gw-2": api.Alive, "gw-3": api.Alive})
	dir := t.TempDir()
	file := filepath.Join(dir, "nginx.conf")
	conf := documented(t, "nginx", "10.0.0.5:53535", b.dns, "listen 8000", "listen "+b.front, ":8080", fmt.Sprintf(":%d", port), "http {", "http {\n    access_log off;")
	if err := os.WriteFile(file, []byte(conf), 0o600); err != nil {
		t.Fatal(err)
	}
	startCommand(t, "nginx", path, "-c", file, "-p", dir, "-e", filepath.Join(dir, "error.log"), "-g", "daemon off; pid "+filepath.Join(dir, "nginx.pid")+";")
	eventually(t, 10*time.Second, "nginx answers", func() error { return post(http.DefaultClient, "http://"+b.front+"/x/1") })
	load := startFrontLoad("http://" + b.front)
	defer load.stop()

	shares := b.steady(t, 1500)
	t.Logf("3 nodes under load by nginx: %v requests each, ratio %.3f (it takes a random one for each request); %s", shares, imbalance(shares), none(t, load))
	if len(shares) != 3 || imbalance(shares) > 1.5 {
		t.Errorf("shares %v", shares)
	}
	b.killUnderLoad(t, load, b.nodes[1])
	b.runNode(b.nodes[1])
	b.waitStates(30*time.Second, map[string]api.NodeState{"gw-2": api.Alive})
	took := b.restartNode(t, b.nodes[0])
	b.steady(t, 500)
	t.Logf("a node stopped by SIGTERM in %v and was started again: %s; promised none", took.Round(10*time.Millisecond), none(t, load))
}

// none says that no request failed since the last take, and fails otherwise.
func none(t *testing.T, load *frontLoad) string {
	t.Helper()
	calls := load.take()
	n, first := failures(calls)
	if n > 0 {
		t.Errorf("%d requests failed, the first at %s", n, first)
	}
	return fmt.Sprintf("%d requests meanwhile, %d failed", len(calls), n)
}

// killUnderLoad kills a node and looks at what that cost: no request that began
// when it was gone, and no more than were in flight on it.
func (b *balanced) killUnderLoad(t *testing.T, load *frontLoad, n *node) {
	t.Helper()
	load.take()
	b.cut(n.name)
	begin := time.Now()
	if err := syscall.Kill(-n.cmd.Process.Pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	// The kernel takes a moment to close what a killed process had open.
	eventually(t, 5*time.Second, "its port is closed", func() error {
		conn, err := net.DialTimeout("tcp", n.addr, time.Second)
		if err != nil {
			return nil
		}
		return errors.Join(conn.Close(), errors.New("it is open"))
	})
	gone := time.Now()
	<-n.done
	b.steady(t, 1000) // what goes wrong later shows, too
	failed, inFlight := 0, 0
	calls := load.take()
	for _, c := range calls {
		if c.began.Before(gone) && c.ended.After(begin) {
			inFlight++
		}
		if c.err == nil {
			continue
		}
		failed++
		if c.began.After(gone) {
			t.Errorf("a request that began %v after the death failed: %v", c.began.Sub(gone), c.err)
		}
	}
	onIt := b.cut(n.name)
	t.Logf("kill -9 of a node: %d requests failed, each begun before it was gone; the backend saw %d cut off on it, and %d were in flight on all nodes within those %v; %d requests went on",
		failed, onIt, inFlight, gone.Sub(begin).Round(time.Millisecond), len(calls)-failed)
	if failed > inFlight {
		t.Errorf("%d requests failed; want at most the %d in flight", failed, inFlight)
	}
}

// cut returns and forgets how many requests of a node the backend saw break off.
func (b *balanced) cut(name string) int {
	b.mu.Lock()
	defer b.mu.Unlock()
	n := b.broken[name]
	delete(b.broken, name)
	return n
}

// restartNode stops a node with SIGTERM, starts it again and waits until it is
// alive. It returns how long the stop took.
func (b *balanced) restartNode(t *testing.T, n *node) time.Duration {
	t.Helper()
	begin := time.Now()
	_ = n.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-n.done:
	case <-time.After(25 * time.Second):
		t.Fatalf("%s did not stop within 25 s of SIGTERM", n.name)
	}
	took := time.Since(begin)
	b.runNode(n)
	b.waitStates(30*time.Second, map[string]api.NodeState{n.name: api.Alive})
	return took
}

// discovered fails unless the node is listed for load balancers, or is not.
func (b *balanced) discovered(n *node, want bool) error {
	var groups []api.TargetGroup
	if err := b.get("/v1/discovery/http_sd", b.token("reader.token"), &groups); err != nil {
		return err
	}
	listed := slices.ContainsFunc(groups, func(g api.TargetGroup) bool { return slices.Contains(g.Targets, n.addr) })
	if listed != want {
		b, _ := json.Marshal(groups)
		return fmt.Errorf("listed are %s", b)
	}
	return nil
}
