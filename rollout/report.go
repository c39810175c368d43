package rollout

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/prometheus/promql"

	"github.com/binnacle-project/binnacle"
	"github.com/binnacle-project/binnacle/api"
	"github.com/binnacle-project/binnacle/events"
)

const (
	// reportAfter is how long after a rollout to all at once its report looks.
	reportAfter = 2 * time.Minute
	// reportSettle is the time that the last telemetry of a window may take.
	reportSettle = 10 * time.Second
	// reportGiveUp is when a report that could not be made is left.
	reportGiveUp = time.Hour
	// maxReportEndpoints bounds the lines of a report.
	maxReportEndpoints = 100
)

// report writes the reports of rollouts that have ended.
func (w *watcher) report(ctx context.Context) {
	s, at := w.s, now()
	s.mu.Lock()
	var due []*rollout
	for _, r := range s.rollouts {
		if _, to, ok := reportWindow(r.rec.Rollout); ok && r.rec.Report == nil && at.Sub(to) >= reportSettle && at.Sub(to) < reportGiveUp {
			due = append(due, r)
		}
		if r.rec.State.Ended() {
			delete(w.readers, r.number)
		}
	}
	s.mu.Unlock()
	for _, r := range due {
		if err := s.writeReport(ctx, r); err != nil && ctx.Err() == nil {
			s.log.Warn("the report of a rollout could not be written yet", "rollout", rolloutID(r.number), "err", err)
			return // again with the next tick
		}
	}
}

// reportWindow returns the minutes after a rollout that its report looks at, with
// ok false for a rollout that has none. Of a rollout that failed it is the time
// in which some nodes had the revision.
func reportWindow(r api.Rollout) (from, to time.Time, ok bool) {
	if r.Strategy == StrategyRestart || r.From == r.To || r.Ended.IsZero() {
		return from, to, false
	}
	switch {
	case r.State == api.RolloutFailed && r.Strategy == StrategySteps, r.State == api.RolloutAborted && r.Strategy == StrategySteps:
		return r.Started, r.Ended, true
	case r.State != api.RolloutCompleted:
		return from, to, false
	case r.Strategy == StrategySteps:
		from = r.Steps[len(r.Steps)-1].BakeStarted
		for i := len(r.Steps) - 1; from.IsZero() && i > 0; i-- { // the last step had nobody left
			from = r.Steps[i-1].BakeStarted
		}
		if from.IsZero() || r.Ended.Sub(from) < reportSettle {
			return r.Ended, r.Ended.Add(reportAfter), true
		}
		return from, r.Ended, true
	}
	return r.Ended, r.Ended.Add(reportAfter), true
}

// writeReport makes a report and stores it with its rollout.
func (s *Service) writeReport(ctx context.Context, r *rollout) error {
	ctx, cancel := context.WithTimeout(ctx, lookWithin)
	defer cancel()
	s.mu.Lock()
	ro := r.rec.clone().Rollout
	s.mu.Unlock()
	from, to, _ := reportWindow(ro)
	rep := api.RolloutReport{BeforeFrom: ro.Started.Add(-baselineFor), BeforeTo: ro.Started, AfterFrom: from, AfterTo: to}
	before, err := s.reportSide(ctx, side{group: ro.Group, revision: ro.From}, rep.BeforeFrom, rep.BeforeTo)
	if err != nil {
		return err
	}
	after, err := s.reportSide(ctx, side{group: ro.Group, revision: ro.To}, rep.AfterFrom, rep.AfterTo)
	if err != nil {
		return err
	}
	rep.All = api.ReportLine{Before: before[""], After: after[""]}
	names := slices.Collect(maps.Keys(before))
	for name := range after {
		if _, ok := before[name]; !ok {
			names = append(names, name)
		}
	}
	busy := func(name string) float64 { return before[name].Requests + after[name].Requests }
	slices.SortFunc(names, func(a, b string) int { return cmp.Or(cmp.Compare(busy(b), busy(a)), strings.Compare(a, b)) })
	for _, name := range names {
		if name != "" && busy(name) > 0 && len(rep.Endpoints) < maxReportEndpoints {
			rep.Endpoints = append(rep.Endpoints, api.ReportLine{Endpoint: name, Before: before[name], After: after[name]})
		}
	}
	if rep.All.Before.Requests == 0 || rep.All.After.Requests == 0 {
		rep.Note = "a window without requests compares nothing"
	}
	s.changes.Lock()
	defer s.changes.Unlock()
	out, err := s.change(ctx, r, func(rec *rolloutRecord) { rec.Report = &rep })
	if err != nil {
		return err
	}
	s.announce(ctx, events.RolloutReport, out, "manager", fmt.Sprintf("before %s; after %s", sideLine(rep.All.Before), sideLine(rep.All.After)))
	return nil
}

func sideLine(r api.ReportSide) string {
	line := fmt.Sprintf("%.0f requests", r.Requests)
	if r.ErrorRatio != nil {
		line += fmt.Sprintf(", %.3g %% errors", 100**r.ErrorRatio)
	}
	if r.P50 != nil && r.P99 != nil {
		line += fmt.Sprintf(", p50 %.3g ms, p99 %.3g ms", 1e3**r.P50, 1e3**r.P99)
	}
	return line
}

// reportSide reads a window by endpoint, and "" for all traffic.
func (s *Service) reportSide(ctx context.Context, of side, from, to time.Time) (map[string]api.ReportSide, error) {
	r := newReader(s.o.Telemetry)
	all, err := r.all(ctx, of, from, to, [2]float64{})
	if err != nil {
		return nil, err
	}
	ends, err := r.endpoints(ctx, of, from, to, nil)
	if err != nil {
		return nil, err
	}
	ends[""] = all
	out := make(map[string]api.ReportSide, len(ends))
	for name, t := range ends {
		side := api.ReportSide{Requests: t.Requests, Errors: t.Errors, ClientErrors: t.Client}
		if t.Requests > 0 {
			ratio := t.Errors / t.Requests
			side.ErrorRatio = &ratio
		}
		out[name] = side
	}
	window := promDuration(max(to.Sub(from), time.Second))
	for _, q := range []struct {
		quantile float64
		set      func(*api.ReportSide, *float64)
	}{
		{0.5, func(r *api.ReportSide, v *float64) { r.P50 = v }},
		{0.99, func(r *api.ReportSide, v *float64) { r.P99 = v }},
	} {
		for _, expr := range []string{
			fmt.Sprintf(`histogram_quantile(%g, sum(increase(%s[%s])))`, q.quantile, of.all(), window),
			fmt.Sprintf(`histogram_quantile(%g, sum by (%s, %s) (increase(%s[%s])))`, q.quantile, labelMethod, labelRoute, of.endpoints(""), window),
		} {
			v, err := s.o.Telemetry.Query(ctx, expr, to)
			if err != nil {
				return nil, err
			}
			setQuantiles(out, v, q.set)
		}
	}
	return out, nil
}

func setQuantiles(out map[string]api.ReportSide, v promql.Vector, set func(*api.ReportSide, *float64)) {
	for _, x := range v {
		name := endpointName(x.Metric)
		side, ok := out[name]
		if !ok || side.Requests == 0 || x.F != x.F || name == "" && !x.Metric.IsEmpty() {
			continue
		}
		value := x.F
		set(&side, &value)
		out[name] = side
	}
}

// trafficOf reads what the endpoints of a group served, whatever the revision, in
// a window.
func (s *Service) trafficOf(ctx context.Context, g binnacle.Group, from, to time.Time) (map[string]api.Traffic, error) {
	window := promDuration(to.Sub(from))
	selector := fmt.Sprintf(`%s{group=%q}`, binnacle.RollupEndpoint, g)
	by := labelMethod + ", " + labelRoute
	v, err := s.o.Telemetry.Query(ctx, fmt.Sprintf(`histogram_count(sum by (%s, %s) (increase(%s[%s])))`, by, binnacle.LabelOutcome, selector, window), to)
	if err != nil {
		return nil, err
	}
	out := make(map[string]api.Traffic)
	for _, x := range v {
		name := endpointName(x.Metric)
		if name == "" {
			continue
		}
		t := out[name]
		t.Requests += x.F
		if x.Metric.Get(binnacle.LabelOutcome) == binnacle.Error.String() {
			t.ErrorRatio += x.F // a count, until all are in
		}
		out[name] = t
	}
	for name, t := range out {
		t.RequestsPerSecond = t.Requests / to.Sub(from).Seconds()
		if t.Requests > 0 {
			t.ErrorRatio /= t.Requests
		}
		out[name] = t
	}
	seen, err := s.o.Telemetry.Query(ctx, fmt.Sprintf(
		`max_over_time((timestamp(histogram_count(sum by (%s) (rate(%s[5m]))) > 0))[%s:5m])`, by, selector, window), to)
	if err != nil {
		return nil, err
	}
	for _, x := range seen {
		if t, ok := out[endpointName(x.Metric)]; ok && t.Requests > 0 {
			t.LastSeen = time.Unix(int64(x.F), 0).UTC()
			out[endpointName(x.Metric)] = t
		}
	}
	return out, nil
}
