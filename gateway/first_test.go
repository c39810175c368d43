package gateway

import (
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// TestProcessOne runs both kinds of gateway as process 1 of a namespace of its
// own, as in a container: what others leave there is reaped, a worker that dies
// is replaced, SIGTERM drains.
func TestProcessOne(t *testing.T) {
	enter, err := exec.LookPath("nsenter")
	if err != nil {
		t.Skipf("this test needs nsenter, which is part of util-linux: %v", err)
	}
	for _, kind := range []string{"standalone", "member"} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			s := newSite(t)
			block := ""
			if kind == "member" {
				block = s.lonely()
			}
			s.write("one", block)
			p := startProcAs(t, syscall.SysProcAttr{
				Setpgid: true, Pdeathsig: syscall.SIGKILL, Cloneflags: syscall.CLONE_NEWPID | syscall.CLONE_NEWNS,
			}, s.file)
			s.serves("one")
			first := p.cmd.Process.Pid // as it is called out here

			// As a command of the container's health check leaves them.
			for range 5 {
				out, err := exec.Command(enter, "-t", strconv.Itoa(first), "-p", "-m", "/bin/sh", "-c", "(sleep 0.1 & sleep 0.2 &); echo $$").CombinedOutput()
				if err != nil {
					t.Fatalf("%s: %v: %s", enter, err, out)
				}
			}
			waitFor(t, "orphans of process 1", func() bool { return len(children(t, first, "Z")) > 0 })
			if kind == "member" {
				workers := children(t, first, "S")
				if len(workers) != 1 {
					t.Fatalf("process 1 has the live children %v; want the worker", workers)
				}
				syscall.Kill(workers[0], syscall.SIGKILL)
				waitFor(t, "another worker", func() bool {
					now := children(t, first, "S")
					return len(now) == 1 && now[0] != workers[0]
				})
			}
			waitFor(t, "orphans and workers to be reaped", func() bool { return len(children(t, first, "Z")) == 0 })
			s.serves("one")
			p.cmd.Process.Signal(syscall.SIGTERM)
			if err := p.wait(); err != nil {
				t.Errorf("end: %v", err)
			}
		})
	}
}

// children are the processes below parent in the given state; running counts as
// sleeping.
func children(t *testing.T, parent int, state string) (pids []int) {
	t.Helper()
	entries, err := os.ReadDir("/proc")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil {
			continue // it ended
		}
		f := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:]))
		if f[0] != "Z" {
			f[0] = "S"
		}
		if f[0] == state && f[1] == strconv.Itoa(parent) {
			pids = append(pids, pid)
		}
	}
	return pids
}
