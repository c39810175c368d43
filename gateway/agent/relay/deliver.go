package relay

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// How a backlog follows when the manager is back.
const (
	// freshBacklog is the age up to which the spool is sent before what comes in,
	// at full speed: after a short interruption all arrives in its order, which
	// live views need. An older backlog goes behind what comes in.
	freshBacklog = time.Minute
	// backlogExports and backlogBytes bound an older backlog for each second: a
	// fleet of a hundred nodes comes back with them all at once. An hour of one
	// export a second is told in three minutes.
	backlogExports = 20
	backlogBytes   = 1 << 20
	// notMemberPause is between looks at whether the node is a member.
	notMemberPause = time.Second
)

// step is what the relay does next.
type step int

const (
	stepWait step = iota // until the time given, or for what comes in
	stepLive             // send the oldest export in memory
	stepOld              // send the oldest export of the spool
)

// waiting is what the relay decides on.
type waiting struct {
	live    bool      // something is in memory
	backlog bool      // something is in the spool
	since   time.Time // when the oldest of the spool came in
	retryAt time.Time // the manager does not take anything before; zero if it does
	paceAt  time.Time // when an older backlog may go on
}

// nextStep decides what to send next. until is the zero time when only
// something new changes the answer.
func nextStep(w waiting, now time.Time) (s step, until time.Time) {
	switch {
	case now.Before(w.retryAt):
		return stepWait, w.retryAt
	case w.backlog && now.Sub(w.since) <= freshBacklog:
		return stepOld, time.Time{}
	case w.live:
		return stepLive, time.Time{}
	case w.backlog && !now.Before(w.paceAt):
		return stepOld, time.Time{}
	case w.backlog:
		return stepWait, w.paceAt
	}
	return stepWait, time.Time{}
}

// backlogPause is the time from one export of an older backlog to the next.
func backlogPause(bytes int) time.Duration {
	return max(time.Second/backlogExports, time.Duration(bytes)*time.Second/backlogBytes)
}

// delivery is the state of run.
type delivery struct {
	waiting
	failures int
	member   bool
	noDisk   bool // told already that the spool does not take anything
}

// Run sends what waits until ctx ends. What waits then is for flush.
func (r *Relay) Run(ctx context.Context) {
	r.spool.open(r.Log)
	d := delivery{member: true}
	for ctx.Err() == nil {
		now := time.Now()
		e, id, live, filled := r.queue.oldest()
		old, backlog := r.spool.oldest()
		d.live, d.backlog, d.since = live, backlog, old.received
		s, until := nextStep(d.waiting, now)
		switch s {
		case stepLive:
			if !r.account(ctx, &d, e, false) {
				continue // the next turn moves it to the spool
			}
			r.queue.done(id)
			continue
		case stepOld:
			if old.node != r.Node() {
				// Under this certificate it would be told of another node.
				r.refused.Inc()
				r.spool.done(old)
			} else if r.account(ctx, &d, old.export, true) {
				r.spool.done(old)
				d.paceAt = time.Now().Add(backlogPause(len(old.body)))
			}
			continue
		}
		// Nothing can be sent now: what is in memory goes to disk. Before the node
		// is a member that would keep the telemetry of nobody.
		if live && d.member && r.keep(e, &d) {
			r.queue.done(id)
			continue
		}
		if due := r.spool.syncIfDue(now); !due.IsZero() && (until.IsZero() || due.Before(until)) {
			until = due
		}
		waitUntil(ctx, until, filled)
	}
}

// waitUntil waits for the time, if it is not zero, for more or for ctx.
func waitUntil(ctx context.Context, until time.Time, more <-chan struct{}) {
	var at <-chan time.Time
	if !until.IsZero() {
		t := time.NewTimer(time.Until(until))
		defer t.Stop()
		at = t.C
	}
	select {
	case <-at:
	case <-more:
	case <-ctx.Done():
	}
}

// account sends e and notes how it went. It reports whether e is done with:
// delivered, or refused for good.
func (r *Relay) account(ctx context.Context, d *delivery, e export, backlog bool) bool {
	wait, err := r.send(ctx, e)
	var lost *lostExport
	switch {
	case err == nil:
		if d.failures > 0 {
			n, bytes := r.spool.size()
			r.Log.Info("telemetry goes to the manager again", "failures", d.failures, "backlog", n, "backlog_bytes", bytes)
		}
		d.failures, d.retryAt, d.member, d.noDisk = 0, time.Time{}, true, false
		r.sent.Inc()
		return true
	case ctx.Err() != nil:
		return false
	case errors.As(err, &lost):
		r.refused.Inc()
		r.Log.Warn("the manager refused an export for good; it is dropped", "backlog", backlog, "received", e.received, "err", err)
		return true
	case errors.Is(err, errNotMember):
		d.member, d.retryAt = false, time.Now().Add(notMemberPause)
		return false
	}
	d.member = true
	if d.failures == 0 {
		r.Log.Warn("telemetry waits: the manager does not take it", "err", err)
	}
	d.retryAt = time.Now().Add(max(wait, r.Pause(d.failures)))
	d.failures++
	return false
}

// keep moves e to the spool and reports whether it is there.
func (r *Relay) keep(e export, d *delivery) bool {
	err := r.spool.put(e, r.Node())
	if err == nil {
		return true
	}
	if !d.noDisk && !errors.Is(err, errNoSpool) {
		r.Log.Warn("telemetry cannot be kept on disk; it waits in memory, the oldest goes first", "err", err)
	}
	d.noDisk = true
	return false
}

// Flush is for the end, after run: it sends what came in, each once, until one
// fails or ctx ends; what is left then goes to the spool, for the next run. An
// error says what is lost.
func (r *Relay) Flush(ctx context.Context) error {
	defer r.spool.close()
	var sendErr error
	for {
		e, id, ok, _ := r.queue.oldest()
		if !ok {
			return nil
		}
		if sendErr == nil {
			var lost *lostExport
			switch _, sendErr = r.send(ctx, e); {
			case errors.As(sendErr, &lost):
				sendErr = nil
				r.refused.Inc()
				r.queue.done(id)
				continue
			case sendErr == nil:
				r.sent.Inc()
				r.queue.done(id)
				continue
			}
		}
		if errors.Is(sendErr, errNotMember) {
			return sendErr
		}
		if err := r.spool.put(e, r.Node()); err != nil {
			n, _ := r.queue.size()
			return fmt.Errorf("%d exports: %w", n, errors.Join(sendErr, err))
		}
		r.queue.done(id)
	}
}
