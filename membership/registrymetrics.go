package membership

import (
	"time"

	"github.com/VictoriaMetrics/metrics"

	"github.com/binnacle-project/binnacle/api"
)

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
			return r.tally(func(_ *node, v Verdict) bool { return v.State == s })
		})
	}
	set.GetOrCreateGauge(`binnacle_nodes_ready`, func() float64 {
		return r.tally(func(n *node, v Verdict) bool { return n.isReady(v) })
	})
	set.GetOrCreateGauge(`binnacle_seats_held`, func() float64 { return float64(r.HeldSeats(time.Now())) })
}

// tally counts the nodes that are not revoked and of which is is true. The
// verdicts have no conditions.
func (r *Registry) tally(is func(*node, Verdict) bool) float64 {
	now := time.Now()
	r.mu.RLock()
	defer r.mu.RUnlock()
	count := 0
	for _, n := range r.nodes {
		if n.rec.Revoked.IsZero() && is(n, lifeOf(n.signs, now, r.o.Periods)) {
			count++
		}
	}
	return float64(count)
}
