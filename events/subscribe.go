package events

import (
	"context"

	"github.com/binnacle-project/binnacle/api"
)

// subscriberBuffer is the number of events a subscriber may be behind.
const subscriberBuffer = 256

// Subscribe gives each event appended from now on, in order of id, until ctx
// ends; then the channel closes. A reader that falls behind by more than 256
// loses the oldest, which is counted: it sees the gap in the ids and can List.
//
// To begin with the past, subscribe first, then List, and skip ids seen.
func (l *Log) Subscribe(ctx context.Context) <-chan api.Event {
	ch := make(chan api.Event, subscriberBuffer)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.subs[ch] = struct{}{}
	context.AfterFunc(ctx, func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		delete(l.subs, ch)
		close(ch)
	})
	return ch
}

// publishLocked never blocks: it is the only sender, so that after taking one
// out there is room.
func (l *Log) publishLocked(e api.Event) {
	for ch := range l.subs {
		select {
		case ch <- e:
			continue
		default:
		}
		select {
		case <-ch:
			l.dropped.Inc()
		default: // the reader was faster
		}
		ch <- e
	}
}
