//go:build !linux

package agent

import "syscall"

// endWithParent does nothing: only Linux can. A child is stopped in order, and
// outlives a parent that was killed.
func endWithParent(*syscall.SysProcAttr) {}
