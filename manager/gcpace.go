package manager

import (
	"context"
	"os"
	"runtime/debug"
	rm "runtime/metrics"
	"time"
)

// The garbage collector lets the heap grow to twice what is alive before it
// collects: with ten thousand polls held, of which nothing ever is garbage, that
// is 300 MiB for them alone. So what polls take is left out of the doubling.
const (
	// pollBytes is what a held poll takes, with its TLS connection and stacks.
	pollBytes = 26 << 10
	// leastHeadroom is what the heap may grow by in any case: a push makes some
	// 350 MiB of garbage with ten thousand nodes, and each collection looks at all
	// that is alive.
	leastHeadroom = 128 << 20
	// doubled is what of the other memory that is alive may grow to twice its size.
	doubled = 128 << 20
	// tuneEvery is how often the pace is set.
	tuneEvery = 2 * time.Second
)

// memory is what a manager has alive, by its last garbage collection, and its
// goroutines' stacks, in bytes.
type memory struct{ live, stacks uint64 }

func readMemory() memory {
	s := []rm.Sample{{Name: "/gc/heap/live:bytes"}, {Name: "/memory/classes/heap/stacks:bytes"}}
	rm.Read(s)
	at := func(i int) uint64 {
		if s[i].Value.Kind() != rm.KindUint64 {
			return 0
		}
		return s[i].Value.Uint64()
	}
	return memory{at(0), at(1)}
}

// gcPercent is the pace of the garbage collector for so many polls: 100, the
// runtime's own, without any and for a small heap. What else is alive beyond
// doubled may grow by half: that are series, streams and roll-ups of many nodes,
// which live long. That costs a collector, which is a tenth of the manager's work, up
// to a third more, and bounds what a thousand nodes of 110 points take to 1 GiB.
func gcPercent(m memory, polls int) int {
	all := int64(m.live + m.stacks)
	if all == 0 {
		return 100
	}
	other := all - int64(polls)*pollBytes
	if other > doubled {
		other = doubled + (other-doubled)/2
	}
	headroom := min(max(other, leastHeadroom), all)
	return int(100 * headroom / all)
}

// tuneGC sets the pace of the garbage collector as polls come and go, unless GOGC
// says it.
func (m *Manager) tuneGC(ctx context.Context) error {
	if os.Getenv("GOGC") != "" {
		return nil
	}
	tick := time.NewTicker(tuneEvery)
	defer tick.Stop()
	was := 100
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		// Setting it stops the world for a moment: not for a trifle.
		if p := gcPercent(readMemory(), m.polls.count()); p > was+5 || p < was-5 || p == 100 && was != 100 {
			was = p
			debug.SetGCPercent(p)
		}
	}
}
