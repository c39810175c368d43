package membership

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"sync"
	"time"

	"github.com/VictoriaMetrics/metrics"

	"github.com/binnacle-project/binnacle"
	"github.com/binnacle-project/binnacle/api"
	"github.com/binnacle-project/binnacle/membership/pki"
	"github.com/binnacle-project/binnacle/state"
)

// Seats is what enrollment asks of the license.
type Seats interface {
	// Admit reports whether one more node fits while held seats are taken: nil,
	// or an *api.Problem with status 403 and api.SeatsMessage.
	Admit(held int) error
}

// Events is where the registry tells what happened.
type Events interface {
	// Append keeps e, durably when it returns.
	Append(ctx context.Context, e api.Event) (api.Event, error)
}

// RegistryOptions say what a registry works with. Store, Authority and Tokens are
// required.
type RegistryOptions struct {
	Store     *state.Store
	Authority *pki.Authority
	Tokens    *Tokens
	// Events and Seats may be nil: nothing is told then, and no seat is
	// refused.
	Events Events
	Seats  Seats
	// Periods decide on states; zero means DefaultPeriods. DownAfter, if not
	// zero, replaces theirs.
	Periods   Periods
	DownAfter time.Duration
	// SeatHold is how long a node that left or is down keeps its seat; zero
	// means 10 minutes.
	SeatHold time.Duration
	// GossipOff is true in clusters without gossip: nobody is expected in it.
	GossipOff bool
	// Log and Metrics (binnacle_nodes, binnacle_enrollments_total …) may be nil.
	Log     *slog.Logger
	Metrics *metrics.Set
}

const defaultSeatHold = 10 * time.Minute

// Registry knows the nodes of the cluster: who they are, durably, and what is
// known of their life. It is safe for concurrent use.
type Registry struct {
	o        RegistryOptions
	log      *slog.Logger
	limiter  *peerLimiter
	refusals *refusalLog
	count    registryCounters
	kick     chan struct{} // wakes Run: a state may have changed

	enrollMu sync.Mutex // held while a seat is counted and taken
	lifeMu   sync.Mutex // held while lives are written or a node is forgotten

	mu      sync.RWMutex // guards what follows
	nodes   map[binnacle.NodeID]*node
	byKey   map[string]*node // by fingerprint of the key
	changed chan struct{}    // closed and replaced when a state or readiness changes
	touched []*node          // those of whom a sign came since Run looked last
}

// node is one registered node. Registry.mu guards it.
type node struct {
	rec     Record
	version int64 // of rec in control state
	signs   Signs
	noted   api.NodeState // the state that was told last
	ready   bool          // the readiness that was told last
	joined  bool          // it polled since it enrolled
	told    bool          // that it joined was told
	flaps   bool          // flapping was told
	dirty   bool          // its life is to be written
	touched bool          // it is in Registry.touched
	polls   []*heldPoll   // those that are held
	peer    netip.Addr    // where it spoke from last
	// seatSince is when it took the seat that it holds or held, seatPromised when
	// it was promised one, with a lease that it has not shown yet.
	seatSince, seatPromised time.Time

	serving       bool
	address       string
	gossipAddress string
	versionName   string
	gossipKey     string // the keyring it reported
}

// OpenRegistry reads the nodes from control state. Run has to be started for
// states to be noted.
func OpenRegistry(ctx context.Context, o RegistryOptions) (*Registry, error) {
	if o.Store == nil || o.Authority == nil || o.Tokens == nil {
		return nil, errors.New("open node registry: Store, Authority and Tokens are required")
	}
	if o.Periods == (Periods{}) {
		o.Periods = DefaultPeriods()
	}
	if o.DownAfter > 0 {
		o.Periods.DownAfter = o.DownAfter
	}
	if o.SeatHold == 0 {
		o.SeatHold = defaultSeatHold
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Metrics == nil {
		o.Metrics = metrics.NewSet()
	}
	r := &Registry{
		o:        o,
		log:      o.Log.With("component", "membership"),
		limiter:  newPeerLimiter(),
		refusals: &refusalLog{told: make(map[refusal]time.Time)},
		count:    registryCounters{o.Metrics},
		kick:     make(chan struct{}, 1),
		nodes:    make(map[binnacle.NodeID]*node),
		byKey:    make(map[string]*node),
		changed:  make(chan struct{}),
	}
	if err := r.load(ctx); err != nil {
		return nil, fmt.Errorf("open node registry: %w", err)
	}
	r.registerGauges(o.Metrics)
	return r, nil
}

// Changed returns a channel that is closed at the next change of any node's
// state, readiness or registration, after Run noted it.
func (r *Registry) Changed() <-chan struct{} {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.changed
}

func (r *Registry) announceChange() {
	r.mu.Lock()
	defer r.mu.Unlock()
	close(r.changed)
	r.changed = make(chan struct{})
}
