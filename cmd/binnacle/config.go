package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/binnacle-project/binnacle"
	"github.com/binnacle-project/binnacle/api"
)

func newConfig(conn *connection) *cobra.Command {
	cmd := &cobra.Command{Use: "config", Short: "Push configurations and look at their history"}
	cmd.AddCommand(newConfigPush(conn), newConfigHistory(conn))
	return cmd
}

func newConfigPush(conn *connection) *cobra.Command {
	var group, message, strategy, format string
	var dryRun, noWait bool
	var timeout time.Duration
	cmd := &cobra.Command{
		Use:   "push FILE",
		Short: "Validate a configuration and make it a revision; with --rollout, bring it to the nodes",
		Long: `Push sends FILE ("-" for standard input) to the manager, which validates it: strict parse,
Lura's own checks and a dry build in a child process. A faulty file is refused with every
reason. The same bytes are the same revision: pushing again is harmless.

Without --rollout no node is touched. With --rollout=all every node of the group gets the
revision at once, and push waits until all have confirmed it.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			conf, err := readFile(cmd.InOrStdin(), args[0])
			if err != nil {
				return err
			}
			if strategy != "" && strategy != "all" && strategy != "steps" {
				return usageError{fmt.Errorf("--rollout %q: want all or steps", strategy)}
			}
			client, err := conn.client()
			if err != nil {
				return err
			}
			ctx, cancel := context.WithTimeout(cmd.Context(), timeout)
			defer cancel()
			rev, err := client.CreateRevision(ctx, binnacle.Group(group), api.NewRevision{Config: conf, Message: message, DryRun: dryRun, Format: format})
			if err != nil {
				return err
			}
			out := cmd.OutOrStdout()
			for _, f := range rev.Warnings {
				fmt.Fprintf(cmd.ErrOrStderr(), "warning: %s\n", faultLine(f))
			}
			switch {
			case dryRun:
				fmt.Fprintf(out, "%s is valid (sha256 %.12s…); nothing was stored\n", args[0], rev.SHA256)
				return nil
			case rev.Existing:
				fmt.Fprintf(out, "revision %d of group %s already holds these bytes (sha256 %.12s…)\n", rev.Number, rev.Group, rev.SHA256)
			default:
				fmt.Fprintf(out, "revision %d of group %s (sha256 %.12s…)\n", rev.Number, rev.Group, rev.SHA256)
			}
			if strategy == "" {
				fmt.Fprintf(out, "no node is touched: start a rollout with `binnacle rollout start %d --group %s`\n", rev.Number, group)
				return nil
			}
			ro, err := client.StartRollout(ctx, rev.Group, api.NewRollout{Revision: rev.Number, Strategy: strategy})
			if err != nil {
				return err
			}
			if noWait {
				fmt.Fprintf(out, "rollout %s started\n", ro.ID)
				return nil
			}
			return follow(ctx, out, client, ro)
		},
	}
	f := cmd.Flags()
	f.StringVar(&group, "group", string(binnacle.DefaultGroup), "the `GROUP` whose configuration it is")
	f.StringVarP(&message, "message", "m", "", "what changed and why (`TEXT`), kept with the revision")
	f.StringVar(&strategy, "rollout", "", "also start a rollout: `STRATEGY` all or steps")
	f.StringVar(&format, "format", "", "the group's `FORMAT`, with its first revision: krakend, or opaque for supervised programs")
	f.BoolVar(&dryRun, "dry-run", false, "validate only, store nothing")
	f.BoolVar(&noWait, "no-wait", false, "do not wait for the nodes to confirm")
	f.DurationVar(&timeout, "timeout", 5*time.Minute, "give up waiting after this `DURATION`; the rollout goes on")
	return cmd
}

func readFile(stdin io.Reader, name string) ([]byte, error) {
	if name == "-" {
		return io.ReadAll(stdin)
	}
	b, err := os.ReadFile(name)
	if err != nil {
		return nil, usageError{err}
	}
	return b, nil
}

func newConfigHistory(conn *connection) *cobra.Command {
	var group string
	cmd := &cobra.Command{
		Use:   "history",
		Short: "List the revisions of a group, newest last",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return conn.call(cmd, func(ctx context.Context, c *api.Client) error {
				revs, err := c.Revisions(ctx, binnacle.Group(group))
				if err != nil {
					return err
				}
				return conn.print(cmd.OutOrStdout(), revs, func(w io.Writer) {
					fmt.Fprintln(w, "REVISION\tSHA256\tCREATED\tAUTHOR\tBYTES\tMESSAGE")
					for _, r := range revs {
						fmt.Fprintf(w, "%d\t%.12s\t%s\t%s\t%d\t%s\n", r.Number, r.SHA256, r.Created.Local().Format(time.DateTime), r.Author, r.Bytes, r.Message)
					}
				})
			})
		},
	}
	cmd.Flags().StringVar(&group, "group", string(binnacle.DefaultGroup), "the `GROUP` to list")
	return cmd
}

func newRollout(conn *connection) *cobra.Command {
	cmd := &cobra.Command{Use: "rollout", Short: "Start, watch and abort rollouts"}
	var group, strategy string
	start := &cobra.Command{
		Use: "start REVISION", Short: "Bring a group to a revision", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			var n binnacle.Revision
			if _, err := fmt.Sscan(args[0], &n); err != nil || n == 0 {
				return usageError{fmt.Errorf("revision %q: want a number from 1", args[0])}
			}
			client, err := conn.client()
			if err != nil {
				return err
			}
			ro, err := client.StartRollout(cmd.Context(), binnacle.Group(group), api.NewRollout{Revision: n, Strategy: strategy})
			if err != nil {
				return err
			}
			return follow(cmd.Context(), cmd.OutOrStdout(), client, ro)
		},
	}
	start.Flags().StringVar(&group, "group", string(binnacle.DefaultGroup), "the `GROUP` to bring there")
	start.Flags().StringVar(&strategy, "strategy", "all", "`STRATEGY`: all or steps")
	status := &cobra.Command{
		Use: "status", Short: "List the rollouts, newest last", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return conn.call(cmd, func(ctx context.Context, c *api.Client) error {
				ros, err := c.Rollouts(ctx)
				if err != nil {
					return err
				}
				return conn.print(cmd.OutOrStdout(), ros, func(w io.Writer) {
					fmt.Fprintln(w, "ROLLOUT\tGROUP\tFROM\tTO\tSTRATEGY\tSTATE\tCONFIRMED\tREFUSED\tPENDING\tSTARTED\tREASON")
					for _, r := range ros {
						fmt.Fprintf(w, "%s\t%s\t%d\t%d\t%s\t%s\t%d\t%d\t%d\t%s\t%s\n", r.ID, r.Group, r.From, r.To, r.Strategy, r.State, len(r.Confirmed), len(r.Refused), len(r.Pending), r.Started.Local().Format(time.DateTime), r.Reason)
					}
				})
			})
		},
	}
	watch := &cobra.Command{
		Use: "watch ROLLOUT", Short: "Follow a rollout to its end", Args: cobra.ExactArgs(1),
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
	abort := &cobra.Command{
		Use: "abort ROLLOUT", Short: "Stop a rollout and bring its nodes back", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return conn.call(cmd, func(ctx context.Context, c *api.Client) error {
				ro, err := c.AbortRollout(ctx, args[0])
				if err == nil {
					fmt.Fprintf(cmd.OutOrStdout(), "rollout %s is %s\n", ro.ID, ro.State)
				}
				return err
			})
		},
	}
	cmd.AddCommand(start, status, watch, abort)
	return cmd
}

func newRollback(conn *connection) *cobra.Command {
	var group string
	cmd := &cobra.Command{
		Use: "rollback", Short: "Bring a group back to the last revision that completed a rollout", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			client, err := conn.client()
			if err != nil {
				return err
			}
			ro, err := client.Rollback(cmd.Context(), binnacle.Group(group))
			if err != nil {
				return err
			}
			return follow(cmd.Context(), cmd.OutOrStdout(), client, ro)
		},
	}
	cmd.Flags().StringVar(&group, "group", string(binnacle.DefaultGroup), "the `GROUP` to bring back")
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
		all := len(ro.Confirmed) + len(ro.Pending) + len(ro.Refused)
		line := fmt.Sprintf("rollout %s: %d to %d: %s, %d of %d nodes confirmed", ro.ID, ro.From, ro.To, ro.State, len(ro.Confirmed), all)
		if len(ro.Refused) > 0 {
			line += fmt.Sprintf(", %d refused", len(ro.Refused))
		}
		if line != last {
			fmt.Fprintf(w, "%6.1f s  %s\n", time.Since(began).Seconds(), line)
			last = line
		}
		if ro.State != api.RolloutRunning {
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
		return fmt.Errorf("%w: %s: %s", errRollout, ro.State, ro.Reason)
	}
	return nil
}
