package e2e

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/binnacle-project/binnacle/api"
)

// bin is where TestMain built the binaries.
var bin string

func TestMain(m *testing.M) {
	os.Exit(func() int {
		// The same folder as `make build`, so that nothing is linked twice.
		dir, err := filepath.Abs("../bin")
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		cmd := exec.Command("go", "build", "-o", dir+"/", "./cmd/...")
		cmd.Dir = ".."
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			fmt.Fprintf(os.Stderr, "build the binaries: %v\n%s", err, out)
			return 1
		}
		bin = dir
		return m.Run()
	}())
}

// process is a started binary with its own process group.
type process struct {
	name string
	cmd  *exec.Cmd
	out  *syncBuffer
	done chan struct{}
}

// syncBuffer collects output that is read while it is written.
type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// start runs a binary until the test ends; its output is shown when the test
// fails.
func start(t *testing.T, name, binary string, args ...string) *process {
	t.Helper()
	return startCommand(t, name, filepath.Join(bin, binary), args...)
}

// startCommand is start for any program.
func startCommand(t *testing.T, name, path string, args ...string) *process {
	t.Helper()
	p := &process{name: name, cmd: exec.Command(path, args...), out: &syncBuffer{}, done: make(chan struct{})}
	p.cmd.Stdout, p.cmd.Stderr = p.out, p.out
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := p.cmd.Start(); err != nil {
		t.Fatalf("start %s: %v", name, err)
	}
	go func() { _ = p.cmd.Wait(); close(p.done) }()
	t.Cleanup(func() {
		p.stop(t)
		if t.Failed() {
			t.Logf("output of %s:\n%s", name, tail(p.out.String(), 6000))
		}
	})
	return p
}

func tail(s string, n int) string {
	if len(s) > n {
		return "…" + s[len(s)-n:]
	}
	return s
}

// stop asks the process to end and kills its group when it does not.
func (p *process) stop(t *testing.T) {
	select {
	case <-p.done:
		_ = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL)
		return
	default:
	}
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.done:
	case <-time.After(25 * time.Second):
		t.Errorf("%s did not stop within 25 s of SIGTERM", p.name)
	}
	_ = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL)
}

// kill is kill -9 of the whole group: what a dead machine looks like.
func (p *process) kill(t *testing.T) {
	t.Helper()
	if err := syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL); err != nil {
		t.Fatalf("kill %s: %v", p.name, err)
	}
	<-p.done
}

// cluster is a manager with its nodes, all real processes.
type cluster struct {
	t       *testing.T
	dir     string
	manager *process
	base    string // of the operator API
	nodeAPI string
	otlp    string // OTLP over HTTP
	grpc    string // OTLP over gRPC
	client  *api.Client
	args    []string
	nodes   []*node
	host    *netHost // where the manager runs; nil is here
	// drainDelay is that of nodes; empty is none, so that tests end soon.
	drainDelay string
}

// caller reaches the manager.
func (c *cluster) caller() *http.Client {
	if c.host != nil {
		return c.host.client
	}
	return http.DefaultClient
}

type node struct {
	*process
	name string
	addr string // where it serves traffic
	conf string // its own file
	host *netHost
}

// freePorts returns n ports that nothing listens on now.
func freePorts(t *testing.T, n int) []int {
	t.Helper()
	ports := make([]int, n)
	for i := range ports {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer ln.Close()
		ports[i] = ln.Addr().(*net.TCPAddr).Port
	}
	return ports
}

// startManager starts a manager in a fresh directory. extra are further flags.
func startManager(t *testing.T, extra ...string) *cluster {
	t.Helper()
	c := prepareManager(t, extra...)
	c.runManager()
	return c
}

// prepareManager chooses directory and addresses for runManager.
func prepareManager(t *testing.T, extra ...string) *cluster {
	t.Helper()
	c := &cluster{t: t, dir: t.TempDir()}
	ports := freePorts(t, 5)
	at := func(i int) string { return fmt.Sprintf("127.0.0.1:%d", ports[i]) }
	c.base, c.nodeAPI, c.grpc, c.otlp = "http://"+at(0), at(1), at(3), "http://"+at(4)
	c.args = append([]string{
		"run", "--data-dir", filepath.Join(c.dir, "manager"), "--tokens-dir", filepath.Join(c.dir, "tokens"),
		"--http-addr", at(0), "--node-addr", at(1), "--gossip-addr", at(2), "--otlp-grpc-addr", at(3), "--otlp-http-addr", at(4),
	}, extra...)
	return c
}

func (c *cluster) runManager() {
	c.t.Helper()
	c.manager = c.host.start(c.t, "manager", "binnacle-manager", c.args...)
	eventually(c.t, 30*time.Second, "the manager is ready", func() error {
		resp, err := c.caller().Get(c.base + "/readyz")
		if err != nil {
			return err
		}
		resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			return errors.New(resp.Status)
		}
		return nil
	})
	var err error
	if c.client, err = api.NewClient(c.base, c.token("admin.token"), c.caller()); err != nil {
		c.t.Fatal(err)
	}
}

func (c *cluster) token(file string) string {
	c.t.Helper()
	b, err := os.ReadFile(filepath.Join(c.dir, "tokens", file))
	if err != nil {
		c.t.Fatal(err)
	}
	return strings.TrimSpace(string(b))
}

// cli runs the binnacle command against the cluster as admin.
func (c *cluster) cli(args ...string) (stdout, stderr string, code int) {
	c.t.Helper()
	cmd := exec.CommandContext(c.t.Context(), filepath.Join(bin, "binnacle"),
		append([]string{"--manager", c.base, "--token-file", filepath.Join(c.dir, "tokens", "admin.token")}, args...)...)
	var o, e bytes.Buffer
	cmd.Stdout, cmd.Stderr = &o, &e
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		c.t.Fatalf("binnacle %v: %v", args, err)
	}
	return o.String(), e.String(), cmd.ProcessState.ExitCode()
}

// addNode starts a node with the given gateway configuration.
func (c *cluster) addNode(name string, conf map[string]any) *node {
	c.t.Helper()
	return c.addNodeWith(name, conf, nil)
}

// addNodeWith is addNode with a change of the @cluster block; nil changes
// nothing.
func (c *cluster) addNodeWith(name string, conf map[string]any, change func(block map[string]any)) *node {
	c.t.Helper()
	ports := freePorts(c.t, 2)
	n := &node{name: name, conf: filepath.Join(c.dir, name, "krakend.json")}
	own := clone(c.t, conf)
	if own["listen_ip"] == nil {
		own["listen_ip"], own["port"] = "127.0.0.1", ports[0]
	}
	n.addr = fmt.Sprintf("%v:%v", own["listen_ip"], own["port"])
	extra, _ := own["extra_config"].(map[string]any)
	if extra == nil {
		extra = map[string]any{}
		own["extra_config"] = extra
	}
	block, _ := extra["@cluster"].(map[string]any) // what a test says of its own, such as labels
	if block == nil {
		block = map[string]any{}
		extra["@cluster"] = block
	}
	maps.Copy(block, map[string]any{
		"manager": c.nodeAPI, "token_file": filepath.Join(c.dir, "tokens", "join.token"), "name": name,
		"state_dir": filepath.Join(c.dir, name, "state"), "gossip": fmt.Sprintf("127.0.0.1:%d", ports[1]),
	})
	if change != nil {
		change(block)
	}
	if err := os.MkdirAll(filepath.Dir(n.conf), 0o700); err != nil {
		c.t.Fatal(err)
	}
	writeJSON(c.t, n.conf, own)
	c.runNode(n)
	c.nodes = append(c.nodes, n)
	return n
}

func (c *cluster) runNode(n *node) {
	n.process = n.host.start(c.t, n.name, "binnacle-gateway", "run", "-c", n.conf, "--die-with-parent", "--drain-delay", cmp.Or(c.drainDelay, "0s"))
}

// waitStates waits until the node names have the states wanted.
func (c *cluster) waitStates(within time.Duration, want map[string]api.NodeState) []api.Node {
	c.t.Helper()
	var nodes []api.Node
	eventually(c.t, within, fmt.Sprintf("node states %v", want), func() error {
		var err error
		if nodes, err = c.client.Nodes(c.t.Context()); err != nil {
			return err
		}
		got := map[string]api.NodeState{}
		for _, n := range nodes {
			got[n.Name] = n.State
		}
		for name, state := range want {
			if got[name] != state {
				return fmt.Errorf("got %v", got)
			}
		}
		return nil
	})
	return nodes
}

// get fetches an address of the manager as the holder of a token.
func (c *cluster) get(path, token string, out any) error {
	req, err := http.NewRequestWithContext(c.t.Context(), http.MethodGet, c.base+path, nil)
	if err != nil {
		return err
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	resp, err := c.caller().Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("GET %s: %s: %s", path, resp.Status, b)
	}
	return json.Unmarshal(b, out)
}

// eventually asks f until it is happy; the last reason is the failure.
func eventually(t *testing.T, within time.Duration, what string, f func() error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), within)
	defer cancel()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		err := f()
		if err == nil {
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("waited %v until %s: %v", within, what, err)
		}
	}
}

func clone(t *testing.T, m map[string]any) map[string]any {
	t.Helper()
	b, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	var out map[string]any
	if err := json.Unmarshal(b, &out); err != nil {
		t.Fatal(err)
	}
	return out
}

func writeJSON(t *testing.T, path string, v any) {
	t.Helper()
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
}
