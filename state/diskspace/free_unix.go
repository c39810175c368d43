//go:build linux || darwin

package diskspace

import (
	"os"
	"syscall"
)

// Free returns the bytes that an unprivileged process may still write below dir,
// or errors.ErrUnsupported where the system is not asked.
func Free(dir string) (uint64, error) {
	var st syscall.Statfs_t
	if err := syscall.Statfs(dir, &st); err != nil {
		return 0, &os.PathError{Op: "statfs", Path: dir, Err: err}
	}
	return st.Bavail * uint64(st.Bsize), nil
}
