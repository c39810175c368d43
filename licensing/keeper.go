package licensing

import (
	"context"
	"crypto/ed25519"
	"fmt"
	"log/slog"
	"math"
	"sync"
	"sync/atomic"
	"time"

	vm "github.com/VictoriaMetrics/metrics"

	"github.com/binnacle-project/binnacle"
	"github.com/binnacle-project/binnacle/api"
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
