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
