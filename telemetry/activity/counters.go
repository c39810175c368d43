package activity

import (
	"fmt"

	vm "github.com/VictoriaMetrics/metrics"
)

// counters are the aggregator's own metrics.
type counters struct {
	points      *vm.Counter
	verdicts    [numVerdicts]*vm.Counter
	malformed   *vm.Counter
	overStreams *vm.Counter
	overKeys    *vm.Counter
	gapRequests *vm.Counter
	late        *vm.Counter
	written     *vm.Counter
	refused     *vm.Counter
	checkpoints *vm.Counter
	failed      *vm.Counter
}

func newCounters(set *vm.Set, a *Aggregator) counters {
	c := counters{
		points:      set.NewCounter("binnacle_activity_points_total"),
		malformed:   set.NewCounter(`binnacle_activity_points_ignored_total{reason="malformed"}`),
		overStreams: set.NewCounter(`binnacle_activity_points_ignored_total{reason="stream_limit"}`),
		overKeys:    set.NewCounter("binnacle_activity_aggregates_refused_total"),
		gapRequests: set.NewCounter("binnacle_activity_gap_requests_total"),
		late:        set.NewCounter("binnacle_activity_late_requests_total"),
		written:     set.NewCounter("binnacle_activity_rollup_samples_total"),
		refused:     set.NewCounter("binnacle_activity_rollup_writes_failed_total"),
		checkpoints: set.NewCounter("binnacle_activity_checkpoints_total"),
		failed:      set.NewCounter("binnacle_activity_checkpoints_failed_total"),
	}
	for v := range numVerdicts {
		switch v {
		case next:
		case reset:
			c.verdicts[v] = set.NewCounter("binnacle_activity_resets_total")
		default:
			c.verdicts[v] = set.NewCounter(fmt.Sprintf("binnacle_activity_points_ignored_total{reason=%q}", v))
		}
	}
	size := func(name string, f func() int) {
		set.NewGauge(name, func() float64 {
			a.mu.Lock()
			defer a.mu.Unlock()
			return float64(f())
		})
	}
	size("binnacle_activity_streams", func() int { return a.streams })
	size("binnacle_activity_senders", func() int { return len(a.senders) })
	size("binnacle_activity_aggregates", func() int { return len(a.keys.byID) })
	size("binnacle_activity_rollup_series", func() int { return len(a.rollups) })
	return c
}
