package metrics

import (
	"fmt"
	"io"
	"slices"

	vm "github.com/VictoriaMetrics/metrics"
	"github.com/prometheus/common/expfmt"
)

// selfMetrics are the store's own counters.
type selfMetrics struct {
	set *vm.Set

	points        *vm.Counter
	rejected      [numReasons]*vm.Counter
	hits, misses  *vm.Counter
	uncached      *vm.Counter
	exemplars     *vm.Counter
	exemplarsLost *vm.Counter
	truncated     *vm.Counter
	rollupSamples *vm.Counter
	ownSamples    *vm.Counter
	commitErrors  *vm.Counter
	readOnly      *vm.Counter
	commitSeconds *vm.Summary
	quarantined   *vm.Counter
	syncErrors    *vm.Counter
	syncSeconds   *vm.Summary
	lastSync      *vm.Gauge
	queries       *vm.Counter
	queriesFull   *vm.Counter
	querySeconds  *vm.Summary
	ownFailed     *vm.Counter
	namesLost     *vm.Counter
}

func newSelfMetrics(set *vm.Set) *selfMetrics {
	m := &selfMetrics{
		set:           set,
		points:        set.GetOrCreateCounter("binnacle_metrics_points_total"),
		hits:          set.GetOrCreateCounter("binnacle_metrics_cache_hits_total"),
		misses:        set.GetOrCreateCounter("binnacle_metrics_cache_misses_total"),
		uncached:      set.GetOrCreateCounter("binnacle_metrics_cache_bypassed_total"),
		exemplars:     set.GetOrCreateCounter("binnacle_metrics_exemplars_total"),
		exemplarsLost: set.GetOrCreateCounter("binnacle_metrics_exemplars_rejected_total"),
		truncated:     set.GetOrCreateCounter("binnacle_metrics_label_values_truncated_total"),
		rollupSamples: set.GetOrCreateCounter("binnacle_metrics_rollup_samples_total"),
		ownSamples:    set.GetOrCreateCounter("binnacle_metrics_own_samples_total"),
		commitErrors:  set.GetOrCreateCounter("binnacle_metrics_commit_errors_total"),
		readOnly:      set.GetOrCreateCounter("binnacle_metrics_refused_read_only_total"),
		commitSeconds: set.GetOrCreateSummary("binnacle_metrics_commit_duration_seconds"),
		quarantined:   set.GetOrCreateCounter("binnacle_metrics_blocks_quarantined_total"),
		syncErrors:    set.GetOrCreateCounter("binnacle_metrics_log_sync_errors_total"),
		syncSeconds:   set.GetOrCreateSummary("binnacle_metrics_log_sync_duration_seconds"),
		lastSync:      set.GetOrCreateGauge("binnacle_metrics_log_last_sync_timestamp_seconds", nil),
		queries:       set.GetOrCreateCounter("binnacle_metrics_query_requests_total"),
		queriesFull:   set.GetOrCreateCounter("binnacle_metrics_query_requests_refused_total"),
		querySeconds:  set.GetOrCreateSummary("binnacle_metrics_query_duration_seconds"),
		ownFailed:     set.GetOrCreateCounter("binnacle_metrics_own_copies_failed_total"),
		namesLost:     set.GetOrCreateCounter("binnacle_metrics_metadata_refused_total"),
	}
	for r := range m.rejected {
		m.rejected[r] = set.GetOrCreateCounter(`binnacle_metrics_points_rejected_total{reason="` + reason(r).label() + `"}`)
	}
	return m
}

// queryFailed counts an answer of the query API that is an error, by status: 422
// is a query over a limit, for instance.
func (m *selfMetrics) queryFailed(status int) {
	if status >= 400 {
		m.set.GetOrCreateCounter(fmt.Sprintf(`binnacle_metrics_query_failures_total{status="%d"}`, status)).Inc()
	}
}

// watch adds what is read when asked for.
func (m *selfMetrics) watch(s *Store) {
	m.set.GetOrCreateGauge("binnacle_metrics_series", func() float64 { return float64(s.db.Head().NumSeries()) })
	m.set.GetOrCreateGauge("binnacle_metrics_cache_resources", func() float64 { return float64(s.cache.resources.Load()) })
	m.set.GetOrCreateGauge("binnacle_metrics_cache_points", func() float64 { return float64(s.cache.points.Load()) })
	m.set.GetOrCreateGauge("binnacle_metrics_series_unmanaged", func() float64 { return float64(s.table.unmanaged.series.Load()) })
	m.set.GetOrCreateGauge("binnacle_metrics_query_kept_bytes", func() float64 { bytes, _, _ := s.ranges.Kept(); return float64(bytes) })
	m.set.RegisterMetricsWriter(func(w io.Writer) {
		_, reused, computed := s.ranges.Kept()
		vm.WriteCounterUint64(w, "binnacle_metrics_query_steps_reused_total", reused)
		vm.WriteCounterUint64(w, "binnacle_metrics_query_steps_computed_total", computed)
	})
	m.set.GetOrCreateGauge("binnacle_metrics_read_only", func() float64 {
		if s.space.readOnly() {
			return 1
		}
		return 0
	})
	m.set.RegisterMetricsWriter(s.writeTSDBMetrics)
}

// tsdbMetrics are the TSDB's and the engine's own metrics that are worth a
// place beside ours. They keep Prometheus's names.
var tsdbMetrics = []string{
	"prometheus_engine_queries",
	"prometheus_engine_query_samples_total",
	"prometheus_tsdb_blocks_loaded",
	"prometheus_tsdb_compactions_failed_total",
	"prometheus_tsdb_compactions_total",
	"prometheus_tsdb_exemplar_exemplars_in_storage",
	"prometheus_tsdb_head_max_time_seconds",
	"prometheus_tsdb_head_min_time_seconds",
	"prometheus_tsdb_head_series_created_total",
	"prometheus_tsdb_head_series_removed_total",
	"prometheus_tsdb_out_of_order_samples_total",
	"prometheus_tsdb_reloads_failures_total",
	"prometheus_tsdb_size_retentions_total",
	"prometheus_tsdb_storage_blocks_bytes",
	"prometheus_tsdb_time_retentions_total",
	"prometheus_tsdb_too_old_samples_total",
	"prometheus_tsdb_wal_corruptions_total",
	"prometheus_tsdb_wal_writes_failed_total",
}

// writeTSDBMetrics writes tsdbMetrics in the text format.
func (s *Store) writeTSDBMetrics(w io.Writer) {
	families, err := s.reg.Gather()
	if err != nil && len(families) == 0 {
		s.log.Warn("the metrics of the TSDB could not be read", "err", err)
		return
	}
	for _, f := range families {
		if !slices.Contains(tsdbMetrics, f.GetName()) {
			continue
		}
		if _, err := expfmt.MetricFamilyToText(w, f); err != nil {
			return // the reader of /metrics has left
		}
	}
}
