package rollout

import (
	"context"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/promql"
)

// resolved answers with one latency for each quantile, and with roll-ups of some
// schemas.
type resolved struct {
	Telemetry // no other question is asked
	schemas   map[string]int32
}

func (r resolved) Query(_ context.Context, expr string, _ time.Time) (promql.Vector, error) {
	if strings.HasPrefix(expr, "histogram_quantile") {
		return promql.Vector{{F: 0.1}}, nil
	}
	var out promql.Vector
	for metric, schema := range r.schemas {
		if strings.Contains(expr, metric) {
			out = append(out, promql.Sample{H: &histogram.FloatHistogram{Schema: schema}})
		}
	}
	return out, nil
}

// TestThresholdsAreBoundsOfAllRollups: a request is over a threshold or not,
// however coarse the roll-up is that counts it.
func TestThresholdsAreBoundsOfAllRollups(t *testing.T) {
	for _, tc := range []struct {
		schemas map[string]int32
		want    [2]float64 // of 0.155 and 0.16
	}{
		{nil, [2]float64{0.1621, 0.1621}}, // 2^(-21/8)
		{map[string]int32{"group:": 3, "endpoint:": 3}, [2]float64{0.1621, 0.1621}},
		{map[string]int32{"group:": 3, "endpoint:": 2}, [2]float64{0.1768, 0.1768}}, // 2^(-10/4)
		{map[string]int32{"group:": 1, "endpoint:": 3}, [2]float64{0.1768, 0.1768}}, // 2^(-5/2)
	} {
		r := newReader(resolved{schemas: tc.schemas})
		got, err := r.thresholds(t.Context(), side{group: "g", revision: 1}, time.Minute, time.Now())
		if err != nil || len(got) != 1 {
			t.Fatalf("thresholds(%v): got %v, %v", tc.schemas, got, err)
		}
		for i, v := range got[""] {
			if v < tc.want[i]*0.999 || v > tc.want[i]*1.001 {
				t.Errorf("thresholds(%v): got %v; want %v", tc.schemas, got[""], tc.want)
			}
		}
	}
	r := rand.New(rand.NewPCG(1, 2))
	for range 1000 {
		fine := &histogram.FloatHistogram{Schema: finest, PositiveSpans: []histogram.Span{{Offset: int32(r.IntN(40) - 60), Length: 30}}}
		for range 30 {
			fine.PositiveBuckets = append(fine.PositiveBuckets, float64(r.IntN(5)))
		}
		v := 0.001 + r.Float64()
		for schema, fineness := range map[int32]float64{3: 8, 2: 4, 1: 2} {
			threshold := snap(v, fineness)
			if threshold < v*0.999999 {
				t.Fatalf("snap(%g, %g): got %g, less", v, fineness, threshold)
			}
			want := countAbove(fine, threshold)
			coarse := fine.Copy()
			if err := coarse.ReduceResolution(schema); schema < finest && err != nil {
				t.Fatal(err)
			}
			if got := countAbove(coarse, threshold); got != want {
				t.Fatalf("over %g: got %g at schema %d; want %g", threshold, got, schema, want)
			}
		}
	}
}
