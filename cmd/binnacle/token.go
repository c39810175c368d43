package main

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/binnacle-project/binnacle"
	"github.com/binnacle-project/binnacle/api"
)

func newToken(conn *connection) *cobra.Command {
	cmd := &cobra.Command{Use: "token", Short: "Create, list and revoke join tokens and API tokens"}
	var t api.NewToken
	var group string
	var expires time.Duration
	create := &cobra.Command{
		Use: "create", Short: "Create a token and print it; it is shown this once", Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			t.ExpiresIn = expires.Seconds()
			t.Group = binnacle.Group(group)
			return conn.call(cmd, func(ctx context.Context, c *api.Client) error {
				created, err := c.CreateToken(ctx, t)
				if err != nil {
					return err
				}
				return conn.print(cmd.OutOrStdout(), created, func(w io.Writer) { fmt.Fprintln(w, created.Secret) })
			})
		},
	}
	f := create.Flags()
	f.StringVar(&t.Kind, "kind", "join", "`KIND`: join (enrolls nodes) or api (calls this API)")
	f.StringVar(&t.Name, "name", "", "`NAME` shown in lists and as the author of changes")
	f.StringVar(&t.Role, "role", "", "`ROLE` of an API token: viewer, operator or admin")
	f.StringSliceVar(&t.Rights, "right", nil, "single `RIGHT` beside the role, e.g. traces:read")
	f.StringVar(&group, "group", "", "`GROUP` that nodes enrolled with it belong to")
	f.DurationVar(&expires, "expires-in", 0, "`DURATION` until it ends; 0 means never")
	f.IntVar(&t.UsesMax, "uses", 0, "how many nodes may enroll with it; 0 means any `NUMBER`")
	list := &cobra.Command{
		Use: "list", Short: "List tokens, without their secrets", Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return conn.call(cmd, func(ctx context.Context, c *api.Client) error {
				ts, err := c.Tokens(ctx)
				if err != nil {
					return err
				}
				return conn.print(cmd.OutOrStdout(), ts, func(w io.Writer) {
					fmt.Fprintln(w, "ID\tKIND\tNAME\tROLE\tGROUP\tUSES\tCREATED\tEXPIRES")
					for _, t := range ts {
						exp := "never"
						if !t.Expires.IsZero() {
							exp = t.Expires.Local().Format(time.DateTime)
						}
						fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%d\t%s\t%s\n", t.ID, t.Kind, t.Name, t.Role, t.Group, t.Uses, t.Created.Local().Format(time.DateTime), exp)
					}
				})
			})
		},
	}
	revoke := &cobra.Command{
		Use: "revoke ID", Short: "Revoke a token; what it enrolled stays", Args: exactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return conn.call(cmd, func(ctx context.Context, c *api.Client) error {
				if err := c.RevokeToken(ctx, args[0]); err != nil {
					return err
				}
				fmt.Fprintf(cmd.OutOrStdout(), "%s is revoked\n", args[0])
				return nil
			})
		},
	}
	cmd.AddCommand(create, list, revoke)
	return cmd
}
