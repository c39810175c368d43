package histsum

import (
	"container/list"
	"hash/maphash"
	"math/bits"
	"sync"
	"sync/atomic"
	"time"
)

// Results are kept, because a dashboard asks for the same again every few
// seconds, and of an hour only the last minutes are new. What was computed for a
// step is taken again if all the chunks in its window have the same content as
// then: nothing needs to be told when samples come late, or are deleted, or
// chunks are merged into a block. Only the chunks that are still written to,
// one of each series, change between two refreshes.

// keptFor is how long the results of an expression that nobody asks for are kept.
const keptFor = 10 * time.Minute

// kept are results by expression, the longest unused one first in order. It is
// safe for concurrent use.
type kept struct {
	seed  maphash.Seed
	limit int

	bytes            atomic.Int64
	reused, computed atomic.Uint64 // steps of groups

	mu    sync.Mutex
	byKey map[keptKey]*list.Element // of *panel
	order list.List
}

// keptKey is what results are of. phase is where the steps lie: start modulo step.
type keptKey struct {
	text        string
	step, phase int64
}

// panel is the result of one expression. It does not change.
type panel struct {
	key    keptKey
	start  int64
	groups map[string]*keptGroup
	bytes  int
	used   time.Time // guarded by kept.mu
}

// keptGroup is that of one group: for each step a digest of the chunks in its
// window and what came of them.
type keptGroup struct {
	sums    []uint64
	numbers numbers
}

func newKept(limit int) *kept {
	return &kept{seed: maphash.MakeSeed(), limit: limit, byKey: map[keptKey]*list.Element{}}
}

// get returns what is kept, or an empty panel.
func (k *kept) get(key keptKey) *panel {
	k.mu.Lock()
	defer k.mu.Unlock()
	e := k.byKey[key]
	if e == nil {
		return &panel{key: key}
	}
	p := e.Value.(*panel)
	p.used = time.Now()
	k.order.MoveToBack(e)
	return p
}

// put keeps a panel in place of the one before it, and drops others that are
// unused or too many.
func (k *kept) put(p *panel) {
	for key, g := range p.groups {
		p.bytes += len(key) + 128 + 8*len(g.sums) + 16*len(g.numbers)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if e := k.byKey[p.key]; e != nil {
		k.drop(e)
	}
	p.used = time.Now()
	for e := k.order.Front(); e != nil; e = k.order.Front() {
		if k.bytes.Load()+int64(p.bytes) <= int64(k.limit) && p.used.Sub(e.Value.(*panel).used) < keptFor {
			break
		}
		k.drop(e)
	}
	if p.bytes > k.limit {
		return
	}
	k.byKey[p.key] = k.order.PushBack(p)
	k.bytes.Add(int64(p.bytes))
}

// drop is called with mu held.
func (k *kept) drop(e *list.Element) {
	p := k.order.Remove(e).(*panel)
	delete(k.byKey, p.key)
	k.bytes.Add(-int64(p.bytes))
}

// windows fills sums with a digest of the chunks in each step's window.
func windows(sums []uint64, series [][]piece, start, step, window int64) {
	clear(sums)
	for _, pieces := range series {
		from, to := 0, 0 // the pieces in the window
		have, all := [2]int{}, uint64(0)
		for i := range sums {
			end := start + int64(i)*step
			for to < len(pieces) && pieces[to].min <= end {
				to++
			}
			for from < to && pieces[from].max <= end-window {
				from++
			}
			if from == to {
				continue
			}
			if now := [2]int{from, to}; now != have {
				have, all = now, 1
				for _, p := range pieces[from:to] {
					all = mix(all, p.sum)
				}
			}
			sums[i] = mix(sums[i], all)
		}
	}
}

// mix adds a digest to a sequence of digests.
func mix(sum, next uint64) uint64 {
	hi, lo := bits.Mul64(bits.RotateLeft64(sum, 23)^next, 0x9e3779b97f4a7c15)
	return hi ^ lo ^ next
}

// stale returns the first and the last of the steps from start on whose windows
// have changed, and copies what is kept for the others into out. first is len(out)
// if all is kept.
func (p *panel) stale(g *keptGroup, start, step int64, sums []uint64, out numbers) (first, last int) {
	first, last = len(out), -1
	shift := 0
	if g != nil {
		shift = int((start - p.start) / step)
	}
	for i := range out {
		j := i + shift
		if g != nil && j >= 0 && j < len(g.sums) && g.sums[j] == sums[i] {
			out[i] = g.numbers[j]
			continue
		}
		first, last = min(first, i), i
	}
	return first, last
}
