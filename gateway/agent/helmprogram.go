package agent

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/binnacle-project/binnacle/api"
	"github.com/binnacle-project/binnacle/gateway/control"
)

// What the helm does otherwise when it supervises a program: there is one
// process at a time, which listens itself, and what it reads stands in a file.

// prepareProgram fills in the references of a configuration.
func (h *helm) prepareProgram(ref api.RevisionRef, raw []byte) (*running, error) {
	effective := raw
	if ref.Number != 0 {
		var err error
		if effective, err = resolveText(raw, h.a.opts.Allow); err != nil {
			return nil, err
		}
	}
	return &running{ref: ref, raw: raw, effective: effective}, nil
}

// bringProgram makes raw what the program runs: checked first, by a reload if
// it knows one, else by a restart. On error what ran before runs on, or is
// started again by the next revive.
func (h *helm) bringProgram(ctx context.Context, ref api.RevisionRef, raw []byte) error {
	next, err := h.prepareProgram(ref, raw)
	if err != nil {
		return err
	}
	actx, cancel := context.WithTimeout(ctx, applyTime)
	defer cancel()
	if err := h.program.check(actx, next.effective); err != nil {
		return err
	}
	if h.worker != nil {
		err := h.worker.apply(actx, ref, next.effective)
		if err == nil {
			h.settled(next)
			return nil
		}
		if !control.HasCode(err, control.CodeRestart) {
			if h.worker.gone() {
				h.killed = h.worker
			}
			return err
		}
	}
	if err := h.startProgram(ctx, next); err != nil {
		return err
	}
	h.settled(next)
	return nil
}

// restartProgram starts the program anew. again is what ran already.
func (h *helm) restartProgram(ctx context.Context, ref api.RevisionRef, raw []byte, again *running) error {
	next, err := h.prepareProgram(ref, raw)
	if err != nil {
		return err
	}
	if err := h.startProgram(ctx, next); err != nil {
		return err
	}
	if again != nil {
		next.applied, next.crashes = again.applied, again.crashes
		h.run = next
		h.healthy, h.unhealthy = true, 0
		return nil
	}
	h.settled(next)
	return nil
}

// startProgram ends the program that runs, if one does, and starts it with
// next. The port is closed in between. After an error none runs, and what ran
// before is in place for the next revive.
func (h *helm) startProgram(ctx context.Context, next *running) error {
	if h.worker != nil {
		h.log.Info("the program is restarted; it does not serve meanwhile", "revision", next.ref.Number)
		if err := h.worker.stop(h.drainLimit()); err != nil {
			h.log.Warn("the program did not end in order", "err", err)
		}
		h.worker = nil
		h.startAt = time.Now()
	}
	actx, cancel := context.WithTimeout(ctx, applyTime)
	defer cancel()
	err := h.program.place(next.effective)
	if err == nil {
		h.a.metric("binnacle_agent_worker_starts_total").Inc()
		var p *process
		if p, err = h.program.start(actx, next.ref, next.effective); err == nil {
			h.worker, h.told = p, told{interval: h.interval()}
			return nil
		}
	}
	if h.run != nil && h.run.ref != next.ref {
		if perr := h.program.place(h.run.effective); perr != nil {
			err = errors.Join(err, perr)
		}
	}
	return err
}

// judgeHealth ends a program that lives and does not answer, which then counts
// as a crash.
func (h *helm) judgeHealth(r probeResult) {
	if r.ok {
		h.unhealthy = 0
		return
	}
	h.unhealthy++
	switch h.unhealthy {
	case 1:
		h.log.Warn("the program does not answer at its health address", "revision", h.run.ref.Number, "err", r.err)
	case maxUnhealthy:
		h.log.Error("the program is ended: it does not answer at its health address", "times", h.unhealthy, "revision", h.run.ref.Number, "err", r.err)
		r.worker.kill()
	}
}

// rereadProgram looks whether somebody changed the file by hand: that is the
// node's own file from now on. It runs if the own file does; a revision keeps
// its place.
func (h *helm) rereadProgram(ctx context.Context) {
	b, changed, err := h.program.changedByHand()
	if err != nil {
		h.log.Error("the configuration file cannot be read; the one read before goes on", "err", err)
		return
	}
	if !changed {
		h.log.Info("the configuration file holds what the agent wrote; nothing changes", "file", h.program.file)
		return
	}
	if h.run == nil {
		return
	}
	if h.run.ref.Number != 0 {
		h.keepOwn(b)
		if err := h.program.place(h.run.effective); err != nil {
			h.log.Error("the revision could not be put back in its place", "err", err)
			return
		}
		h.log.Warn("the configuration file was changed by hand while a revision runs; it was put back, and the change is the node's own file for the time without a revision",
			"file", h.program.file, "revision", h.run.ref.Number)
		return
	}
	before := h.run.effective
	if err := h.bringProgram(ctx, api.RevisionRef{SHA256: hashOf(b)}, b); err != nil {
		if perr := h.program.place(before); perr != nil {
			err = fmt.Errorf("%w; %w", err, perr)
		}
		h.log.Error("the changed file cannot be run; it was taken back", "file", h.program.file, "err", err)
		return
	}
	h.keepOwn(b)
	h.refused = refusal{}
	h.log.Info("the changed file runs", "file", h.program.file)
}

// keepOwn makes b the node's own file.
func (h *helm) keepOwn(b []byte) {
	h.own = b
	if err := h.a.state.saveTwice(fileOwnConfig, b); err != nil {
		h.log.Error("the node's own file could not be kept", "err", err)
	}
}
