package rollout

import (
	"slices"

	"github.com/binnacle-project/binnacle"
)

// PlanWatch follows the plan of one node. It costs no goroutine and no read of the
// state: 10,000 nodes may be watched together.
type PlanWatch struct {
	s       *Service
	id      binnacle.NodeID
	n       *node
	changed func()
}

// WatchPlan calls changed whenever the plan of node id of group g may have changed,
// until Stop. changed is called with the service locked: it must return at once,
// and not call the service. What changed before is not told: look at ETag first.
func (s *Service) WatchPlan(id binnacle.NodeID, g binnacle.Group, changed func()) *PlanWatch {
	s.arrive(id, g)
	s.mu.Lock()
	defer s.mu.Unlock()
	w := &PlanWatch{s: s, id: id, n: s.nodeLocked(id), changed: changed}
	w.n.watches = append(w.n.watches, w)
	s.m.waiters.Inc()
	return w
}

// ETag returns that of the plan of now, or ErrForgotten.
func (w *PlanWatch) ETag() (string, error) {
	w.s.mu.Lock()
	defer w.s.mu.Unlock()
	if w.n.gone {
		return "", ErrForgotten
	}
	return w.s.planLocked(w.id, w.n, w.n.group, w.s.lineLocked(w.n.group)).etag, nil
}

// Stop ends the watch. It is to be called once.
func (w *PlanWatch) Stop() {
	w.s.mu.Lock()
	defer w.s.mu.Unlock()
	if i := slices.Index(w.n.watches, w); i >= 0 {
		w.n.watches = slices.Delete(w.n.watches, i, i+1)
	}
	w.s.m.waiters.Dec()
}

// wakeLocked tells those who watch a node that its plan may have changed.
func (s *Service) wakeLocked(n *node) {
	for _, w := range n.watches {
		s.m.wakes.Inc()
		w.changed()
	}
}

// wakeGroupLocked is wakeLocked for all nodes of a group.
func (s *Service) wakeGroupLocked(g binnacle.Group) {
	for _, n := range s.nodes {
		if n.group == g {
			s.wakeLocked(n)
		}
	}
}
