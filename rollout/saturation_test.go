package rollout

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/prometheus/promql"

	"github.com/binnacle-project/binnacle"
	"github.com/binnacle-project/binnacle/api"
	"github.com/binnacle-project/binnacle/rollout/gate"
)

func TestStrainLimits(t *testing.T) {
	const mib = 1 << 20
	for _, c := range []struct {
		name    string
		s       strain
		traffic float64
		want    api.VerdictResult
	}{
		{"equal", strain{whatCPU, 0.4, 0.4}, 1, api.VerdictPass},
		{"idle nodes may differ much", strain{whatCPU, 0.2, 0.01}, 1, api.VerdictPass},
		{"twice and no more", strain{whatCPU, 0.8, 0.4}, 1, api.VerdictPass},
		{"three times", strain{whatCPU, 1.2, 0.4}, 1, api.VerdictFail},
		{"a loop on an idle node", strain{whatCPU, 0.99, 0.01}, 1, api.VerdictFail},
		{"three times, with three times the traffic", strain{whatCPU, 1.2, 0.4}, 3, api.VerdictPass},
		{"less traffic is no excuse, and no fault", strain{whatCPU, 0.5, 0.4}, 0.1, api.VerdictPass},
		{"memory as usual", strain{whatMemory, 120 * mib, 100 * mib}, 1, api.VerdictPass},
		{"a larger configuration", strain{whatMemory, 300 * mib, 60 * mib}, 1, api.VerdictPass},
		{"a leak", strain{whatMemory, 400 * mib, 100 * mib}, 1, api.VerdictFail},
		{"large nodes, half as much again", strain{whatMemory, 3000 * mib, 2000 * mib}, 1, api.VerdictPass},
		{"large nodes, more than twice", strain{whatMemory, 4100 * mib, 2000 * mib}, 1, api.VerdictFail},
	} {
		if got := c.s.judge(c.traffic).Result; got != c.want {
			t.Errorf("%s: got %s; want %s", c.name, got, c.want)
		}
	}
}

// strained answers the queries of saturation by side, and keeps them.
type strained struct {
	Telemetry                          // no other question is asked
	canary, control map[string]float64 // by what
	asked           []string
}

func (s *strained) Query(_ context.Context, expr string, _ time.Time) (promql.Vector, error) {
	s.asked = append(s.asked, expr)
	what, of := whatCPU, s.control
	if strings.Contains(expr, "memory") {
		what = whatMemory
	}
	if strings.Contains(expr, "min_over_time") {
		of = s.canary
	}
	v, ok := of[what]
	if !ok {
		return nil, nil
	}
	return promql.Vector{{F: v}}, nil
}

func TestSaturationFailsAGate(t *testing.T) {
	began := time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)
	q := question{
		Canary:  side{group: "default", revision: 2, nodes: []binnacle.NodeID{"n-1"}},
		Control: side{group: "default", revision: 1, nodes: []binnacle.NodeID{"n-2", "n-3"}},
		From:    began,
	}
	look := gate.Look{All: gate.Sides{Canary: gate.Tally{Requests: 1000}, Control: gate.Tally{Requests: 2000}}}
	tel := &strained{canary: map[string]float64{whatCPU: 1.5, whatMemory: 90 << 20}, control: map[string]float64{whatCPU: 0.3, whatMemory: 80 << 20}}
	judge := func(after time.Duration) api.Verdict {
		q.At = began.Add(after)
		found, err := newReader(tel).saturation(t.Context(), q, look)
		if err != nil {
			t.Fatal(err)
		}
		v := api.Verdict{Result: api.VerdictPass, Reason: "nothing worse"}
		saturate(&v, found)
		return v
	}

	if v := judge(39 * time.Second); v.Result != api.VerdictPass || len(tel.asked) > 0 {
		t.Errorf("before it can have lasted: %+v, asked %q", v, tel.asked)
	}
	v := judge(40 * time.Second)
	if v.Result != api.VerdictFail || !strings.Contains(v.Reason, "1.50 cores") || len(v.Saturation) != 2 {
		t.Errorf("five times the CPU: got %+v", v)
	}
	if s := v.Saturation[0]; !strings.Contains(s.CanaryQuery, `instance=~"n-1"`) || !strings.Contains(s.ControlQuery, `instance=~"n-2|n-3"`) || !s.ControlAt.Equal(q.At) {
		t.Errorf("the evidence does not say what was asked: %+v", s)
	}

	tel.canary[whatCPU] = 0.4
	if v := judge(time.Minute); v.Result != api.VerdictPass || slices.ContainsFunc(v.Saturation, func(s api.Saturation) bool { return s.Result != api.VerdictPass }) {
		t.Errorf("as usual: got %+v", v)
	}
	delete(tel.control, whatCPU)
	delete(tel.control, whatMemory)
	if v := judge(time.Minute); v.Result != api.VerdictPass || len(v.Saturation) != 0 {
		t.Errorf("nodes that export nothing: got %+v; want no word of it", v)
	}

	// The same nodes before the step.
	q.Before, q.Baseline = true, side{group: "default", revision: 1, nodes: q.Canary.nodes}
	q.BaselineTo, q.BaselineFrom = began.Add(-10*time.Second), began.Add(-610*time.Second)
	look.All.Baseline = gate.Tally{Requests: 10_000}
	tel.control = map[string]float64{whatMemory: 30 << 20}
	tel.canary[whatMemory] = 900 << 20
	if v := judge(time.Minute); v.Result != api.VerdictFail || !strings.Contains(v.Reason, "900 MiB") || !v.Saturation[0].ControlAt.Equal(q.BaselineTo) {
		t.Errorf("thirty times the memory of before: got %+v", v)
	}
}
