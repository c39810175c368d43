package traces

import (
	"cmp"
	"maps"
	"slices"
	"sync"

	"go.opentelemetry.io/collector/pdata/ptrace"
)

// maxOperations bounds the operations listed for one service, maxServices the
// services: the lists are for people to choose from. Spans beyond them are
// kept and found all the same.
const (
	maxServices   = 10_000
	maxOperations = 5_000
)

// names are the services and operations of the store, each with the last hour
// in which it was seen.
type names struct {
	mu sync.RWMutex
	m  map[string]map[Operation]partition
}

func newNames() *names { return &names{m: map[string]map[Operation]partition{}} }

// news reports whether p is the first or a later hour of the operation.
func (n *names) news(service string, op Operation, p partition) bool {
	n.mu.RLock()
	defer n.mu.RUnlock()
	last, ok := n.m[service][op]
	if ok {
		return last < p
	}
	ops, ok := n.m[service]
	return len(ops) < maxOperations && (ok || len(n.m) < maxServices)
}

// add notes that the operation was seen in p.
func (n *names) add(service string, op Operation, p partition) {
	if !n.news(service, op, p) {
		return
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.m[service] == nil {
		n.m[service] = map[Operation]partition{}
	}
	n.m[service][op] = p
}

// drop forgets what was last seen in p or before.
func (n *names) drop(p partition) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for service, ops := range n.m {
		maps.DeleteFunc(ops, func(_ Operation, last partition) bool { return last <= p })
		if len(ops) == 0 {
			delete(n.m, service)
		}
	}
}

func (n *names) services() []string {
	n.mu.RLock()
	defer n.mu.RUnlock()
	return slices.Sorted(maps.Keys(n.m))
}

func (n *names) operations(service string) []Operation {
	n.mu.RLock()
	defer n.mu.RUnlock()
	return slices.Collect(maps.Keys(n.m[service]))
}

// operation is an operation of a block in words.
func (b *block) operation(k opKey) (service string, op Operation) {
	return b.strs.list[k.service], Operation{Name: b.strs.list[k.name], Kind: kindName(ptrace.SpanKind(k.kind))}
}

func compareOperations(a, b Operation) int {
	return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.Kind, b.Kind))
}
