package promapi

import "testing"

func TestServerVersion(t *testing.T) {
	f := func(in, want string) {
		t.Helper()
		if got := serverVersion(in); got != want {
			t.Errorf("serverVersion(%q): got %q; want %q", in, got, want)
		}
	}
	f("v0.312.0", "3.12.0")
	f("v0.305.2", "3.5.2")
	f("v3.1.0", "v3.1.0")
	f("(devel)", "(devel)")
}
