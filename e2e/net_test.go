package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/binnacle-project/binnacle/api"
)

// The main scenarios of membership with real processes on a network of their
// own, each on a machine of its own:
//
//	make test-net

// netCluster is a manager and gateways on a lab.
type netCluster struct {
	*cluster
	lab *netLab
}

// startNetCluster starts a manager and n gateways that see each other.
func startNetCluster(t *testing.T, n int) *netCluster {
	t.Helper()
	lab := newNetLab(t)
	m := lab.host()
	dir := t.TempDir()
	c := &netCluster{lab: lab, cluster: &cluster{t: t, dir: dir, host: m, base: "http://" + m.ip + ":9897", nodeAPI: m.ip + ":9899"}}
	c.args = []string{
		"run", "--data-dir", filepath.Join(dir, "manager"), "--tokens-dir", filepath.Join(dir, "tokens"), "--advertise", m.ip,
		"--http-addr", m.ip + ":9897", "--node-addr", m.ip + ":9899", "--gossip-addr", m.ip + ":9898",
		"--otlp-grpc-addr", m.ip + ":4317", "--otlp-http-addr", m.ip + ":4318",
	}
	c.runManager()
	for i := range n {
		c.add(fmt.Sprintf("gw-%d", i+1), lab.host(), nil)
	}
	c.whole(60 * time.Second)
	return c
}

// add starts a gateway on host; change may alter its @cluster block. Its backend
// is on its own machine, so that partitions do not take it away.
func (c *netCluster) add(name string, host *netHost, change func(block map[string]any)) *node {
	c.t.Helper()
	ln, err := host.listen("127.0.0.1:8081")
	if err != nil {
		c.t.Fatal(err)
	}
	backend := &httptest.Server{Listener: ln, Config: &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })}}
	backend.Start()
	c.t.Cleanup(backend.Close)
	block := map[string]any{
		"manager": c.nodeAPI, "token_file": filepath.Join(c.dir, "tokens", "join.token"), "name": name,
		"state_dir": filepath.Join(c.dir, name, "state"), "gossip": host.ip + ":9898",
	}
	if change != nil {
		change(block)
	}
	n := &node{name: name, addr: host.ip + ":8080", conf: filepath.Join(c.dir, name, "krakend.json"), host: host}
	if err := os.MkdirAll(filepath.Dir(n.conf), 0o700); err != nil {
		c.t.Fatal(err)
	}
	writeJSON(c.t, n.conf, map[string]any{
		"version": 3, "port": 8080, "listen_ip": host.ip, "extra_config": map[string]any{"@cluster": block},
		"endpoints": []any{map[string]any{"endpoint": "/ok", "output_encoding": "no-op", "backend": []any{
			map[string]any{"host": []string{"http://127.0.0.1:8081"}, "url_pattern": "/", "encoding": "no-op"}}}},
	})
	c.runNode(n)
	c.nodes = append(c.nodes, n)
	return n
}

// sees returns the states of other gateways, by address, as the node sees them.
func (n *node) sees() (map[string]string, error) {
	s, err := statusOf(n)
	if err != nil {
		return nil, err
	}
	out := map[string]string{}
	for _, p := range s.Gossip.Peers {
		if !p.Manager {
			out[p.Address] = p.State
		}
	}
	return out, nil
}

// agree fails unless each of those nodes sees the others in those states.
func agree(nodes []*node, want map[*node]string) error {
	for _, n := range nodes {
		got, err := n.sees()
		if err != nil {
			return err
		}
		for o, state := range want {
			if o != n && got[o.addr] != state {
				return fmt.Errorf("%s sees %v; want %s %s", n.name, got, o.name, state)
			}
		}
	}
	return nil
}

func allAlive(nodes []*node) map[*node]string {
	want := map[*node]string{}
	for _, n := range nodes {
		want[n] = "alive"
	}
	return want
}

// whole waits until the manager and all nodes see each other alive, and returns
// how long that took.
func (c *netCluster) whole(within time.Duration) time.Duration {
	c.t.Helper()
	return c.took(within, "the cluster is whole", func() error {
		if err := c.states(allAliveNames(c.nodes)); err != nil {
			return err
		}
		return agree(c.nodes, allAlive(c.nodes))
	})
}

func allAliveNames(nodes []*node) map[string]api.NodeState {
	want := map[string]api.NodeState{}
	for _, n := range nodes {
		want[n.name] = api.Alive
	}
	return want
}

// states fails unless the manager says so of the nodes.
func (c *netCluster) states(want map[string]api.NodeState) error {
	nodes, err := c.client.Nodes(c.t.Context())
	if err != nil {
		return err
	}
	got := map[string]api.NodeState{}
	for _, n := range nodes {
		got[n.Name] = n.State
	}
	for name, s := range want {
		if got[name] != s {
			return fmt.Errorf("the manager says %v; want %s %s", got, name, s)
		}
	}
	return nil
}

// condition returns the condition of that kind of a node, nil if it has none.
func (c *netCluster) condition(name, kind string) (*api.Condition, api.Node, error) {
	nodes, err := c.client.Nodes(c.t.Context())
	if err != nil {
		return nil, api.Node{}, err
	}
	for _, n := range nodes {
		if n.Name != name {
			continue
		}
		if i := slices.IndexFunc(n.Conditions, func(c api.Condition) bool { return c.Kind == kind }); i >= 0 {
			return &n.Conditions[i], n, nil
		}
		return nil, n, nil
	}
	return nil, api.Node{}, fmt.Errorf("no node %s", name)
}

// took is eventually with its time.
func (c *netCluster) took(within time.Duration, what string, f func() error) time.Duration {
	c.t.Helper()
	begin := time.Now()
	eventually(c.t, within, what, f)
	return time.Since(begin).Round(100 * time.Millisecond)
}

// serves fails unless the node answers a request from its own machine.
func (n *node) serves() error { return once(n.host.client, "http://"+n.addr+"/ok") }

// deaths counts what the event log says of lost nodes.
func (c *netCluster) deaths() (unreachable, down int) {
	c.t.Helper()
	evs, err := c.client.Events(c.t.Context(), 0, 1000)
	if err != nil {
		c.t.Fatal(err)
	}
	for _, e := range evs {
		switch e.Kind {
		case "node.unreachable":
			unreachable++
		case "node.down":
			down++
		}
	}
	return unreachable, down
}

// crash takes the machine off the network and kills what runs there.
func (c *netCluster) crash(n *node) {
	c.t.Helper()
	n.host.cable(false)
	n.kill(c.t)
}

// revive starts a crashed machine again.
func (c *netCluster) revive(n *node) {
	c.t.Helper()
	n.host.cable(true)
	c.runNode(n)
}

// TestNetCrash: a machine that dies is known dead to all others soon, and comes
// back as itself.
func TestNetCrash(t *testing.T) {
	c := startNetCluster(t, 4)
	dead, rest := c.nodes[3], c.nodes[:3]
	begin := time.Now()
	c.crash(dead)
	eventually(t, 30*time.Second, "the other nodes see the death", func() error { return agree(rest, map[*node]string{dead: "dead"}) })
	nodes := time.Since(begin)
	eventually(t, 30*time.Second, "the manager sees the death", func() error { return c.states(map[string]api.NodeState{dead.name: api.Unreachable}) })
	t.Logf("a machine died: all other nodes knew after %.1f s, the manager after %.1f s; promised 20 s at 50 nodes", nodes.Seconds(), time.Since(begin).Seconds())
	if nodes > 20*time.Second {
		t.Errorf("the nodes took %v", nodes)
	}
	c.revive(dead)
	t.Logf("started again, the cluster was whole after %v", c.whole(60*time.Second))
}

// TestNetUDPBlocked: where UDP does not pass and TCP does, nobody dies, and the
// manager says what is wrong.
func TestNetUDPBlocked(t *testing.T) {
	c := startNetCluster(t, 4)
	n := c.nodes[1]
	n.host.drop("-p", "udp")
	took := c.took(60*time.Second, "blocked UDP is reported", func() error {
		cond, node, err := c.condition(n.name, api.CondUDPBlocked)
		if err != nil {
			return err
		}
		if node.State != api.Alive && node.State != api.Suspect {
			t.Fatalf("%s is %s: %s", n.name, node.State, node.StateCause)
		}
		if cond == nil {
			return fmt.Errorf("%s has conditions %v", n.name, node.Conditions)
		}
		t.Logf("condition %s: %s", cond.Kind, cond.Cause)
		return nil
	})
	t.Logf("UDP blocked and TCP open is reported after %v; promised 60 s", took)
	time.Sleep(30 * time.Second) // what is wrongly called dead is so by now
	for _, o := range c.nodes {
		cond, node, err := c.condition(o.name, api.CondUDPBlocked)
		if err != nil || o != n && cond != nil || node.State != api.Alive && node.State != api.Suspect {
			t.Errorf("%s is %s with %v, %v", o.name, node.State, node.Conditions, err)
		}
	}
	if unreachable, down := c.deaths(); unreachable+down > 0 {
		t.Errorf("%d nodes were called unreachable, %d down; want none", unreachable, down)
	}
	n.host.heal()
	t.Logf("its end is told after %v", c.took(60*time.Second, "the condition ends", func() error {
		if cond, _, err := c.condition(n.name, api.CondUDPBlocked); err != nil || cond != nil {
			return fmt.Errorf("%v, %v", cond, err)
		}
		return nil
	}))
}

// TestNetLoss: a third of all packets lost for two minutes kills nobody.
func TestNetLoss(t *testing.T) {
	c := startNetCluster(t, 4)
	for _, n := range c.nodes {
		n.host.run("iptables", "-A", "INPUT", "-p", "udp", "-m", "statistic", "--mode", "random", "--probability", "0.3", "-j", "DROP")
		n.host.run("iptables", "-A", "INPUT", "-p", "tcp", "-m", "statistic", "--mode", "random", "--probability", "0.05", "-j", "DROP")
	}
	time.Sleep(2 * time.Minute) // how long it lasts
	unreachable, down := c.deaths()
	t.Logf("30%% of UDP and 5%% of TCP packets lost for two minutes: %d nodes called unreachable, %d down; promised 0", unreachable, down)
	if unreachable+down > 0 {
		t.Error("nodes were called dead")
	}
	for _, n := range c.nodes {
		n.host.heal()
	}
	c.whole(30 * time.Second)
}

// TestNetPartition: a cluster in two halves serves on both sides, and is whole
// soon after the cut heals, although its manager died and came back meanwhile.
func TestNetPartition(t *testing.T) {
	c := startNetCluster(t, 4)
	near, far := c.nodes[:2], c.nodes[2:]
	for _, n := range far {
		n.host.cut(c.host, near[0].host, near[1].host)
	}
	t.Logf("cut in two, each side held the other for dead after %v", c.took(60*time.Second, "each side holds the other for dead", func() error {
		if err := agree(near, map[*node]string{far[0]: "dead", far[1]: "dead"}); err != nil {
			return err
		}
		return agree(far, map[*node]string{near[0]: "dead", near[1]: "dead"})
	}))
	c.manager.kill(t)
	c.runManager()
	// Past the 30 s after which memberlist forgets the dead.
	time.Sleep(45 * time.Second)
	for _, n := range c.nodes {
		if err := n.serves(); err != nil {
			t.Errorf("%s does not serve in the partition: %v", n.name, err)
		}
	}
	if err := agree(far, map[*node]string{far[0]: "alive", far[1]: "alive"}); err != nil {
		t.Errorf("those cut off from the manager lost each other: %v", err)
	}
	for _, n := range far {
		n.host.heal()
	}
	took := c.whole(60 * time.Second)
	t.Logf("healed, with the manager restarted meanwhile: whole after %v; promised 60 s", took)
}

// TestNetWithoutManager: nodes see each other die and come back by themselves.
func TestNetWithoutManager(t *testing.T) {
	c := startNetCluster(t, 4)
	// The list of peers is written twice a minute at most.
	eventually(t, 60*time.Second, "all remember all", func() error {
		for _, n := range c.nodes {
			b, err := os.ReadFile(filepath.Join(c.dir, n.name, "state", "peers.json"))
			if err != nil {
				return err
			}
			var f struct {
				Peers []json.RawMessage `json:"peers"`
			}
			if err := json.Unmarshal(b, &f); err != nil || len(f.Peers) < len(c.nodes) {
				return fmt.Errorf("%s remembers %d", n.name, len(f.Peers))
			}
		}
		return nil
	})
	c.manager.kill(t)
	dead, rest := c.nodes[3], c.nodes[:3]
	begin := time.Now()
	c.crash(dead)
	eventually(t, 30*time.Second, "the others see the death", func() error { return agree(rest, map[*node]string{dead: "dead"}) })
	t.Logf("without the manager a machine died: all others knew after %.1f s; promised 20 s", time.Since(begin).Seconds())

	// One is stopped and started: its state folder names the others.
	again := c.nodes[0]
	again.stop(t)
	begin = time.Now()
	c.runNode(again)
	eventually(t, 60*time.Second, "the restarted node and the others see each other", func() error {
		if err := agree(rest, allAlive(rest)); err != nil {
			return err
		}
		return again.serves()
	})
	t.Logf("a node restarted without the manager served and was back among the others after %.1f s", time.Since(begin).Seconds())
	begin = time.Now()
	c.revive(dead)
	eventually(t, 60*time.Second, "the dead one is back", func() error { return agree(c.nodes, allAlive(c.nodes)) })
	t.Logf("the machine that died was back among the others after %.1f s", time.Since(begin).Seconds())
	c.runManager()
	t.Logf("with the manager back, it saw all after %v", c.whole(60*time.Second))
}

// TestNetPollsAlone: a node without gossip, and one behind a NAT, have their
// states by polls, and are no trouble to others.
func TestNetPollsAlone(t *testing.T) {
	c := startNetCluster(t, 2)
	gossips := c.nodes
	off := c.add("gw-off", c.lab.host(), func(b map[string]any) { b["gossip"] = "off" })
	hidden := c.add("gw-nat", c.lab.behindNAT(), nil)
	c.took(30*time.Second, "all are alive", func() error { return c.states(allAliveNames(c.nodes)) })
	took := c.took(2*time.Minute, "the manager says that gossip does not reach the node behind a NAT", func() error {
		cond, node, err := c.condition(hidden.name, api.CondGossipConflict)
		if err != nil {
			return err
		}
		if node.State != api.Alive && node.State != api.Suspect {
			t.Fatalf("%s is %s: %s", node.Name, node.State, node.StateCause)
		}
		if cond == nil {
			return fmt.Errorf("conditions %v", node.Conditions)
		}
		t.Logf("condition %s: %s", cond.Kind, cond.Cause)
		return nil
	})
	t.Logf("a node behind a NAT is alive by its polls, and told as such after %v", took)
	if cond, _, err := c.condition(off.name, api.CondGossipConflict); cond != nil || err != nil {
		t.Errorf("a node without gossip has %v, %v", cond, err)
	}
	if err := agree(gossips, allAlive(gossips)); err != nil {
		t.Errorf("the others are disturbed: %v", err)
	}
	begin := time.Now()
	if err := syscall.Kill(-off.cmd.Process.Pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	eventually(t, 15*time.Second, "the kill is seen", func() error { return c.states(map[string]api.NodeState{off.name: api.Unreachable}) })
	t.Logf("without gossip a killed process is unreachable after %.1f s", time.Since(begin).Seconds())
	<-off.done
	c.runNode(off)
	c.took(30*time.Second, "it is back", func() error { return c.states(allAliveNames(c.nodes)) })
	begin = time.Now()
	c.crash(off)
	eventually(t, 90*time.Second, "the death of the machine is seen", func() error { return c.states(map[string]api.NodeState{off.name: api.Unreachable}) })
	t.Logf("without gossip a dead machine, which breaks no connection, is unreachable after %.1f s; a poll may be silent for 45 s", time.Since(begin).Seconds())
	hidden.stop(t)
	t.Logf("a clean stop is told at once: left after %v", c.took(5*time.Second, "the node behind a NAT left", func() error { return c.states(map[string]api.NodeState{hidden.name: api.Left}) }))
}
