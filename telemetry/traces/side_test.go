package traces

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
)

func TestSide(t *testing.T) {
	for _, n := range []int{0, 1, 2, 100} {
		calls := make([]atomic.Int64, n)
		if err := side(t.Context(), n, func(i int) error { calls[i].Add(1); return nil }); err != nil {
			t.Fatal(err)
		}
		for i := range calls {
			if got := calls[i].Load(); got != 1 {
				t.Errorf("%d of %d was called %d times", i, n, got)
			}
		}
		bad := errors.New("bad")
		err := side(t.Context(), n, func(i int) error {
			if i == n/2 {
				return bad
			}
			return nil
		})
		if n > 0 && !errors.Is(err, bad) {
			t.Errorf("of %d one fails: got %v", n, err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		err = side(ctx, n, func(int) error { t.Error("called after its end"); return nil })
		if n > 0 && !errors.Is(err, context.Canceled) {
			t.Errorf("of %d after the end: got %v", n, err)
		}
	}
}
