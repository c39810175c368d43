package agent

import (
	"context"
	"time"
)

type probeResult struct {
	worker *process
	ok     bool
	err    error
}

// probe asks the worker, beside the loop, whether what runs answers.
func (h *helm) probe() {
	if h.probeBusy || h.worker == nil {
		return
	}
	h.probeBusy = true
	p := h.worker
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), callTime)
		defer cancel()
		err := p.probe(ctx)
		h.probed <- probeResult{p, err == nil, err} // has room: one probe at a time
	}()
}

// probedNow makes what runs the last good configuration once its probes were
// answered for long enough.
func (h *helm) probedNow(r probeResult) {
	h.probeBusy = false
	if r.worker != h.worker || h.run == nil {
		return // of a worker that has been replaced meanwhile
	}
	h.healthy = r.ok
	if h.program != nil {
		h.judgeHealth(r)
	}
	if !h.run.served.probe(r.ok, time.Now(), h.a.opts.ServedAfter) {
		return
	}
	if good := h.ledger.lastGood(); good != nil && good.RevisionRef == h.run.ref {
		if h.ledger.Unproven != nil {
			h.ledger.Unproven = nil
			h.saveLedger()
		}
		return
	}
	if h.run.ref.Number != 0 {
		// The bytes first: a ledger that names what is not there is of no use.
		if err := h.a.state.saveConfig(h.run.ref.SHA256, h.run.raw); err != nil {
			h.log.Error("the last good configuration could not be kept on disk", "err", err)
			h.run.served = served{} // and try again
			return
		}
	}
	h.ledger.good(h.run.ref, time.Now().UTC())
	h.saveLedger()
	h.a.state.keepConfigs(h.needed())
	h.log.Info("this configuration has served and is the last good one now", "revision", h.run.ref.Number)
}
