package main

import (
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/binnacle-project/binnacle"
	"github.com/binnacle-project/binnacle/api"
	"github.com/binnacle-project/binnacle/licensing"
)

func newNodes(conn *connection) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "nodes",
		Short: "List the nodes; show, forget or revoke one",
		Args:  noArgs,
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
			Use: use + " NODE", Short: short, Args: exactArgs(1),
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
		newNodesShow(conn),
		act("forget", "Forget a node; a valid join token enrolls it anew", "is forgotten", func(ctx context.Context, c *api.Client, id binnacle.NodeID) error { return c.Forget(ctx, id) }),
		act("revoke", "Bar a node's key and id for good", "is revoked", func(ctx context.Context, c *api.Client, id binnacle.NodeID) error {
			return c.NodeAction(ctx, id, "revoke")
		}),
	)
	return conn.watchable(cmd)
}

func newNodesShow(conn *connection) *cobra.Command {
	return conn.watchable(&cobra.Command{
		Use: "show NODE", Short: "Show all that is known of a node: its ledger, lease, conditions, calls", Args: exactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return conn.call(cmd, func(ctx context.Context, c *api.Client) error {
				id, err := nodeID(ctx, c, args[0])
				if err != nil {
					return err
				}
				n, err := c.Node(ctx, id)
				if err != nil {
					return err
				}
				if done, err := conn.encode(cmd.OutOrStdout(), n); done {
					return err
				}
				calls, err := c.Activity(ctx, api.ByNodeBackend, time.Minute)
				if err != nil {
					return err
				}
				return conn.table(cmd.OutOrStdout(), func(w io.Writer) { printNode(w, n, calls) })
			})
		},
	})
}

func printNode(w io.Writer, n api.Node, calls api.ActivityList) {
	cause := ""
	if n.StateCause != "" {
		cause = ": " + n.StateCause
	}
	fmt.Fprintf(w, "node\t%s\nid\t%s\ngroup\t%s\nstate\t%s for %s%s\naddress\t%s\nversion\t%s\nlast poll\t%s ago\n",
		n.Name, n.ID, n.Group, n.State, since(n.StateSince), cause, n.Address, n.Version, since(n.LastPoll))
	for _, k := range slices.Sorted(maps.Keys(n.Labels)) {
		fmt.Fprintf(w, "label\t%s=%s\n", k, n.Labels[k])
	}
	for _, c := range n.Conditions {
		fmt.Fprintf(w, "condition\t%s for %s: %s\n", c.Kind, since(c.Since), c.Cause)
	}
	if n.Lease != nil {
		fmt.Fprintf(w, "lease\t%s, until %s\n", leaseText(n.Lease), when(n.Lease.Expires))
	}
	fmt.Fprintf(w, "activity\t%s, %s errors, p50 %s, p99 %s, %s in all\n", rate(n.Activity), ratio(n.Activity), quantile(n.Activity, 50), p99(n.Activity), total(n.Activity))
	if l := n.Ledger; l != nil {
		fmt.Fprintln(w, "\nLEDGER\tREVISION\tSHA256\tTIME\tERROR")
		for _, e := range []struct {
			name string
			e    *api.LedgerEntry
		}{{"desired", l.Desired}, {"attempted", l.Attempted}, {"applied", l.Applied}, {"last good", l.LastGood}} {
			if e.e == nil {
				fmt.Fprintf(w, "%s\t%s\n", e.name, dash)
				continue
			}
			fmt.Fprintf(w, "%s\t%s\t%.12s\t%s\t%s\n", e.name, entry(e.e), e.e.SHA256, e.e.Time.Local().Format(time.DateTime), e.e.Error)
		}
	}
	fmt.Fprintln(w, "\nBACKEND\tCALLS\tERRORS\tP50\tP99")
	for _, r := range calls.Rows {
		if r.Node == n.ID {
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", r.Backend, rate(r.Activity), ratio(r.Activity), quantile(r.Activity, 50), p99(r.Activity))
		}
	}
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
		return l.State + ", " + coarse(left)
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
		Use: action + " NODE", Short: short, Args: exactArgs(1),
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
