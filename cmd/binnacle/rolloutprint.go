package main

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/binnacle-project/binnacle/api"
)

// follow prints a line per change of a rollout until it ends.
func follow(ctx context.Context, w io.Writer, c *api.Client, ro api.Rollout) error {
	began := time.Now()
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	var last string
	for {
		if line := progress(ro); line != last {
			fmt.Fprintf(w, "%6.1f s  rollout %s: %s\n", time.Since(began).Seconds(), ro.ID, line)
			last = line
		}
		if ro.State.Ended() {
			break
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("stopped waiting, the rollout goes on (`binnacle rollout watch %s`): %w", ro.ID, context.Cause(ctx))
		case <-tick.C:
		}
		next, err := c.Rollout(ctx, ro.ID)
		if err != nil {
			return err
		}
		ro = next
	}
	for id, reason := range ro.Refused {
		fmt.Fprintf(w, "  %s refused: %s\n", id, reason)
	}
	if ro.State != api.RolloutCompleted {
		if len(ro.Steps) > 0 {
			printVerdict(w, ro.Steps[ro.Step].Verdict)
		}
		return fmt.Errorf("%w: %s: %s", errRollout, ro.State, ro.Reason)
	}
	return nil
}

// progress is one line on where a rollout stands. It changes only with news.
func progress(ro api.Rollout) string {
	line := fmt.Sprintf("%d to %d: %s", ro.From, ro.To, ro.State)
	if ro.Strategy == "restart" {
		line = "restart: " + string(ro.State)
	}
	all := len(ro.Confirmed) + len(ro.Pending) + len(ro.Refused)
	if len(ro.Steps) > 0 && !ro.State.Ended() {
		s := ro.Steps[ro.Step]
		line += fmt.Sprintf(", step %d of %d (%s) %s", ro.Step+1, len(ro.Steps), stepSize(s.NewStep), s.State)
		if v := s.Verdict; v != nil && s.State != api.StepRolling {
			line += ", gate " + string(v.Result)
			if v.Result == api.VerdictFail {
				line += ": " + v.Reason
			}
		}
	}
	line += fmt.Sprintf(", %d of %d told nodes confirmed", len(ro.Confirmed), all)
	if ro.Strategy != "steps" {
		line = strings.Replace(line, "told nodes", "nodes", 1)
	}
	if len(ro.Refused) > 0 {
		line += fmt.Sprintf(", %d refused", len(ro.Refused))
	}
	if len(ro.Returned) > 0 {
		line += fmt.Sprintf(", %d back", len(ro.Returned))
	}
	if ro.State == api.RolloutPaused || ro.State == api.RolloutRollingBack || ro.Strategy == "restart" && ro.Reason != "" {
		line += ": " + ro.Reason
	}
	return line
}

func stepSize(s api.NewStep) string {
	if s.Nodes == 1 {
		return "1 node"
	}
	if s.Nodes > 0 {
		return fmt.Sprintf("%d nodes", s.Nodes)
	}
	return fmt.Sprintf("%g %%", s.Percent)
}

// printRollout shows all that is kept of one rollout.
func printRollout(w io.Writer, ro api.Rollout) {
	fmt.Fprintf(w, "rollout %s of group %s: %s\n", ro.ID, ro.Group, progress(ro))
	if ro.Reason != "" {
		fmt.Fprintf(w, "  %s\n", ro.Reason)
	}
	for i, s := range ro.Steps {
		fmt.Fprintf(w, "step %d, %s, bake %v: %s", i+1, stepSize(s.NewStep), time.Duration(s.Bake*float64(time.Second)), s.State)
		if len(s.Added) > 0 {
			fmt.Fprintf(w, ", nodes %v", s.Added)
		}
		if s.PromotedBy != "" {
			fmt.Fprintf(w, ", promoted by %s", s.PromotedBy)
		}
		fmt.Fprintln(w)
		printVerdict(w, s.Verdict)
	}
	if r := ro.Report; r != nil {
		fmt.Fprintf(w, "before (%s) and after (%s):\n", r.BeforeTo.Sub(r.BeforeFrom), r.AfterTo.Sub(r.AfterFrom).Round(time.Second))
		reportLine(w, "all", r.All)
		for _, l := range r.Endpoints {
			reportLine(w, l.Endpoint, l)
		}
	}
}

func reportLine(w io.Writer, name string, l api.ReportLine) {
	side := func(s api.ReportSide) string {
		out := fmt.Sprintf("%.0f requests", s.Requests)
		if s.ErrorRatio != nil {
			out += fmt.Sprintf(", %.3g %% errors", 100**s.ErrorRatio)
		}
		if s.P50 != nil && s.P99 != nil {
			out += fmt.Sprintf(", p50 %s, p99 %s", duration(*s.P50), duration(*s.P99))
		}
		return out
	}
	fmt.Fprintf(w, "  %s: %s; then %s\n", name, side(l.Before), side(l.After))
}

// printVerdict shows a verdict with the comparisons that decided it.
func printVerdict(w io.Writer, v *api.Verdict) {
	if v == nil {
		return
	}
	fmt.Fprintf(w, "  gate: %s after %d looks: %s\n", v.Result, v.Looks, v.Reason)
	if h := v.History; h != nil {
		fmt.Fprintf(w, "    %s\n", historyWords(h))
	}
	for _, c := range v.Comparisons {
		if v.Result == api.VerdictFail && c.Result != api.VerdictFail {
			continue
		}
		what := c.What
		if c.Endpoint != "" {
			what += " on " + c.Endpoint
		}
		if c.Threshold > 0 {
			what += fmt.Sprintf(" (%s)", duration(c.Threshold))
		}
		fmt.Fprintf(w, "    %s: canary %.0f of %.0f, control %.0f of %.0f, evidence %.3g of %.3g: %s\n", what,
			c.Canary.Bad, c.Canary.Requests, c.Control.Bad, c.Control.Requests, c.Evidence, c.Needed, c.Result)
		if x := c.Exact; x != nil {
			fmt.Fprintf(w, "      at %.0f and %.0f requests: equally good ones fail in %s of gates, at most %s whatever happens to both sides", x.Canary.Requests, x.Control.Requests, share(x.Alpha), share(x.Ceiling))
			if x.Power > 0 {
				fmt.Fprintf(w, "; those with 2 points more than the usual %s in %s", share(x.Usual), share(x.Power))
			}
			fmt.Fprintln(w)
		}
		if c.Result == api.VerdictFail {
			fmt.Fprintf(w, "      %s\n", c.CanaryQuery)
		}
	}
	for _, c := range v.Saturation {
		if v.Result == api.VerdictFail && c.Result != api.VerdictFail {
			continue
		}
		unit, scale := "cores", 1.0
		if c.What == "memory" {
			unit, scale = "MiB", 1<<20
		}
		fmt.Fprintf(w, "    %s of a node: canary at least %.4g %s, control at most %.4g, too much above %.4g: %s\n", c.What, c.Canary/scale, unit, c.Control/scale, c.Limit/scale, c.Result)
		if c.Result == api.VerdictFail {
			fmt.Fprintf(w, "      %s\n", c.CanaryQuery)
		}
	}
}

// historyWords says what the hours before a rollout told.
func historyWords(h *api.History) string {
	if !h.Used {
		return "the hours before: " + h.Note
	}
	return fmt.Sprintf("the %.0f hours before: %s of %.0f requests failed, %s in the worst of %d spells of %s",
		h.To.Sub(h.From).Hours(), share(h.Sum.Bad/max(1, h.Sum.Requests)), h.Sum.Requests, share(h.Worst), h.Spells, duration(h.SpellSeconds))
}

func share(v float64) string { return fmt.Sprintf("%.3g %%", 100*v) }
