package control

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
)

// maxSocketPath is what sun_path holds on Linux, with its closing zero.
const maxSocketPath = 107

// Listen opens the unix socket name in dir with mode 0600, in the place of one
// that a dead process left. The caller makes sure that no living process uses
// that name.
func Listen(dir, name string) (*net.UnixListener, error) {
	path := filepath.Join(dir, name)
	if err := os.Remove(path); err != nil && !os.IsNotExist(err) {
		return nil, fmt.Errorf("listen on control socket %s: %w", path, err)
	}
	short, done, err := shorten(dir, name)
	if err != nil {
		return nil, fmt.Errorf("listen on control socket %s: %w", path, err)
	}
	defer done()
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: short, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("listen on control socket %s: %w", path, err)
	}
	// The descriptor goes to another process: closing this copy must not take
	// the name away. Who ends for good removes it.
	ln.SetUnlinkOnClose(false)
	// Between bind and chmod the directory, mode 0700, keeps others away.
	if err := os.Chmod(path, 0o600); err != nil {
		ln.Close()
		return nil, fmt.Errorf("listen on control socket %s: %w", path, err)
	}
	return ln, nil
}

// Dial connects to the socket name in dir.
func Dial(ctx context.Context, dir, name string) (*Client, error) {
	short, done, err := shorten(dir, name)
	if err != nil {
		return nil, fmt.Errorf("connect to control socket %s: %w", filepath.Join(dir, name), err)
	}
	defer done()
	var d net.Dialer
	c, err := d.DialContext(ctx, "unix", short)
	if err != nil {
		return nil, fmt.Errorf("connect to control socket %s: %w", filepath.Join(dir, name), err)
	}
	return NewClient(c.(*net.UnixConn)), nil
}

// shorten returns a path for the socket that fits into a sockaddr: the plain
// one, or one through a descriptor of dir while done has not been called.
func shorten(dir, name string) (path string, done func(), err error) {
	path = filepath.Join(dir, name)
	if len(path) <= maxSocketPath {
		return path, func() {}, nil
	}
	d, err := os.Open(dir)
	if err != nil {
		return "", nil, err
	}
	return "/proc/self/fd/" + strconv.Itoa(int(d.Fd())) + "/" + name, func() { d.Close() }, nil
}

// filer is a listener of package net.
type filer interface {
	SyscallConn() (syscall.RawConn, error)
}

// File returns a copy of ln's descriptor, to be passed to another process.
//
// It is not ln.File(): that one is switched to blocking mode when it is
// passed on, and the mode belongs to the socket, not to the copy. A process
// that accepts from the same socket would hang in accept with a thread that
// Close cannot wake.
func File(ln net.Listener) (*os.File, error) {
	l, ok := ln.(filer)
	if !ok {
		return nil, fmt.Errorf("copy the socket of %s: a %T has no descriptor", ln.Addr(), ln)
	}
	rc, err := l.SyscallConn()
	if err != nil {
		return nil, fmt.Errorf("copy the socket of %s: %w", ln.Addr(), err)
	}
	var f *os.File
	var dupErr error
	err = rc.Control(func(fd uintptr) {
		n, _, errno := syscall.Syscall(syscall.SYS_FCNTL, fd, syscall.F_DUPFD_CLOEXEC, 0)
		if errno != 0 {
			dupErr = os.NewSyscallError("fcntl", errno)
			return
		}
		f = os.NewFile(n, ln.Addr().String())
	})
	if err = errors.Join(err, dupErr); err != nil {
		return nil, fmt.Errorf("copy the socket of %s: %w", ln.Addr(), err)
	}
	return f, nil
}
