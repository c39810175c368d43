package state

import (
	"context"
	"strings"
	"sync"

	"github.com/VictoriaMetrics/metrics"
)

// Change is one write as a watcher sees it.
type Change struct {
	KV
	// Deleted is true when the key was removed; Value is nil then.
	Deleted bool
	// Resync is set alone: the reader was too slow, or the store lost its place.
	// Changes are missing, and the reader has to List again.
	Resync bool
}

// watchBuffer is the number of batches a reader may be behind. A batch is one
// transaction or a few.
const watchBuffer = 64

// Watch gives the changes of keys with the prefix from now on, in order, those
// of one transaction together. A write that ended before Watch was called may
// still come; none that began afterwards is missed, unless a Resync says so.
//
// The channel closes with ctx, or on Close. A slow reader blocks nobody: its
// batches are dropped and replaced by one with a single Resync.
func (s *Store) Watch(ctx context.Context, prefix string) <-chan []Change {
	return s.hub.subscribe(ctx, prefix)
}

// hub hands each batch of changes to all watchers. etcd sees a single watch,
// whatever their number: its in-process client deadlocks when many watches of
// one client are canceled together.
type hub struct {
	resyncs *metrics.Counter

	mu     sync.Mutex // guards what follows, and sending on and closing channels
	subs   map[*subscriber]struct{}
	closed bool
}

type subscriber struct {
	prefix string
	ch     chan []Change
}

func newHub(resyncs *metrics.Counter) *hub {
	return &hub{subs: make(map[*subscriber]struct{}), resyncs: resyncs}
}

func (h *hub) subscribe(ctx context.Context, prefix string) <-chan []Change {
	sub := &subscriber{prefix: prefix, ch: make(chan []Change, watchBuffer)}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed || ctx.Err() != nil {
		close(sub.ch)
		return sub.ch
	}
	h.subs[sub] = struct{}{}
	context.AfterFunc(ctx, func() { h.drop(sub) })
	return sub.ch
}

func (h *hub) drop(sub *subscriber) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if _, ok := h.subs[sub]; ok {
		delete(h.subs, sub)
		close(sub.ch)
	}
}

func (h *hub) close() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.closed = true
	for sub := range h.subs {
		delete(h.subs, sub)
		close(sub.ch)
	}
}

// Publish never blocks. It keeps no reference to changes.
func (h *hub) Publish(changes []Change) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for sub := range h.subs {
		var mine []Change
		for _, c := range changes {
			if strings.HasPrefix(c.Key, sub.prefix) {
				c.Value = append([]byte(nil), c.Value...)
				mine = append(mine, c)
			}
		}
		if len(mine) > 0 {
			h.sendLocked(sub, mine)
		}
	}
}

// Resync tells all watchers that changes are missing.
func (h *hub) Resync() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for sub := range h.subs {
		h.resyncLocked(sub)
	}
}

func (h *hub) sendLocked(sub *subscriber, batch []Change) {
	select {
	case sub.ch <- batch:
	default:
		h.resyncLocked(sub)
	}
}

// resyncLocked replaces all that the subscriber has not read. The hub is the
// only sender, so that after the emptying there is room.
func (h *hub) resyncLocked(sub *subscriber) {
	for {
		select {
		case <-sub.ch:
			continue
		default:
		}
		break
	}
	sub.ch <- []Change{{Resync: true}}
	h.resyncs.Inc()
}
