package state

import (
	"testing"
	"time"
)

func TestNextEpoch(t *testing.T) {
	at := time.Unix(1_800_000_000, 0)
	f := func(old uint64, now time.Time, want uint64) {
		t.Helper()
		if got := nextEpoch(old, now); got != want {
			t.Errorf("nextEpoch(%d, %v): got %d; want %d", old, now, got, want)
		}
	}
	f(1, at, 1_800_000_000)
	f(1_800_000_000, at, 1_800_000_001) // twice within a second, or a clock set back
	f(5, time.Unix(-1, 0), 6)
}
