package licensing

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	vm "github.com/VictoriaMetrics/metrics"

	"github.com/binnacle-project/binnacle"
	"github.com/binnacle-project/binnacle/api"
	"github.com/binnacle-project/binnacle/events"
	"github.com/binnacle-project/binnacle/state"
)

// Events is what the keeper asks of the event log.
type Events interface {
	Append(ctx context.Context, e api.Event) (api.Event, error)
}

// KeeperOptions sets up a Keeper.
type KeeperOptions struct {
	// Store keeps the license in force.
	Store *state.Store
	// Dir is the manager's data directory: the local issuer's key is made in
	// Dir/license/issuer.key at the first start without KeysFile.
	Dir string
	// LicenseFile (--license) is read at the start and watched. Empty: the
	// license comes from the store, or is the community license.
	LicenseFile string
	// KeysFile (--license-keys) holds issuer keys and is watched; with it only
	// licenses of these issuers count.
	KeysFile string

	// ClusterFingerprint is the SHA-256 of the cluster key's SPKI, in hex.
	ClusterFingerprint string
	// ClusterKey signs leases.
	ClusterKey ed25519.PrivateKey
	Cluster    binnacle.ClusterID
	// Epoch returns the epoch of control state, which leases carry; nil means
	// Store.Epoch.
	Epoch func() uint64
	// Seats returns how many seats are held; may be nil.
	Seats func() int
	// LeaseLife is how long a lease lasts (default DefaultLeaseLife).
	LeaseLife time.Duration
	// Poll is how often the files are looked at (default 2 s).
	Poll time.Duration

	Events  Events
	Log     *slog.Logger
	Metrics *vm.Set
}

// Keeper holds the license in force and gives leases. All methods are safe
// for concurrent use; Admit, Lease, Summary and License read memory only.
type Keeper struct {
	o   KeeperOptions
	log *slog.Logger

	current atomic.Pointer[inForce]

	mu      sync.Mutex // guards all below, and serializes changes of current
	keys    []IssuerPublicKey
	local   []IssuerPublicKey // those of local issuers, from the store
	license watched
	keyFile watched

	givenMu sync.Mutex
	given   map[binnacle.NodeID]givenLease // guarded by givenMu

	leases  *vm.Counter
	refused *vm.Counter
}

// inForce is the license in force and what is said of the newest one that was
// not taken. It never changes.
type inForce struct {
	license *License // nil when there is none
	// installed is when the license was put in force, by any manager.
	installed time.Time
	told      int // the last notice given of its end
	problem   string
	// changed is closed when something else comes into force.
	changed chan struct{}
}

// givenLease remembers what a node got, so that another license reaches it
// with its next poll.
type givenLease struct {
	license string
	issued  time.Time
	expires time.Time
	before  time.Time // the end of the lease that the node held then
	at      time.Time
}

// OpenKeeper loads the license in force. The first start without LicenseFile
// and KeysFile makes a local issuer and the community license. A license that
// is wrong does not fail the start: the last valid one stays in force, or
// there is none, and Problem says why. A KeysFile that cannot be read does.
func OpenKeeper(ctx context.Context, o KeeperOptions) (*Keeper, error) {
	if o.LeaseLife == 0 {
		o.LeaseLife = DefaultLeaseLife
	}
	if o.Poll == 0 {
		o.Poll = 2 * time.Second
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Metrics == nil {
		o.Metrics = vm.NewSet()
	}
	if o.Epoch == nil {
		o.Epoch = o.Store.Epoch
	}
	k := &Keeper{
		o:       o,
		log:     o.Log.With("component", "licensing"),
		license: watched{path: o.LicenseFile, limit: maxToken + 1024},
		keyFile: watched{path: o.KeysFile, limit: maxKeysBytes},
		given:   map[binnacle.NodeID]givenLease{},
	}
	k.current.Store(&inForce{changed: make(chan struct{})})
	k.register(o.Metrics)
	if err := k.start(ctx); err != nil {
		return nil, fmt.Errorf("open the license: %w", err)
	}
	return k, nil
}

func (k *Keeper) start(ctx context.Context) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.o.KeysFile != "" {
		keys, err := ReadIssuerPublicKeys(k.o.KeysFile)
		if err != nil {
			return err
		}
		k.keys = keys
		k.keyFile.look()
	} else if err := k.openLocalIssuer(ctx); err != nil {
		return err
	}
	if err := k.loadStored(ctx); err != nil {
		return err
	}
	if k.o.LicenseFile != "" {
		k.checkFile(ctx)
		return nil
	}
	if k.o.KeysFile == "" && k.current.Load().license == nil {
		return k.community(ctx)
	}
	return nil
}

// Install verifies a license and puts it in force. A license that is not
// valid is an *api.Problem of status 422 that says why and what to do, and
// changes nothing. actor is who installs it, for the event.
func (k *Keeper) Install(ctx context.Context, token, actor string) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	err := k.install(ctx, trimToken(token), actor, k.license.taken)
	var wrong *wrongLicense
	if !errors.As(err, &wrong) {
		return err
	}
	k.refused.Inc()
	k.tell(ctx, events.LicenseRefused, actor, wrong.Error())
	return &api.Problem{Title: "License not taken", Status: http.StatusUnprocessableEntity, Detail: wrong.Error()}
}

// wrongLicense marks an error that lies in the license, not in the manager.
type wrongLicense struct{ err error }

func (w *wrongLicense) Error() string { return w.err.Error() }
func (w *wrongLicense) Unwrap() error { return w.err }

// install puts token in force, durably first. fileHash names the content of the
// license file that it comes from or comes after. The caller holds mu.
func (k *Keeper) install(ctx context.Context, token, actor, fileHash string) error {
	l, err := ParseLicense(token, k.trusted(), k.o.ClusterFingerprint, time.Now())
	if err != nil {
		return &wrongLicense{err}
	}
	told := firstNotice
	if days, due := noticeDue(&l, told, time.Now()); due {
		told = days // who installs a license knows when it ends
	}
	rec := record{Token: token, Installed: time.Now().UTC(), Actor: actor, FileHash: fileHash, Told: told}
	if err := k.save(ctx, rec); err != nil {
		return err
	}
	before := k.current.Load().license
	k.set(&inForce{license: &l, installed: rec.Installed, told: told})
	if before == nil || before.Token != token {
		k.log.Info("license in force", "id", l.ID, "plan", l.Plan, "seats", l.Seats, "expires", l.Expires, "actor", actor)
		k.tell(ctx, events.LicenseInstalled, actor, "license "+l.ID+" is in force: "+describe(&l))
	}
	return nil
}

// describe says in one line what a license allows.
func describe(l *License) string {
	seats := "unlimited seats"
	if l.Seats > 0 {
		seats = fmt.Sprintf("%d seats", l.Seats)
	}
	end := "no expiry"
	if !l.Expires.IsZero() {
		end = "until " + stamp(l.Expires)
	}
	return fmt.Sprintf("plan %s, %s, %s", l.Plan, seats, end)
}

// set publishes what is in force and wakes those who wait for it. The caller
// holds mu.
func (k *Keeper) set(f *inForce) {
	f.changed = make(chan struct{})
	close(k.current.Swap(f).changed)
}

// Changed returns a channel that is closed when another license comes into
// force or its problem changes. Nodes' polls end then, so that they get a new
// lease.
func (k *Keeper) Changed() <-chan struct{} { return k.current.Load().changed }

func (k *Keeper) trusted() []IssuerPublicKey {
	if k.o.KeysFile != "" {
		return k.keys
	}
	return k.local
}

// Problem says why the newest license was not taken; empty when it was.
func (k *Keeper) Problem() string { return k.current.Load().problem }

// Summary returns the short form of the license in force.
func (k *Keeper) Summary() api.LicenseSummary {
	l := k.current.Load().license
	s := api.LicenseSummary{State: State(l, time.Now())}
	if k.o.Seats != nil {
		s.SeatsUsed = k.o.Seats()
	}
	if l == nil {
		s.Plan = PlanFree
		return s
	}
	s.Plan, s.Seats, s.Expires = l.Plan, l.Seats, l.Expires
	return s
}

// License answers GET /v1/license.
func (k *Keeper) License() api.License {
	f := k.current.Load()
	out := api.License{LicenseSummary: k.Summary(), Features: []string{}, Problem: f.problem}
	out.LeaseLife = k.o.LeaseLife.Seconds()
	l := f.license
	if l == nil {
		rate := DefaultFallbackRate
		out.FallbackRate = &rate
		return out
	}
	out.ID, out.Customer, out.Issuer, out.Cluster = l.ID, l.Customer, l.Issuer, l.Cluster
	out.NotBefore, out.Grace, out.FallbackRate = l.NotBefore, l.Grace.Seconds(), l.FallbackRate
	out.Features = append(out.Features, l.Features...)
	if !l.Expires.IsZero() {
		left := time.Until(l.Expires).Round(time.Second).Seconds()
		out.Left = &left
	}
	return out
}

// Admit says whether one more node may join when held seats are taken: nil, or
// an *api.Problem of status 403 with api.SeatsMessage. Without a license that
// gives leases no node may.
func (k *Keeper) Admit(held int) error {
	l := k.current.Load().license
	if l.gives(time.Now()) && (l.Seats == 0 || held < l.Seats) {
		return nil
	}
	return &api.Problem{Title: "No seat is free", Status: http.StatusForbidden, Detail: api.SeatsMessage}
}

// Seats returns how many nodes may be members: 0 is unlimited, and -1 says that
// there is no license that gives leases.
func (k *Keeper) Seats() int {
	l := k.current.Load().license
	if !l.gives(time.Now()) {
		return -1
	}
	return l.Seats
}

// Lease returns a fresh lease for a node when one is due. held is when the
// lease that the node holds ends, zero when it holds none. One is due to a node
// that holds none, that gains a tenth of a lease's life, or whose lease was
// given under another license. A lease ends no sooner than the one that this
// manager gave before it. info is what the node holds afterwards; token is
// empty and due false when there is nothing to send, also when the license
// gives no leases any more.
func (k *Keeper) Lease(id binnacle.NodeID, keyFP string, held, now time.Time) (token string, info api.LeaseInfo, due bool, err error) {
	f := k.current.Load()
	given, known := k.givenTo(id)
	info = k.held(given, known, held)
	if k.dueIn(f, given, known, held, now) != 0 {
		return "", info, false, nil
	}
	l := f.license
	end, _ := leaseExpiry(l, k.o.LeaseLife, now)
	if known && given.expires.Equal(held) && held.After(end) {
		end = held // honored to its end
	}
	issued := now.Truncate(time.Second)
	token, err = issueLease(k.o.ClusterKey, Lease{
		Cluster: k.o.Cluster, Node: id, KeyFP: keyFP, Epoch: k.o.Epoch(), Plan: l.Plan,
		Issued: issued, Expires: end, FallbackRate: l.FallbackRate, Features: l.Features,
	})
	if err != nil {
		return "", info, false, err
	}
	k.leases.Inc()
	k.givenMu.Lock()
	k.given[id] = givenLease{license: l.ID, issued: issued, expires: end, before: held, at: now}
	k.givenMu.Unlock()
	return token, api.LeaseInfo{Issued: issued, Expires: end}, true, nil
}

// Held returns what a node holds whose lease ends at held.
func (k *Keeper) Held(id binnacle.NodeID, held time.Time) api.LeaseInfo {
	given, known := k.givenTo(id)
	return k.held(given, known, held)
}

func (k *Keeper) held(given givenLease, known bool, held time.Time) api.LeaseInfo {
	switch {
	case held.IsZero():
		return api.LeaseInfo{}
	case known && given.expires.Equal(held):
		return api.LeaseInfo{Issued: given.issued, Expires: held}
	}
	return api.LeaseInfo{Issued: held.Add(-k.o.LeaseLife), Expires: held}
}

func (k *Keeper) givenTo(id binnacle.NodeID) (givenLease, bool) {
	k.givenMu.Lock()
	defer k.givenMu.Unlock()
	g, ok := k.given[id]
	return g, ok
}

// RenewIn returns how long a poll of a node whose lease ends at held may wait
// before a fresh lease is due; 0 is at once, and a negative duration is never.
func (k *Keeper) RenewIn(id binnacle.NodeID, held, now time.Time) time.Duration {
	given, known := k.givenTo(id)
	return k.dueIn(k.current.Load(), given, known, held, now)
}

// again is how long a node that was just given a lease and still holds the one
// before waits for another: the answer was lost, or it declines what it gets.
const again = 5 * time.Second

// aheadBy is how far beyond what could be given now a lease must end to be
// taken for one that a wrong clock gave.
const aheadBy = time.Hour

func (k *Keeper) dueIn(f *inForce, given givenLease, known bool, held, now time.Time) time.Duration {
	life := k.o.LeaseLife
	end, ok := leaseExpiry(f.license, life, now)
	if !ok {
		return -1
	}
	same := known && given.expires.Equal(held)
	declined := known && !same && given.before.Equal(held)
	if wait := given.at.Add(min(again, life/10)).Sub(now); declined && wait > 0 && wait <= again {
		return wait
	}
	switch {
	case leaseDue(held, end, life),
		same && given.license != f.license.ID,
		!known && held.Add(-life).Before(f.installed.Truncate(time.Second)), // given under a license before
		!same && !declined && held.Sub(now) > life+aheadBy:
		return 0
	}
	if last := f.license.End(); !last.IsZero() && last.Sub(held) < life/10 {
		return -1 // the license's end cuts it short
	}
	return max(held.Add(-life+life/10).Sub(now), time.Millisecond)
}

// Forget drops what is known of a node's lease.
func (k *Keeper) Forget(id binnacle.NodeID) {
	k.givenMu.Lock()
	defer k.givenMu.Unlock()
	delete(k.given, id)
}

// tell appends an event; one that cannot be kept is logged.
func (k *Keeper) tell(ctx context.Context, kind, actor, message string) {
	if k.o.Events == nil {
		return
	}
	if _, err := k.o.Events.Append(ctx, api.Event{Kind: kind, Actor: actor, Message: message}); err != nil {
		k.log.Error("an event could not be kept", "kind", kind, "message", message, "err", err)
	}
}

func (k *Keeper) register(set *vm.Set) {
	k.leases = set.NewCounter("binnacle_leases_issued_total")
	k.refused = set.NewCounter("binnacle_licenses_refused_total")
	set.NewGauge("binnacle_license_seats", func() float64 { return float64(k.Summary().Seats) })
	set.NewGauge("binnacle_license_seats_used", func() float64 { return float64(k.Summary().SeatsUsed) })
	set.NewGauge("binnacle_license_expiry_timestamp_seconds", func() float64 {
		if e := k.Summary().Expires; !e.IsZero() {
			return float64(e.Unix())
		}
		return 0
	})
	set.NewGauge("binnacle_license_expires_seconds", func() float64 {
		if e := k.Summary().Expires; !e.IsZero() {
			return time.Until(e).Seconds() // negative in the grace
		}
		return math.Inf(1)
	})
	for _, s := range []string{StateValid, StateWarning, StateExpired, StateMissing} {
		set.NewGauge(fmt.Sprintf("binnacle_license_state{state=%q}", s), func() float64 {
			if State(k.current.Load().license, time.Now()) == s {
				return 1
			}
			return 0
		})
	}
	set.NewGauge("binnacle_license_problem", func() float64 {
		if k.Problem() != "" {
			return 1
		}
		return 0
	})
}
