//go:build !linux && !darwin

package diskspace

import "errors"

// Free returns the bytes that an unprivileged process may still write below dir,
// or errors.ErrUnsupported where the system is not asked.
func Free(string) (uint64, error) { return 0, errors.ErrUnsupported }
