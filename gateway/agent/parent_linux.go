package agent

import "syscall"

// endWithParent has the kernel end a child as soon as the thread that started it
// ends, however that happens.
func endWithParent(a *syscall.SysProcAttr) { a.Pdeathsig = syscall.SIGKILL }
