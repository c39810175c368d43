package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/binnacle-project/binnacle/api"
)

// TestSeats installs a license of two seats: the third node is refused with the
// promised words and serves as a standalone gateway, until the license is
// upgraded while everything runs.
func TestSeats(t *testing.T) {
	b := startBackends(t)
	dir := t.TempDir()
	issuer := filepath.Join(dir, "issuer.key")
	c := startManager(t) // its community license is replaced below
	run := func(args ...string) string {
		t.Helper()
		stdout, stderr, code := c.cli(args...)
		if code != 0 {
			t.Fatalf("binnacle %v: exit code %d\n%s%s", args, code, stdout, stderr)
		}
		return stdout
	}
	run("license", "keygen", "--out", issuer)
	issue := func(seats int) string {
		file := filepath.Join(dir, fmt.Sprintf("license-%d.jwt", seats))
		run("license", "issue", "--key", issuer, "--customer", "Harbor Ltd", "--plan", "team", "--seats", fmt.Sprint(seats), "--expires-in", "720h", "--out", file)
		return file
	}
	two := issue(2)
	if out := run("license", "inspect", two, "--keys", issuer+".pub"); !strings.Contains(out, "Harbor Ltd") {
		t.Errorf("license inspect does not name the customer:\n%s", out)
	}
	// A manager that trusts this issuer only.
	c.manager.stop(t)
	c.args = append(c.args, "--license-keys", issuer+".pub", "--license", filepath.Join(dir, "installed.jwt"))
	copyFile(t, two, filepath.Join(dir, "installed.jwt"))
	c.runManager()
	lic, err := c.client.License(t.Context())
	if err != nil || lic.Seats != 2 || lic.Plan != "team" {
		t.Fatalf("license: got %+v, %v; want 2 seats of plan team", lic, err)
	}

	c.addNode("gw-1", b.config())
	c.addNode("gw-2", b.config())
	c.waitStates(30*time.Second, map[string]api.NodeState{"gw-1": api.Alive, "gw-2": api.Alive})
	third := c.addNode("gw-3", b.config())
	eventually(t, 20*time.Second, "the third node is told why", func() error {
		if !strings.Contains(third.out.String(), api.SeatsMessage) {
			return fmt.Errorf("its log has not the message yet")
		}
		return nil
	})
	// Refused as a member, it serves all the same.
	eventually(t, 10*time.Second, "the third node serves standalone", func() error {
		return once(defaultClient, "http://"+third.addr+"/healthy/1")
	})

	// A seat that is freed admits it with its next question, half a minute apart.
	second := c.nodes[1]
	second.stop(t)
	for _, n := range c.waitStates(10*time.Second, map[string]api.NodeState{"gw-1": api.Alive, "gw-2": api.Left}) {
		if n.Name == second.name {
			if err := c.client.Forget(t.Context(), n.ID); err != nil {
				t.Fatal(err)
			}
		}
	}
	freed := time.Now()
	c.waitStates(40*time.Second, map[string]api.NodeState{"gw-1": api.Alive, "gw-3": api.Alive})
	t.Logf("a freed seat admitted the third node after %.1f s", time.Since(freed).Seconds())

	// The one that was forgotten comes back, to a full cluster. Upgrading needs no
	// restart of anything.
	c.runNode(second)
	eventually(t, 20*time.Second, "the second node is told why", func() error {
		if !strings.Contains(second.out.String(), api.SeatsMessage) {
			return fmt.Errorf("its log has not the message yet")
		}
		return once(defaultClient, "http://"+second.addr+"/healthy/1")
	})
	before := c.processes()
	run("license", "install", issue(3))
	c.waitStates(90*time.Second, map[string]api.NodeState{"gw-1": api.Alive, "gw-2": api.Alive, "gw-3": api.Alive})
	if after := c.processes(); !slices.Equal(before, after) {
		t.Errorf("processes of the nodes before and after the upgrade: %v and %v; want the same", before, after)
	}
	nodes, err := c.client.Nodes(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range nodes {
		if n.Lease == nil || time.Until(n.Lease.Expires) < 24*time.Hour {
			t.Errorf("%s has the lease %+v; want one of days", n.Name, n.Lease)
		}
	}
}

// processes returns the ids of all agents and workers.
func (c *cluster) processes() (pids []string) {
	c.t.Helper()
	for _, n := range c.nodes {
		pid := fmt.Sprint(n.cmd.Process.Pid)
		pids = append(pids, n.name, pid)
		of, err := filepath.Glob("/proc/" + pid + "/task/*/children") // those of each thread
		if err != nil {
			c.t.Fatal(err)
		}
		var children []string
		for _, file := range of {
			b, err := os.ReadFile(file)
			if err != nil {
				continue // a thread that has ended
			}
			children = append(children, strings.Fields(string(b))...)
		}
		if len(children) == 0 {
			c.t.Errorf("%s has no worker", n.name)
		}
		slices.Sort(children)
		pids = append(pids, children...)
	}
	return pids
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	b, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(to, b, 0o600); err != nil {
		t.Fatal(err)
	}
}
