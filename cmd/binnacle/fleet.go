package main

import (
	"context"
	"fmt"
	"io"
	"slices"
	"sort"
	"time"

	"github.com/spf13/cobra"

	"github.com/binnacle-project/binnacle"
	"github.com/binnacle-project/binnacle/api"
	"github.com/binnacle-project/binnacle/licensing"
)

func newStatus(conn *connection) *cobra.Command {
	return &cobra.Command{
		Use:   "status",
		Short: "Show the cluster in a few lines",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return conn.call(cmd, func(ctx context.Context, c *api.Client) error {
				cl, err := c.Cluster(ctx)
				if err != nil {
					return err
				}
				return conn.print(cmd.OutOrStdout(), cl, func(w io.Writer) {
					states := make([]string, 0, len(cl.Nodes))
					for s, n := range cl.Nodes {
						if n > 0 {
							states = append(states, fmt.Sprintf("%d %s", n, s))
						}
					}
					sort.Strings(states)
					fmt.Fprintf(w, "cluster\t%s\tmanager %s, up %s\n", cl.ID, cl.Version, since(cl.Started))
					fmt.Fprintf(w, "nodes\t%v\t%d unmanaged\n", states, cl.Unmanaged)
					fmt.Fprintf(w, "activity\t%s, %s errors, p99 %s\t%s requests in all\n", rate(cl.Activity), ratio(cl.Activity), p99(cl.Activity), total(cl.Activity))
					seats := "unlimited"
					if cl.License.Seats > 0 {
						seats = fmt.Sprint(cl.License.Seats)
					}
					fmt.Fprintf(w, "license\t%s, %s\t%d of %s seats\n", cl.License.Plan, cl.License.State, cl.License.SeatsUsed, seats)
					for _, r := range cl.Rollouts {
						fmt.Fprintf(w, "rollout\t%s\tgroup %s: %d to %d, %d of %d confirmed\n", r.ID, r.Group, r.From, r.To, len(r.Confirmed), len(r.Confirmed)+len(r.Pending)+len(r.Refused))
					}
				})
			})
		},
	}
}

func newNodes(conn *connection) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "nodes",
		Short: "List the nodes, or forget one",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return conn.call(cmd, func(ctx context.Context, c *api.Client) error {
				nodes, err := c.Nodes(ctx)
				if err != nil {
					return err
				}
				return conn.print(cmd.OutOrStdout(), nodes, func(w io.Writer) { printNodes(w, nodes) })
			})
		},
	}
	act := func(use, short, done string, do func(context.Context, *api.Client, binnacle.NodeID) error) *cobra.Command {
		return &cobra.Command{
			Use: use + " NODE", Short: short, Args: cobra.ExactArgs(1),
			RunE: func(cmd *cobra.Command, args []string) error {
				return conn.call(cmd, func(ctx context.Context, c *api.Client) error {
					id, err := nodeID(ctx, c, args[0])
					if err != nil {
						return err
					}
					if err := do(ctx, c, id); err != nil {
						return err
					}
					fmt.Fprintf(cmd.OutOrStdout(), "%s %s\n", id, done)
					return nil
				})
			},
		}
	}
	cmd.AddCommand(
		act("forget", "Forget a node; a valid join token enrolls it anew", "is forgotten", func(ctx context.Context, c *api.Client, id binnacle.NodeID) error { return c.Forget(ctx, id) }),
		act("revoke", "Bar a node's key and id for good", "is revoked", func(ctx context.Context, c *api.Client, id binnacle.NodeID) error {
			return c.NodeAction(ctx, id, "revoke")
		}),
	)
	return cmd
}

func printNodes(w io.Writer, nodes []api.Node) {
	fmt.Fprintln(w, "NAME\tID\tGROUP\tSTATE\tLEASE\tADDRESS\tDESIRED\tAPPLIED\tLAST GOOD\tREQUESTS\tERRORS\tP99\tTOTAL\tCONDITIONS")
	for _, n := range nodes {
		var desired, applied, good *api.LedgerEntry
		if n.Ledger != nil {
			desired, applied, good = n.Ledger.Desired, n.Ledger.Applied, n.Ledger.LastGood
		}
		state := stateText(n)
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", n.Name, n.ID, n.Group, state, leaseText(n.Lease), n.Address,
			entry(desired), entry(applied), entry(good), rate(n.Activity), ratio(n.Activity), p99(n.Activity), total(n.Activity), conditions(n.Conditions))
	}
}

// stateText says a node's state as a person asks for it.
func stateText(n api.Node) string {
	switch {
	case !n.Managed:
		return string(n.State) + " (unmanaged)"
	case n.State == api.Left && slices.ContainsFunc(n.Conditions, func(c api.Condition) bool { return c.Kind == api.CondLeaseEnded }):
		return "left (lease ended)"
	}
	return string(n.State)
}

// leaseText says how a node's lease is, and what is left of it.
func leaseText(l *api.LeaseInfo) string {
	if l == nil {
		return dash
	}
	if left := time.Until(l.Expires); left > 0 && l.State != licensing.LeaseFallen {
		return l.State + ", " + seconds(left.Seconds())
	}
	return l.State
}

// nodeID finds a node by id or by name.
func nodeID(ctx context.Context, c *api.Client, s string) (binnacle.NodeID, error) {
	nodes, err := c.Nodes(ctx)
	if err != nil {
		return "", err
	}
	var found []binnacle.NodeID
	for _, n := range nodes {
		if string(n.ID) == s {
			return n.ID, nil
		}
		if n.Name == s {
			found = append(found, n.ID)
		}
	}
	switch len(found) {
	case 0:
		return "", usageError{fmt.Errorf("no node has the id or name %q: `binnacle nodes` lists them", s)}
	case 1:
		return found[0], nil
	}
	return "", usageError{fmt.Errorf("%d nodes are named %q: give the id of one of %v", len(found), s, found)}
}

func newDrain(conn *connection, action, short string) *cobra.Command {
	return &cobra.Command{
		Use: action + " NODE", Short: short, Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return conn.call(cmd, func(ctx context.Context, c *api.Client) error {
				id, err := nodeID(ctx, c, args[0])
				if err != nil {
					return err
				}
				if err := c.NodeAction(ctx, id, action); err != nil {
					return err
				}
				fmt.Fprintf(cmd.OutOrStdout(), "%s: %s is ordered\n", id, action)
				return nil
			})
		},
	}
}

func newBackends(conn *connection) *cobra.Command {
	return &cobra.Command{
		Use:   "backends",
		Short: "List the backends that nodes call",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return conn.call(cmd, func(ctx context.Context, c *api.Client) error {
				bs, err := c.Backends(ctx)
				if err != nil {
					return err
				}
				return conn.print(cmd.OutOrStdout(), bs, func(w io.Writer) {
					fmt.Fprintln(w, "BACKEND\tREQUESTS\tERRORS\tP99\tTOTAL\tNODES")
					for _, b := range bs {
						fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%d\n", b.ID, rate(b.Activity), ratio(b.Activity), p99(b.Activity), total(b.Activity), len(b.Nodes))
					}
				})
			})
		},
	}
}

func newEvents(conn *connection) *cobra.Command {
	var limit int
	cmd := &cobra.Command{
		Use:   "events",
		Short: "Show the newest events",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return conn.call(cmd, func(ctx context.Context, c *api.Client) error {
				evs, err := c.Events(ctx, 0, limit)
				if err != nil {
					return err
				}
				return conn.print(cmd.OutOrStdout(), evs, func(w io.Writer) {
					fmt.Fprintln(w, "TIME\tKIND\tGROUP\tNODE\tBY\tMESSAGE")
					for _, e := range evs {
						fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\n", e.Time.Local().Format(time.DateTime), e.Kind, e.Group, e.Node, e.Actor, e.Message)
					}
				})
			})
		},
	}
	cmd.Flags().IntVar(&limit, "limit", 50, "show at most `N` events")
	return cmd
}
