package membership

import (
	"path/filepath"
	"testing"
	"time"

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

func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("after 10 s still not: %s", what)
		}
		time.Sleep(10 * time.Millisecond)
	}
}
