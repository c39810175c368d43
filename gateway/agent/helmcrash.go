package agent

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// revive starts a worker with what ran when the last one died.
func (h *helm) revive(ctx context.Context) {
	run := h.run
	err := h.replace(ctx, run.ref, run.raw, run)
	if err == nil {
		h.log.Info("the worker is back", "worker_pid", h.worker.pid, "revision", run.ref.Number)
		if h.ledger.Applied == nil || h.ledger.Applied.RevisionRef != run.ref {
			h.ledger.apply(run.ref, time.Now().UTC()) // it fell back to this
			h.saveLedger()
		}
		return
	}
	if ctx.Err() != nil {
		return
	}
	h.log.Error("the worker could not be started again", "err", err)
	run.crashes = append(run.crashes, time.Now())
	if killsWorker(run.crashes, run.applied, time.Now()) {
		h.fallBack(err)
		return
	}
	h.startAt = time.Now().Add(max(restartDelay(run.crashes, time.Now()), retryBase))
}

// crashed notes that the worker has ended by itself.
func (h *helm) crashed() {
	now := time.Now()
	cause := h.worker.cause
	if h.unhealthy >= maxUnhealthy {
		cause = fmt.Errorf("it was ended because it did not answer at its health address %d times in a row", h.unhealthy)
	}
	h.unhealthy = 0
	if cause == nil {
		cause = errors.New("worker: ended without being asked to")
	}
	h.log.Error("the worker died; starting another", "worker_pid", h.worker.pid, "revision", h.run.ref.Number, "err", cause)
	h.a.metric("binnacle_agent_worker_crashes_total").Inc()
	h.worker.release()
	innocent := h.killed == h.worker
	h.worker, h.killed = nil, nil
	h.run.served = served{}
	if innocent {
		h.startAt = now
		return
	}
	h.run.crashes = append(h.run.crashes, now)
	if killsWorker(h.run.crashes, h.run.applied, now) {
		h.fallBack(cause)
		return
	}
	h.startAt = now.Add(restartDelay(h.run.crashes, now))
}

// fallBack leaves a configuration that kills workers for the last one that
// served, or, failing that, the node's own file. The worker is started by the
// next revive.
func (h *helm) fallBack(cause error) {
	bad := h.run
	h.ledger.Unproven = nil
	h.ledger.strike(bad.ref)
	h.ledger.refuse(bad.ref, time.Now().UTC(), "the worker died again and again with this revision, which was taken back: "+cause.Error())
	if p := h.a.plan.Load(); p != nil {
		h.refused = refusal{ref: bad.ref, epoch: p.Epoch, serial: p.Serial}
	}
	for _, ref := range h.ledger.bootOrder() {
		ref, raw, err := h.bytesOf(ref)
		if err != nil {
			h.log.Warn("a configuration to fall back to cannot be read", "revision", ref.Number, "err", err)
			continue
		}
		if ref == bad.ref {
			continue
		}
		h.log.Warn("falling back to a configuration that served before", "from", bad.ref.Number, "to", ref.Number)
		h.a.metric("binnacle_agent_fallbacks_total").Inc()
		h.run = &running{ref: ref, raw: raw, applied: time.Now()}
		h.startAt = time.Now()
		h.saveLedger()
		return
	}
	// Nothing else to run: serving some of the time is better than never.
	h.log.Error("there is no other configuration to fall back to; the worker is started again with this one", "revision", bad.ref.Number)
	bad.crashes = nil
	h.startAt = time.Now().Add(10 * time.Second)
	h.saveLedger()
}
