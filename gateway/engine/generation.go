package engine

import (
	"net/http"
	"slices"
	"sync/atomic"
	"time"

	"github.com/luraproject/lura/v2/config"

	"github.com/binnacle-project/binnacle/api"
)

// generation is one built configuration. It counts who uses it: the engine
// while it is current, and each request from its first to its last byte. The
// last one out releases it.
type generation struct {
	ref      api.RevisionRef
	applied  time.Time
	settings ServerSettings
	// sampleRatio is that of the configuration; negative when it has none.
	sampleRatio float64
	warnings    []string
	// lura takes what Lura and the modules log; logging is where the
	// configuration wants it, empty for the process's own log.
	lura    *luraLog
	logging config.ExtraConfig
	// router serves the endpoints; outer wraps it in what comes before routing.
	router http.Handler
	outer  func(http.Handler) http.Handler
	// health is the path of the health page; empty when there is none.
	health string

	refs     atomic.Int64 // begins at 1, for whoever built it; 0 is final
	closers  []func()     // run last to first
	released chan struct{}
}

func newGeneration() *generation {
	g := &generation{sampleRatio: -1, released: make(chan struct{})}
	g.refs.Store(1)
	return g
}

// onRelease registers the undoing of something that the build acquired.
func (g *generation) onRelease(f func()) { g.closers = append(g.closers, f) }

// acquire counts one more user; false when g is already released.
func (g *generation) acquire() bool {
	for {
		n := g.refs.Load()
		if n == 0 {
			return false
		}
		if g.refs.CompareAndSwap(n, n+1) {
			return true
		}
	}
}

// handler is the way in: what comes before routing, the limit if there is one,
// the endpoints.
func (g *generation) handler(l *limiter) http.Handler {
	h := g.router
	if l != nil {
		h = l.handler(g.health, h)
	}
	return g.outer(h)
}

func (g *generation) release() {
	switch n := g.refs.Add(-1); {
	case n > 0:
		return
	case n < 0:
		panic("BUG: generation released twice")
	}
	for _, f := range slices.Backward(g.closers) {
		f()
	}
	close(g.released)
}

// serving is a generation with the way into it, chosen when it was made
// current.
type serving struct {
	*generation
	entry http.Handler
}
