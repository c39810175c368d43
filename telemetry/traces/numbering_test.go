package traces

import (
	"math"
	"testing"
)

// TestNumbering: values get numbers in their order, and those that have much in
// common stand apart in the table all the same, so that nobody makes it slow.
func TestNumbering(t *testing.T) {
	const n = 10_000
	var s numbering
	for name, value := range map[string]func(k uint64) uint64{
		"small":     func(k uint64) uint64 { return k },
		"even":      func(k uint64) uint64 { return k << 20 },
		"high":      func(k uint64) uint64 { return k << 48 },
		"both":      func(k uint64) uint64 { return k<<32 | k },
		"floats":    func(k uint64) uint64 { return math.Float64bits(float64(k)) },
		"negatives": func(k uint64) uint64 { return -k },
	} {
		s.reset(n)
		homes := map[uint64]bool{}
		for range 2 { // known the second time
			for k := range uint64(n) {
				if got := s.number(value(k)); uint64(got) != k {
					t.Fatalf("%s: number(%d) is %d", name, k, got)
				}
				homes[s.home(value(k))] = true
			}
		}
		if len(homes) < n/4 {
			t.Errorf("%s: %d values begin at %d places", name, n, len(homes))
		}
	}
}
