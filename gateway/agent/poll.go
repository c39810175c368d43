package agent

import (
	"context"
	"errors"
	"math/rand/v2"
	"net/http"
	"time"

	"github.com/binnacle-project/binnacle/api"
	"github.com/binnacle-project/binnacle/membership/pki"
)

const (
	// pollWait is how long the manager may hold an answer back.
	pollWait = 30 * time.Second
	// pollSlack is what network and manager may take beyond that before the
	// connection counts as dead.
	pollSlack = 15 * time.Second
	// pollSpacing bounds polls that a manager answers without news and without
	// waiting.
	pollSpacing = time.Second
	// revokedPause is between polls of a node that the manager bars.
	revokedPause = time.Minute
)

// errForgotten ends a poll loop: the node must enroll anew.
var errForgotten = errors.New("the manager does not know this node any more")

// poll asks for the plan again and again until ctx ends or the manager has
// forgotten the node. A failure never changes what the node does: it goes on
// with the plan it has, and tries the next manager.
func (a *Agent) poll(ctx context.Context, id *identity) error {
	etag := "" // the first poll is answered at once, with a lease
	failures := 0
	for {
		c := a.managers.client()
		if time.Now().After(pki.RenewAt(id.cert)) {
			next, err := a.renew(ctx, id, c)
			switch {
			case err == nil:
				id = next
				continue
			case ctx.Err() != nil:
				return ctx.Err()
			case forgotten(err):
				return errors.Join(errForgotten, err)
			}
			a.log.Warn("the node's certificate was not renewed; trying again with the next poll", "until", id.cert.Leaf.NotAfter, "err", err)
		}
		began, asked := time.Now(), etag
		pctx, cancel := context.WithTimeout(ctx, pollWait+pollSlack)
		ans, err := c.Plan(pctx, id.NodeID, api.PlanPoll{ETag: etag, Wait: pollWait, LeaseExpires: a.lease.expires()})
		cancel()
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			a.metric(`binnacle_agent_polls_total{result="failed"}`).Inc()
			if forgotten(err) {
				// Or only the certificate is too old, by the manager's clock.
				next, rerr := a.renew(ctx, id, c)
				if forgotten(rerr) {
					return errors.Join(errForgotten, err)
				}
				if rerr == nil {
					id = next
				}
			}
			if failures == 0 {
				a.log.Warn("the manager does not answer polls; going on with the plan held", "manager", c.Addr(), "err", err)
			}
			a.setJoin(joinAway, err.Error())
			a.managers.failed(c)
			delay := retryDelay(failures, a.phase(), rand.Float64())
			var r *api.Refusal
			if errors.As(err, &r) {
				if r.Status == http.StatusForbidden {
					delay = revokedPause
				}
				delay = max(delay, min(r.RetryAfter, time.Minute))
			}
			failures++
			etag = "" // another manager, or one with another memory
			if err := sleep(ctx, delay); err != nil {
				return err
			}
			continue
		}
		a.metric(`binnacle_agent_polls_total{result="ok"}`).Inc()
		if failures > 0 {
			a.log.Info("the manager answers polls again", "manager", c.Addr(), "failures", failures)
			failures = 0
			a.reporter.again() // it may have restarted and lost what it was told
		}
		a.setJoin(joinMember, "")
		a.lastPoll.Store(time.Now().UnixNano())
		etag = ans.ETag
		a.lease.offer(ans.Lease, id, a.epoch(), ans.Date)
		if ans.Plan != nil && a.takePlan(*ans.Plan) == planNew {
			continue
		}
		// Without an ETag the answer had to come at once.
		if d := pollSpacing - time.Since(began); d > 0 && asked != "" {
			if err := sleep(ctx, d); err != nil {
				return err
			}
		}
	}
}

// takePlan judges a plan and passes a new one on.
func (a *Agent) takePlan(p api.Plan) verdict {
	v := judgePlan(a.plan.Load(), p)
	switch v {
	case planOlder:
		held := a.plan.Load()
		a.metric("binnacle_agent_plans_refused_total").Inc()
		a.log.Warn("refused a plan older than the one held; a manager is behind, or its state was restored without raising the epoch",
			"epoch", p.Epoch, "serial", p.Serial, "held_epoch", held.Epoch, "held_serial", held.Serial)
	case planNew:
		if err := a.state.saveJSON(filePlan, p); err != nil {
			// Acting on it is still right: the disk is needed for the next start.
			a.log.Error("the plan could not be kept on disk; the next start will not know it", "err", err)
		}
		a.plan.Store(&p)
		a.log.Info("new plan", "epoch", p.Epoch, "serial", p.Serial, "revision", planRevision(p), "drain", p.Drain)
		a.helm.wakeUp()
		a.gossip.wakeUp()
	}
	return v
}

func planRevision(p api.Plan) uint64 {
	if p.Revision == nil {
		return 0
	}
	return uint64(p.Revision.Number)
}

// phase is the node's share of the time over which retries are spread.
func (a *Agent) phase() time.Duration {
	if p := a.plan.Load(); p != nil {
		return time.Duration(p.Poll.Phase * float64(time.Second))
	}
	return 0
}
