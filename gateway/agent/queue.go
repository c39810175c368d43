package agent

import (
	"context"
	"sync"

	"github.com/VictoriaMetrics/metrics"
)

// memoryQueue is an exportQueue of bounded bytes. When it is full the oldest
// exports go: the newest ones are what screens show, and metrics are cumulative.
type memoryQueue struct {
	max     int64
	dropped *metrics.Counter

	mu     sync.Mutex // guards what follows
	items  []export
	first  uint64 // the id of items[0]
	bytes  int64
	filled chan struct{} // closed and replaced when something comes in
}

func newMemoryQueue(max int64, dropped *metrics.Counter) *memoryQueue {
	return &memoryQueue{max: max, dropped: dropped, filled: make(chan struct{})}
}

// cost is what an export takes of the bound, its bookkeeping included.
func cost(e export) int64 { return int64(len(e.body)) + 256 }

func (q *memoryQueue) put(e export) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for len(q.items) > 0 && q.bytes+cost(e) > q.max {
		q.popLocked()
		q.dropped.Inc()
	}
	q.items = append(q.items, e)
	q.bytes += cost(e)
	close(q.filled)
	q.filled = make(chan struct{})
}

func (q *memoryQueue) popLocked() {
	q.bytes -= cost(q.items[0])
	q.items[0] = export{}
	q.items = q.items[1:]
	q.first++
	if len(q.items) == 0 {
		q.items = nil // let the array go
	}
}

func (q *memoryQueue) next(ctx context.Context) (export, uint64, error) {
	for {
		q.mu.Lock()
		filled := q.filled
		if len(q.items) > 0 {
			e, id := q.items[0], q.first
			q.mu.Unlock()
			return e, id, nil
		}
		q.mu.Unlock()
		select {
		case <-filled:
		case <-ctx.Done():
			return export{}, 0, ctx.Err()
		}
	}
}

func (q *memoryQueue) done(id uint64) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.items) > 0 && q.first == id {
		q.popLocked()
	}
}

func (q *memoryQueue) size() (int, int64) {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.items), q.bytes
}
