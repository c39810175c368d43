package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/binnacle-project/binnacle"
	"github.com/binnacle-project/binnacle/api"
)

// rolloutFlags are the flags of commands that start a rollout.
type rolloutFlags struct {
	strategy       string
	steps          string
	maxUnavailable int
	queue          bool
	yes            bool
	timeout        time.Duration
}

func (r *rolloutFlags) register(f *pflag.FlagSet) {
	f.StringVar(&r.steps, "steps", "", "steps of a rollout in steps, with their bakes (`LIST`), e.g. 1/2m,10%/2m,50%/2m,100%/5m (which is near the default)")
	f.IntVar(&r.maxUnavailable, "max-unavailable", 0, "at most this `NUMBER` of nodes apply the revision at the same time (default a quarter of the group)")
	f.BoolVar(&r.queue, "queue", false, "wait for the end of another rollout of the group instead of superseding it")
	f.BoolVarP(&r.yes, "yes", "y", false, "also when an endpoint that has traffic goes")
	f.DurationVar(&r.timeout, "timeout", 0, "give up waiting after this `DURATION`; the rollout goes on (default 5m, in steps 2h)")
}

// waitFor is how long to follow a rollout.
func (r *rolloutFlags) waitFor(cmd *cobra.Command) time.Duration {
	switch {
	case cmd.Flags().Changed("timeout"):
		return r.timeout
	case r.strategy == "steps":
		return 2 * time.Hour
	}
	return 5 * time.Minute
}

// request is what the flags ask for.
func (r *rolloutFlags) request(n binnacle.Revision) (api.NewRollout, error) {
	req := api.NewRollout{Revision: n, Strategy: r.strategy, MaxUnavailable: r.maxUnavailable}
	if r.queue {
		req.WhenBusy = "queue"
	}
	if r.strategy != "all" && r.strategy != "steps" {
		return req, usageError{fmt.Errorf("strategy %q: want all or steps", r.strategy)}
	}
	if r.steps == "" {
		return req, nil
	}
	if r.strategy != "steps" {
		return req, usageError{errors.New("--steps goes with a rollout in steps")}
	}
	for part := range strings.SplitSeq(r.steps, ",") {
		s, err := parseStep(strings.TrimSpace(part))
		if err != nil {
			return req, usageError{fmt.Errorf("--steps: %q: %w", part, err)}
		}
		req.Steps = append(req.Steps, s)
	}
	return req, nil
}

// parseStep reads 1/2m or 10%/30s.
func parseStep(text string) (api.NewStep, error) {
	var s api.NewStep
	size, bake, ok := strings.Cut(text, "/")
	if !ok {
		return s, errors.New("want how many nodes and how long they are watched, such as 1/2m or 10%/2m")
	}
	d, err := time.ParseDuration(bake)
	if err != nil || d < 0 {
		return s, fmt.Errorf("%q is no duration, such as 90s or 2m", bake)
	}
	s.Bake = d.Seconds()
	if percent, ok := strings.CutSuffix(size, "%"); ok {
		if s.Percent, err = strconv.ParseFloat(percent, 64); err != nil || !(s.Percent > 0 && s.Percent <= 100) {
			return s, fmt.Errorf("%q is no share up to 100%%", size)
		}
		return s, nil
	}
	if s.Nodes, err = strconv.Atoi(size); err != nil || s.Nodes < 1 {
		return s, fmt.Errorf("%q is no number of nodes from 1", size)
	}
	return s, nil
}

// errNeedsYes stops a rollout that takes an endpoint with traffic away.
var errNeedsYes = errors.New("an endpoint that has traffic would go: nothing was rolled out; add --yes if that is meant")

// start shows what changes, starts the rollout and follows it.
func (r *rolloutFlags) start(ctx context.Context, w io.Writer, c *api.Client, g binnacle.Group, n binnacle.Revision, wait bool) error {
	req, err := r.request(n)
	if err != nil {
		return err
	}
	d, err := c.Diff(ctx, g, 0, n)
	if err != nil {
		return err
	}
	if d.From != n {
		printDiff(w, d)
	}
	if d.RemovesTraffic && !r.yes {
		return errNeedsYes
	}
	ro, err := c.StartRollout(ctx, g, req)
	if err != nil {
		return err
	}
	if !wait {
		fmt.Fprintf(w, "rollout %s is %s: follow it with `binnacle rollout watch %s`\n", ro.ID, ro.State, ro.ID)
		return nil
	}
	return follow(ctx, w, c, ro)
}

func newRollout(conn *connection) *cobra.Command {
	cmd := &cobra.Command{Use: "rollout", Short: "Start, watch and steer rollouts"}
	var group string
	var flags rolloutFlags
	start := &cobra.Command{
		Use: "start REVISION", Short: "Bring a group to a revision", Args: exactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			n, err := parseRevision(args[0])
			if err != nil {
				return err
			}
			client, err := conn.client()
			if err != nil {
				return err
			}
			ctx, cancel := context.WithTimeout(cmd.Context(), flags.waitFor(cmd))
			defer cancel()
			return flags.start(ctx, cmd.OutOrStdout(), client, binnacle.Group(group), n, true)
		},
	}
	start.Flags().StringVar(&group, "group", string(binnacle.DefaultGroup), "the `GROUP` to bring there")
	start.Flags().StringVar(&flags.strategy, "strategy", "all", "`STRATEGY`: all or steps")
	flags.register(start.Flags())
	status := &cobra.Command{
		Use: "status [ROLLOUT]", Short: "List the rollouts, newest last, or show one with its verdicts", Args: maxArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return conn.call(cmd, func(ctx context.Context, c *api.Client) error {
				if len(args) == 1 {
					ro, err := c.Rollout(ctx, args[0])
					if err != nil {
						return err
					}
					if done, err := conn.encode(cmd.OutOrStdout(), ro); done {
						return err
					}
					printRollout(cmd.OutOrStdout(), ro)
					return nil
				}
				ros, err := c.Rollouts(ctx)
				if err != nil {
					return err
				}
				return conn.print(cmd.OutOrStdout(), ros, func(w io.Writer) {
					fmt.Fprintln(w, "ROLLOUT\tGROUP\tFROM\tTO\tSTRATEGY\tSTATE\tSTEP\tCONFIRMED\tREFUSED\tPENDING\tSTARTED\tREASON")
					for _, r := range ros {
						step := dash
						if len(r.Steps) > 0 {
							step = fmt.Sprintf("%d/%d", r.Step+1, len(r.Steps))
						}
						fmt.Fprintf(w, "%s\t%s\t%d\t%d\t%s\t%s\t%s\t%d\t%d\t%d\t%s\t%s\n", r.ID, r.Group, r.From, r.To, r.Strategy, r.State, step, len(r.Confirmed), len(r.Refused), len(r.Pending), r.Started.Local().Format(time.DateTime), r.Reason)
					}
				})
			})
		},
	}
	watch := &cobra.Command{
		Use: "watch ROLLOUT", Short: "Follow a rollout to its end", Args: exactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			client, err := conn.client()
			if err != nil {
				return err
			}
			ro, err := client.Rollout(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			return follow(cmd.Context(), cmd.OutOrStdout(), client, ro)
		},
	}
	cmd.AddCommand(start, status, watch,
		steer(conn, "pause", "Let a rollout go no further for now; its gates still fail it", (*api.Client).PauseRollout),
		steer(conn, "resume", "Let a paused rollout go on", (*api.Client).ResumeRollout),
		steer(conn, "promote", "Let the step under way pass without its gate", (*api.Client).PromoteRollout),
		steer(conn, "abort", "Stop a rollout and bring its nodes back", (*api.Client).AbortRollout),
	)
	return cmd
}

// steer is a command that says one word to a rollout.
func steer(conn *connection, word, short string, call func(*api.Client, context.Context, string) (api.Rollout, error)) *cobra.Command {
	return &cobra.Command{
		Use: word + " ROLLOUT", Short: short, Args: exactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return conn.call(cmd, func(ctx context.Context, c *api.Client) error {
				ro, err := call(c, ctx, args[0])
				if err == nil {
					fmt.Fprintf(cmd.OutOrStdout(), "rollout %s is %s\n", ro.ID, ro.State)
				}
				return err
			})
		},
	}
}

func newRollback(conn *connection) *cobra.Command {
	var group string
	cmd := &cobra.Command{
		Use: "rollback", Short: "Bring a group back to the last revision that completed a rollout", Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			client, err := conn.client()
			if err != nil {
				return err
			}
			ro, err := client.Rollback(cmd.Context(), binnacle.Group(group))
			if err != nil {
				return err
			}
			if ro.State == api.RolloutAborted { // one in steps was under way
				fmt.Fprintf(cmd.OutOrStdout(), "rollout %s is aborted: %s\n", ro.ID, ro.Reason)
				return nil
			}
			return follow(cmd.Context(), cmd.OutOrStdout(), client, ro)
		},
	}
	cmd.Flags().StringVar(&group, "group", string(binnacle.DefaultGroup), "the `GROUP` to bring back")
	return cmd
}

func newRestart(conn *connection) *cobra.Command {
	var group string
	cmd := &cobra.Command{
		Use: "restart [NODE]", Short: "Restart the nodes of a group one after the other, each drained first; or one node",
		Long: `Restart takes the nodes of a group one after the other: drain, restart, serve again, next, and
follows it to the end. With NODE it orders one graceful restart of that node's worker and returns.`,
		Args: maxArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			client, err := conn.client()
			if err != nil {
				return err
			}
			if len(args) == 1 {
				if cmd.Flags().Changed("group") {
					return usageError{errors.New("give a node or --group, not both")}
				}
				id, err := nodeID(cmd.Context(), client, args[0])
				if err != nil {
					return err
				}
				if err := client.NodeAction(cmd.Context(), id, "restart"); err != nil {
					return err
				}
				fmt.Fprintf(cmd.OutOrStdout(), "%s: restart is ordered; the event node.restarted says when it is done\n", id)
				return nil
			}
			ro, err := client.RestartGroup(cmd.Context(), binnacle.Group(group))
			if err != nil {
				return err
			}
			return follow(cmd.Context(), cmd.OutOrStdout(), client, ro)
		},
	}
	cmd.Flags().StringVar(&group, "group", string(binnacle.DefaultGroup), "the `GROUP` to restart")
	return cmd
}

// errRollout is returned when a rollout ended otherwise than completed.
var errRollout = errors.New("the rollout did not complete")

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
