package e2e

import (
	"fmt"
	"os"
	"path/filepath"
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

	// Upgrading needs no restart of anything.
	run("license", "install", issue(3))
	c.waitStates(90*time.Second, map[string]api.NodeState{"gw-1": api.Alive, "gw-2": api.Alive, "gw-3": api.Alive})
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
