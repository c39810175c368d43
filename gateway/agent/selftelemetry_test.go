package agent

import (
	"fmt"
	"testing"
	"time"

	"github.com/VictoriaMetrics/metrics"
	"go.opentelemetry.io/collector/pdata/pmetric"
	"go.opentelemetry.io/collector/pdata/pmetric/pmetricotlp"
)

func TestOwnMetrics(t *testing.T) {
	set := metrics.NewSet()
	set.NewCounter(`binnacle_agent_polls_total{result="ok"}`).Add(7)
	set.NewCounter(`binnacle_agent_polls_total{result="failed"}`).Inc()
	set.NewGauge("binnacle_agent_spool_bytes", func() float64 { return 1.5 })
	set.NewHistogram("binnacle_agent_apply_seconds").Update(1)
	started := time.Now().Add(-time.Minute)
	body, err := ownMetrics(set, "agent-1", started, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	req := pmetricotlp.NewExportRequest()
	if err := req.UnmarshalProto(body); err != nil {
		t.Fatal(err)
	}
	rm := req.Metrics().ResourceMetrics().At(0)
	if v, _ := rm.Resource().Attributes().Get("service.name"); v.Str() != "binnacle-agent" {
		t.Errorf("service.name: got %q", v.Str())
	}
	got := map[string]float64{}
	ms := rm.ScopeMetrics().At(0).Metrics()
	for i := range ms.Len() {
		m := ms.At(i)
		points := m.Gauge
		if m.Type() == pmetric.MetricTypeSum {
			points = nil
			for j := range m.Sum().DataPoints().Len() {
				p := m.Sum().DataPoints().At(j)
				if !m.Sum().IsMonotonic() || p.StartTimestamp().AsTime().UnixMilli() != started.UnixMilli() {
					t.Errorf("%s: not a cumulative counter since the agent's start", m.Name())
				}
				got[fmt.Sprint(m.Name(), p.Attributes().AsRaw())] = p.DoubleValue()
			}
		}
		if points != nil {
			got[m.Name()] = points().DataPoints().At(0).DoubleValue()
		}
	}
	for name, want := range map[string]float64{
		"binnacle_agent_polls_totalmap[result:ok]": 7, "binnacle_agent_polls_totalmap[result:failed]": 1, "binnacle_agent_spool_bytes": 1.5,
	} {
		if got[name] != want {
			t.Errorf("%s: got %v; want %v (of %v)", name, got[name], want, got)
		}
	}
	if got["process_resident_memory_bytes"] == 0 {
		t.Errorf("nothing of the process: %v", got)
	}
	if _, ok := got["binnacle_agent_apply_seconds_bucket"]; ok {
		t.Error("a histogram's buckets are there as gauges")
	}
	for i := range 1000 {
		set.NewCounter(fmt.Sprintf(`many_total{i="%d"}`, i))
	}
	if body, _ = ownMetrics(set, "agent-1", started, time.Now()); len(body) > 100<<10 {
		t.Errorf("%d bytes; want a bounded export", len(body))
	}
}

func TestParseSample(t *testing.T) {
	f := func(line, name string, labels int, value float64, ok bool) {
		t.Helper()
		n, l, v, got := parseSample(line)
		if n != name || len(l) != labels || v != value || got != ok {
			t.Errorf("parseSample(%q): got %q %v %v %v", line, n, l, v, got)
		}
	}
	f("a_total 7", "a_total", 0, 7, true)
	f(`a_total{x="1",y="b c"} 7.5`, "a_total", 2, 7.5, true)
	f(`a{x="1"`, "", 0, 0, false)
	f("# TYPE a gauge", "", 0, 0, false)
	f("a{x=1} 3", "", 0, 0, false)
	f("", "", 0, 0, false)
}
