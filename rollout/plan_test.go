package rollout

import (
	"fmt"
	"testing"

	"github.com/binnacle-project/binnacle"
)

// TestPhase wants retries spread evenly, and each node's share fixed.
func TestPhase(t *testing.T) {
	const nodes = 10_000
	var buckets [phaseSpan]int
	for i := range nodes {
		id := binnacle.NodeID(fmt.Sprintf("n-%04x", i))
		p := phase(id)
		if p < 0 || p >= phaseSpan || p != phase(id) {
			t.Fatalf("phase(%s): got %v; want the same each time, in [0, %d)", id, p, phaseSpan)
		}
		buckets[int(p)]++
	}
	for s, n := range buckets {
		if mean := nodes / phaseSpan; n < mean/2 || n > mean*2 {
			t.Errorf("second %d has %d nodes; want about %d", s, n, mean)
		}
	}
}
