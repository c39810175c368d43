package agent

import (
	"context"
	"crypto/ed25519"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/binnacle-project/binnacle"
	"github.com/binnacle-project/binnacle/api"
)

// ed25519Key shortens signatures.
type ed25519Key = ed25519.PrivateKey

// helm owns the worker, the listeners and the ledger, and steers them to what
// the plan says. All of it happens in the goroutine of run; the others leave
// word with wakeUp.
type helm struct {
	a    *Agent
	log  *slog.Logger
	wake chan struct{}
	hup  chan struct{} // the node's own file may have changed

	own       []byte       // the node's own file as last read
	program   *program     // what is supervised; nil for our own worker
	listener  net.Listener // nil with a program, which has its own
	worker    *process     // nil between two lives
	killed    *process     // died of a configuration that it was given, not of what ran
	run       *running     // nil before the first configuration serves
	ledger    ledger
	told      told           // what the worker was told beside configurations
	upgrade   upgrade        // of the program that workers are
	refused   refusal        // the last desired revision that cannot be run
	retryAt   time.Time      // when to try again to fetch, zero for no need
	retries   int            // of the fetch
	startAt   time.Time      // when to start a worker again
	retiring  sync.WaitGroup // workers that drain
	probeBusy bool
	probed    chan probeResult
	healthy   bool // the last probe was answered, or there was none yet
	unhealthy int  // probes without an answer since
}

const (
	// applyTime bounds bringing one configuration to serve.
	applyTime = 60 * time.Second
	// callTime bounds the small calls to a worker.
	callTime = 5 * time.Second
	// probeEvery is the pause between two probes of what runs.
	probeEvery = time.Second
)

func newHelm(a *Agent) *helm {
	return &helm{a: a, log: a.log.With("part", "helm"), wake: make(chan struct{}, 1), hup: make(chan struct{}, 1), probed: make(chan probeResult, 1)}
}

// wakeUp makes the helm look at the plan again.
func (h *helm) wakeUp() { signal(h.wake) }

// loop steers until ctx ends. The worker serves on then.
func (h *helm) loop(ctx context.Context) {
	tick := time.NewTicker(probeEvery)
	defer tick.Stop()
	for {
		h.steer(ctx)
		h.report()
		var exited <-chan struct{}
		if h.worker != nil {
			exited = h.worker.exited
		}
		timer := time.NewTimer(h.nextTry())
		select {
		case <-h.wake:
		case <-timer.C:
		case <-exited:
			h.crashed()
		case <-h.hup:
			h.a.opts.Notify(PhaseReloading)
			h.reread(ctx)
			h.a.opts.Notify(PhaseReady)
		case <-tick.C:
			h.probe()
			h.upgradeWorker(ctx)
		case r := <-h.probed:
			h.probedNow(r)
		case <-ctx.Done():
			timer.Stop()
			return
		}
		timer.Stop()
	}
}

// nextTry is the time until something is due that no channel tells of.
func (h *helm) nextTry() time.Duration {
	d := time.Hour
	if !h.retryAt.IsZero() {
		d = min(d, time.Until(h.retryAt))
	}
	if h.worker == nil {
		d = min(d, time.Until(h.startAt))
	}
	return max(d, 0)
}

// steer does what is due now: a worker if there is none, the desired revision,
// a restart order, draining and the export interval.
func (h *helm) steer(ctx context.Context) {
	if h.worker == nil {
		if time.Now().Before(h.startAt) {
			return
		}
		h.revive(ctx)
	}
	h.tellLimit(ctx)
	p := h.a.plan.Load()
	if p == nil || h.worker == nil || !h.a.lease.member() {
		return // without a lease nothing that the manager wants is done
	}
	if id := h.a.identity.Load(); id != nil {
		h.toDesired(ctx, *p, id)
	}
	if p.Restart != nil && p.Restart.ID != h.ledger.RestartDone && h.worker != nil && h.run != nil {
		h.restart(ctx, p.Restart.ID)
	}
	h.tell(ctx, *p)
}

func (h *helm) saveLedger() {
	if err := h.a.state.saveJSON(fileLedger, h.ledger); err != nil {
		h.log.Error("the ledger could not be kept on disk", "err", err)
	}
}

// report gives the newest account to those who pass it on.
func (h *helm) report() {
	if h.listener != nil {
		if t, ok := h.listener.Addr().(*net.TCPAddr); ok {
			h.a.trafficPort.Store(int32(t.Port))
		}
	}
	s := api.Status{
		Version: binnacle.Version, Address: h.a.advertised(), GossipAddress: h.a.gossipAdvertised(),
		Serving:  h.worker != nil && h.run != nil && !h.worker.gone() && (h.program == nil || h.healthy),
		Draining: h.told.draining, LeaseEnded: !h.a.lease.member(),
		Attempted: h.ledger.Attempted, Applied: h.ledger.Applied, LastGood: h.ledger.lastGood(),
		RestartDone: h.ledger.RestartDone, GossipKeyID: h.a.gossip.keyID(),
		Crashes: h.a.metric("binnacle_agent_worker_crashes_total").Get(),
	}
	if h.run != nil {
		s.Overridden = h.run.overridden
	}
	h.a.setStatus(s, h.worker)
}

// quietEnough is for how long no request may have come before a node that is
// asked to stop takes it that load balancers have noticed.
const quietEnough = time.Second

// sayNotReady turns the node's readiness red and serves on, taking new clients,
// so that load balancers look elsewhere before the listeners close: until no
// request has come for quietEnough, for the drain delay at most. A node that was
// drained before has said it long ago.
func (h *helm) sayNotReady(ctx context.Context) {
	if h.worker == nil || h.told.draining || h.a.opts.DrainDelay <= 0 {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, h.a.opts.DrainDelay)
	defer cancel()
	if err := h.worker.drain(ctx, true); err != nil {
		h.log.Warn("the worker did not take the order to drain", "err", err)
	}
	tick := time.NewTicker(quietEnough / 10)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-h.worker.exited:
			return
		case <-ctx.Done():
			return
		}
		if quiet, err := h.worker.quiet(ctx); err == nil && quiet >= quietEnough {
			return
		}
	}
}

// stop ends the worker in order and waits for those that drain.
func (h *helm) stop() error {
	var err error
	if h.ledger.Unproven != nil { // it was asked to stop, so it killed nothing
		h.ledger.Unproven = nil
		h.saveLedger()
	}
	if h.worker != nil {
		err = h.worker.stop(h.drainLimit())
		h.worker.release()
	}
	h.retiring.Wait()
	if h.listener != nil {
		h.listener.Close()
	}
	return err
}
