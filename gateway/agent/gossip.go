package agent

import (
	"context"
	"encoding/hex"
	"log/slog"
	"sync"
	"time"

	"github.com/binnacle-project/binnacle/api"
	"github.com/binnacle-project/binnacle/membership/gossip"
	"github.com/binnacle-project/binnacle/membership/pki"
)

// gossiper runs the node's part of the gossip, from the first plan that brings
// keys on. Gossip is a hint: without it everything else goes on, so a failure
// is told and tried again, and stops nothing.
type gossiper struct {
	a    *Agent
	log  *slog.Logger
	wake chan struct{}

	mu     sync.Mutex // guards what follows
	life   *gossip.Gossip
	status api.Status // the newest, to be told
	ended  bool       // the node stops: no further life
}

func newGossiper(a *Agent) *gossiper {
	return &gossiper{a: a, log: a.log, wake: make(chan struct{}, 1)}
}

// off reports whether this node polls only.
func (g *gossiper) off() bool { return g.a.opts.Gossip == GossipOff }

func (g *gossiper) wakeUp() { signal(g.wake) }

// set takes the newest account, of which gossip tells a part.
func (g *gossiper) set(s api.Status) {
	g.mu.Lock()
	g.status = s
	g.mu.Unlock()
	g.wakeUp()
}

func (g *gossiper) keyID() string {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.life == nil {
		return ""
	}
	return g.life.KeyID()
}

// members lists the others, nil without gossip.
func (g *gossiper) members() []gossip.Member {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.life == nil {
		return nil
	}
	return g.life.Members()
}

// run keeps the gossip in step with plan and status until ctx ends. It does not
// leave: that is for the end of the shutdown.
func (g *gossiper) run(ctx context.Context) {
	if g.off() {
		return
	}
	for failures := 0; ; {
		var retry <-chan time.Time
		if err := g.step(ctx); err != nil && ctx.Err() == nil {
			if failures == 0 {
				g.log.Warn("gossip does not work; the node goes on with polls alone", "err", err)
			}
			retry = time.After(retryDelay(failures, 0, 0))
			failures++
		} else {
			failures = 0
		}
		select {
		case <-g.wake:
		case <-retry:
		case <-ctx.Done():
			return
		}
	}
}

// step starts gossip if it can and does not run, and tells it what is new.
func (g *gossiper) step(ctx context.Context) error {
	id, plan := g.a.identity.Load(), g.a.plan.Load()
	if id == nil || plan == nil || len(plan.Gossip.Keys) == 0 || id.membership == nil {
		return nil
	}
	g.mu.Lock()
	life, meta, ended := g.life, g.metaLocked(), g.ended
	g.mu.Unlock()
	if ended {
		return nil
	}
	if !g.a.lease.member() {
		if life != nil {
			g.log.Info("leaving the gossip: there is no valid lease")
			g.end(true, false)
			g.a.helm.wakeUp() // the status says so
		}
		return nil // back with a lease, in a new life
	}
	if life == nil {
		life, err := gossip.Start(ctx, gossip.Options{
			Identity: pki.Identity{ID: id.NodeID, Key: id.key, Cert: id.membership},
			Cluster:  id.Cluster, CAPub: id.clusterKey,
			Bind: g.a.opts.Gossip, Advertise: g.a.gossipHost(), Label: id.GossipLabel,
			Keys: plan.Gossip.Keys, Meta: meta, PeersFile: g.a.state.path(filePeers),
			Seeds: g.seeds, Log: g.log, Metrics: g.a.opts.Metrics,
		})
		if err != nil {
			return err
		}
		g.mu.Lock()
		now := g.a.identity.Load()
		stale := g.ended || now == nil || now.NodeID != id.NodeID || !g.a.lease.member()
		if !stale {
			g.life = life
		}
		g.mu.Unlock()
		if stale { // ended, or became another node, or lost its lease meanwhile
			return life.Close()
		}
		g.a.helm.wakeUp() // the status names the key and the address
		return nil
	}
	if err := life.SetKeys(plan.Gossip.Keys); err != nil {
		return err
	}
	if err := life.SetMeta(meta); err != nil {
		return err
	}
	if g.statusKeyID() != life.KeyID() {
		g.a.helm.wakeUp()
	}
	return nil
}

func (g *gossiper) statusKeyID() string {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.status.GossipKeyID
}

func (g *gossiper) seeds() []string {
	if p := g.a.plan.Load(); p != nil {
		return p.Gossip.Seeds
	}
	return nil
}

func (g *gossiper) metaLocked() gossip.Metadata {
	s := g.status
	m := gossip.Metadata{Address: s.Address, Serving: s.Serving, Draining: s.Draining}
	if s.Applied != nil {
		m.Revision = s.Applied.Number
		if b, err := hex.DecodeString(s.Applied.SHA256); err == nil {
			copy(m.Hash[:], b)
		}
	}
	return m
}

// end closes the gossip: with a good-bye when the node stops, which is for good,
// or leaves the cluster, without one when it becomes another node.
func (g *gossiper) end(leave, forGood bool) {
	g.mu.Lock()
	life := g.life
	g.life = nil
	g.ended = g.ended || forGood
	g.mu.Unlock()
	if life == nil {
		return
	}
	var err error
	if leave {
		err = life.Leave(leaveTime)
	} else {
		err = life.Close()
	}
	if err != nil {
		g.log.Debug("gossip did not end cleanly", "err", err)
	}
}

// leaveTime bounds the good-bye.
const leaveTime = 3 * time.Second
