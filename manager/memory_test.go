package manager

import (
	"math"
	"testing"
)

func TestMaxSamples(t *testing.T) {
	o := DefaultOptions()
	for _, tt := range []struct {
		memory int64
		want   int
	}{
		{math.MaxInt64, o.QueryMaxSamples},
		{16 << 30, o.QueryMaxSamples},
		{4 << 30, (4 << 30) / 3 / 16 / o.QueryConcurrency},
		{256 << 20, fewestSamples},
	} {
		if got := o.maxSamples(tt.memory); got != tt.want {
			t.Errorf("maxSamples with %d bytes: got %d; want %d", tt.memory, got, tt.want)
		}
	}
}
