package telemetry

import (
	"testing"
	"time"

	"github.com/VictoriaMetrics/metrics"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
)

func TestOwnCountersAreExported(t *testing.T) {
	set := metrics.NewSet()
	set.GetOrCreateCounter(`a_total{signal="traces",what="quote \" comma, brace }"}`).Add(3)
	set.GetOrCreateCounter(`a_total{signal="metrics"}`).Add(4)
	set.GetOrCreateGauge(`b`, func() float64 { return 1.5 })
	c := &ownCounters{set: set, start: time.Unix(1, 0)}
	got := c.metrics(time.Unix(2, 0))
	if len(got) != 2 || got[0].Name != "a_total" || got[1].Name != "b" {
		t.Fatalf("got %v; want a_total and b", got)
	}
	sum, ok := got[0].Data.(metricdata.Sum[float64])
	if !ok || !sum.IsMonotonic || len(sum.DataPoints) != 2 {
		t.Fatalf("a_total is %#v; want a monotonic sum of two points", got[0].Data)
	}
	found := false
	for _, p := range sum.DataPoints {
		if v, _ := p.Attributes.Value("what"); v.AsString() == `quote " comma, brace }` {
			found = p.Value == 3 && p.StartTime.Equal(time.Unix(1, 0)) && p.Time.Equal(time.Unix(2, 0))
		}
	}
	if !found {
		t.Errorf("points %v; want 3 with the label as it was", sum.DataPoints)
	}
	if g, ok := got[1].Data.(metricdata.Gauge[float64]); !ok || g.DataPoints[0].Value != 1.5 {
		t.Errorf("b is %#v; want a gauge of 1.5", got[1].Data)
	}
	if _, _, ok := parseSample(`x{y="z`); ok {
		t.Error("half a line was taken")
	}
}
