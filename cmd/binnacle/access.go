package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/binnacle-project/binnacle"
	"github.com/binnacle-project/binnacle/api"
)

func newWhoami(conn *connection) *cobra.Command {
	return &cobra.Command{
		Use: "whoami", Short: "Show which manager is asked, and who you are to it", Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			t, err := conn.target()
			if err != nil {
				return err
			}
			return conn.call(cmd, func(ctx context.Context, c *api.Client) error {
				me, err := c.Me(ctx)
				if err != nil {
					return err
				}
				return conn.print(cmd.OutOrStdout(), me, func(w io.Writer) {
					fmt.Fprintf(w, "manager\t%s\nname\t%s\nrole\t%s\nrights\t%s\n", t.Manager, me.Name, me.Role, firstOf(strings.Join(me.Rights, ", "), dash))
				})
			})
		},
	}
}

func newLogin(conn *connection) *cobra.Command {
	return &cobra.Command{
		Use: "login", Short: "Print a link that logs a browser in once, with your role", Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			t, err := conn.target()
			if err != nil {
				return err
			}
			return conn.call(cmd, func(ctx context.Context, c *api.Client) error {
				code, err := c.LoginCode(ctx)
				if err != nil {
					return err
				}
				return conn.print(cmd.OutOrStdout(), code, func(w io.Writer) {
					fmt.Fprintf(w, "%s/login?code=%s\n", strings.TrimSuffix(t.Manager, "/"), code.Code)
				})
			})
		},
	}
}

func newHealth(conn *connection) *cobra.Command {
	return &cobra.Command{
		Use: "health", Short: "Ask whether the manager is ready: 0 it is, 3 it starts or stops, 5 it does not answer", Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return conn.call(cmd, func(ctx context.Context, c *api.Client) error {
				if err := c.Ready(ctx); err != nil {
					return err
				}
				return conn.print(cmd.OutOrStdout(), map[string]string{"status": "ready"}, func(w io.Writer) { fmt.Fprintln(w, "ready") })
			})
		},
	}
}

func newDiscovery(conn *connection) *cobra.Command {
	var group, format string
	cmd := &cobra.Command{
		Use: "discovery", Short: "Show the nodes that load balancers are told of", Args: noArgs,
		Long: `Discovery lists the ready nodes as load balancers see them. --format prints exactly what the
manager serves: http_sd for Prometheus and scripts, traefik for Traefik's HTTP provider.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			path := ""
			switch format {
			case "":
			case "http_sd", "traefik":
				path = "/v1/discovery/" + format
			default:
				return usageError{fmt.Errorf("--format %q: want http_sd or traefik", format)}
			}
			return conn.call(cmd, func(ctx context.Context, c *api.Client) error {
				if path != "" {
					if group != "" {
						path += "?group=" + group
					}
					b, _, err := c.Do(ctx, http.MethodGet, path, nil)
					if err != nil {
						return err
					}
					return writeBody(cmd.OutOrStdout(), b)
				}
				all, err := c.Discovery(ctx)
				if err != nil {
					return err
				}
				list := []api.TargetGroup{}
				for _, t := range all {
					if group == "" || t.Labels["__meta_binnacle_group"] == group || t.Labels["group"] == group {
						list = append(list, t)
					}
				}
				return conn.print(cmd.OutOrStdout(), list, func(w io.Writer) {
					fmt.Fprintln(w, "TARGET\tLABELS")
					for _, t := range list {
						for _, addr := range t.Targets {
							fmt.Fprintf(w, "%s\t%s\n", addr, strings.Trim(seriesName(t.Labels), "{}"))
						}
					}
				})
			})
		},
	}
	cmd.Flags().StringVar(&group, "group", "", "only nodes of this `GROUP`")
	cmd.Flags().StringVar(&format, "format", "", "what the manager serves, as it is: `FORMAT` http_sd or traefik")
	return conn.watchable(cmd)
}

func newAPI(conn *connection) *cobra.Command {
	var body string
	cmd := &cobra.Command{
		Use:   "api METHOD PATH",
		Short: "Call any path of the manager's API with your token",
		Long: `Api sends one request and prints the answer: JSON is laid out, all else is left as it is. What
ends in /stream is followed, one event a line. docs/reference/api.md lists the paths.`,
		Example: "  binnacle api GET /v1/cluster\n  binnacle api GET /metrics\n  binnacle api POST /v1/groups/default/rollouts --body rollout.json",
		Args:    exactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			method, path := strings.ToUpper(args[0]), args[1]
			if !strings.HasPrefix(path, "/") {
				return usageError{fmt.Errorf("path %q: want one that begins with /, such as /v1/cluster", path)}
			}
			var b []byte
			if body != "" {
				var err error
				if b, err = readFile(cmd.InOrStdin(), body); err != nil {
					return err
				}
			}
			if method == http.MethodGet && strings.HasSuffix(path, "/stream") {
				client, err := conn.client()
				if err != nil {
					return err
				}
				return quietEnd(cmd, client.Stream(cmd.Context(), path, func(data []byte) error {
					_, err := fmt.Fprintf(cmd.OutOrStdout(), "%s\n", data)
					return err
				}))
			}
			return conn.call(cmd, func(ctx context.Context, c *api.Client) error {
				out, _, err := c.Do(ctx, method, path, b)
				if err != nil {
					return err
				}
				return writeBody(cmd.OutOrStdout(), out)
			})
		},
	}
	cmd.Flags().StringVar(&body, "body", "", "`FILE` to send, - for standard input")
	return cmd
}

// quietEnd makes Ctrl-C the ordinary end of what would go on for ever.
func quietEnd(cmd *cobra.Command, err error) error {
	if cmd.Context().Err() != nil {
		return nil
	}
	return err
}

// writeBody lays JSON out and leaves all else as it is.
func writeBody(w io.Writer, b []byte) error {
	var out bytes.Buffer
	if json.Indent(&out, bytes.TrimSpace(b), "", "  ") == nil && out.Len() > 0 {
		b = append(out.Bytes(), '\n')
	}
	_, err := w.Write(b)
	return err
}

// completeTimeout bounds what the shell waits for after TAB.
const completeTimeout = 2 * time.Second

// completions teaches the shell names that only the manager knows. Where it
// does not answer in time there are none.
func completions(root *cobra.Command, conn *connection) {
	names := func(list func(context.Context, *api.Client) ([]string, error)) cobra.CompletionFunc {
		return func(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
			const no = cobra.ShellCompDirectiveNoFileComp
			client, err := conn.client()
			if err != nil || cmd.Args != nil && cmd.Args(cmd, append(args, "x")) != nil {
				return nil, no
			}
			ctx, cancel := context.WithTimeout(cmd.Context(), completeTimeout)
			defer cancel()
			out, err := list(ctx, client)
			if err != nil {
				return nil, no
			}
			return out, no
		}
	}
	nodes := names(func(ctx context.Context, c *api.Client) (out []string, err error) {
		ns, err := c.Nodes(ctx)
		for _, n := range ns {
			out = append(out, cobra.CompletionWithDesc(n.Name, string(n.State)))
		}
		return out, err
	})
	backends := names(func(ctx context.Context, c *api.Client) (out []string, err error) {
		bs, err := c.Backends(ctx)
		for _, b := range bs {
			out = append(out, string(b.ID))
		}
		return out, err
	})
	rollouts := names(func(ctx context.Context, c *api.Client) (out []string, err error) {
		rs, err := c.Rollouts(ctx)
		for i := len(rs) - 1; i >= 0; i-- {
			out = append(out, cobra.CompletionWithDesc(rs[i].ID, string(rs[i].State)))
		}
		return out, err
	})
	groups := names(func(ctx context.Context, c *api.Client) (out []string, err error) {
		gs, err := c.Groups(ctx)
		for _, g := range gs {
			out = append(out, string(g.Name))
		}
		return out, err
	})
	tokens := names(func(ctx context.Context, c *api.Client) (out []string, err error) {
		ts, err := c.Tokens(ctx)
		for _, t := range ts {
			out = append(out, cobra.CompletionWithDesc(t.ID, t.Name))
		}
		return out, err
	})
	var walk func(*cobra.Command)
	walk = func(cmd *cobra.Command) {
		if cmd.ValidArgsFunction == nil && cmd.ValidArgs == nil {
			switch _, arg, _ := strings.Cut(cmd.Use, " "); strings.Trim(arg, "[]") {
			case "NODE":
				cmd.ValidArgsFunction = nodes
			case "BACKEND":
				cmd.ValidArgsFunction = backends
			case "ROLLOUT":
				cmd.ValidArgsFunction = rollouts
			case "ID":
				cmd.ValidArgsFunction = tokens
			case "":
				cmd.ValidArgsFunction = cobra.NoFileCompletions
			}
		}
		if cmd.Flags().Lookup("group") != nil {
			_ = cmd.RegisterFlagCompletionFunc("group", groups)
		}
		for _, c := range cmd.Commands() {
			walk(c)
		}
	}
	walk(root)
	_ = root.RegisterFlagCompletionFunc("output", cobra.FixedCompletions([]string{"table", "json", "yaml"}, cobra.ShellCompDirectiveNoFileComp))
	_ = root.RegisterFlagCompletionFunc("context", completeContexts)
}

func completeContexts(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	c, err := readContexts()
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	var out []string
	for name, t := range c.Contexts {
		out = append(out, cobra.CompletionWithDesc(name, t.Manager))
	}
	return out, cobra.ShellCompDirectiveNoFileComp
}

// backendID finds a backend by id, or by its host where that is clear.
func backendID(ctx context.Context, c *api.Client, s string) (binnacle.BackendID, error) {
	bs, err := c.Backends(ctx)
	if err != nil {
		return "", err
	}
	var found []binnacle.BackendID
	for _, b := range bs {
		if string(b.ID) == s {
			return b.ID, nil
		}
		if b.Address == s {
			found = append(found, b.ID)
		}
	}
	switch len(found) {
	case 0:
		return "", usageError{fmt.Errorf("no node has called a backend %q: `binnacle backends` lists them", s)}
	case 1:
		return found[0], nil
	}
	return "", usageError{fmt.Errorf("%d backends are at %q: give one of %v", len(found), s, found)}
}
