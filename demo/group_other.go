//go:build !unix

package demo

import (
	"os"
	"os/exec"
	"syscall"
)

// There are no process groups here, and no gateways to start: only the backends
// and the traffic of the demo are of use.

func ownGroup(cmd *exec.Cmd) { cmd.SysProcAttr = &syscall.SysProcAttr{} }

func killGroup(child *os.Process) { _ = child.Kill() }

func tryLock(*os.File) error { return nil }
