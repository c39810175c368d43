package relay

import (
	"sync"

	"github.com/VictoriaMetrics/metrics"
)

// memoryQueue holds exports on their way, within bounded bytes. When it is full
// the oldest exports go: the newest ones are what screens show, and metrics are
// cumulative. It is safe for concurrent use.
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

// Put adds e, dropping the oldest ones if there is no room.
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

// oldest returns the export that waits longest and leaves it there. If there is
// none, filled is closed when one comes in.
func (q *memoryQueue) oldest() (e export, id uint64, ok bool, filled <-chan struct{}) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.items) == 0 {
		return export{}, 0, false, q.filled
	}
	return q.items[0], q.first, true, q.filled
}

// done removes what oldest gave, if it is still there.
func (q *memoryQueue) done(id uint64) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.items) > 0 && q.first == id {
		q.popLocked()
	}
}

// size returns how much waits.
func (q *memoryQueue) size() (exports int, bytes int64) {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.items), q.bytes
}
