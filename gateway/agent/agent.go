package agent

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/VictoriaMetrics/metrics"

	"github.com/binnacle-project/binnacle"
	"github.com/binnacle-project/binnacle/api"
	"github.com/binnacle-project/binnacle/gateway/agent/relay"
	"github.com/binnacle-project/binnacle/gateway/control"
	"github.com/binnacle-project/binnacle/gateway/engine"
	"github.com/binnacle-project/binnacle/membership/pki"
)

// Agent is the parent process of one node.
type Agent struct {
	opts  Options
	log   *slog.Logger
	state *stateDir

	managers *managers
	lease    *leaseBox
	relay    *relay.Relay
	launcher *launcher
	reporter *reporter
	gossip   *gossiper
	helm     *helm

	identity    atomic.Pointer[identity] // nil: not a member
	plan        atomic.Pointer[api.Plan] // nil: never had one
	lastPoll    atomic.Int64             // Unix nanoseconds of the last good answer
	trafficPort atomic.Int32
	started     time.Time

	listenIP  string
	ownIPOnce sync.Once
	ownIP     string

	status net.Listener // of socketAgent

	mu         sync.Mutex // guards what follows
	join       string     // one of the join constants
	joinDetail string
	worker     workerView
	stopping   bool
}

// workerView is what others than the helm see of the worker.
type workerView struct {
	pid     int
	since   time.Time
	serving bool
}

// How far the node is with its cluster, as the status command shows it.
const (
	joinWaiting = "standalone" // not enrolled yet
	joinMember  = "member"
	joinAway    = "manager away" // enrolled, but no manager answers
	joinLeft    = "left"         // enrolled, but without a valid lease
)

// New opens the state folder and reads all that is kept there. It starts
// nothing yet and undoes itself on error.
func New(o Options) (_ *Agent, err error) {
	if err := o.validate(); err != nil {
		return nil, fmt.Errorf("the @cluster block: %w", err)
	}
	a := &Agent{opts: o, log: o.Log.With("component", "agent"), join: joinWaiting, started: time.Now()}
	var own []byte
	if o.Program == nil {
		if own, err = a.readOwn(); err != nil {
			return nil, err
		}
	}

	if a.state, err = openState(o.StateDir, a.log); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			a.state.Close()
		}
	}()
	a.managers = newManagers(o.Managers)
	a.lease = newLeaseBox(a.state, o.VerifyLease, o.Metrics, a.log)
	a.relay = relay.New(relay.Options{
		Dir: a.state.path("spool"), QueueBytes: o.QueueBytes, SpoolBytes: o.SpoolBytes,
		Manager: a.managers.http, Node: a.nodeID,
		Failed:  func() { a.managers.failed(a.managers.client()) },
		Pause:   func(n int) time.Duration { return retryDelay(n, a.phase(), rand.Float64()) },
		Metrics: o.Metrics, Log: a.log,
	})
	a.launcher = &launcher{state: a.state, relay: a.relay, log: a.log, command: o.WorkerCommand,
		dieWithParent: o.DieWithParent, drainDelay: o.DrainDelay, logFormat: o.LogFormat, logLevel: o.LogLevel}
	a.reporter = newReporter(a)
	a.gossip = newGossiper(a)
	a.helm = newHelm(a)
	if o.Program != nil {
		if a.helm.program, own, err = newProgram(a); err != nil {
			return nil, err
		}
		a.trafficPort.Store(int32(o.Program.port()))
	}
	a.helm.own = own
	a.lease.changed = a.leaseChanged
	return a, a.remember()
}

// readOwn reads the own file of a node with our own worker.
func (a *Agent) readOwn() ([]byte, error) {
	own, err := a.opts.ReadFile(a.opts.ConfigFile)
	if err != nil {
		return nil, fmt.Errorf("read the node's own file: %w", err)
	}
	settings, err := engine.SettingsOf(own)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", a.opts.ConfigFile, err)
	}
	a.listenIP = settings.ListenIP
	a.trafficPort.Store(int32(settings.Port))
	return own, nil
}

// remember reads what earlier runs kept. What cannot be read is told, moved
// aside and done without.
func (a *Agent) remember() error {
	key, err := a.state.loadKey()
	if err != nil {
		return err
	}
	// A token for another cluster means that the node shall go there. A token
	// that cannot be read is of no interest to a member.
	var want binnacle.ClusterID
	if tok, err := a.token(); err == nil {
		if c, err := pki.ClusterOf(tok.Fingerprint); err == nil {
			want = c
		}
	}
	id, err := a.state.loadIdentity(key, want)
	if err != nil {
		a.log.Warn("the node's identity cannot be read; it enrolls anew, and keeps its id if the manager knows its key", "err", err)
	}
	if err := a.state.loadJSON(fileLedger, &a.helm.ledger); err != nil && !errors.Is(err, fs.ErrNotExist) {
		a.log.Warn("the ledger cannot be read; the node begins with its own file", "err", err)
		a.helm.ledger = ledger{}
	}
	if id == nil {
		return nil
	}
	a.become(id)
	a.lease.load(id)
	var p api.Plan
	switch err := a.state.loadJSON(filePlan, &p); {
	case err == nil:
		a.plan.Store(&p)
	case !errors.Is(err, fs.ErrNotExist):
		a.log.Warn("the plan cannot be read; the next poll brings it", "err", err)
	}
	a.join, a.joinDetail = joinAway, "no manager has answered yet"
	return nil
}

// become takes up an identity.
func (a *Agent) become(id *identity) {
	a.identity.Store(id)
	a.managers.use(transport(id.tls))
}

// Run serves until ctx ends, then drains, says good-bye and returns. An error
// means that the node could not be started; nothing that the manager does makes
// Run return one.
func (a *Agent) Run(ctx context.Context) (err error) {
	defer a.state.Close()
	defer a.managers.close()
	if err := a.helm.boot(ctx); err != nil {
		err = errors.Join(err, a.helm.stop())
		if ctx.Err() != nil {
			return nil // asked to stop before it served
		}
		return err
	}
	a.opts.Notify(PhaseReady)
	// What follows outlives ctx until the worker has drained.
	bg, cancel := context.WithCancel(context.WithoutCancel(ctx))
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	if a.status, err = control.Listen(a.state.dir, socketAgent); err != nil {
		a.log.Warn("the status command will not work", "err", err)
	} else {
		defer os.Remove(a.state.path(socketAgent))
		wg.Go(func() {
			if err := control.Serve(bg, a.status, a.log, a.answer, nil); err != nil {
				a.log.Warn("the status command does not work any more", "err", err)
			}
		})
	}
	wg.Go(func() { a.belong(bg) })
	reportCtx, stopReporter := context.WithCancel(bg)
	reporterDone := make(chan struct{})
	go func() {
		defer close(reporterDone)
		a.reporter.run(reportCtx)
	}()
	wg.Go(func() { a.tellOfItself(bg) })
	wg.Go(func() { a.gossip.run(bg) })
	wg.Go(func() { a.lease.run(bg) })
	relayCtx, stopRelay := context.WithCancel(bg)
	relayDone := make(chan struct{})
	go func() {
		defer close(relayDone)
		a.relay.Run(relayCtx)
	}()

	a.helm.loop(ctx)

	a.log.Info("stopping", "drain_delay", a.opts.DrainDelay, "drain_timeout", a.helm.drainLimit())
	a.opts.Notify(PhaseStopping)
	a.mu.Lock()
	a.stopping = true
	a.mu.Unlock()
	stopReporter() // or an older account might be told after the last ones
	<-reporterDone
	// Load balancers first: they stop sending while the worker still serves.
	last := a.reporter.get()
	last.Draining = true
	a.sayLast(bg, last)
	a.helm.sayNotReady(bg)
	stopErr := a.helm.stop()
	a.exportOwn()
	stopRelay()
	<-relayDone
	fctx, fcancel := context.WithTimeout(bg, 3*time.Second)
	if err := a.relay.Flush(fctx); err != nil && a.identity.Load() != nil {
		a.log.Warn("the last telemetry is lost", "err", err)
	}
	fcancel()
	last.Serving, last.Leaving = false, true
	a.sayLast(bg, last)
	a.gossip.end(true, true)
	cancel()
	wg.Wait()
	if stopErr != nil {
		a.log.Warn("the worker did not end cleanly", "err", stopErr)
	}
	a.log.Info("stopped")
	return nil
}

// sayLast reports s directly, for a short time, at a stop, when nobody else makes
// accounts any more.
func (a *Agent) sayLast(ctx context.Context, s api.Status) {
	a.reporter.set(s)
	if a.identity.Load() == nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	if err := a.reporter.send(ctx); err != nil {
		a.log.Warn("the manager was not told of the stop; it will see the node as unreachable, then down", "err", err)
	}
}

// belong enrolls, polls, and enrolls again should the manager forget the node,
// until ctx ends.
func (a *Agent) belong(ctx context.Context) {
	var former *identity
	for ctx.Err() == nil {
		id := a.identity.Load()
		if id == nil {
			var resp *api.EnrollResponse
			var err error
			if id, resp, err = a.enroll(ctx, former); err != nil {
				if ctx.Err() != nil {
					return
				}
				// Not the manager but this node's own key or disk.
				a.log.Error("the node cannot enroll", "err", err)
				a.setJoin(joinWaiting, err.Error())
				if sleep(ctx, refusedCap) != nil {
					return
				}
				continue
			}
			if resp != nil {
				// Nothing of another life counts: its plans had serials of
				// their own.
				a.plan.Store(nil)
				a.lease.drop()
			}
			a.become(id)
			a.setJoin(joinMember, "")
			if resp != nil {
				a.lease.offer(resp.Lease, id, 0, time.Time{})
				a.takePlan(resp.Plan)
			}
			a.reporter.again()
			a.helm.wakeUp()
			a.gossip.wakeUp()
		}
		err := a.poll(ctx, id)
		if !errors.Is(err, errForgotten) {
			return
		}
		a.log.Warn("enrolling anew", "err", err)
		a.setJoin(joinWaiting, err.Error())
		// The disk keeps what it has until an enrollment replaces it.
		former = a.identity.Swap(nil)
		a.gossip.end(false, false)
	}
}

// Reload reads the node's own file again, as SIGHUP asks for.
func (a *Agent) Reload() { signal(a.helm.hup) }

// Addr returns the address of the traffic listener's settings, host:port.
func (a *Agent) Addr() string { return a.advertised() }

// nodeID is empty while the node is no member.
func (a *Agent) nodeID() binnacle.NodeID {
	if id := a.identity.Load(); id != nil {
		return id.NodeID
	}
	return ""
}

func (a *Agent) metric(name string) *metrics.Counter { return a.opts.Metrics.GetOrCreateCounter(name) }

func (a *Agent) setJoin(state, detail string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.join, a.joinDetail = state, detail
}

// setStatus takes the helm's newest account.
func (a *Agent) setStatus(s api.Status, p *process) {
	v := workerView{serving: s.Serving}
	if p != nil {
		v.pid, v.since = p.pid, p.started
	}
	a.mu.Lock()
	a.worker = v
	a.mu.Unlock()
	a.gossip.set(s)
	a.reporter.set(s)
}
