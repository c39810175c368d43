package traces

import (
	"bytes"
	"cmp"
	"maps"
	"slices"

	"go.opentelemetry.io/collector/pdata/pcommon"
)

// newest keeps the limit traces with the newest matching spans.
type newest struct {
	limit  int
	starts map[pcommon.TraceID]uint64
	floor  uint64 // below it nothing is wanted, once limit traces are known
	grown  bool   // since floor was found
}

func newNewest(limit int) *newest {
	return &newest{limit: limit, starts: map[pcommon.TraceID]uint64{}}
}

// wants reports whether a span that starts at t could come among the newest.
func (n *newest) wants(t uint64) bool {
	return len(n.starts) < n.limit || t > n.floor
}

func (n *newest) add(id pcommon.TraceID, start uint64) {
	if !n.wants(start) {
		return
	}
	if old, ok := n.starts[id]; ok && old >= start {
		return
	}
	n.starts[id] = start
	n.grown = true
	// Cut down in bulk: a pass over twice the limit for each limit added.
	if len(n.starts) >= 2*n.limit {
		n.trim()
	}
}

// trim forgets all but the newest.
func (n *newest) trim() {
	if !n.grown {
		return
	}
	n.grown = false
	ids := n.sorted()
	for _, id := range ids[min(n.limit, len(ids)):] {
		delete(n.starts, id)
	}
	if len(ids) >= n.limit {
		n.floor = n.starts[ids[n.limit-1]]
	}
}

func (n *newest) sorted() []pcommon.TraceID {
	return slices.SortedFunc(maps.Keys(n.starts), func(a, b pcommon.TraceID) int {
		return cmp.Or(cmp.Compare(n.starts[b], n.starts[a]), bytes.Compare(a[:], b[:]))
	})
}

func (n *newest) ids() []pcommon.TraceID {
	n.trim()
	return n.sorted()
}
