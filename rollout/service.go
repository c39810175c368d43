// Package rollout decides which configuration each node should run, and follows
// what they do about it: revisions and their validation, rollouts in steps and
// the gates between them, rolling restarts, the plan of each node, and the ledger
// of how far it has come.
//
// It leaves to others who the nodes are (membership), how plans reach them (the
// manager's node API) and where their telemetry is kept (telemetry). Decisions
// are pure functions (step.go, steps.go, choose.go, gate.go); what they rest on is durable before they are taken. Only
// the manager imports it.
package rollout

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"github.com/VictoriaMetrics/metrics"

	"github.com/binnacle-project/binnacle"
	"github.com/binnacle-project/binnacle/api"
	"github.com/binnacle-project/binnacle/events"
	"github.com/binnacle-project/binnacle/rollout/validate"
	"github.com/binnacle-project/binnacle/state"
)

// Nodes is what a rollout asks of the membership.
type Nodes interface {
	// InGroup returns the nodes of the group that are alive now. The caller
	// owns the slice.
	InGroup(binnacle.Group) []binnacle.NodeID
}

// Labels tells what operators say of a node, such as its zone.
type Labels interface {
	Labels(binnacle.NodeID) map[string]string
}

// Bakes writes the roll-ups of a group more often while it is in a bake.
type Bakes interface {
	SetBake(g binnacle.Group, on bool)
}

// GossipPlans gives the gossip part of every plan.
type GossipPlans interface {
	GossipPlan() api.GossipPlan
}

// Options say what the service works with. All but GatewayBinary, Gossip, Log
// and Metrics must be set.
type Options struct {
	Store   *state.Store
	Events  *events.Log
	Cluster binnacle.ClusterID
	// Key signs revisions: the cluster key.
	Key ed25519.PrivateKey
	// GatewayBinary is run as "check" for the dry build. Empty means that
	// revisions are made without one, with a warning that says so.
	GatewayBinary string
	Nodes         Nodes
	// Labels may be nil: steps are then not spread over zones.
	Labels Labels
	// Telemetry may be nil: gates are then inconclusive and ask.
	Telemetry Telemetry
	// Bakes may be nil. It is told which groups are in a rollout in steps.
	Bakes Bakes
	// Gossip may be nil: plans then carry no keys and no seeds.
	Gossip GossipPlans
	// KeepRevisions is the length of each group's history; 0 means 200. What
	// is desired, or is or was the other end of a kept rollout, stays beyond it.
	KeepRevisions int
	Log           *slog.Logger
	// Metrics receives binnacle_rollout_* and others; nil means a private set.
	Metrics *metrics.Set
}

// ErrForgotten is the plan of a node that was forgotten while it was watched. It can
// be given to the node as it is.
var ErrForgotten error = problem(http.StatusUnauthorized, "Unknown node", "the node was forgotten while it waited: enroll it again with a valid token")

// Service is safe for concurrent use. Revisions, rollouts and orders are kept in
// the state and in memory: reads and polls never touch the state.
type Service struct {
	o         Options
	log       *slog.Logger
	m         serviceMetrics
	blobs     *blobs
	validator *validate.Validator

	// changes orders all writes of groups, revisions and rollouts. It is held
	// over writes to the state, so no poll and no report ever takes it.
	changes sync.Mutex

	mu       sync.Mutex // guards what follows; never held over a write
	lines    map[binnacle.Group]*line
	nodes    map[binnacle.NodeID]*node
	rollouts []*rollout // by id
	common   common

	baking map[binnacle.Group]bool // what Bakes was told; Run's alone

	kick   chan struct{} // a rollout may have moved on
	gossip chan struct{} // the gossip plan may have changed
}

// line is the configuration line of a group.
type line struct {
	group     groupRecord
	version   int64 // of the group's record; 0: none
	desired   desiredRecord
	desiredAt int64 // version of the desired record; 0: none
	steps     stepsRecord
	stepsAt   int64                    // version of the steps record; 0: none
	ahead     map[binnacle.NodeID]bool // the nodes of steps
	revisions []*revisionData          // by number
}

type revisionData struct {
	revisionRecord
	version int64
}

// common is what all plans share.
type common struct {
	record  commonRecord
	version int64
	gossip  api.GossipPlan
}

// node is what the service knows of one node.
type node struct {
	group    binnacle.Group // empty until its first poll or report
	order    orderRecord
	orderAt  int64 // version of the order record; 0: none
	watches  []*PlanWatch
	gone     bool // forgotten
	ledger   ledgerRecord
	unstored bool // the ledger is newer than the state
	drift    drift
	plan     builtPlan
}

type serviceMetrics struct {
	created, refused, reports, ledgerWrites, wakes, planBuilds *metrics.Counter
	waiters                                                    *metrics.Gauge
	validation                                                 *metrics.Histogram
}

// Open reads all that is kept in the state. Running rollouts go on with Run.
func Open(ctx context.Context, o Options) (*Service, error) {
	if o.Store == nil || o.Events == nil || o.Nodes == nil || len(o.Key) != ed25519.PrivateKeySize {
		return nil, errors.New("open rollouts: Options needs Store, Events, Nodes and Key")
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Metrics == nil {
		o.Metrics = metrics.NewSet()
	}
	if o.KeepRevisions <= 0 {
		o.KeepRevisions = 200
	}
	s := &Service{
		o:         o,
		log:       o.Log.With("component", "rollout"),
		blobs:     newBlobs(o.Store, o.Metrics),
		validator: validate.New(o.GatewayBinary),
		lines:     make(map[binnacle.Group]*line),
		nodes:     make(map[binnacle.NodeID]*node),
		baking:    make(map[binnacle.Group]bool),
		kick:      make(chan struct{}, 1),
		gossip:    make(chan struct{}, 1),
		m: serviceMetrics{
			created:      o.Metrics.NewCounter(`binnacle_revisions_created_total`),
			refused:      o.Metrics.NewCounter(`binnacle_revisions_refused_total`),
			reports:      o.Metrics.NewCounter(`binnacle_node_reports_total`),
			ledgerWrites: o.Metrics.NewCounter(`binnacle_ledger_writes_total`),
			wakes:        o.Metrics.NewCounter(`binnacle_plan_wakes_total`),
			planBuilds:   o.Metrics.NewCounter(`binnacle_plan_builds_total`),
			waiters:      o.Metrics.NewGauge(`binnacle_plan_waiters`, nil),
			validation:   o.Metrics.NewHistogram(`binnacle_revision_validation_seconds`),
		},
	}
	o.Metrics.NewGauge(`binnacle_rollouts_running`, func() float64 {
		s.mu.Lock()
		defer s.mu.Unlock()
		n := 0
		for _, r := range s.rollouts {
			if r.active() {
				n++
			}
		}
		return float64(n)
	})
	if err := s.load(ctx); err != nil {
		return nil, fmt.Errorf("open rollouts: %w", err)
	}
	if err := s.renewCommon(ctx); err != nil {
		return nil, fmt.Errorf("open rollouts: %w", err)
	}
	return s, nil
}

// lineLocked returns the line of a group, which may have no record yet.
func (s *Service) lineLocked(g binnacle.Group) *line {
	l := s.lines[g]
	if l == nil {
		l = &line{group: groupRecord{Format: formatKrakenD}}
		s.lines[g] = l
	}
	return l
}

// nodeLocked returns the entry of a node and makes it if needed.
func (s *Service) nodeLocked(id binnacle.NodeID) *node {
	n := s.nodes[id]
	if n == nil {
		n = &node{}
		s.nodes[id] = n
	}
	return n
}

// notice appends an event. What it tells of has happened and is durable, so a
// failure is logged and not returned.
func (s *Service) notice(ctx context.Context, e api.Event) {
	if _, err := s.o.Events.Append(context.WithoutCancel(ctx), e); err != nil {
		s.log.Warn("an event could not be stored", "kind", e.Kind, "message", e.Message, "err", err)
	}
}

// Groups returns all configuration lines by name, the default one always among
// them, without Activity and Nodes.
func (s *Service) Groups(ctx context.Context) ([]api.Group, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lineLocked(binnacle.DefaultGroup)
	out := make([]api.Group, 0, len(s.lines))
	for _, g := range sortedKeys(s.lines) {
		l := s.lines[g]
		out = append(out, api.Group{
			Name:      g,
			Format:    l.group.Format,
			Desired:   l.desired.Number,
			Revisions: len(l.revisions),
		})
	}
	return out, nil
}

func now() time.Time { return time.Now().UTC() }
