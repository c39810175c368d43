package agent

import (
	"context"
	"errors"
	"net"
	"time"

	"github.com/binnacle-project/binnacle/api"
	"github.com/binnacle-project/binnacle/gateway/control"
)

// replace starts a second worker on the listening socket, brings it to serve,
// and lets the one before drain. Until then both accept; on error only the old
// one does. again is what ran already, when a dead worker is replaced.
func (h *helm) replace(ctx context.Context, ref api.RevisionRef, raw []byte, again *running) error {
	if h.program != nil {
		return h.restartProgram(ctx, ref, raw, again)
	}
	next, err := h.prepare(ref, raw)
	if err != nil {
		return err
	}
	ln := h.listener
	if h.run != nil && !sameAddr(ln.Addr(), next.settings) && next.settings.Port != 0 {
		// New ports first.
		if ln, err = listen(next.settings, h.a.opts.ConfigFile); err != nil {
			return err
		}
	}
	drop := func() {
		if ln != h.listener {
			ln.Close()
		}
	}
	actx, cancel := context.WithTimeout(ctx, applyTime)
	defer cancel()
	program := programFileOf(h.a.launcher.command[0]) // before: of two the older is known
	p, err := h.a.launcher.launch(actx, []net.Listener{ln}, h.interval())
	if err != nil {
		drop()
		return err
	}
	h.a.metric("binnacle_agent_worker_starts_total").Inc()
	limit := h.a.lease.limit()
	if limit != nil { // before it serves
		if err := p.setLimit(actx, limit); err != nil {
			h.log.Warn("a new worker did not take the fallback rate", "err", err)
			limit = nil // and is told again
		}
	}
	if err := p.apply(actx, ref, next.effective); err != nil {
		if errors.Is(err, control.ErrClosed) {
			select {
			case <-p.exited:
				err = errors.Join(p.cause, err)
			case <-time.After(callTime):
			}
		}
		p.kill()
		<-p.exited
		p.release()
		drop()
		return err
	}
	old := h.worker
	h.upgrade.runs = program
	h.worker, h.told = p, told{interval: h.interval(), limit: limit}
	if ln != h.listener {
		h.log.Info("listening on another address", "from", h.listener.Addr().String(), "to", ln.Addr().String())
		h.listener.Close()
		h.listener = ln
	}
	if old != nil {
		h.retire(old)
	}
	if again != nil {
		next.applied, next.crashes = again.applied, again.crashes
		h.run = next
		return nil
	}
	h.settled(next)
	return nil
}

// retire lets a worker finish what it has in flight and end, beside the rest.
func (h *helm) retire(p *process) {
	limit := h.drainLimit()
	h.retiring.Go(func() {
		if err := p.stop(limit); err != nil {
			h.log.Warn("a replaced worker did not end cleanly", "worker_pid", p.pid, "err", err)
		}
		p.release()
	})
}

// drainLimit is how long a worker may finish what it has in flight: what the
// configuration says (max_shutdown_wait_time), else the default.
func (h *helm) drainLimit() time.Duration {
	if h.run != nil && h.run.settings.MaxShutdownWait > 0 {
		return h.run.settings.MaxShutdownWait
	}
	return h.a.opts.DrainTimeout
}

// restart carries out a restart order: a new process with the same
// configuration takes over.
func (h *helm) restart(ctx context.Context, id string) {
	h.log.Info("restarting the worker as ordered", "order", id)
	if err := h.replace(ctx, h.run.ref, h.run.raw, h.run); err != nil {
		if ctx.Err() != nil {
			return
		}
		h.log.Error("the ordered restart failed; the worker that ran runs on", "order", id, "err", err)
		h.ledger.refuse(h.run.ref, time.Now().UTC(), "restart order "+id+": "+err.Error())
	}
	// Also after a failure: an order is tried once, and the ledger says how it
	// ended.
	h.ledger.RestartDone = id
	h.saveLedger()
	h.report()
}
