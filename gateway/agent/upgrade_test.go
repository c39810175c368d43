package agent

import (
	"io"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

func TestUpgradeDue(t *testing.T) {
	var u upgrade
	old, grown, whole := programFile{inode: 1, size: 9}, programFile{inode: 2, size: 4}, programFile{inode: 2, size: 10}
	u.runs = old
	at := time.Unix(1000, 0)
	for _, step := range []struct {
		after time.Duration
		file  programFile
		want  bool
	}{
		{0, old, false},
		{time.Hour, old, false},
		{time.Second, grown, false},
		{2 * time.Second, whole, false}, // still growing
		{2 * time.Second, whole, false},
		{time.Second, whole, true},
		{time.Second, programFile{}, false}, // gone for a moment
		{time.Second, whole, false},
		{upgradeSettle, whole, true},
		{time.Second, old, false},
		{time.Hour, old, false}, // back to what runs
	} {
		at = at.Add(step.after)
		if got := u.due(step.file, at); got != step.want {
			t.Errorf("after %v, with %+v: got %v; want %v", step.after, step.file, got, step.want)
		}
	}
}

// install puts a copy of the program from at path, as package managers do.
func install(t *testing.T, from, path string) {
	t.Helper()
	in, err := os.Open(from)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	out, err := os.OpenFile(path+".new", os.O_CREATE|os.O_WRONLY|os.O_EXCL, 0o700)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(out, in); err != nil {
		t.Fatal(err)
	}
	if err := out.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}

// TestWorkerUpgrade replaces the program on disk under load, first by one that
// does not run, then by one that does.
func TestWorkerUpgrade(t *testing.T) {
	m := newManager(t)
	n := newNode(t, m)
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	n.exe = filepath.Join(t.TempDir(), "binnacle-gateway")
	install(t, exe, n.exe)
	n.write(n.file, n.mixed("own"))
	n.run()
	waitFor(t, "a lease", func() bool { return n.agent.Status().Lease.State == "valid" })
	l := n.startTraffic(8)
	first := n.agent.Status().Worker.PID

	install(t, "/bin/false", n.exe)
	failed := n.agent.metric(`binnacle_agent_worker_upgrades_total{result="failed"}`)
	waitFor(t, "the bad program to be given up", func() bool { return failed.Get() == 1 })
	if pid := n.agent.Status().Worker.PID; pid != first {
		t.Errorf("after a program that does not run: worker %d serves; want still %d", pid, first)
	}

	install(t, exe, n.exe)
	waitFor(t, "a worker of the new program", func() bool {
		w := n.agent.Status().Worker
		return w.Serving && w.PID != first
	})
	waitFor(t, "the first worker to end", func() bool { return syscall.Kill(first, 0) != nil })
	t.Logf("%d requests over a bad and a good program", l.end(t))
	if got := failed.Get(); got != 1 {
		t.Errorf("failed upgrades: got %d; want 1", got)
	}
}

// TestDrainDelay stops a node: for a while it serves on, and says that it is
// not ready.
func TestDrainDelay(t *testing.T) {
	m := newManager(t)
	n := newNode(t, m)
	n.delay = 700 * time.Millisecond
	n.run()
	waitFor(t, "a report", func() bool { return m.last().Serving })
	began := time.Now()
	ended := make(chan error, 1)
	go func() { ended <- n.stop() }()
	waitFor(t, "the health page to say so", func() bool {
		code, _ := n.status("/__health")
		return code == 503
	})
	if !m.last().Draining {
		t.Error("the manager was not told before the health page turned red")
	}
	if code, closes := n.status("/which"); code != 200 || !closes {
		t.Errorf("in the delay: got %d, Connection: close %v; want 200 and true", code, closes)
	}
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if took := time.Since(began); took < n.delay {
		t.Errorf("the stop took %v; want at least %v", took, n.delay)
	}
	if _, err := n.get("/which"); err == nil {
		t.Error("the node answers after its end")
	}
}
