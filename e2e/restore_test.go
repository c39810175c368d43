package e2e

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/binnacle-project/binnacle"
	"github.com/binnacle-project/binnacle/api"
	"github.com/binnacle-project/binnacle/licensing"
)

// TestBackupAndRestore loses a manager with its disk. A backup made before
// brings the cluster back under load: the epoch rises, nodes keep ids and leases
// and take what the backup knows, and one that the backup does not know enrolls
// anew.
func TestBackupAndRestore(t *testing.T) {
	b := startBackends(t)
	c := startManager(t)
	c.addNode("gw-1", b.config())
	c.addNode("gw-2", b.config())
	c.waitStates(60*time.Second, map[string]api.NodeState{"gw-1": api.Alive, "gw-2": api.Alive})
	run := func(args ...string) string {
		t.Helper()
		stdout, stderr, code := c.cli(args...)
		if code != 0 {
			t.Fatalf("binnacle %v: exit code %d\n%s%s", args, code, stdout, stderr)
		}
		return strings.TrimSpace(stdout)
	}
	push := func(path string) {
		t.Helper()
		file := filepath.Join(c.dir, "next.json")
		writeJSON(t, file, b.configWith(path))
		run("config", "push", "--rollout=all", file)
	}
	push("/before")
	data := filepath.Join(c.dir, "manager")
	copied := t.TempDir()
	for _, folder := range []string{"ca", "license"} {
		if err := os.CopyFS(filepath.Join(copied, folder), os.DirFS(filepath.Join(data, folder))); err != nil {
			t.Fatal(err)
		}
	}
	snapshot := filepath.Join(t.TempDir(), "binnacle.snapshot")
	run("backup", snapshot)

	// What follows is not in the backup.
	push("/after")
	late := c.addNode("gw-3", b.config())
	before := c.waitStates(60*time.Second, map[string]api.NodeState{"gw-1": api.Alive, "gw-2": api.Alive, "gw-3": api.Alive})
	ids := map[string]binnacle.NodeID{}
	for _, n := range before {
		ids[n.Name] = n.ID
	}
	load := startLoad(c.nodes, "/healthy/1")

	c.manager.kill(t)
	if err := errors.Join(os.RemoveAll(data), os.Rename(copied, data)); err != nil {
		t.Fatal(err)
	}
	restore := start(t, "restore", "binnacle-manager", "restore", "--data-dir", data, "--from", snapshot)
	<-restore.done
	if code := restore.cmd.ProcessState.ExitCode(); code != 0 || !strings.Contains(restore.out.String(), "epoch") {
		t.Fatalf("restore: exit code %d\n%s", code, restore.out)
	}
	c.runManager()
	nodes := c.waitStates(60*time.Second, map[string]api.NodeState{"gw-1": api.Alive, "gw-2": api.Alive, "gw-3": api.Alive})
	for _, n := range nodes {
		if same := n.ID == ids[n.Name]; same != (n.Name != late.name) {
			t.Errorf("%s had id %s and has %s; want the same for all that the backup knows", n.Name, ids[n.Name], n.ID)
		}
	}
	for _, n := range c.nodes {
		eventually(t, 20*time.Second, n.name+" runs what the backup wants", func() error {
			s, err := statusOf(n)
			if err != nil {
				return err
			}
			if s.Epoch < 1_000_000 || s.Membership != "member" || s.Lease.State != licensing.LeaseValid {
				return fmt.Errorf("epoch %d, %s, lease %s", s.Epoch, s.Membership, s.Lease.State)
			}
			return once(defaultClient, "http://"+n.addr+"/before")
		})
	}
	load.stop()
	if f := load.failures.Load(); f > 0 {
		t.Errorf("%d requests failed, first: %s", f, *load.firstFailure.Load())
	}
	t.Logf("%d requests from before the loss to after the restore, %d failed", load.requests.Load(), load.failures.Load())
	evs, err := c.client.Events(t.Context(), 0, 500)
	if err != nil || !slices.ContainsFunc(evs, func(e api.Event) bool { return e.Kind == "state.restored" }) {
		t.Errorf("no event says that state was restored: %v, %v", evs, err)
	}
}
