package rollout

import (
	"log/slog"
	"math"
	"testing"
	"time"

	vm "github.com/VictoriaMetrics/metrics"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"

	"github.com/binnacle-project/binnacle"
	"github.com/binnacle-project/binnacle/rollout/gate"
	"github.com/binnacle-project/binnacle/telemetry/metrics"
)

// TestHistory writes the roll-ups of two nodes into a store, for five hours. For ten
// minutes one of them had another revision that failed half of what it served; for
// an hour nothing came. One node always fails a percent, the other nothing.
func TestHistory(t *testing.T) {
	s, err := metrics.Open(metrics.Options{Dir: t.TempDir(), Log: slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn})), Metrics: vm.NewSet()})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	to := time.Now().Truncate(10 * time.Second)
	sum := make(map[string]uint64)
	series := make(map[string]*metrics.Series)
	for at := to.Add(-5 * time.Hour); !at.After(to); at = at.Add(10 * time.Second) {
		before := to.Sub(at)
		if before > 2*time.Hour && before <= 3*time.Hour {
			continue
		}
		b := s.Batch()
		add := func(name, node, revision, outcome string, n uint64) {
			key := name + node + revision + outcome
			if series[key] == nil {
				l := []string{model.MetricNameLabel, name, binnacle.LabelGroup, "edge", binnacle.LabelRevision, revision, binnacle.LabelOutcome, outcome}
				if node != "" {
					l = append(l, binnacle.LabelInstance, node)
				}
				series[key] = s.Series(labels.FromStrings(l...))
			}
			sum[key] += n
			h := &histogram.Histogram{Count: sum[key], Sum: float64(sum[key]), PositiveSpans: []histogram.Span{{Offset: 0, Length: 1}}, PositiveBuckets: []int64{int64(sum[key])}}
			if err := b.AppendHistogram(series[key], at.UnixMilli(), h); err != nil {
				t.Fatal(err)
			}
		}
		revision, bad := "3", uint64(0)
		if before > 4*time.Hour && before <= 4*time.Hour+10*time.Minute {
			revision, bad = "4", 100
		}
		add(binnacle.RollupNode, "n1", "3", "ok", 198)
		add(binnacle.RollupNode, "n1", "3", "error", 2)
		add(binnacle.RollupNode, "n2", revision, "ok", 200-bad)
		add(binnacle.RollupNode, "n2", revision, "error", bad)
		if revision == "3" {
			add(binnacle.RollupGroup, "", "3", "ok", 398)
		} else {
			add(binnacle.RollupGroup, "", "3", "ok", 198)
			add(binnacle.RollupGroup, "", "4", "ok", 100)
			add(binnacle.RollupGroup, "", "4", "error", 100)
		}
		add(binnacle.RollupGroup, "", "3", "error", 2)
		add(binnacle.RollupGroup, "", "3", "limited", 1000)
		if err := b.Commit(); err != nil {
			t.Fatal(err)
		}
	}

	r := newReader(s)
	h, err := r.history(t.Context(), side{group: "edge", revision: 3, nodes: []binnacle.NodeID{"n1"}}, to)
	if err != nil {
		t.Fatal(err)
	}
	if n := len(h.Spells); n < 118 || n > 122 || !h.Enough() {
		t.Errorf("%d spells, enough %t; want four hours of two minutes each, and enough", n, h.Enough())
	}
	for i, c := range h.Spells {
		if math.Abs(c.Share()-0.005) > 0.006 || c.Requests > 4900 {
			t.Errorf("spell %d: %.0f bad of %.0f; want 24 of 4800, or 24 of 2400 while the other node had revision 4", i, c.Bad, c.Requests)
		}
	}
	if all := h.Sum(); math.Abs(all.Share()-0.005) > 0.0004 {
		t.Errorf("share of errors %.4f; want 0.005: another revision is no part of it, nor what was limited", all.Share())
	}
	for node, want := range map[binnacle.NodeID][2]float64{"n1": {0.008, 0.01}, "n2": {0, 0}} {
		got, err := r.own(t.Context(), side{group: "edge", revision: 3, nodes: []binnacle.NodeID{node}}, to)
		if err != nil {
			t.Fatal(err)
		}
		if got < want[0] || got > want[1] {
			t.Errorf("%s had %.4f of errors all the time; want between %g and %g", node, got, want[0], want[1])
		}
	}

	// Another group, and a revision that nobody had: too little, and it is said.
	for _, of := range []side{{group: "other", revision: 3}, {group: "edge", revision: 9}} {
		h, err := r.history(t.Context(), of, to)
		if err != nil {
			t.Fatal(err)
		}
		if e := h.Evidence(gate.Counts{}); len(h.Spells) != 0 || e.Used || e.Note == "" || e.Worst != 0 {
			t.Errorf("%+v: got %+v; want no spells, unused, and a note", of, e)
		}
	}
}
