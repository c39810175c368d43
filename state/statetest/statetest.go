// Package statetest gives control state to the tests of other packages. Only
// tests import it.
package statetest

import (
	"log/slog"
	"testing"

	"github.com/binnacle-project/binnacle/state"
	"github.com/binnacle-project/binnacle/state/etcd"
)

// New returns state on disk in a directory of its own, closed and removed with
// the test. It takes some 50 ms. Its goroutines live outside of synctest
// bubbles: use Memory in those.
func New(t testing.TB) *state.Store {
	t.Helper()
	return Open(t, t.TempDir())
}

// Open opens the state in dir, for tests that close it and open it again.
func Open(t testing.TB, dir string) *state.Store {
	t.Helper()
	s, err := etcd.Open(t.Context(), etcd.Options{
		Dir:          dir,
		Log:          slog.New(slog.NewTextHandler(t.Output(), nil)),
		MinFreeBytes: 32 << 20,
	})
	if err != nil {
		t.Fatalf("etcd.Open: %v", err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("state.Close: %v", err)
		}
	})
	return s
}

// Memory returns state in memory. It has no goroutine and no file, so that it
// works inside a synctest bubble.
func Memory(t testing.TB) *state.Store {
	t.Helper()
	s, err := state.OpenMemory(t.Context(), state.Options{})
	if err != nil {
		t.Fatalf("state.OpenMemory: %v", err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}
