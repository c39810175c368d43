package traces

import (
	"context"
	"runtime"
	"sync"
	"sync/atomic"
)

// sideBySide is how many blocks one query reads at once.
func sideBySide() int { return min(runtime.GOMAXPROCS(0), 4) }

// side calls f with 0 to n-1 from a few goroutines and returns after the last. The
// first error, that of ctx too, ends it.
func side(ctx context.Context, n int, f func(i int) error) error {
	workers := min(n, sideBySide())
	if workers <= 1 {
		for i := range n {
			if err := ctx.Err(); err != nil {
				return err
			}
			if err := f(i); err != nil {
				return err
			}
		}
		return nil
	}
	var (
		wg    sync.WaitGroup
		next  atomic.Int64
		once  sync.Once
		first error
	)
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	for range workers {
		wg.Go(func() {
			for {
				i := int(next.Add(1)) - 1
				if i >= n {
					return
				}
				err := context.Cause(ctx)
				if err == nil {
					err = f(i)
				}
				if err != nil {
					once.Do(func() { first = err })
					cancel(err)
					return
				}
			}
		})
	}
	wg.Wait()
	return first
}
