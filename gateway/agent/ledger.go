package agent

import (
	"time"

	"github.com/binnacle-project/binnacle/api"
)

// ledger is what the node tells of its configurations, as kept on disk.
type ledger struct {
	Attempted *api.LedgerEntry `json:"attempted,omitempty"`
	Applied   *api.LedgerEntry `json:"applied,omitempty"`
	// LastGood are the last two configurations that served, newest first. A
	// number of 0 is the node's own file as it then was.
	LastGood []api.LedgerEntry `json:"last_good,omitempty"`
	// RestartDone is the id of the last restart order carried out.
	RestartDone string `json:"restart_done,omitempty"`
	// Unproven is what runs without having served long enough to be a last
	// good one; it outlives the agent, which may die with its worker.
	Unproven *unproven `json:"unproven,omitempty"`
}

// unproven counts how often the node started on a configuration that has never
// served for long. A clean stop counts as nothing.
type unproven struct {
	api.RevisionRef
	// Epoch and Serial are of the plan that wanted it: a newer plan may try
	// again.
	Epoch  uint64 `json:"epoch"`
	Serial uint64 `json:"serial"`
	Starts int    `json:"starts"`
}

// start notes that the node begins to run ref under the plan p.
func (l *ledger) start(ref api.RevisionRef, p api.Plan) {
	u := unproven{RevisionRef: ref, Epoch: p.Epoch, Serial: p.Serial, Starts: 1}
	if o := l.Unproven; o != nil && o.RevisionRef == ref && o.Epoch == p.Epoch && o.Serial == p.Serial {
		u.Starts = o.Starts + 1
	}
	l.Unproven = &u
}

// killsNode decides whether ref under p has ended the whole node, agent and
// all, as often as it may.
func (l *ledger) killsNode(ref api.RevisionRef, p api.Plan) bool {
	u := l.Unproven
	return u != nil && u.RevisionRef == ref && u.Epoch == p.Epoch && u.Serial == p.Serial && u.Starts >= crashesAfterApply
}

// keptGood is how many configurations that served are kept: one to go back to,
// and one more should that one turn out to crash.
const keptGood = 2

// attempt notes that ref is being tried.
func (l *ledger) attempt(ref api.RevisionRef, at time.Time) {
	l.Attempted = &api.LedgerEntry{RevisionRef: ref, Time: at}
}

// refuse notes why ref did not come to serve, or did not go on to.
func (l *ledger) refuse(ref api.RevisionRef, at time.Time, why string) {
	l.Attempted = &api.LedgerEntry{RevisionRef: ref, Time: at, Error: why}
}

// apply notes that ref serves.
func (l *ledger) apply(ref api.RevisionRef, at time.Time) {
	l.Applied = &api.LedgerEntry{RevisionRef: ref, Time: at}
}

// good notes that ref has served long enough to go back to. It reports whether
// that is news.
func (l *ledger) good(ref api.RevisionRef, at time.Time) bool {
	l.Unproven = nil
	if len(l.LastGood) > 0 && l.LastGood[0].RevisionRef == ref {
		return false
	}
	list := []api.LedgerEntry{{RevisionRef: ref, Time: at}}
	for _, e := range l.LastGood {
		if e.RevisionRef != ref && len(list) < keptGood {
			list = append(list, e)
		}
	}
	l.LastGood = list
	return true
}

// strike takes ref off the configurations to go back to.
func (l *ledger) strike(ref api.RevisionRef) {
	var list []api.LedgerEntry
	for _, e := range l.LastGood {
		if e.RevisionRef != ref {
			list = append(list, e)
		}
	}
	l.LastGood = list
}

// lastGood returns the newest one, nil if there is none.
func (l *ledger) lastGood() *api.LedgerEntry {
	if len(l.LastGood) == 0 {
		return nil
	}
	e := l.LastGood[0]
	return &e
}

// bootOrder lists what to try at a start and after a fall-back: what served
// last, what served before it, and the node's own file, each once. A zero ref
// stands for the own file.
func (l *ledger) bootOrder() []api.RevisionRef {
	var order []api.RevisionRef
	for _, e := range l.LastGood {
		if e.Number == 0 {
			break // the own file served after the rest
		}
		order = append(order, e.RevisionRef)
	}
	return append(order, api.RevisionRef{})
}
