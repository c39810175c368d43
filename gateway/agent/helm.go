package agent

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"sync"
	"time"

	"github.com/binnacle-project/binnacle"
	"github.com/binnacle-project/binnacle/api"
	"github.com/binnacle-project/binnacle/gateway/control"
	"github.com/binnacle-project/binnacle/gateway/engine"
)

// ed25519Key shortens signatures.
type ed25519Key = ed25519.PrivateKey

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

// told is what a worker was told last; a new worker knows nothing.
type told struct {
	draining bool
	interval time.Duration
	limit    *float64
}

// refusal remembers a revision that failed, so that it is not tried again
// before a new plan or a new own file.
type refusal struct {
	ref    api.RevisionRef
	epoch  uint64
	serial uint64
}

type probeResult struct {
	worker *process
	ok     bool
	err    error
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

// boot brings the first worker to serve: what served last, else what served
// before it, else the node's own file, so that a node starts without a
// manager and from a disk that lost files.
func (h *helm) boot(ctx context.Context) error {
	var orphans []*process
	if h.program != nil {
		h.worker = h.program.leftBehind()
	} else {
		orphans = leftBehind(ctx, h.a.state, h.log)
		if err := h.openListener(ctx, orphans); err != nil {
			return err
		}
	}
	var errs []error
	for _, ref := range h.ledger.bootOrder() {
		ref, raw, err := h.bytesOf(ref)
		if err == nil {
			err = h.bring(ctx, ref, raw, false)
		}
		if err == nil {
			h.log.Info("serving", "revision", ref.Number, "sha256", ref.SHA256, "address", h.a.advertised())
			break
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		h.log.Error("this configuration cannot be started with", "revision", ref.Number, "err", err)
		errs = append(errs, err)
	}
	if h.run == nil {
		return fmt.Errorf("no configuration can be started with: %w", errors.Join(errs...))
	}
	for _, p := range orphans {
		h.log.Info("a worker of an earlier agent is replaced; it finishes what it has in flight", "worker_pid", p.pid)
		h.retire(p)
	}
	return nil
}

// openListener takes over the sockets of workers left behind, or opens one.
func (h *helm) openListener(ctx context.Context, orphans []*process) error {
	settings, err := engine.SettingsOf(h.own)
	if err != nil {
		return fmt.Errorf("%s: %w", h.a.opts.ConfigFile, err)
	}
	for _, p := range orphans {
		lns, err := adopt(ctx, p)
		if err != nil {
			h.log.Warn("the sockets of an earlier worker were not taken over", "err", err)
			continue
		}
		for _, ln := range lns {
			if h.listener == nil && sameAddr(ln.Addr(), settings) {
				h.listener = ln
			} else {
				ln.Close()
			}
		}
	}
	if h.listener == nil {
		if h.listener, err = listen(settings, h.a.opts.ConfigFile); err != nil {
			return err
		}
	}
	return nil
}

// sameAddr reports whether a socket is where the settings want one.
func sameAddr(a net.Addr, s engine.ServerSettings) bool {
	t, ok := a.(*net.TCPAddr)
	if !ok || t.Port != s.Port {
		return false
	}
	want := net.ParseIP(s.ListenIP)
	if s.ListenIP == "" || want != nil && want.IsUnspecified() {
		return t.IP.IsUnspecified()
	}
	return want != nil && want.Equal(t.IP)
}

// bytesOf returns the bytes of a configuration on this node. A zero ref is the
// own file, and comes back with its hash.
func (h *helm) bytesOf(ref api.RevisionRef) (api.RevisionRef, []byte, error) {
	if ref.Number == 0 {
		return api.RevisionRef{SHA256: hashOf(h.own)}, h.own, nil
	}
	raw, err := h.a.state.loadConfig(ref.SHA256)
	return ref, raw, err
}

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
		return nil, errNotMember
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

// interval is how often telemetry shall be exported.
func (h *helm) interval() time.Duration {
	if p := h.a.plan.Load(); p != nil && p.Telemetry.Interval > 0 {
		return time.Duration(p.Telemetry.Interval * float64(time.Second))
	}
	return defaultInterval
}

// defaultInterval is how often telemetry is exported when no plan says it.
const defaultInterval = 10 * time.Second

// tell passes draining and the export interval on. What fails is tried again
// at the next turn of the loop.
func (h *helm) tell(ctx context.Context, p api.Plan) {
	if h.worker == nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	if p.Drain != h.told.draining {
		if err := h.worker.drain(ctx, p.Drain); err != nil {
			h.log.Warn("the worker did not take the order to drain or undrain", "err", err)
		} else {
			h.told.draining = p.Drain
			h.log.Info("draining changed", "draining", p.Drain)
		}
	}
	if d := h.interval(); d != h.told.interval {
		if err := h.worker.setInterval(ctx, d); err != nil {
			h.log.Warn("the worker did not take a new export interval", "err", err)
		} else {
			h.told.interval = d
		}
	}
}

// tellLimit passes the fallback rate on, or that there is none any more.
func (h *helm) tellLimit(ctx context.Context) {
	limit := h.a.lease.limit()
	if h.worker == nil || sameRate(limit, h.told.limit) {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	if err := h.worker.setLimit(ctx, limit); err != nil {
		h.log.Warn("the worker did not take the fallback rate", "err", err)
		return
	}
	h.told.limit = limit
	h.log.Info("the worker's limit changed", "limit", rateText(limit))
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

// reread takes the node's own file as it is now. What cannot be used changes
// nothing.
func (h *helm) reread(ctx context.Context) {
	if h.program != nil {
		h.rereadProgram(ctx)
		return
	}
	b, err := os.ReadFile(h.a.opts.ConfigFile)
	if err == nil {
		_, err = engine.SettingsOf(b)
	}
	if err != nil {
		h.log.Error("the node's own file cannot be used; the one read before goes on", "file", h.a.opts.ConfigFile, "err", err)
		return
	}
	before := h.own
	h.own = b
	ref, raw := h.run.ref, h.run.raw
	if ref.Number == 0 {
		ref, raw = api.RevisionRef{SHA256: hashOf(b)}, b
	}
	if err := h.bring(ctx, ref, raw, true); err != nil {
		h.own = before
		h.log.Error("the node's own file cannot be run; the one read before goes on", "file", h.a.opts.ConfigFile, "err", err)
		return
	}
	h.refused = refusal{}
	h.log.Info("the node's own file was read again", "file", h.a.opts.ConfigFile, "note", "a changed @cluster block counts from the next start of the agent")
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
