package gossip

import (
	"sync"

	"github.com/VictoriaMetrics/metrics"

	"github.com/binnacle-project/binnacle"
)

// maxQueuedEvents bounds an event queue: four for each member of the largest
// cluster.
const maxQueuedEvents = 40_000

// eventQueue takes events from memberlist's callbacks without ever blocking
// them. For each member and subject only the newest waits, in the place of the
// oldest, so that a slow reader misses what is no longer true and nothing else.
// What does not fit is dropped and counted.
type eventQueue struct {
	wake    chan struct{} // has a value when events wait
	limit   int
	dropped *metrics.Counter

	mu     sync.Mutex // guards what follows
	events []Event
	at     map[eventKey]int // index in events
}

// eventKey names what an event is about. Liveness, UDP and conflicts of one
// member are different subjects.
type eventKey struct {
	id      binnacle.NodeID
	subject Kind
}

func newEventQueue(limit int, dropped *metrics.Counter) *eventQueue {
	return &eventQueue{wake: make(chan struct{}, 1), limit: limit, dropped: dropped, at: make(map[eventKey]int)}
}

func keyOf(e Event) eventKey {
	switch e.Kind {
	case UDPBlocked, UDPOpen:
		return eventKey{e.Member.ID, UDPBlocked}
	case Conflict:
		return eventKey{e.Member.ID, Conflict}
	}
	return eventKey{e.Member.ID, Alive}
}

func (q *eventQueue) put(e Event) {
	q.mu.Lock()
	k := keyOf(e)
	if i, ok := q.at[k]; ok {
		q.events[i] = e
	} else if len(q.events) < q.limit {
		q.at[k] = len(q.events)
		q.events = append(q.events, e)
	} else {
		q.dropped.Inc()
	}
	q.mu.Unlock()
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

// take returns all that waits, oldest first.
func (q *eventQueue) take() []Event {
	q.mu.Lock()
	defer q.mu.Unlock()
	events := q.events
	q.events = nil
	clear(q.at)
	return events
}
