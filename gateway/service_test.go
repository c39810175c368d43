package gateway

import (
	"fmt"
	"net"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// notifySocket listens as a service manager does.
func notifySocket(t *testing.T) (path string, next func() string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "notify")
	c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return path, func() string {
		t.Helper()
		b := make([]byte, 1024)
		c.SetReadDeadline(time.Now().Add(30 * time.Second))
		n, err := c.Read(b)
		if err != nil {
			t.Fatalf("no notification came: %v", err)
		}
		return string(b[:n])
	}
}

// TestNotify starts both kinds of gateway as systemd does, and looks at what
// they tell it over a life.
func TestNotify(t *testing.T) {
	for _, kind := range []string{"standalone", "member"} {
		t.Run(kind, func(t *testing.T) {
			s := newSite(t)
			block := ""
			if kind == "member" {
				block = s.lonely()
			}
			s.write("one", block)
			path, next := notifySocket(t)
			p := startProc(t, s.file, "NOTIFY_SOCKET="+path)
			want := func(prefix string) {
				t.Helper()
				if got := next(); !strings.HasPrefix(got, prefix) {
					t.Errorf("notification: got %q; want %s", got, prefix)
				}
			}
			want("READY=1")
			if got, err := s.get(); err != nil || got != "/one" {
				t.Errorf("when it is ready: got %q, %v", got, err)
			}
			s.write("two", block)
			p.cmd.Process.Signal(syscall.SIGHUP)
			want("RELOADING=1\n")
			want("READY=1")
			if got, err := s.get(); err != nil || got != "/two" {
				t.Errorf("when it has reloaded: got %q, %v", got, err)
			}
			p.cmd.Process.Signal(syscall.SIGTERM)
			want("STOPPING=1")
			if err := p.wait(); err != nil {
				t.Errorf("end: %v", err)
			}
		})
	}
}

// TestReapOrphans makes this process the reaper of its descendants, as process
// 1 of a container is.
func TestReapOrphans(t *testing.T) {
	const setChildSubreaper = 36 // PR_SET_CHILD_SUBREAPER
	if _, _, errno := syscall.RawSyscall(syscall.SYS_PRCTL, setChildSubreaper, 1, 0); errno != 0 {
		t.Skipf("this process cannot be a reaper: %v", errno)
	}
	defer syscall.RawSyscall(syscall.SYS_PRCTL, setChildSubreaper, 0, 0)
	ctx := t.Context()
	done := make(chan struct{})
	go func() { reapOrphans(ctx, 50*time.Millisecond); close(done) }()

	// Children with somebody who waits for them keep their status, orphans go.
	for i := range 20 {
		out, err := exec.Command("/bin/sh", "-c", "(exec sleep 0.01) & (exec sleep 0.02) & echo hello; exit 3").Output()
		var exit *exec.ExitError
		if e, ok := err.(*exec.ExitError); ok {
			exit = e
		}
		if exit == nil || exit.ExitCode() != 3 || string(out) != "hello\n" {
			t.Fatalf("child %d: got %q, %v; want exit status 3", i, out, err)
		}
	}
	deadline := time.Now().Add(20 * time.Second)
	for left := deadChildren(); len(left) > 0; left = deadChildren() {
		if time.Now().After(deadline) {
			t.Fatalf("orphans were left: %s", fmt.Sprint(left))
		}
		time.Sleep(20 * time.Millisecond)
	}
}
