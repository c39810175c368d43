package main

import (
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/binnacle-project/binnacle/api"
)

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
