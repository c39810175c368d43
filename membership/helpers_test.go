package membership

import (
	"path/filepath"
	"testing"
)

func newAuthority(t testing.TB) *Authority {
	t.Helper()
	a, err := OpenAuthority(filepath.Join(t.TempDir(), "ca"))
	if err != nil {
		t.Fatalf("OpenAuthority: %v", err)
	}
	return a
}
