package membership

import (
	"path/filepath"
	"testing"

	"github.com/binnacle-project/binnacle/membership/pki"
)

func newAuthority(t testing.TB) *pki.Authority {
	t.Helper()
	a, err := pki.OpenAuthority(filepath.Join(t.TempDir(), "ca"))
	if err != nil {
		t.Fatalf("OpenAuthority: %v", err)
	}
	return a
}
