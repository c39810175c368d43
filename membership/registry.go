package membership

import (
	"context"
	"crypto/ed25519"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/VictoriaMetrics/metrics"

	"github.com/binnacle-project/binnacle"
	"github.com/binnacle-project/binnacle/api"
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
	Authority *Authority
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
	polls   int           // polls that are held
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

// load replaces all that is known by what control state says. Signs of nodes
// that are known already are kept.
func (r *Registry) load(ctx context.Context) error {
	kvs, err := r.o.Store.List(ctx, prefixNodes)
	if err != nil {
		return err
	}
	lives, err := r.o.Store.List(ctx, prefixLives)
	if err != nil {
		return err
	}
	lifeOf := make(map[string][]byte, len(lives))
	for _, kv := range lives {
		lifeOf[strings.TrimPrefix(kv.Key, prefixLives)] = kv.Value
	}
	now := time.Now()
	there := make(map[binnacle.NodeID]bool, len(kvs))
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, kv := range kvs {
		var rec Record
		if err := json.Unmarshal(kv.Value, &rec); err != nil {
			return fmt.Errorf("decode %s: %w", kv.Key, err)
		}
		var l life
		if b := lifeOf[string(rec.ID)]; b != nil {
			if err := json.Unmarshal(b, &l); err != nil {
				return fmt.Errorf("decode life of %s: %w", rec.ID, err)
			}
		}
		there[rec.ID] = true
		r.applyLocked(rec, kv.Version, l, now)
	}
	for id := range r.nodes {
		if !there[id] {
			r.removeLocked(id)
		}
	}
	return nil
}

// applyLocked takes a record as control state has it. l counts for a node that
// is new here.
func (r *Registry) applyLocked(rec Record, version int64, l life, now time.Time) *node {
	n := r.nodes[rec.ID]
	if n == nil {
		n = &node{}
		n.restore(rec, l, now)
		r.nodes[rec.ID] = n
	} else if version <= n.version {
		return n
	}
	n.rec, n.version = rec, version
	r.byKey[rec.KeyFP] = n
	return n
}

// restore takes up a life where a manager before this one left it.
func (n *node) restore(rec Record, l life, now time.Time) {
	n.address, n.gossipAddress, n.versionName = rec.Address, rec.GossipAddress, rec.Version
	n.noted = api.Alive
	n.signs = Signs{AliveSince: rec.Enrolled, LastPoll: rec.Enrolled, Resumed: now}
	n.seatSince = rec.Enrolled
	if l.State == "" {
		return
	}
	n.noted, n.serving = l.State, l.Serving
	n.joined, n.told = l.Joined, l.Joined
	n.address, n.gossipAddress, n.versionName = l.Address, l.GossipAddress, l.Version
	n.signs.AliveSince, n.signs.LastPoll = l.AliveSince, l.LastPoll
	n.signs.LostBefore, n.signs.DownBefore, n.signs.LeftAt = l.LostAt, l.DownAt, l.LeftAt
	n.signs.DrainingSince, n.signs.Losses = l.DrainingSince, l.Losses
	n.signs.LeaseEnded = l.LeaseEnded
	if !l.SeatSince.IsZero() {
		n.seatSince = l.SeatSince
	}
}

func (r *Registry) removeLocked(id binnacle.NodeID) {
	if n := r.nodes[id]; n != nil {
		delete(r.nodes, id)
		delete(r.byKey, n.rec.KeyFP)
	}
}

// reload brings one node up to what control state says now.
func (r *Registry) reload(ctx context.Context, id binnacle.NodeID) error {
	rec, version, err := state.GetJSON[Record](ctx, r.o.Store, prefixNodes+string(id))
	if err != nil && !errors.Is(err, state.ErrNotFound) {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if err != nil {
		r.removeLocked(id)
		return nil
	}
	r.applyLocked(rec, version, life{}, time.Now())
	return nil
}

// Authenticate says which node a connection belongs to, by its certificate; it
// is called for each request, reads memory only, and sees a revocation at once.
// An expired certificate is let through where allowExpired says so, which is
// for POST /v1/renew.
//
// Errors are *api.Problem: 401 without a certificate, with an expired one and
// for a node that is not registered, 403 for one that was revoked.
func (r *Registry) Authenticate(cs *tls.ConnectionState, allowExpired bool) (Record, error) {
	if cs == nil || len(cs.PeerCertificates) == 0 {
		r.count.refused("no_certificate").Inc()
		return Record{}, problem(http.StatusUnauthorized, "A node certificate is required",
			"the connection shows no client certificate: enroll with POST /v1/enroll and use the certificate it answers")
	}
	cert := cs.PeerCertificates[0]
	fp := fingerprint(cert.RawSubjectPublicKeyInfo)
	r.mu.RLock()
	n := r.byKey[fp]
	var rec Record
	if n != nil {
		rec = n.rec
	}
	r.mu.RUnlock()
	switch id, err := nodeOf(cert, r.o.Authority.Cluster()); {
	case n == nil || err != nil || id != rec.ID:
		r.count.refused("unknown").Inc()
		return Record{}, problem(http.StatusUnauthorized, "The node is not registered",
			"this manager does not know the node %.60q by its key: it was forgotten; enroll it again with a join token", cert.Subject.CommonName)
	case !rec.Revoked.IsZero():
		r.count.refused("revoked").Inc()
		return Record{}, errRevoked(rec)
	case !allowExpired && time.Now().After(cert.NotAfter):
		r.count.refused("expired").Inc()
		return Record{}, problem(http.StatusUnauthorized, "The node's certificate has expired",
			"the certificate of %s expired at %s: renew it with POST /v1/renew", rec.ID, cert.NotAfter.Format(time.RFC3339))
	}
	return rec, nil
}

func errRevoked(rec Record) error {
	return problem(http.StatusForbidden, "The node was revoked",
		"node %s was revoked at %s by %s: its key is barred for good; to run this machine again, remove its state folder and enroll it anew", rec.ID, rec.Revoked.Format(time.RFC3339), rec.RevokedBy)
}

// GossipAllow refuses gossip of nodes that are not registered or were revoked,
// for GossipOptions.Allow of a manager.
func (r *Registry) GossipAllow(id binnacle.NodeID, key ed25519.PublicKey) error {
	r.mu.RLock()
	defer r.mu.RUnlock()
	n := r.nodes[id]
	if n == nil || !n.rec.Revoked.IsZero() || !key.Equal(ed25519.PublicKey(n.rec.PublicKey)) {
		return fmt.Errorf("node %s is not registered with this key", id)
	}
	return nil
}

// IsNode reports whether id is registered, also if revoked.
func (r *Registry) IsNode(id binnacle.NodeID) bool {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.nodes[id] != nil
}

// Record returns what enrollment fixed about a node.
func (r *Registry) Record(id binnacle.NodeID) (Record, bool) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	if n := r.nodes[id]; n != nil && n.rec.Revoked.IsZero() {
		return n.rec, true
	}
	return Record{}, false
}

// Nodes returns all nodes as of now, ordered by name and id, without lease,
// ledger and activity, which others know. The caller owns the slice; labels are
// shared.
func (r *Registry) Nodes(now time.Time) []api.Node {
	return r.list(now, func(api.Node, Verdict) bool { return true })
}

// Ready returns the nodes that may be given traffic: they serve, do not drain
// and are alive, or poll without a valid lease: that is no reason to take a node
// from its clients. A suspicion of gossip alone takes nobody away, either: a load
// balancer's own checks are faster and surer.
func (r *Registry) Ready(now time.Time) []api.Node {
	r.mu.RLock()
	defer r.mu.RUnlock()
	out := []api.Node{}
	for _, n := range r.nodes {
		if v := StateOf(n.signs, now, r.o.Periods); n.isReady(v) {
			out = append(out, n.view(v))
		}
	}
	sortNodes(out)
	return out
}

func (n *node) isReady(v Verdict) bool {
	return n.rec.Revoked.IsZero() && n.serving && n.signs.DrainingSince.IsZero() &&
		(v.State == api.Alive || v.State == api.Suspect && !v.Doubted || v.ServesOn)
}

// Get returns one node as Nodes does.
func (r *Registry) Get(id binnacle.NodeID, now time.Time) (api.Node, bool) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	n := r.nodes[id]
	if n == nil || !n.rec.Revoked.IsZero() {
		return api.Node{}, false
	}
	return n.view(StateOf(n.signs, now, r.o.Periods)), true
}

// InGroup returns the ids of a group's nodes, whatever their state, in order.
// The caller owns the slice.
func (r *Registry) InGroup(g binnacle.Group) []binnacle.NodeID {
	r.mu.RLock()
	defer r.mu.RUnlock()
	out := []binnacle.NodeID{}
	for id, n := range r.nodes {
		if n.rec.Group == g && n.rec.Revoked.IsZero() {
			out = append(out, id)
		}
	}
	slices.Sort(out)
	return out
}

// AliveInGroup returns the ids of a group's nodes that are alive or suspect, in
// order. The caller owns the slice.
func (r *Registry) AliveInGroup(g binnacle.Group) []binnacle.NodeID {
	out := []binnacle.NodeID{}
	for _, n := range r.list(time.Now(), func(n api.Node, v Verdict) bool {
		return n.Group == g && (v.State == api.Alive || v.State == api.Suspect)
	}) {
		out = append(out, n.ID)
	}
	slices.Sort(out)
	return out
}

// GossipReports returns the gossip keyrings, as GossipKeyID names them, that
// the nodes have who are alive and gossip.
func (r *Registry) GossipReports() []string {
	r.mu.RLock()
	defer r.mu.RUnlock()
	now := time.Now()
	var out []string
	for _, n := range r.nodes {
		if v := lifeOf(n.signs, now, r.o.Periods); n.rec.Revoked.IsZero() && n.gossipAddress != "" && (v.State == api.Alive || v.State == api.Suspect) {
			out = append(out, n.gossipKey)
		}
	}
	return out
}

// GroupOf returns a node's group, empty if it is not registered.
func (r *Registry) GroupOf(id binnacle.NodeID) binnacle.Group {
	r.mu.RLock()
	defer r.mu.RUnlock()
	if n := r.nodes[id]; n != nil {
		return n.rec.Group
	}
	return ""
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

func (r *Registry) list(now time.Time, keep func(api.Node, Verdict) bool) []api.Node {
	r.mu.RLock()
	defer r.mu.RUnlock()
	out := make([]api.Node, 0, len(r.nodes))
	for _, n := range r.nodes {
		if !n.rec.Revoked.IsZero() {
			continue
		}
		v := StateOf(n.signs, now, r.o.Periods)
		if view := n.view(v); keep(view, v) {
			out = append(out, view)
		}
	}
	sortNodes(out)
	return out
}

func sortNodes(nodes []api.Node) {
	slices.SortFunc(nodes, func(a, b api.Node) int {
		if c := strings.Compare(a.Name, b.Name); c != 0 {
			return c
		}
		return strings.Compare(string(a.ID), string(b.ID))
	})
}

func (n *node) view(v Verdict) api.Node {
	return api.Node{
		ID:            n.rec.ID,
		Name:          n.rec.Name,
		Group:         n.rec.Group,
		Labels:        n.rec.Labels,
		Address:       n.address,
		GossipAddress: n.gossipAddress,
		Version:       n.versionName,
		Managed:       true,
		State:         v.State,
		StateSince:    v.Since,
		StateCause:    v.Cause,
		Conditions:    v.Conditions,
		Enrolled:      n.rec.Enrolled,
		LastPoll:      n.signs.LastPoll,
	}
}

type registryCounters struct{ set *metrics.Set }

func (c registryCounters) refused(reason string) *metrics.Counter {
	return c.set.GetOrCreateCounter(`binnacle_node_requests_refused_total{reason="` + reason + `"}`)
}

func (c registryCounters) enrollment(result string) *metrics.Counter {
	return c.set.GetOrCreateCounter(`binnacle_enrollments_total{result="` + result + `"}`)
}

func (r *Registry) registerGauges(set *metrics.Set) {
	for _, s := range []api.NodeState{api.Alive, api.Suspect, api.Unreachable, api.Down, api.Left} {
		set.GetOrCreateGauge(`binnacle_nodes{state="`+string(s)+`"}`, func() float64 {
			return float64(len(r.list(time.Now(), func(n api.Node, _ Verdict) bool { return n.State == s })))
		})
	}
	set.GetOrCreateGauge(`binnacle_nodes_ready`, func() float64 { return float64(len(r.Ready(time.Now()))) })
	set.GetOrCreateGauge(`binnacle_seats_held`, func() float64 { return float64(r.HeldSeats(time.Now())) })
}
