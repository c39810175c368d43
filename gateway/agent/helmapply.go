package agent

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/binnacle-project/binnacle/api"
	"github.com/binnacle-project/binnacle/gateway/control"
	"github.com/binnacle-project/binnacle/gateway/engine"
)

// running is the configuration that the worker was brought to last.
type running struct {
	ref        api.RevisionRef // number 0: the node's own file
	raw        []byte          // as pushed, or as in the file
	effective  []byte          // merged and resolved
	overridden []string
	settings   engine.ServerSettings
	applied    time.Time
	crashes    []time.Time // of workers, while this ran
	served     served
}

// refusal remembers a revision that failed, so that it is not tried again
// before a new plan or a new own file.
type refusal struct {
	ref    api.RevisionRef
	epoch  uint64
	serial uint64
}

// toDesired brings the worker to the plan's revision, if it is not there and
// this plan did not already fail.
func (h *helm) toDesired(ctx context.Context, p api.Plan, id *identity) {
	want := api.RevisionRef{SHA256: hashOf(h.own)}
	if p.Revision != nil && p.Revision.Number != 0 {
		want = p.Revision.RevisionRef
	}
	if want == h.run.ref {
		h.retryAt, h.retries = time.Time{}, 0
		return
	}
	if h.refused == (refusal{want, p.Epoch, p.Serial}) || time.Now().Before(h.retryAt) {
		return
	}
	raw := h.own
	if want.Number != 0 {
		if err := api.VerifyRevision(id.clusterKey, id.Cluster, id.Group, *p.Revision); err != nil {
			h.refuse(want, p, err)
			return
		}
		var err error
		if raw, err = h.fetch(ctx, want); err != nil {
			if ctx.Err() != nil {
				return
			}
			if h.retries == 0 {
				h.log.Warn("the desired revision could not be fetched; trying again", "revision", want.Number, "err", err)
			}
			h.retryAt = time.Now().Add(retryDelay(h.retries, 0, rand.Float64()))
			h.retries++
			return
		}
	}
	h.retryAt, h.retries = time.Time{}, 0
	if h.ledger.killsNode(want, p) {
		h.refuse(want, p, fmt.Errorf("the node ended %d times while it ran this revision, each time before it had served for %v", h.ledger.Unproven.Starts, h.a.opts.ServedAfter))
		return
	}
	h.ledger.attempt(want, time.Now().UTC())
	h.ledger.start(want, p)
	h.saveLedger()
	h.report()
	if err := h.bring(ctx, want, raw, false); err != nil {
		h.ledger.Unproven = nil
		if ctx.Err() != nil {
			return // stopping, which is not the revision's fault
		}
		h.refuse(want, p, err)
		return
	}
	h.log.Info("applied", "revision", want.Number, "sha256", want.SHA256)
	h.a.metric(`binnacle_agent_applies_total{result="ok"}`).Inc()
	h.a.state.keepConfigs(h.needed())
}

// refuse notes that a desired revision cannot be run; what ran runs on.
func (h *helm) refuse(ref api.RevisionRef, p api.Plan, err error) {
	h.log.Error("the desired revision cannot be run; what ran before runs on", "revision", ref.Number, "err", err)
	h.a.metric(`binnacle_agent_applies_total{result="refused"}`).Inc()
	h.ledger.refuse(ref, time.Now().UTC(), err.Error())
	h.refused = refusal{ref, p.Epoch, p.Serial}
	h.saveLedger()
}

// needed lists the configurations to keep on disk.
func (h *helm) needed() map[string]bool {
	keep := map[string]bool{}
	for _, e := range h.ledger.LastGood {
		keep[e.SHA256] = true
	}
	if h.run != nil {
		keep[h.run.ref.SHA256] = true
	}
	return keep
}

// fetch returns the bytes of a revision, from disk or from the manager, and
// only those that the hash names.
func (h *helm) fetch(ctx context.Context, ref api.RevisionRef) ([]byte, error) {
	if raw, err := h.a.state.loadConfig(ref.SHA256); err == nil {
		return raw, nil
	}
	c := h.a.managers.client()
	if c == nil {
		return nil, errors.New("the node is no member of a cluster yet")
	}
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	raw, err := c.Config(ctx, ref.SHA256)
	if err != nil {
		return nil, err
	}
	if got := hashOf(raw); got != ref.SHA256 {
		return nil, fmt.Errorf("the manager sent %d bytes with hash %s for configuration %s", len(raw), got, ref.SHA256)
	}
	if err := h.a.state.saveConfig(ref.SHA256, raw); err != nil {
		h.log.Error("a configuration could not be kept on disk; it runs, but a restart without a manager will not find it", "err", err)
	}
	return raw, nil
}

// bring makes raw what serves: inside the worker that runs or, if there is
// none, if it must be (settings of the sockets changed) or if anew asks for it,
// in a new one that takes over. On error what served before goes on.
func (h *helm) bring(ctx context.Context, ref api.RevisionRef, raw []byte, anew bool) error {
	if h.program != nil {
		return h.bringProgram(ctx, ref, raw)
	}
	if h.worker == nil || h.run == nil || anew {
		return h.replace(ctx, ref, raw, nil)
	}
	next, err := h.prepare(ref, raw)
	if err != nil {
		return err
	}
	actx, cancel := context.WithTimeout(ctx, applyTime)
	defer cancel()
	err = h.worker.apply(actx, ref, next.effective)
	switch {
	case err == nil:
		h.settled(next)
		return nil
	case control.HasCode(err, control.CodeRestart):
		h.log.Info("this revision takes a new worker", "revision", ref.Number, "why", err)
		return h.replace(ctx, ref, raw, nil)
	case errors.Is(err, control.ErrClosed):
		return h.diedApplying(err)
	}
	return err
}

// diedApplying finds out how a worker died while it took a configuration. The
// loop then sees the exit and starts another with what ran before; the
// configuration that killed it is not tried again.
func (h *helm) diedApplying(err error) error {
	select {
	case <-h.worker.exited:
		h.killed = h.worker
		if h.worker.cause != nil {
			err = h.worker.cause
		}
	case <-time.After(callTime):
	}
	return fmt.Errorf("the worker died while it took this revision: %w", err)
}

// prepare merges raw with the node's own file and resolves references.
func (h *helm) prepare(ref api.RevisionRef, raw []byte) (*running, error) {
	next := &running{ref: ref, raw: raw}
	merged := raw
	var err error
	if ref.Number != 0 {
		if merged, next.overridden, err = engine.Merge(h.own, raw); err != nil {
			return nil, fmt.Errorf("join the revision with the node's own file: %w", err)
		}
	}
	if next.effective, err = engine.Resolve(merged, h.a.opts.Allow); err != nil {
		return nil, fmt.Errorf("fill in the node's own values: %w", err)
	}
	if next.settings, err = engine.SettingsOf(next.effective); err != nil {
		return nil, err
	}
	return next, nil
}

// settled notes that next serves now.
func (h *helm) settled(next *running) {
	now := time.Now()
	next.applied = now
	h.run = next
	h.healthy, h.unhealthy = true, 0
	h.ledger.apply(next.ref, now.UTC())
	if h.ledger.Attempted == nil || h.ledger.Attempted.RevisionRef != next.ref {
		h.ledger.attempt(next.ref, now.UTC())
	}
	h.report() // it serves already; a slow disk need not hold the news up
	h.saveLedger()
}
