package manager

import (
	"sync"

	"github.com/binnacle-project/binnacle"
	"github.com/binnacle-project/binnacle/api"
)

// leases remembers what each node holds, for lists. The truth is at the node:
// its polls say when its lease ends.
type leases struct {
	mu sync.Mutex // guards by
	by map[binnacle.NodeID]api.LeaseInfo
}

func newLeases() *leases { return &leases{by: map[binnacle.NodeID]api.LeaseInfo{}} }

func (l *leases) set(id binnacle.NodeID, info api.LeaseInfo) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.by[id] = info
}

func (l *leases) of(id binnacle.NodeID) *api.LeaseInfo {
	l.mu.Lock()
	defer l.mu.Unlock()
	info, ok := l.by[id]
	if !ok {
		return nil
	}
	return &info
}

func (l *leases) forget(id binnacle.NodeID) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.by, id)
}
