package control

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
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
