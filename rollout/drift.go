package rollout

import (
	"context"
	"fmt"
	"time"

	"github.com/binnacle-project/binnacle"
	"github.com/binnacle-project/binnacle/api"
	"github.com/binnacle-project/binnacle/events"
)

const (
	// driftAfter is how long a node may take to run what it should. An apply
	// takes a second, a new worker a few.
	driftAfter = 30 * time.Second
	// The first retry comes with the drift, the next ones after twice the pause
	// each, up to retryMost.
	retryFirst = time.Minute
	retryMost  = time.Hour
)

// drift is what the service remembers of a node that runs something else than it
// should. It is not kept: a manager that starts anew sees it again.
type drift struct {
	sha     string // of what it should run
	since   time.Time
	told    bool
	tries   int
	retryAt time.Time
}

// retryPause is the time from try n, counted from 1, to the next.
func retryPause(n int) time.Duration { return min(retryFirst<<min(n-1, 10), retryMost) }

// repair finds nodes that run something else than they should, tells of them, and
// asks them to try again, ever more rarely. It leaves alone who is told by a
// rollout that is under way, for that decides itself what a refusal means, and
// who is away.
func (s *Service) repair(ctx context.Context, at time.Time) {
	type found struct {
		id      binnacle.NodeID
		group   binnacle.Group
		message string
		settled bool
		retry   bool
	}
	s.mu.Lock()
	groups := make(map[binnacle.Group]bool)
	for g, l := range s.lines {
		groups[g] = l.desired.Number > 0 || l.desiredAt != 0
	}
	s.mu.Unlock()
	var all []found
	for g, has := range groups {
		if !has || !s.anyAdrift(g) {
			continue
		}
		alive := s.o.Nodes.InGroup(g) // asked without our lock: it is another's code
		s.mu.Lock()
		l := s.lineLocked(g)
		busy := map[binnacle.NodeID]struct{}{}
		if r := s.runningLocked(g); r != nil {
			busy = r.targets()
		}
		for _, id := range alive {
			n := s.nodes[id]
			if n == nil || n.ledger.Reported.IsZero() {
				continue
			}
			want, _ := l.wanted(id)
			_, isBusy := busy[id]
			switch d := n.drift; {
			case runs(n.ledger, want):
				if d.told {
					all = append(all, found{id: id, group: g, settled: true, message: fmt.Sprintf("runs revision %d again, as it should", want.Number)})
				}
				n.drift = drift{}
			case isBusy:
				n.drift = drift{}
			case d.since.IsZero() || d.sha != want.SHA256:
				n.drift = drift{sha: want.SHA256, since: at}
			case at.Sub(d.since) < driftAfter || at.Before(d.retryAt):
			default:
				n.drift.tries++
				n.drift.retryAt = at.Add(retryPause(n.drift.tries))
				f := found{id: id, group: g, retry: true}
				if !d.told {
					n.drift.told = true
					f.message = driftMessage(n.ledger, want)
				}
				all = append(all, f)
			}
		}
		s.mu.Unlock()
	}
	for _, f := range all {
		if f.message != "" {
			kind := events.NodeDrifted
			if f.settled {
				kind = events.NodeSettled
			}
			s.notice(ctx, api.Event{Kind: kind, Group: f.group, Node: f.id, Actor: "manager", Message: f.message})
		}
		if f.retry {
			if err := s.order(ctx, f.id, func(o *orderRecord) { o.Retries++ }); err != nil && ctx.Err() == nil {
				s.log.Warn("a node that drifted could not be asked to try again", "node", f.id, "err", err)
			}
		}
	}
}

// anyAdrift reports whether any node of the group, alive or not, runs something
// else than it should or was told to have done so. It is no more than a look at
// each, and spares the membership the question who is alive, once a second.
func (s *Service) anyAdrift(g binnacle.Group) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	l := s.lineLocked(g)
	for id, n := range s.nodes {
		if n.group != g || n.ledger.Reported.IsZero() {
			continue
		}
		if want, _ := l.wanted(id); n.drift != (drift{}) || !runs(n.ledger, want) {
			return true
		}
	}
	return false
}

func driftMessage(l ledgerRecord, want desiredRecord) string {
	m := fmt.Sprintf("should run revision %d, runs ", want.Number)
	switch {
	case l.Applied == nil || l.Applied.Number == 0:
		m += "its own file"
	default:
		m += fmt.Sprintf("revision %d", l.Applied.Number)
	}
	if l.Attempted != nil && l.Attempted.SHA256 == want.SHA256 && l.Attempted.Error != "" {
		m += "; its last attempt failed: " + l.Attempted.Error
	}
	return m + "; it is asked to try again"
}
