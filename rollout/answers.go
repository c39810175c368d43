package rollout

import (
	"fmt"
	"maps"
	"slices"

	"github.com/binnacle-project/binnacle"
	"github.com/binnacle-project/binnacle/api"
)

// targets are the nodes that have to confirm.
func (r *rollout) targets() map[binnacle.NodeID]struct{} {
	out := make(map[binnacle.NodeID]struct{}, len(r.rec.Pending))
	for _, ids := range [][]binnacle.NodeID{r.rec.Pending, r.rec.Confirmed, slices.Collect(maps.Keys(r.rec.Refused))} {
		for _, id := range ids {
			out[id] = struct{}{}
		}
	}
	return out
}

// observeLocked takes a new ledger into the running rollout of the node's group.
// It returns the text of an event if the node refused just now.
func (s *Service) observeLocked(id binnacle.NodeID, n *node) string {
	r := s.runningLocked(n.group)
	if r == nil {
		return ""
	}
	if r.rec.State == api.RolloutRollingBack || r.rec.Strategy == StrategyRestart {
		s.wakeRun() // Run looks at ledgers itself
		return ""
	}
	was := r.rec.Refused[id]
	if !r.observe(id, n) {
		return ""
	}
	s.wakeRun()
	if is := r.rec.Refused[id]; is != "" && was == "" {
		return fmt.Sprintf("%s: revision %d was refused: %s", r.rec.ID, r.rec.To, is)
	}
	return ""
}

// observe files a node under what its ledger says, and reports whether that
// changed. A node that need not confirm changes nothing.
func (r *rollout) observe(id binnacle.NodeID, n *node) bool {
	i, isPending := slices.BinarySearch(r.rec.Pending, id)
	j, isConfirmed := slices.BinarySearch(r.rec.Confirmed, id)
	message, isRefused := r.rec.Refused[id]
	if !isPending && !isConfirmed && !isRefused {
		return false
	}
	is := answerOf(r.rec.SHA256, n.ledger.Attempted, n.ledger.Applied, r.rec.Stale[id])
	if r.rec.Strategy == StrategySteps && r.lost(id, n, is, isConfirmed) {
		return true
	}
	switch {
	case is == confirmed && isConfirmed, is == pending && isPending,
		is == refused && isRefused && message == n.ledger.Attempted.Error,
		// It was confirmed. That it runs something else by now is drift, which
		// its ledger shows.
		isConfirmed:
		return false
	}
	switch {
	case isPending:
		r.rec.Pending = slices.Delete(r.rec.Pending, i, i+1)
	case isRefused:
		delete(r.rec.Refused, id)
	}
	switch is {
	case confirmed:
		r.rec.Confirmed = slices.Insert(r.rec.Confirmed, j, id)
	case refused:
		if r.rec.Refused == nil {
			r.rec.Refused = make(map[binnacle.NodeID]string)
		}
		r.rec.Refused[id] = n.ledger.Attempted.Error
	case pending:
		r.rec.Pending = insertSorted(r.rec.Pending, id)
	}
	r.unstored = true
	return true
}

// lost notes why a node that was told does not run the revision, or does not run
// it well: its worker crashed, or it left the revision. It reports whether that is
// news.
func (r *rollout) lost(id binnacle.NodeID, n *node, is answer, isConfirmed bool) bool {
	why := ""
	switch before := r.rec.Crashes[id]; {
	case n.ledger.Crashes < before:
		r.rec.Crashes[id] = n.ledger.Crashes // another agent, which counts anew
	case n.ledger.Crashes > before:
		why = fmt.Sprintf("its worker crashed %s since it got revision %d", count(int(n.ledger.Crashes-before), "time"), r.rec.To)
	}
	a := n.ledger.Attempted
	if isConfirmed && a != nil && a.Error != "" && a.SHA256 == r.rec.SHA256 &&
		(is == refused || n.ledger.Applied != nil && a.Time.After(n.ledger.Applied.Time)) {
		why = a.Error
	}
	if why == "" || r.rec.Lost[id] != "" {
		return false
	}
	if r.rec.Lost == nil {
		r.rec.Lost = make(map[binnacle.NodeID]string)
	}
	r.rec.Lost[id] = why
	r.unstored = true
	return true
}

// observeAllLocked files all nodes of a rollout anew.
func (s *Service) observeAllLocked(r *rollout) {
	for id := range r.targets() {
		if n := s.nodes[id]; n != nil {
			r.observe(id, n)
		}
	}
}

func insertSorted(ids []binnacle.NodeID, id binnacle.NodeID) []binnacle.NodeID {
	i, _ := slices.BinarySearch(ids, id)
	return slices.Insert(ids, i, id)
}

// forget takes a node out of those that have to confirm.
func (r *rollout) forget(id binnacle.NodeID) {
	is := func(have binnacle.NodeID) bool { return have == id }
	before := len(r.rec.Pending) + len(r.rec.Confirmed) + len(r.rec.Refused)
	r.rec.Pending = slices.DeleteFunc(r.rec.Pending, is)
	r.rec.Confirmed = slices.DeleteFunc(r.rec.Confirmed, is)
	delete(r.rec.Refused, id)
	delete(r.rec.Lost, id)
	delete(r.gone, id)
	r.unstored = r.unstored || before != len(r.rec.Pending)+len(r.rec.Confirmed)+len(r.rec.Refused)
}
