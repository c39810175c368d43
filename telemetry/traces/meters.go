package traces

import (
	"github.com/VictoriaMetrics/metrics"
	"github.com/cockroachdb/pebble/v2"
)

// meters are the store's own metrics.
type meters struct {
	written, invalid, refused *metrics.Counter // spans
	blocks, blockBytes        *metrics.Counter
	failed, dropped           *metrics.Counter
	truncated, corrupt        *metrics.Counter
	quarantined               *metrics.Counter
	seal, query, sealWait     *metrics.Histogram
	queriesFull               *metrics.Counter
	sampling                  samplingMeters
}

func newMeters(set *metrics.Set, s *Store) meters {
	set.GetOrCreateGauge("binnacle_traces_memory_spans", func() float64 {
		s.mu.RLock()
		defer s.mu.RUnlock()
		n := len(s.open.spans)
		for _, sb := range s.sealing {
			n += len(sb.spans)
		}
		return float64(n)
	})
	set.GetOrCreateGauge("binnacle_traces_gathering_spans", func() float64 {
		s.mu.RLock()
		defer s.mu.RUnlock()
		return float64(len(s.gathering.spans))
	})
	set.GetOrCreateGauge("binnacle_traces_undecided_spans", func() float64 {
		s.mu.RLock()
		defer s.mu.RUnlock()
		n := 0
		for _, u := range s.undecided {
			n += len(u.spans)
		}
		return float64(n)
	})
	set.GetOrCreateGauge("binnacle_traces_undecided_bytes", func() float64 {
		s.mu.RLock()
		defer s.mu.RUnlock()
		return float64(s.undecidedBytes)
	})
	ofPebble := func(f func(*pebble.Metrics) float64) func() float64 {
		return func() float64 {
			s.mu.RLock()
			defer s.mu.RUnlock()
			if s.closed {
				return 0
			}
			return f(s.db.Metrics())
		}
	}
	set.GetOrCreateGauge("binnacle_traces_disk_bytes", ofPebble(func(m *pebble.Metrics) float64 { return float64(m.DiskSpaceUsage()) }))
	set.GetOrCreateGauge("binnacle_traces_page_cache_bytes", ofPebble(func(m *pebble.Metrics) float64 { return float64(m.BlockCache.Size) }))
	set.GetOrCreateGauge("binnacle_traces_read_only", func() float64 {
		s.mu.RLock()
		defer s.mu.RUnlock()
		if s.full || len(s.sealing) >= maxSealing || s.undecidedBytes > 2*s.o.Sampling.MaxBytes {
			return 1
		}
		return 0
	})
	return meters{
		written:     set.GetOrCreateCounter("binnacle_traces_spans_written_total"),
		invalid:     set.GetOrCreateCounter("binnacle_traces_spans_invalid_total"),
		refused:     set.GetOrCreateCounter("binnacle_traces_spans_refused_total"),
		blocks:      set.GetOrCreateCounter("binnacle_traces_blocks_written_total"),
		blockBytes:  set.GetOrCreateCounter("binnacle_traces_block_bytes_written_total"),
		failed:      set.GetOrCreateCounter("binnacle_traces_write_errors_total"),
		dropped:     set.GetOrCreateCounter("binnacle_traces_partitions_dropped_total"),
		truncated:   set.GetOrCreateCounter("binnacle_traces_searches_truncated_total"),
		corrupt:     set.GetOrCreateCounter("binnacle_traces_corrupt_blocks_total"),
		quarantined: set.GetOrCreateCounter("binnacle_traces_files_quarantined_total"),
		sealWait:    set.GetOrCreateHistogram("binnacle_traces_write_wait_seconds"),
		queriesFull: set.GetOrCreateCounter("binnacle_traces_query_requests_refused_total"),
		seal:        set.GetOrCreateHistogram("binnacle_traces_seal_duration_seconds"),
		query:       set.GetOrCreateHistogram("binnacle_traces_query_duration_seconds"),
		sampling:    newSamplingMeters(set, s.o.Sampling.Rules),
	}
}
