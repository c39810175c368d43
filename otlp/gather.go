package otlp

import (
	"hash/maphash"
	"sync"
	"sync/atomic"
	"time"
)

// gatherer lets the requests of many senders that come seldom wait for each other a
// moment, and works on them in one go.
//
// In a fleet at its own pace a request comes every few milliseconds and finds the
// processor asleep: the code and all that it works with are far away then, and a
// request costs twice of what it costs right after another one (BenchmarkPace of
// telemetry/metrics). What waits is small, came on a connection that brought nothing
// for a while, and is one of so many that others will come: a sender of one request
// after another, as of a backlog, never waits, and neither does a small fleet. Safe
// for concurrent use.
type gatherer struct {
	wait time.Duration // how long the first may wait for others; 0 gathers nothing
	busy func() bool   // says that work may have to wait for memory, which nothing else should then

	seed maphash.Seed
	last [gatherSlots]atomic.Int64 // by connection: when it brought its newest, Unix ns

	mu      sync.Mutex // guards the rest
	recent  [16]int64  // when the newest that could wait came, Unix ns
	at      int        // of the oldest of them
	apart   int64      // until then none waits, Unix ns: one waited, and no other came
	waiting []*gathered
}

// gathered is one request.
type gathered struct {
	work     func()
	done     chan bool // gets whether work was done
	panicked any       // what work panicked with, read after done
}

// run does the work. A panic is its own request's, not that of all that wait.
func (one *gathered) run() {
	defer func() { one.panicked = recover() }()
	one.work()
}

const (
	// gatherMost is how many wait at most.
	gatherMost = 64
	// gatherBytes is the largest body that waits.
	gatherBytes = 128 << 10
	// gatherSeldom is how long a connection that may wait brought nothing: less than
	// the usual interval of exports.
	gatherSeldom = 2 * time.Second
	// gatherSlots is the size of the table of connections. Two that share a slot look
	// like one that comes more often.
	gatherSlots = 1 << 13
	// gatherApart is for how long none waits after one waited alone, as that of a
	// sender does who waits for each answer before it sends more, on a new connection.
	gatherApart = 10 * time.Second
)

func newGatherer(wait time.Duration, busy func() bool) *gatherer {
	return &gatherer{wait: wait, busy: busy, seed: maphash.MakeSeed()}
}

// do does work, at once or within g's wait, and returns when it is done, or panics as
// work does. conn names the connection that brought it, size is that of its body.
func (g *gatherer) do(conn string, size int, work func()) {
	if g.wait == 0 || size > gatherBytes || !g.seldom(conn) {
		work()
		return
	}
	one := g.hold(work)
	if one == nil || !<-one.done {
		work()
	} else if one.panicked != nil {
		panic(one.panicked)
	}
}

// seldom notes that a connection brings a request, and reports whether it brought
// none for a while.
func (g *gatherer) seldom(conn string) bool {
	now := time.Now().UnixNano()
	last := g.last[maphash.String(g.seed, conn)%gatherSlots].Swap(now)
	return now-last > int64(gatherSeldom)
}

// hold lets work wait, or returns nil where too few come: two at least should meet.
func (g *gatherer) hold(work func()) *gathered {
	g.mu.Lock()
	defer g.mu.Unlock()
	now := time.Now().UnixNano()
	took := now - g.recent[g.at]
	g.recent[g.at] = now
	g.at = (g.at + 1) % len(g.recent)
	if now < g.apart || took > int64(g.wait)*int64(len(g.recent))/2 {
		return nil
	}
	one := &gathered{work: work, done: make(chan bool, 1)}
	g.waiting = append(g.waiting, one)
	switch len(g.waiting) {
	case 1:
		time.AfterFunc(g.wait, g.run)
	case gatherMost:
		go g.run()
	}
	return one
}

// run works on all that wait. They are told together, so that their goroutines do
// not take the processor in turns with the work.
func (g *gatherer) run() {
	g.mu.Lock()
	all := g.waiting
	g.waiting = nil
	if len(all) == 1 {
		g.apart = time.Now().UnixNano() + int64(gatherApart)
	}
	g.mu.Unlock()
	done := 0
	for done < len(all) && !g.busy() {
		all[done].run()
		done++
	}
	for i, one := range all {
		one.done <- i < done
	}
}
