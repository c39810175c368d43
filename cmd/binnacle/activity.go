package main

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/binnacle-project/binnacle/api"
)

// activityBy are the keys of the listing, with the headings of their columns.
var activityBy = map[api.ActivityBy]string{
	api.ByCluster: "", api.ByGroup: "GROUP", api.ByNode: "NODE", api.ByBackend: "BACKEND",
	api.ByNodeBackend: "NODE\tBACKEND", api.ByEndpoint: "GROUP\tMETHOD\tENDPOINT", api.ByRevision: "GROUP\tREVISION",
}

func newActivity(conn *connection) *cobra.Command {
	var window time.Duration
	cmd := &cobra.Command{
		Use:   "activity [cluster | group | node | backend | node,backend | endpoint | revision]",
		Short: "Show requests, errors and latency by what you name, the busiest first",
		Long: `Activity lists requests, errors and latency of a sliding window. "node,backend" is the matrix
that tells a broken backend (all nodes fail) from a cut network (one node fails). For longer times
and for the past ask with binnacle query.`,
		Example:   "  binnacle activity endpoint --window 5m\n  binnacle activity node,backend --watch",
		ValidArgs: []string{"cluster", "group", "node", "backend", "node,backend", "endpoint", "revision"},
		Args:      maxArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			by := api.ByCluster
			if len(args) == 1 {
				by = api.ActivityBy(args[0])
			}
			heading, ok := activityBy[by]
			if !ok {
				return usageError{fmt.Errorf("activity by %q: want one of %s", by, strings.Join(cmd.ValidArgs, ", "))}
			}
			return conn.call(cmd, func(ctx context.Context, c *api.Client) error {
				list, err := c.Activity(ctx, by, window)
				if err != nil {
					return err
				}
				return conn.print(cmd.OutOrStdout(), list, func(w io.Writer) { printActivity(w, list, heading) })
			})
		},
	}
	cmd.Flags().DurationVar(&window, "window", time.Minute, "sliding window: 30s, 1m, 5m or 1h (`DURATION`)")
	return conn.watchable(cmd)
}

func printActivity(w io.Writer, list api.ActivityList, heading string) {
	rows := slices.Clone(list.Rows)
	slices.SortStableFunc(rows, func(a, b api.ActivityRow) int {
		switch x, y := perSecond(a.Activity), perSecond(b.Activity); {
		case x > y:
			return -1
		case x < y:
			return 1
		}
		return 0
	})
	if heading != "" {
		heading += "\t"
	}
	fmt.Fprintln(w, heading+"REQUESTS\tERRORS\tCLIENT ERRORS\tLIMITED\tP50\tP95\tP99\tTOTAL")
	for _, r := range rows {
		switch list.By {
		case api.ByGroup:
			fmt.Fprintf(w, "%s\t", r.Group)
		case api.ByNode:
			fmt.Fprintf(w, "%s\t", r.Node)
		case api.ByBackend:
			fmt.Fprintf(w, "%s\t", r.Backend)
		case api.ByNodeBackend:
			fmt.Fprintf(w, "%s\t%s\t", r.Node, r.Backend)
		case api.ByEndpoint:
			fmt.Fprintf(w, "%s\t%s\t%s\t", r.Group, r.Method, r.Route)
		case api.ByRevision:
			number := dash
			if r.Revision != nil {
				number = r.Revision.String()
			}
			fmt.Fprintf(w, "%s\t%s\t", r.Group, number)
		}
		a := r.Activity
		if a == nil {
			a = &api.Activity{}
		}
		fmt.Fprintf(w, "%s\t%s\t%d\t%d\t%s\t%s\t%s\t%s\n", rate(r.Activity), ratio(r.Activity), a.ClientErrors, a.Limited,
			quantile(r.Activity, 50), quantile(r.Activity, 95), p99(r.Activity), total(r.Activity))
	}
}
