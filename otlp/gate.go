package otlp

import (
	"math"
	"runtime/debug"
	rm "runtime/metrics"
	"sync/atomic"
	"time"
)

// gate lets requests in while there are not too many and memory is not short.
// It asks before anything of a body is read.
type gate struct {
	max      int64
	inFlight atomic.Int64

	busy    *busyMeters
	soft    uint64 // bytes of live heap; 0 is no limit
	checked atomic.Int64
	short   atomic.Bool
	live    func() uint64
}

// memoryInterval is how old a reading of the heap may be. Reading costs about
// a microsecond, but the figure only moves with garbage collections.
const memoryInterval = 100 * time.Millisecond

func newGate(maxInFlight int, soft int64, busy *busyMeters) *gate {
	g := &gate{max: int64(maxInFlight), live: liveHeap, busy: busy}
	switch {
	case soft > 0:
		g.soft = uint64(soft)
	case soft == 0:
		if lim := debug.SetMemoryLimit(-1); lim < math.MaxInt64 {
			g.soft = uint64(lim) / 5 * 4
		}
	}
	return g
}

// liveHeap is the heap that the last garbage collection found in use: unlike
// the size of the heap it does not swing with the garbage since then.
func liveHeap() uint64 {
	s := []rm.Sample{{Name: "/gc/heap/live:bytes"}}
	rm.Read(s)
	if s[0].Value.Kind() != rm.KindUint64 {
		return 0
	}
	return s[0].Value.Uint64()
}

// enter admits a request or refuses it as retryable. leave must follow an
// admission.
func (g *gate) enter() error {
	if err := g.memory(); err != nil {
		return err
	}
	if g.inFlight.Add(1) > g.max {
		g.inFlight.Add(-1)
		return g.full()
	}
	return nil
}

// check is enter for gRPC, which counts its calls elsewhere: it refuses, and
// admits without counting.
func (g *gate) check() error {
	if err := g.memory(); err != nil {
		return err
	}
	if g.inFlight.Load() >= g.max {
		return g.full()
	}
	return nil
}

// memory refuses while memory is short.
func (g *gate) memory() error {
	if !g.memoryShort() {
		return nil
	}
	g.busy.memory.Inc()
	return refuseBusy("memory is short (more than %d bytes in use): try again", g.soft)
}

func (g *gate) full() error {
	g.busy.inFlight.Inc()
	return refuseBusy("%d requests are in work already: try again", g.max)
}

func (g *gate) leave() { g.inFlight.Add(-1) }

func (g *gate) memoryShort() bool {
	if g.soft == 0 {
		return false
	}
	now := time.Now().UnixNano()
	last := g.checked.Load()
	if now-last > int64(memoryInterval) && g.checked.CompareAndSwap(last, now) {
		g.short.Store(g.live() > g.soft)
	}
	return g.short.Load()
}
