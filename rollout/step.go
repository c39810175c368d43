package rollout

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/binnacle-project/binnacle"
	"github.com/binnacle-project/binnacle/api"
)

// awayAfter is how long a node that should confirm may be gone before a rollout
// goes on without it. It gets the revision when it is back.
const awayAfter = time.Minute

// view is all that the next step of a rollout depends on.
type view struct {
	Confirmed int
	Refused   map[binnacle.NodeID]string
	Pending   []binnacle.NodeID
	// Away are pending nodes that have been gone for awayAfter.
	Away map[binnacle.NodeID]bool
}

// decision is where a rollout stands after a step.
type decision struct {
	State  api.RolloutState
	Reason string
}

// next decides what follows from what the nodes said, for the strategy "all":
// every node was told at once, and the rollout ends when each has answered.
func next(v view) decision {
	away := 0
	for _, id := range v.Pending {
		if !v.Away[id] {
			return decision{State: api.RolloutRunning}
		}
		away++
	}
	left := ""
	if away > 0 {
		left = fmt.Sprintf("%d of the nodes that had to confirm %s away: the revision waits for the return", away, are(away))
	}
	switch {
	case len(v.Refused) > 0:
		reason := fmt.Sprintf("%d of %s refused, the first, %s: %s", len(v.Refused), count(v.Confirmed+len(v.Refused)+away, "node"), firstKey(v.Refused), v.Refused[firstKey(v.Refused)])
		if left != "" {
			reason += "; " + left
		}
		return decision{api.RolloutFailed, reason}
	case away > 0 && v.Confirmed == 0:
		// Nobody has shown that the revision works: wait for somebody.
		return decision{State: api.RolloutRunning, Reason: left}
	}
	return decision{api.RolloutCompleted, left}
}

func firstKey(m map[binnacle.NodeID]string) binnacle.NodeID {
	return slices.Min(slices.Collect(maps.Keys(m)))
}

// answer is what one node's ledger says about a rollout to a revision.
type answer uint8

const (
	pending answer = iota
	confirmed
	refused
)

// answerOf reads a ledger. stale is the time of the attempt that the ledger
// showed when the rollout began, if that was a failure with the same revision:
// it is no answer to this rollout.
func answerOf(sha string, attempted, applied *api.LedgerEntry, stale time.Time) answer {
	switch {
	case applied != nil && applied.SHA256 == sha:
		return confirmed
	case attempted != nil && attempted.SHA256 == sha && attempted.Error != "" && (stale.IsZero() || attempted.Time.After(stale)):
		return refused
	}
	return pending
}

// past is what a rollback has to know of an earlier rollout.
type past struct {
	From, To  binnacle.Revision
	Completed bool
	Rollback  bool
}

// rollbackTarget returns the revision that a group goes back to: the newest that
// completed a rollout, is not the desired one, and was not itself rolled back
// since. history is oldest first. 0 means that there is none.
func rollbackTarget(history []past, desired binnacle.Revision) binnacle.Revision {
	bad := map[binnacle.Revision]bool{desired: true, 0: true}
	for _, p := range slices.Backward(history) {
		if p.Completed && !bad[p.To] {
			return p.To
		}
		if p.Rollback {
			bad[p.From] = true
		}
	}
	return 0
}
