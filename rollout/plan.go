package rollout

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"time"

	"github.com/binnacle-project/binnacle"
	"github.com/binnacle-project/binnacle/api"
)

const (
	// exportInterval is how often nodes export telemetry, in seconds, and
	// fineInterval the same while a rollout in steps is under way.
	exportInterval = 10
	fineInterval   = 2
	// phaseSpan is the time, in seconds, over which nodes spread their retries
	// after a failure.
	phaseSpan = 30
)

// A plan is made of what is kept in the state: what is common to all, what the
// group should run, which of its nodes are ahead in a rollout in steps, and the
// orders to the one node. Its serial is the highest of their versions; that of the
// steps counts for the nodes ahead alone. Any change writes one of them, and a new
// version is higher than all versions before: so serials rise with each change,
// survive a restart, and need no write per node when a group moves.

// builtPlan is a plan with its ETag, and what it was made from.
type builtPlan struct {
	from planInputs
	plan api.Plan
	etag string
}

type planInputs struct {
	group                          binnacle.Group
	common, desired, steps, orders int64
}

// planLocked returns the plan of a node of the line's group. It is made anew
// only when one of its inputs changed.
func (s *Service) planLocked(id binnacle.NodeID, n *node, g binnacle.Group, l *line) *builtPlan {
	want, steps := l.wanted(id)
	from := planInputs{g, s.common.version, l.desiredAt, steps, n.orderAt}
	if n.plan.from == from && n.plan.etag != "" {
		return &n.plan
	}
	p := api.Plan{
		Epoch:     s.o.Store.Epoch(),
		Serial:    uint64(max(from.common, from.desired, from.steps, from.orders)),
		Drain:     n.order.Drain,
		Gossip:    s.common.gossip,
		Telemetry: api.TelemetryPlan{Interval: exportInterval},
		Poll:      api.PollPlan{Phase: phase(id)},
	}
	if l.desired.Fine {
		p.Telemetry.Interval = fineInterval
	}
	if want.Number > 0 {
		p.Revision = &api.PlanRevision{RevisionRef: want.RevisionRef, Signature: want.Signature}
	}
	if n.order.Restart != "" {
		p.Restart = &api.RestartOrder{ID: n.order.Restart}
	}
	s.m.planBuilds.Inc()
	n.plan = builtPlan{from: from, plan: p, etag: p.ETag()}
	return &n.plan
}

// wanted returns what a node of the line should run, and the version of the steps
// record if the node is ahead.
func (l *line) wanted(id binnacle.NodeID) (desiredRecord, int64) {
	if l.ahead[id] {
		return l.steps.desiredRecord, l.stepsAt
	}
	return l.desired, 0
}

// setSteps replaces the nodes ahead; a version of 0 means that there are none.
func (l *line) setSteps(r stepsRecord, version int64) {
	l.steps, l.stepsAt, l.ahead = r, version, nil
	if version == 0 {
		return
	}
	l.ahead = make(map[binnacle.NodeID]bool, len(r.Nodes))
	for _, id := range r.Nodes {
		l.ahead[id] = true
	}
}

// phase is a node's own share of phaseSpan. It depends on the id alone, so that
// it never changes a plan.
func phase(id binnacle.NodeID) float64 {
	sum := sha256.Sum256([]byte(id)) // ids may differ in a digit only
	share := uint64(binary.BigEndian.Uint32(sum[:]))
	// Whole milliseconds keep the JSON short and quick to make.
	return float64(share*phaseSpan*1000>>32) / 1000
}

// Plan returns what node id of group g should do now. The caller must not change
// what it points to.
func (s *Service) Plan(id binnacle.NodeID, g binnacle.Group) api.Plan {
	p, _ := s.TaggedPlan(id, g)
	return p
}

// TaggedPlan is Plan, with the plan's ETag, which it takes time to make.
func (s *Service) TaggedPlan(id binnacle.NodeID, g binnacle.Group) (p api.Plan, etag string) {
	s.arrive(id, g)
	s.mu.Lock()
	defer s.mu.Unlock()
	n := s.nodeLocked(id)
	built := s.planLocked(id, n, n.group, s.lineLocked(n.group))
	return built.plan, built.etag
}

// arrive notes the group of a node. A node that changed its group could meet
// lower versions there: its order record is written first, so that its serial
// rises. If that fails it stays with its old group for now.
func (s *Service) arrive(id binnacle.NodeID, g binnacle.Group) {
	s.mu.Lock()
	n := s.nodeLocked(id)
	if n.group == "" {
		n.group, n.ledger.Group, n.unstored = g, g, true
	}
	moved := n.group != g
	s.mu.Unlock()
	if !moved {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	err := s.order(ctx, id, func(o *orderRecord) { o.Group = g })
	if err != nil {
		s.log.Warn("a node's change of group could not be stored; its plan stays that of the old group", "node", id, "group", g, "err", err)
	}
}

// order changes what one node is told, durably, and wakes its poll.
func (s *Service) order(ctx context.Context, id binnacle.NodeID, change func(*orderRecord)) error {
	s.changes.Lock()
	defer s.changes.Unlock()
	return s.orderHeld(ctx, id, change)
}

// orderHeld is order for a caller that holds s.changes.
func (s *Service) orderHeld(ctx context.Context, id binnacle.NodeID, change func(*orderRecord)) error {
	s.mu.Lock()
	o := s.nodeLocked(id).order
	s.mu.Unlock()
	change(&o)
	version, err := s.o.Store.Put(ctx, orderKey(id), encode(o))
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	n := s.nodeLocked(id)
	n.order, n.orderAt = o, version
	if o.Group != "" && o.Group != n.group {
		n.group, n.ledger.Group, n.unstored = o.Group, o.Group, true
	}
	s.wakeLocked(n)
	return nil
}

// GossipChanged says that the gossip plan may have changed. Run compares it and
// wakes all polls if it did.
func (s *Service) GossipChanged() {
	select {
	case s.gossip <- struct{}{}:
	default: // Run is yet to look
	}
}

// renewCommon gives all plans a new serial if something common changed.
func (s *Service) renewCommon(ctx context.Context) error {
	var gossip api.GossipPlan
	if s.o.Gossip != nil {
		gossip = s.o.Gossip.GossipPlan()
	}
	sum := sha256.Sum256(encode(struct {
		Gossip          api.GossipPlan
		Interval, Phase float64
	}{gossip, exportInterval, phaseSpan}))
	hash := hex.EncodeToString(sum[:])

	s.changes.Lock()
	defer s.changes.Unlock()
	s.mu.Lock()
	same, version := s.common.record.Hash == hash, s.common.version
	s.mu.Unlock()
	record := commonRecord{Hash: hash}
	if !same {
		var err error
		if version, err = s.o.Store.Put(ctx, keyCommon, encode(record)); err != nil {
			return fmt.Errorf("store the new gossip plan: %w", err)
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.common.record, s.common.version, s.common.gossip = record, version, gossip
	if !same {
		for _, n := range s.nodes {
			s.wakeLocked(n)
		}
	}
	return nil
}
