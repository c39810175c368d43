package main

import (
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/binnacle-project/binnacle/api"
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
