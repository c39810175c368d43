package agent

import (
	"context"
	"math/rand/v2"
	"reflect"
	"sync"
	"time"

	"github.com/binnacle-project/binnacle/api"
)

// reporter sends the node's own account to the manager at each change, and
// keeps trying with the newest one. Accounts in between are skipped: each is
// whole.
type reporter struct {
	a    *Agent
	wake chan struct{}
	// sending is held to send: an account must not arrive after a newer one.
	sending chan struct{}

	mu     sync.Mutex // guards what follows
	status api.Status
	dirty  bool
	sent   time.Time
}

func newReporter(a *Agent) *reporter {
	return &reporter{a: a, wake: make(chan struct{}, 1), sending: make(chan struct{}, 1)}
}

// set takes a new account.
func (r *reporter) set(s api.Status) {
	r.mu.Lock()
	changed := !reflect.DeepEqual(s, r.status)
	r.status = s
	r.dirty = r.dirty || changed
	r.mu.Unlock()
	if changed {
		signal(r.wake)
	}
}

// get returns the newest account.
func (r *reporter) get() api.Status {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.status
}

// again sends the account once more although it has not changed.
func (r *reporter) again() {
	r.mu.Lock()
	r.dirty = true
	r.mu.Unlock()
	signal(r.wake)
}

// run sends until ctx ends.
func (r *reporter) run(ctx context.Context) {
	for failures := 0; ; {
		r.mu.Lock()
		dirty := r.dirty
		r.dirty = false
		r.mu.Unlock()
		if !dirty || r.a.identity.Load() == nil {
			if dirty {
				r.mu.Lock()
				r.dirty = true
				r.mu.Unlock()
			}
			select {
			case <-r.wake:
				continue
			case <-ctx.Done():
				return
			}
		}
		if err := r.send(ctx); err != nil {
			if ctx.Err() != nil {
				return
			}
			r.mu.Lock()
			r.dirty = true
			r.mu.Unlock()
			if failures == 0 {
				r.a.log.Warn("the node's status was not taken; trying again", "err", err)
			}
			// The poll says when the manager is back; this is the slower way.
			t := time.NewTimer(retryDelay(failures, r.a.phase(), rand.Float64()))
			failures++
			select {
			case <-t.C:
			case <-r.wake:
				t.Stop()
			case <-ctx.Done():
				t.Stop()
				return
			}
			continue
		}
		failures = 0
	}
}

// send sends the newest account.
func (r *reporter) send(ctx context.Context) error {
	id, c := r.a.identity.Load(), r.a.managers.client()
	if id == nil || c == nil {
		return nil
	}
	select {
	case r.sending <- struct{}{}:
		defer func() { <-r.sending }()
	case <-ctx.Done():
		return ctx.Err()
	}
	s := r.get()
	s.LeaseEnded = !r.a.lease.member() // as of now: the account may be older
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	if err := c.PutStatus(ctx, id.NodeID, s); err != nil {
		return err
	}
	r.mu.Lock()
	r.sent = time.Now()
	r.mu.Unlock()
	return nil
}

// signal wakes whoever waits on ch, which has room for one.
func signal(ch chan struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}
