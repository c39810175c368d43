package histsum

import (
	"runtime"
	"sync"
)

// helpers are the goroutines that queries may use beside their own, for all
// queries together: one for each second processor. So the queries that run take
// at most that many processors more than one each, and ingest keeps its own. It
// is safe for concurrent use.
type helpers chan struct{}

func newHelpers() helpers { return make(helpers, max(runtime.GOMAXPROCS(0)/2, 1)) }

// run calls f, and at the same time again in each helper that is free, for at
// most n calls. It returns when all have.
func (h helpers) run(n int, f func()) {
	var wg sync.WaitGroup
	for range n - 1 {
		select {
		case h <- struct{}{}:
			wg.Go(func() {
				defer func() { <-h }()
				f()
			})
			continue
		default:
		}
		break
	}
	f()
	wg.Wait()
}
