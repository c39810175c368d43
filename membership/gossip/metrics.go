package gossip

import (
	"github.com/VictoriaMetrics/metrics"
)

type gossipCounters struct {
	set                                   *metrics.Set
	dropped, joins, joinFailures, handoff *metrics.Counter
	undecryptable, foreign, refuted       *metrics.Counter
}

func newGossipCounters(set *metrics.Set) gossipCounters {
	return gossipCounters{
		set:           set,
		dropped:       set.GetOrCreateCounter(`binnacle_gossip_events_dropped_total`),
		joins:         set.GetOrCreateCounter(`binnacle_gossip_joins_total{result="ok"}`),
		joinFailures:  set.GetOrCreateCounter(`binnacle_gossip_joins_total{result="failed"}`),
		handoff:       set.GetOrCreateCounter(`binnacle_gossip_messages_dropped_total`),
		undecryptable: set.GetOrCreateCounter(`binnacle_gossip_refused_packets_total{reason="key"}`),
		foreign:       set.GetOrCreateCounter(`binnacle_gossip_refused_packets_total{reason="label"}`),
		refuted:       set.GetOrCreateCounter(`binnacle_gossip_refutations_total`),
	}
}

func (c *gossipCounters) refused(reason string) *metrics.Counter {
	return c.set.GetOrCreateCounter(`binnacle_gossip_refused_records_total{reason="` + reason + `"}`)
}

func (c *gossipCounters) event(k Kind) *metrics.Counter {
	return c.set.GetOrCreateCounter(`binnacle_gossip_events_total{kind="` + string(k) + `"}`)
}

// registerGauges exports the members by state and memberlist's own health. A
// set that already has them, from an earlier life, keeps those of the newest.
func (g *Gossip) registerGauges(set *metrics.Set) {
	gauge := func(name string, f func() float64) {
		set.UnregisterMetric(name)
		set.GetOrCreateGauge(name, f)
	}
	for _, s := range []Kind{Alive, Suspect, Dead, Left} {
		gauge(`binnacle_gossip_members{state="`+string(s)+`"}`, func() float64 {
			g.mu.Lock()
			defer g.mu.Unlock()
			n := 0
			for _, m := range g.members {
				if m.State == s {
					n++
				}
			}
			return float64(n)
		})
	}
	gauge(`binnacle_gossip_udp_blocked`, func() float64 {
		if g.UDPBlocked() {
			return 1
		}
		return 0
	})
	gauge(`binnacle_gossip_health_score`, func() float64 { return float64(g.list.GetHealthScore()) })
}
