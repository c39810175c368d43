package traces

import (
	"cmp"
	"context"
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

// Services returns the names of all services with spans in the store, sorted.
func (s *Store) Services(ctx context.Context) ([]string, error) {
	all := s.names.services()
	for service := range s.memoryOps() {
		if !slices.Contains(all, service) {
			all = append(all, service)
		}
	}
	slices.Sort(all)
	return all, nil
}

// Operations returns the operations of a service by name and kind, sorted.
func (s *Store) Operations(ctx context.Context, service string) ([]Operation, error) {
	all := append(s.names.operations(service), s.memoryOps()[service]...)
	slices.SortFunc(all, compareOperations)
	return slices.Compact(all), nil
}

// memoryOps lists the operations of blocks in memory.
func (s *Store) memoryOps() map[string][]Operation {
	s.mu.RLock()
	defer s.mu.RUnlock()
	out := map[string][]Operation{}
	add := func(b *block) {
		for k := range b.ops {
			service, op := b.operation(k)
			out[service] = append(out[service], op)
		}
	}
	for _, b := range append(s.growingLocked(), s.frozenLocked()...) {
		add(b)
	}
	return out
}
