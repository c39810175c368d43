package agent

import (
	"context"
	"crypto/ed25519"
	"errors"
	"io/fs"
	"log/slog"
	"sync"
	"time"

	"github.com/VictoriaMetrics/metrics"

	"github.com/binnacle-project/binnacle"
	"github.com/binnacle-project/binnacle/api"
	"github.com/binnacle-project/binnacle/licensing"
)

// VerifyLease checks a lease for one node; licensing.VerifyLease is what it
// must do.
type VerifyLease func(token string, clusterKey ed25519.PublicKey, cluster binnacle.ClusterID, id binnacle.NodeID, keyFingerprint string) (licensing.Lease, error)

// leaseBox holds the newest lease, verified, counts how much of it is left, in
// memory and on disk, and tells when what the node may do by it changes. What
// that is decides licensing.StandingOf alone. It is safe for concurrent use.
type leaseBox struct {
	state  *stateDir
	verify VerifyLease
	clocks func() licensing.Clocks
	log    *slog.Logger
	falls  *metrics.Counter
	// changed is called, in no lock, when the standing has become another.
	changed func()
	kick    chan struct{} // wakes run: a lease was taken or dropped

	mu     sync.Mutex // guards what follows
	token  string
	lease  *licensing.Lease
	tenure licensing.Tenure
	known  licensing.Standing // that was told last
	since  time.Time          // of known.State
	fail   string             // why the last one was refused
}

// savedLease is the file: a lease and what is gone of it belong together. One
// without the other gives nothing.
type savedLease struct {
	Token  string           `json:"token"`
	Tenure licensing.Tenure `json:"tenure"`
}

// countEvery is how often what is gone of a lease is written, with a sync: the
// most that a machine that fails gives away.
const countEvery = time.Minute

func newLeaseBox(state *stateDir, verify VerifyLease, set *metrics.Set, log *slog.Logger) *leaseBox {
	l := &leaseBox{
		state: state, verify: verify, clocks: machineClocks(), log: log, changed: func() {},
		falls: set.GetOrCreateCounter("binnacle_agent_lease_falls_total"),
		kick:  make(chan struct{}, 1),
		since: time.Now(),
	}
	l.known = l.standing()
	set.GetOrCreateGauge("binnacle_agent_lease_left_seconds", func() float64 { return l.standing().Left.Seconds() })
	for _, state := range []string{licensing.LeaseNone, licensing.LeaseValid, licensing.LeaseWarning, licensing.LeaseFallen, licensing.LeaseRestored} {
		set.GetOrCreateGauge(`binnacle_agent_lease_state{state="`+state+`"}`, func() float64 {
			if l.standing().State == state {
				return 1
			}
			return 0
		})
	}
	return l
}

// standing says what the node may do by its lease now.
func (l *leaseBox) standing() licensing.Standing {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.standingLocked()
}

func (l *leaseBox) standingLocked() licensing.Standing {
	return licensing.StandingOf(l.lease, l.tenure, l.clocks())
}

// member reports whether the node is a full member: it gossips and takes
// configurations and orders.
func (l *leaseBox) member() bool { return l.standing().Member() }

// limit is the fallback rate that the worker is held to; nil is none.
func (l *leaseBox) limit() *float64 { return l.standing().Limit }

// load takes up the lease of an earlier run. Whatever is wrong with the file:
// the node is under the fallback rate until the next poll brings a lease.
func (l *leaseBox) load(id *identity) {
	var s savedLease
	if err := l.state.loadJSON(fileLease, &s); err != nil {
		if !errors.Is(err, fs.ErrNotExist) {
			l.log.Warn("the lease on disk cannot be read; the next poll brings one", "err", err)
		}
		return
	}
	lease, err := l.check(s.Token, id)
	l.mu.Lock()
	if err != nil {
		l.fail = err.Error()
		l.log.Warn("the lease on disk is not valid for this node; the next poll brings one", "err", err)
	} else {
		l.token, l.lease, l.tenure = s.Token, &lease, s.Tenure
		l.countLocked()
		l.saveLocked()
	}
	l.mu.Unlock()
	l.look()
}

func (l *leaseBox) check(token string, id *identity) (licensing.Lease, error) {
	return l.verify(token, id.clusterKey, id.Cluster, id.NodeID, id.keyFingerprint())
}

// offer takes a lease that came with an answer; the empty one is none. epoch is
// the newest that the node knows, date the manager's clock, which has a say in
// what is gone of the lease held (licensing.Tenure.Confirm).
func (l *leaseBox) offer(token string, id *identity, epoch uint64, date time.Time) {
	l.mu.Lock()
	l.takeLocked(token, id, epoch)
	if token == "" && l.lease != nil {
		before := l.tenure.Doubt
		l.countLocked()
		l.tenure = l.tenure.Confirm(*l.lease, date)
		if before > 0 {
			l.log.Info("the manager's clock settled how much of the lease is gone", "claimed", before, "gone", l.tenure.Run)
			l.saveLocked()
		}
	}
	l.mu.Unlock()
	l.look()
}

func (l *leaseBox) takeLocked(token string, id *identity, epoch uint64) {
	if token == "" {
		return
	}
	lease, err := l.check(token, id)
	if err == nil && l.lease != nil && l.lease.ID == lease.ID && l.standingLocked().Member() {
		return // the same once more
	}
	held := l.standingLocked()
	if err == nil {
		err = lease.Supersedes(held, epoch)
	}
	if err != nil {
		if l.fail != err.Error() {
			l.log.Warn("a lease that the manager sent is not taken; the one held goes on", "err", err)
		}
		l.fail = err.Error()
		return
	}
	l.fail = ""
	l.token, l.lease = token, &lease
	l.tenure = licensing.Begin(lease, l.clocks(), held.State == licensing.LeaseFallen)
	l.saveLocked()
	signal(l.kick)
}

// drop forgets the lease of another life.
func (l *leaseBox) drop() {
	l.mu.Lock()
	l.token, l.lease, l.tenure, l.fail = "", nil, licensing.Tenure{}, ""
	if err := l.state.remove(fileLease); err != nil {
		l.log.Warn("an old lease could not be removed", "err", err)
	}
	l.mu.Unlock()
	l.look()
}

// countLocked brings the tenure up to now.
func (l *leaseBox) countLocked() {
	if l.lease != nil {
		l.tenure = l.tenure.At(l.clocks())
	}
}

func (l *leaseBox) saveLocked() {
	if l.lease == nil {
		return
	}
	if err := l.state.saveJSON(fileLease, savedLease{l.token, l.tenure}); err != nil {
		l.log.Error("the lease could not be kept on disk: after a failure of this machine the node is under its fallback rate until it reaches a manager", "err", err)
	}
}

// run counts until ctx ends, and acts in the moment at which something changes.
func (l *leaseBox) run(ctx context.Context) {
	saved := time.Now()
	for {
		wait := countEvery
		if next := l.standing().Next; next > 0 {
			wait = min(wait, next)
		}
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-l.kick:
		case <-ctx.Done():
		}
		timer.Stop()
		l.look()
		if time.Since(saved) >= countEvery || ctx.Err() != nil {
			l.mu.Lock()
			l.countLocked()
			l.saveLocked()
			l.mu.Unlock()
			saved = time.Now()
		}
		if ctx.Err() != nil {
			return
		}
	}
}

// look tells, once, what has become of the standing since it was told last.
func (l *leaseBox) look() {
	l.mu.Lock()
	was, now := l.known, l.standingLocked()
	l.known = now
	if was.State != now.State {
		l.since = time.Now()
	}
	end := time.Time{}
	if l.lease != nil {
		end = l.lease.Expires
	}
	l.mu.Unlock()
	if was.State == now.State && was.Notice == now.Notice && sameRate(was.Limit, now.Limit) {
		return
	}
	switch {
	case now.State == licensing.LeaseFallen && was.Member():
		l.falls.Inc()
		l.log.Error("the lease has ended: the node serves under its fallback rate, without gossip and remote configuration, and asks its manager on", "expires", end, "fallback_rate", rateText(now.Limit))
	case now.State == licensing.LeaseFallen:
		l.log.Warn("there is no valid lease: the node is under its fallback rate until a manager gives one", "expires", end, "fallback_rate", rateText(now.Limit))
	case now.State == licensing.LeaseRestored && !was.Member():
		l.log.Info("a lease was given again: the node is a full member", "expires", end)
	case now.State == licensing.LeaseWarning && now.Notice > was.Notice:
		l.log.Warn("the lease runs out and no manager has renewed it", "left", now.Left.Round(time.Second), "expires", end)
	}
	l.changed()
}

func sameRate(a, b *float64) bool {
	return a == b || a != nil && b != nil && *a == *b
}

// expires is what a poll says of the lease held; the zero time for none, and
// for one that has ended: it is worth nothing by whatever clock.
func (l *leaseBox) expires() time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.lease == nil || !l.standingLocked().Member() {
		return time.Time{}
	}
	return l.lease.Expires
}

// epoch is the newest that the node knows from its plan.
func (a *Agent) epoch() uint64 {
	if p := a.plan.Load(); p != nil {
		return p.Epoch
	}
	return 0
}

// leaseChanged makes everyone who goes by the lease look again.
func (a *Agent) leaseChanged() {
	a.helm.wakeUp() // the limit, and the account for the manager
	a.gossip.wakeUp()
}

// note tells of the lease for the status command.
func (l *leaseBox) note() LeaseNote {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := l.standingLocked()
	n := LeaseNote{State: s.State, Left: s.Left.Seconds(), Limit: s.Limit, Since: l.since, Refused: l.fail}
	if l.lease != nil {
		n.LeaseInfo = &api.LeaseInfo{Issued: l.lease.Issued, Expires: l.lease.Expires}
		n.Plan, n.Features = l.lease.Plan, l.lease.Features
	}
	n.Note = noteOf(s)
	return n
}
