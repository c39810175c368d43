package rollout

import (
	"context"
	"fmt"
	"time"

	"github.com/binnacle-project/binnacle"
	"github.com/binnacle-project/binnacle/api"
	"github.com/binnacle-project/binnacle/rollout/gate"
)

// Beside what a side answers, a gate looks at what answering costs its nodes: CPU
// and memory of their gateway processes. These are plain thresholds, not tests:
// there is no model of how the CPU of two equal processes differs. They are large,
// and must have been exceeded all the time, against the most that the control had:
// of the 1 % of a gate they are given nothing, and take nothing that was ever seen.
const (
	// saturatedFor is how long the excess has to last.
	saturatedFor = 30 * time.Second
	// cpuOver is over how long CPU is averaged, long enough for exports every
	// two seconds, and short enough for a burst to end within saturatedFor.
	cpuOver = 10 * time.Second
	// saturatedFactor is how many times the control's cost is too much, and
	// cpuPlus (cores) and memoryPlus (bytes) what it must be more at least: a node
	// that is nearly idle doubles its CPU with next to nothing.
	saturatedFactor = 2
	cpuPlus         = 0.25
	memoryPlus      = 256 << 20
)

// The measures.
const (
	whatCPU    = "cpu"
	whatMemory = "memory"
)

// strain is one measure of the nodes of both sides, in the mean of the nodes. Canary
// is the least of the last saturatedFor, Control the most.
type strain struct {
	What            string
	Canary, Control float64
}

// limit is what fails the canary above it. CPU is held against the traffic: a
// canary that serves more requests than a node of the control may cost more.
func (s strain) limit(traffic float64) float64 {
	if s.What == whatCPU {
		return saturatedFactor*s.Control*max(traffic, 1) + cpuPlus
	}
	return max(saturatedFactor*s.Control, s.Control+memoryPlus)
}

// judge compares both sides. traffic is the requests of one canary node for one of
// a control node.
func (s strain) judge(traffic float64) api.Saturation {
	out := api.Saturation{What: s.What, Canary: s.Canary, Control: s.Control, Limit: s.limit(traffic), Result: api.VerdictPass}
	if out.Canary > out.Limit {
		out.Result = api.VerdictFail
	}
	return out
}

// describeStrain says a failure in words.
func describeStrain(s api.Saturation) string {
	if s.What == whatCPU {
		return fmt.Sprintf("a node of the canary uses %.2f cores at least, all the last %v; one of the control %.2f at most", s.Canary, saturatedFor, s.Control)
	}
	return fmt.Sprintf("a node of the canary takes %.0f MiB at least, all the last %v; one of the control %.0f at most", s.Canary/(1<<20), saturatedFor, s.Control/(1<<20))
}

// processes selects a series of the gateway processes of a side's nodes, of 64 of
// them in a large fleet.
func (s side) processes(name string) string {
	return fmt.Sprintf(`%s{group=%q,instance=~%q,job!=%q}`, name, s.group, alternatives(first(s.nodes)), binnacle.ServiceAgent)
}

// strainQuery is PromQL for a measure of one node, in the mean: fold is min_over_time
// or max_over_time.
func (s side) strainQuery(what, fold string, over time.Duration) string {
	if what == whatCPU {
		return fmt.Sprintf(`avg(%s(sum by (instance) (rate(%s[%s]))[%s:%s]))`, fold, s.processes("process_cpu_time_seconds_total"),
			promDuration(cpuOver), promDuration(over), promDuration(cpuOver/2))
	}
	return fmt.Sprintf(`avg(sum by (instance) (%s(%s[%s])))`, fold, s.processes("process_memory_usage_bytes"), promDuration(over))
}

// saturation reads and judges both measures, once the bake is long enough. Nodes
// that export none, such as other programs, are left out.
func (r *reader) saturation(ctx context.Context, q question, l gate.Look) ([]api.Saturation, error) {
	if q.At.Sub(q.From) < saturatedFor+cpuOver {
		return nil, nil
	}
	control, at, over := q.Control, q.At, saturatedFor
	requests, seconds := l.All.Control.Requests, q.At.Sub(q.From).Seconds()
	if q.Before {
		control, at, over = q.Baseline, q.BaselineTo, q.BaselineTo.Sub(q.BaselineFrom)
		requests, seconds = l.All.Baseline.Requests, over.Seconds()
	}
	if len(q.Canary.nodes) == 0 || len(control.nodes) == 0 || seconds <= 0 {
		return nil, nil
	}
	perNode := func(requests, seconds float64, of side) float64 { return requests / seconds / float64(len(of.nodes)) }
	traffic := perNode(l.All.Canary.Requests, q.At.Sub(q.From).Seconds(), q.Canary) / max(perNode(requests, seconds, control), 1e-3)
	var out []api.Saturation
	for _, what := range []string{whatCPU, whatMemory} {
		s := strain{What: what}
		canaryQuery, controlQuery := q.Canary.strainQuery(what, "min_over_time", saturatedFor), control.strainQuery(what, "max_over_time", over)
		var known [2]bool
		var err error
		if s.Canary, known[0], err = r.number(ctx, canaryQuery, q.At); err != nil {
			return nil, err
		}
		if s.Control, known[1], err = r.number(ctx, controlQuery, at); err != nil {
			return nil, err
		}
		if !known[0] || !known[1] {
			continue
		}
		judged := s.judge(traffic)
		judged.CanaryQuery, judged.ControlQuery, judged.ControlAt = canaryQuery, controlQuery, at
		out = append(out, judged)
	}
	return out, nil
}

// number is the answer of a query that gives one number at most.
func (r *reader) number(ctx context.Context, query string, at time.Time) (float64, bool, error) {
	v, err := r.t.Query(ctx, query, at)
	if err != nil || len(v) != 1 || v[0].H != nil {
		return 0, false, err
	}
	return v[0].F, v[0].F == v[0].F, nil
}

// saturate adds what was found to a verdict: a canary that is saturated fails.
func saturate(v *api.Verdict, found []api.Saturation) {
	v.Saturation = found
	for _, s := range found {
		switch {
		case s.Result != api.VerdictFail:
		case v.Result == api.VerdictFail:
			v.Reason += "; " + describeStrain(s)
		default:
			v.Result, v.Reason = api.VerdictFail, describeStrain(s)
		}
	}
}
