package traces

import "context"

// places bound the calls that are worked on at once, so that ingest and polls
// keep their share of the machine. As many again wait.
type places struct{ all, running chan struct{} }

func newPlaces(n int) places {
	return places{all: make(chan struct{}, 2*n), running: make(chan struct{}, n)}
}

// enter waits for a place; the caller leaves it. false means that there is none.
func (p places) enter(ctx context.Context) bool {
	select {
	case p.all <- struct{}{}:
	default:
		return false
	}
	select {
	case p.running <- struct{}{}:
		return true
	case <-ctx.Done():
		<-p.all
		return false
	}
}

func (p places) leave() { <-p.running; <-p.all }
