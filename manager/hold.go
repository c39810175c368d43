package manager

import (
	"crypto/tls"
	"errors"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/binnacle-project/binnacle/rollout"
)

// hold is one poll that is held.
type hold struct {
	poll
	phase float64 // of the plan that the node has

	plan    *rollout.PlanWatch
	end     func(broken bool) // tells the registry
	changed bool              // the plan did, since the wait began

	mu   sync.Mutex // guards what follows
	conn *nodeConn  // nil before it is held
	due  time.Time  // when it is answered, whatever the plan says
	told bool       // the plan may have changed
}

// answerBy has the poll answered at that time, or before. It may be called from
// anywhere.
func (h *hold) answerBy(t time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if t.Before(h.due) {
		h.due = t
		h.wakeLocked()
	}
}

// answerNow is answerBy, now.
func (h *hold) answerNow() { h.answerBy(time.Now()) }

// planChanged says that the plan may have changed.
func (h *hold) planChanged() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.told = true
	h.wakeLocked()
}

// wakeLocked ends the reading. crypto/tls goes on after a time-out.
func (h *hold) wakeLocked() {
	if h.conn != nil {
		_ = h.conn.SetReadDeadline(time.Unix(1, 0))
	}
}

// What ends a wait.
type woken int

const (
	wokenPlan   woken = iota // the plan may have changed
	wokenDue                 // it is time
	wokenSpoke               // the node does not wait for its answer
	wokenBroken              // the node is gone
)

// wait waits for what comes first.
func (h *hold) wait() woken {
	for {
		h.mu.Lock()
		told, due := h.told, h.due
		h.told = false
		if !told {
			_ = h.conn.SetReadDeadline(due)
		}
		h.mu.Unlock()
		switch {
		case told:
			return wokenPlan
		case len(h.conn.early) > 0:
			return wokenSpoke
		case !time.Now().Before(due):
			return wokenDue
		}
		var b [1]byte
		n, err := h.conn.Conn.Read(b[:])
		h.conn.early = append(h.conn.early, b[:n]...)
		var timeout net.Error
		if err != nil && !(errors.As(err, &timeout) && timeout.Timeout()) {
			return wokenBroken
		}
	}
}

// startHold begins to hold a poll. What needs stack is done here, on that of the
// server: the one that waits stays small.
func (m *Manager) startHold(h *hold) {
	h.end = m.registry.Polling(h.node.ID, h.peer, h.answerNow)
	h.plan = m.rollout.WatchPlan(h.node.ID, h.node.Group, h.planChanged)
	m.look(h) // something may have changed until now
	go m.holdPoll(h)
}

// look has the poll answered soon, if there is something to tell.
func (m *Manager) look(h *hold) {
	etag, err := h.plan.ETag()
	if err != nil {
		h.answerNow()
	} else if etag != h.known && !h.changed {
		h.changed = true
		h.answerBy(time.Now().Add(planSpread.of(h.phase, m.registry.Count())))
	}
}

// holdPoll waits until the poll is to be answered, or its connection broke.
func (m *Manager) holdPoll(h *hold) {
	why := h.wait()
	for ; why == wokenPlan; why = h.wait() {
		m.look(h)
	}
	// When all are told at once, few are answered at a time: a goroutine that
	// answers has a stack of 16 KiB, one that waits for its turn 4.
	m.polls.answering <- struct{}{}
	go m.endPoll(h, why == wokenBroken)
}

// endPoll answers a poll that was held, and gives its connection back.
func (m *Manager) endPoll(h *hold, broken bool) {
	defer func() { <-m.polls.answering }()
	h.plan.Stop()
	h.end(broken)
	if broken {
		m.polls.release(h)
		h.conn.Close()
		return
	}
	a := newAnswer()
	cs := h.conn.ConnectionState()
	if err := m.answerPoll(&h.poll, a, &cs); err != nil {
		m.log.Debug("poll refused", "node", h.node.ID, "error", err)
		writeProblem(a, problemOf(err))
	}
	stopping := m.polls.isStopping()
	if stopping {
		a.header.Set("Connection", "close")
	}
	err := h.conn.answer(a)
	m.polls.release(h)
	if err != nil || stopping {
		h.conn.Close()
		return
	}
	go m.nodeConns.goBack(h.conn) // with a small stack again
}

// answerPoll writes the answer of a poll that was held.
func (m *Manager) answerPoll(p *poll, w http.ResponseWriter, cs *tls.ConnectionState) error {
	// Forgotten or revoked while it waited?
	if _, err := m.registry.Authenticate(cs, false); err != nil {
		return err
	}
	lease, _, err := m.leaseFor(p.node, p.held, time.Now())
	if err != nil {
		return err
	}
	plan, etag := m.rollout.TaggedPlan(p.node.ID, p.node.Group)
	return p.write(w, plan, etag, lease)
}
