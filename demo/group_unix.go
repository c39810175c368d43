//go:build unix

package demo

import (
	"os"
	"os/exec"
	"syscall"
)

// ownGroup puts a child into a process group of its own.
func ownGroup(cmd *exec.Cmd) { cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} }

// killGroup ends what is left of a child's group.
func killGroup(child *os.Process) { _ = syscall.Kill(-child.Pid, syscall.SIGKILL) }

// tryLock takes an exclusive lock that ends with the process.
func tryLock(f *os.File) error { return syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) }
