package worker

import "testing"

func TestParseLimit(t *testing.T) {
	f := func(in string, want int64) {
		t.Helper()
		if got := parseLimit(in); got != want {
			t.Errorf("parseLimit(%q): got %d; want %d", in, got, want)
		}
	}
	f("536870912\n", 512<<20)
	f("max\n", 0)
	f("9223372036854771712\n", 0) // no limit, in version 1
	f("", 0)
	f("-1", 0)
	f("0", 0)
}
