package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/binnacle-project/binnacle"
	"github.com/binnacle-project/binnacle/api"
)

// errNeedsYes stops a rollout that takes an endpoint with traffic away.
var errNeedsYes = errors.New("an endpoint that has traffic would go: nothing was rolled out; add --yes if that is meant")

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
