package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/binnacle-project/binnacle"
	"github.com/binnacle-project/binnacle/api"
	"github.com/binnacle-project/binnacle/licensing"
)

func newStatus(conn *connection) *cobra.Command {
	return conn.watchable(&cobra.Command{
		Use:   "status",
		Short: "Show the cluster in a few lines",
		Args:  noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return conn.call(cmd, func(ctx context.Context, c *api.Client) error {
				cl, err := c.Cluster(ctx)
				if err != nil {
					return err
				}
				return conn.print(cmd.OutOrStdout(), cl, func(w io.Writer) {
					fmt.Fprintf(w, "cluster\t%s\tmanager %s, up %s\n", cl.ID, cl.Version, since(cl.Started))
					fmt.Fprintf(w, "nodes\t%s\t%d unmanaged\n", states(cl.Nodes), cl.Unmanaged)
					fmt.Fprintf(w, "activity\t%s, %s errors, p99 %s\t%s requests in all\n", rate(cl.Activity), ratio(cl.Activity), p99(cl.Activity), total(cl.Activity))
					fmt.Fprintf(w, "license\t%s, %s\t%d of %s seats\n", cl.License.Plan, cl.License.State, cl.License.SeatsUsed, seats(cl.License.Seats))
					for _, r := range cl.Rollouts {
						fmt.Fprintf(w, "rollout\t%s\tgroup %s: %d to %d, %d of %d confirmed\n", r.ID, r.Group, r.From, r.To, len(r.Confirmed), len(r.Confirmed)+len(r.Pending)+len(r.Refused))
					}
				})
			})
		},
	})
}

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

func newBackends(conn *connection) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "backends",
		Short: "List the backends that nodes call; show one",
		Args:  noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return conn.call(cmd, func(ctx context.Context, c *api.Client) error {
				bs, err := c.Backends(ctx)
				if err != nil {
					return err
				}
				return conn.print(cmd.OutOrStdout(), bs, func(w io.Writer) {
					fmt.Fprintln(w, "BACKEND\tREQUESTS\tERRORS\tP50\tP99\tTOTAL\tCALLERS")
					for _, b := range bs {
						fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%d\n", b.ID, rate(b.Activity), ratio(b.Activity), quantile(b.Activity, 50), p99(b.Activity), total(b.Activity), b.Callers)
					}
				})
			})
		},
	}
	cmd.AddCommand(conn.watchable(&cobra.Command{
		Use: "show BACKEND", Short: "Show a backend from each node that calls it, and the endpoints behind", Args: exactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return conn.call(cmd, func(ctx context.Context, c *api.Client) error {
				id, err := backendID(ctx, c, args[0])
				if err != nil {
					return err
				}
				b, err := c.Backend(ctx, id)
				if err != nil {
					return err
				}
				return conn.print(cmd.OutOrStdout(), b, func(w io.Writer) {
					fmt.Fprintf(w, "backend\t%s\nactivity\t%s, %s errors, p50 %s, p99 %s, %s in all\n", b.ID, rate(b.Activity), ratio(b.Activity), quantile(b.Activity, 50), p99(b.Activity), total(b.Activity))
					fmt.Fprintf(w, "endpoints\t%s\n", firstOf(strings.Join(b.Endpoints, ", "), dash))
					fmt.Fprintln(w, "\nFROM NODE\tREQUESTS\tERRORS\tP50\tP99")
					for _, r := range b.Nodes {
						fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", r.Node, rate(r.Activity), ratio(r.Activity), quantile(r.Activity, 50), p99(r.Activity))
					}
				})
			})
		},
	}))
	return conn.watchable(cmd)
}

func newEvents(conn *connection) *cobra.Command {
	var filter api.EventFilter
	var group, node string
	var followOn bool
	cmd := &cobra.Command{
		Use:   "events",
		Short: "Show the newest events, newest last; with --follow also those to come",
		Long:  "Events lists what happened and who did it. docs/reference/events.md lists the kinds.",
		Example: `  binnacle events --kind rollout. --follow
  binnacle events --node gw-1 --limit 10`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			filter.Group = binnacle.Group(group)
			var list []api.Event
			err := conn.call(cmd, func(ctx context.Context, c *api.Client) error {
				if node != "" {
					id, err := nodeID(ctx, c, node)
					if err != nil {
						return err
					}
					filter.Node = id
				}
				var err error
				if list, err = c.FindEvents(ctx, filter); err != nil || followOn {
					return err
				}
				return conn.print(cmd.OutOrStdout(), list, func(w io.Writer) { printEvents(w, list) })
			})
			if err != nil || !followOn {
				return err
			}
			return conn.followEvents(cmd, list, filter)
		},
	}
	f := cmd.Flags()
	f.IntVar(&filter.Limit, "limit", 50, "show at most this `NUMBER` of past events")
	f.StringVar(&filter.Kind, "kind", "", "only this `KIND`, or those that begin with it, such as node.")
	f.StringVar(&group, "group", "", "only those of this `GROUP`")
	f.StringVar(&node, "node", "", "only those of this `NODE`, by name or id")
	f.BoolVarP(&followOn, "follow", "f", false, "go on with events as they happen, until Ctrl-C")
	return cmd
}

// followEvents prints past events, then those to come, each once.
func (c *connection) followEvents(cmd *cobra.Command, past []api.Event, filter api.EventFilter) error {
	client, err := c.client()
	if err != nil {
		return err
	}
	out := cmd.OutOrStdout()
	lines := *c
	lines.watch = 1 // one line each
	var last uint64
	show := func(e api.Event) error {
		if e.ID <= last {
			return nil
		}
		last = e.ID
		if done, err := lines.encode(out, e); done {
			return err
		}
		_, err := fmt.Fprintf(out, "%s  %-22s  %s\n", e.Time.Local().Format(time.DateTime), e.Kind, eventText(e))
		return err
	}
	for _, e := range past {
		if err := show(e); err != nil {
			return err
		}
	}
	for {
		err := client.Stream(cmd.Context(), "/v1/events/stream", func(data []byte) error {
			var e api.Event
			if err := json.Unmarshal(data, &e); err != nil {
				return fmt.Errorf("decode an event: %w", err)
			}
			if !strings.HasPrefix(e.Kind, filter.Kind) || filter.Group != "" && e.Group != filter.Group || filter.Node != "" && e.Node != filter.Node {
				return nil
			}
			return show(e)
		})
		var p *api.Problem
		if cmd.Context().Err() != nil {
			return nil
		} else if errors.As(err, &p) {
			return err
		}
		fmt.Fprintf(cmd.ErrOrStderr(), "binnacle: %v; trying on\n", err)
		select {
		case <-cmd.Context().Done():
			return nil
		case <-time.After(2 * time.Second):
		}
		// What happened in between.
		missed := filter
		missed.After, missed.Limit = last, 1000
		ctx, cancel := context.WithTimeout(cmd.Context(), callTimeout)
		list, err := client.FindEvents(ctx, missed)
		cancel()
		if err != nil {
			continue
		}
		for _, e := range list {
			if err := show(e); err != nil {
				return err
			}
		}
	}
}

// eventText is what happened, with the node and who did it where the message
// leaves them out.
func eventText(e api.Event) string {
	text := e.Message
	if e.Node != "" && !strings.Contains(text, string(e.Node)) {
		text += " [" + string(e.Node) + "]"
	}
	if e.Actor != "" && e.Actor != "manager" && e.Actor != string(e.Node) {
		text += " (by " + e.Actor + ")"
	}
	return text
}

func printEvents(w io.Writer, evs []api.Event) {
	fmt.Fprintln(w, "TIME\tKIND\tGROUP\tNODE\tBY\tMESSAGE")
	for _, e := range evs {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\n", e.Time.Local().Format(time.DateTime), e.Kind, e.Group, e.Node, e.Actor, e.Message)
	}
}
