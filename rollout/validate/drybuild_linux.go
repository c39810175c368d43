package validate

import (
	"os/exec"
	"syscall"

	"golang.org/x/sys/unix"
)

// isolate gives the process a group of its own, which ends as a whole.
func isolate(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
}

// limit bounds a process that has just begun. RLIMIT_DATA counts what can be
// written to; the address space would not do, for Go reserves much more of it
// than it uses. A process that has ended already needs no limit.
func limit(pid int, bytes uint64) {
	data := unix.Rlimit{Cur: bytes, Max: bytes}
	_ = unix.Prlimit(pid, unix.RLIMIT_DATA, &data, nil)
	none := unix.Rlimit{}
	_ = unix.Prlimit(pid, unix.RLIMIT_CORE, &none, nil)
}
