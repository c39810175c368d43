package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/binnacle-project/binnacle"
	"github.com/binnacle-project/binnacle/api"
	"github.com/binnacle-project/binnacle/api/configschema"
)

func newConfig(conn *connection) *cobra.Command {
	cmd := &cobra.Command{Use: "config", Short: "Push configurations and look at their history"}
	cmd.AddCommand(newConfigPush(conn), newConfigDiff(conn), newConfigHistory(conn), newConfigShow(conn), newConfigGroups(conn), newConfigSchema())
	return cmd
}

func newConfigPush(conn *connection) *cobra.Command {
	var group, message, format string
	var dryRun, noWait, wait bool
	var flags rolloutFlags
	cmd := &cobra.Command{
		Use:   "push FILE",
		Short: "Validate a configuration and make it a revision; with --rollout, bring it to the nodes",
		Long: `Push sends FILE ("-" for standard input) to the manager, which validates it: strict parse,
Lura's own checks and a dry build in a child process. A faulty file is refused with every
reason. The same bytes are the same revision: pushing again is harmless.

Without --rollout no node is touched. With --rollout=all every node of the group gets the
revision at once. With --rollout=steps a few nodes get it first, and gates compare them with the
others before the next ones follow; a revision that is worse is taken back. Push follows the
rollout to its end, and ends with 4 when it did not complete.`,
		Args: exactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			conf, err := readFile(cmd.InOrStdin(), args[0])
			if err != nil {
				return err
			}
			if flags.strategy != "" {
				if _, err := flags.request(0); err != nil {
					return err
				}
			}
			client, err := conn.client()
			if err != nil {
				return err
			}
			ctx, cancel := context.WithTimeout(cmd.Context(), flags.waitFor(cmd))
			defer cancel()
			rev, err := client.CreateRevision(ctx, binnacle.Group(group), api.NewRevision{Config: conf, Message: message, DryRun: dryRun, Format: format})
			if err != nil {
				return err
			}
			out := cmd.OutOrStdout()
			for _, f := range rev.Warnings {
				fmt.Fprintf(cmd.ErrOrStderr(), "warning: %s\n", faultLine(f))
			}
			if dryRun {
				d, err := client.DiffConfig(ctx, binnacle.Group(group), conf)
				if err != nil {
					return err
				}
				printDiff(out, d)
				fmt.Fprintf(out, "%s is valid (sha256 %.12s…); nothing was stored\n", args[0], rev.SHA256)
				return nil
			}
			if rev.Existing {
				fmt.Fprintf(out, "revision %d of group %s already holds these bytes (sha256 %.12s…)\n", rev.Number, rev.Group, rev.SHA256)
			} else {
				fmt.Fprintf(out, "revision %d of group %s (sha256 %.12s…)\n", rev.Number, rev.Group, rev.SHA256)
			}
			if flags.strategy == "" {
				fmt.Fprintf(out, "no node is touched: start a rollout with `binnacle rollout start %d --group %s`\n", rev.Number, group)
				return nil
			}
			if rev.Existing {
				if there, err := runsAlready(ctx, client, rev.Group, rev.Number); err != nil {
					return err
				} else if there {
					fmt.Fprintf(out, "group %s runs it already: no rollout is needed\n", rev.Group)
					return nil
				}
			}
			return flags.start(ctx, out, client, rev.Group, rev.Number, wait && !noWait)
		},
	}
	f := cmd.Flags()
	f.StringVar(&group, "group", string(binnacle.DefaultGroup), "the `GROUP` whose configuration it is")
	f.StringVarP(&message, "message", "m", "", "what changed and why (`TEXT`), kept with the revision")
	f.StringVar(&format, "format", "", "`FORMAT` of a new group, settled by its first revision: krakend, or opaque for programs under supervise (default krakend)")
	f.StringVar(&flags.strategy, "rollout", "", "also start a rollout: `STRATEGY` all or steps")
	f.BoolVar(&dryRun, "dry-run", false, "validate and compare only, store nothing")
	f.BoolVar(&wait, "wait", true, "follow the rollout to its end")
	f.BoolVar(&noWait, "no-wait", false, "the same as --wait=false")
	flags.register(f)
	return cmd
}

// runsAlready reports whether a revision is what the group should run, with nothing
// under way or queued that may change that.
func runsAlready(ctx context.Context, c *api.Client, g binnacle.Group, rev binnacle.Revision) (bool, error) {
	groups, err := c.Groups(ctx)
	if err != nil {
		return false, err
	}
	if !slices.ContainsFunc(groups, func(x api.Group) bool { return x.Name == g && x.Desired == rev }) {
		return false, nil
	}
	rollouts, err := c.Rollouts(ctx)
	if err != nil {
		return false, err
	}
	return !slices.ContainsFunc(rollouts, func(r api.Rollout) bool { return r.Group == g && !r.State.Ended() }), nil
}

func newConfigDiff(conn *connection) *cobra.Command {
	var group string
	cmd := &cobra.Command{
		Use:   "diff [FILE | FROM TO]",
		Short: "Compare configurations by structure, with the traffic of what differs",
		Long: `Diff shows which endpoints go, change and come, field by field, and what each served in the past
24 hours. With FILE ("-" for standard input) it compares what the group should run with that file;
with two numbers, two revisions; with nothing, what the group should run with its newest revision.`,
		Args: maxArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			return conn.call(cmd, func(ctx context.Context, c *api.Client) error {
				var d api.Diff
				var err error
				switch len(args) {
				case 0:
					d, err = c.Diff(ctx, binnacle.Group(group), 0, 0)
				case 1:
					var conf []byte
					if conf, err = readFile(cmd.InOrStdin(), args[0]); err == nil {
						d, err = c.DiffConfig(ctx, binnacle.Group(group), conf)
					}
				default:
					var from, to binnacle.Revision
					if from, err = parseRevision(args[0]); err == nil {
						to, err = parseRevision(args[1])
					}
					if err == nil {
						d, err = c.Diff(ctx, binnacle.Group(group), from, to)
					}
				}
				if err != nil {
					return err
				}
				if done, err := conn.encode(cmd.OutOrStdout(), d); done {
					return err
				}
				printDiff(cmd.OutOrStdout(), d)
				return nil
			})
		},
	}
	cmd.Flags().StringVar(&group, "group", string(binnacle.DefaultGroup), "the `GROUP` to compare in")
	return cmd
}

func parseRevision(s string) (binnacle.Revision, error) {
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil || n == 0 {
		return 0, usageError{fmt.Errorf("revision %q: want a number from 1", s)}
	}
	return binnacle.Revision(n), nil
}

// printDiff prints a diff for people. What has traffic and goes stands out.
func printDiff(w io.Writer, d api.Diff) {
	to := "the file"
	if d.To > 0 {
		to = "revision " + d.To.String()
	}
	from := "each node's own file"
	if d.From > 0 {
		from = "revision " + d.From.String()
	}
	if len(d.Endpoints)+len(d.Service) == 0 && d.Lines == "" {
		fmt.Fprintf(w, "no difference between %s and %s\n", from, to)
		return
	}
	fmt.Fprintf(w, "from %s to %s:\n", from, to)
	marks := map[string]string{"added": "+", "removed": "-", "changed": "~"}
	for _, e := range d.Endpoints {
		fmt.Fprintf(w, "%s %s %s%s\n", marks[e.Change], e.Change, e.Endpoint, trafficLine(e))
		printFields(w, e.Fields)
	}
	if len(d.Service) > 0 {
		fmt.Fprintln(w, "~ the service")
		printFields(w, d.Service)
	}
	fmt.Fprint(w, d.Lines)
	if d.Note != "" {
		fmt.Fprintf(w, "note: %s\n", d.Note)
	}
}

func trafficLine(e api.EndpointDiff) string {
	t := e.Traffic
	if t == nil || e.Change == "added" && t.Requests == 0 {
		return ""
	}
	if t.Requests == 0 {
		return "  (no requests in 24 h)"
	}
	line := fmt.Sprintf("  (%.3g/s in 24 h, %.3g %% errors", t.RequestsPerSecond, 100*t.ErrorRatio)
	if !t.LastSeen.IsZero() {
		line += ", last seen " + since(t.LastSeen) + " ago"
	}
	line += ")"
	if e.Change == "removed" {
		line += "  <-- THIS ENDPOINT HAS TRAFFIC"
	}
	return line
}

func printFields(w io.Writer, fields []api.FieldDiff) {
	for _, f := range fields {
		switch {
		case f.Before == "" && f.After == "":
			fmt.Fprintf(w, "    %s\n", f.Path)
		case f.Before == "":
			fmt.Fprintf(w, "    %s: added %s\n", f.Path, f.After)
		case f.After == "":
			fmt.Fprintf(w, "    %s: removed %s\n", f.Path, f.Before)
		default:
			fmt.Fprintf(w, "    %s: %s becomes %s\n", f.Path, f.Before, f.After)
		}
	}
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
		Args:  noArgs,
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

func newConfigShow(conn *connection) *cobra.Command {
	var group string
	var raw bool
	cmd := &cobra.Command{
		Use:   "show [REVISION]",
		Short: "Show a revision, or with --raw its bytes as they were pushed",
		Long: `Show tells who made a revision, when and why. Without a number it is the one that the group should
run. --raw prints the configuration itself, byte for byte: redirect it to a file.`,
		Example: "  binnacle config show 7 --raw > krakend.json",
		Args:    maxArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return conn.call(cmd, func(ctx context.Context, c *api.Client) error {
				n, err := revisionOrDesired(ctx, c, binnacle.Group(group), args)
				if err != nil {
					return err
				}
				r, err := c.Revision(ctx, binnacle.Group(group), n)
				if err != nil {
					return err
				}
				if raw {
					b, err := c.ConfigBytes(ctx, r.SHA256)
					if err != nil {
						return err
					}
					_, err = cmd.OutOrStdout().Write(b)
					return err
				}
				return conn.print(cmd.OutOrStdout(), r, func(w io.Writer) {
					fmt.Fprintf(w, "revision\t%d of group %s\nsha256\t%s\ncreated\t%s by %s\nmessage\t%s\nbytes\t%d\n", r.Number, r.Group, r.SHA256,
						r.Created.Local().Format(time.DateTime), firstOf(r.Author, dash), firstOf(r.Message, dash), r.Bytes)
					for _, f := range r.Warnings {
						fmt.Fprintf(w, "warning\t%s\n", faultLine(f))
					}
				})
			})
		},
	}
	cmd.Flags().StringVar(&group, "group", string(binnacle.DefaultGroup), "the `GROUP` to look in")
	cmd.Flags().BoolVar(&raw, "raw", false, "print the configuration itself")
	return cmd
}

// revisionOrDesired reads the number that was given, else asks what the group
// should run.
func revisionOrDesired(ctx context.Context, c *api.Client, g binnacle.Group, args []string) (binnacle.Revision, error) {
	if len(args) == 1 {
		return parseRevision(args[0])
	}
	groups, err := c.Groups(ctx)
	if err != nil {
		return 0, err
	}
	for _, have := range groups {
		if have.Name == g && have.Desired > 0 {
			return have.Desired, nil
		}
	}
	return 0, usageError{fmt.Errorf("group %s has no revision in force: its nodes run their own files; give a number (`binnacle config history --group %s`)", g, g)}
}

func newConfigGroups(conn *connection) *cobra.Command {
	return conn.watchable(&cobra.Command{
		Use: "groups", Short: "List the groups: parts of the cluster with a configuration line of their own", Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return conn.call(cmd, func(ctx context.Context, c *api.Client) error {
				gs, err := c.Groups(ctx)
				if err != nil {
					return err
				}
				return conn.print(cmd.OutOrStdout(), gs, func(w io.Writer) {
					fmt.Fprintln(w, "GROUP\tFORMAT\tDESIRED\tREVISIONS\tNODES\tREQUESTS\tERRORS\tP99")
					for _, g := range gs {
						desired := "own files"
						if g.Desired > 0 {
							desired = g.Desired.String()
						}
						fmt.Fprintf(w, "%s\t%s\t%s\t%d\t%d\t%s\t%s\t%s\n", g.Name, g.Format, desired, g.Revisions, g.Nodes, rate(g.Activity), ratio(g.Activity), p99(g.Activity))
					}
				})
			})
		},
	})
}

func newConfigSchema() *cobra.Command {
	return &cobra.Command{
		Use: "schema", Short: "Print the JSON Schema of configurations, for editors", Args: noArgs,
		Long: `Schema prints the JSON Schema that a configuration is checked against, for editors that complete
and check while one types. A file names it with "$schema". A manager serves the same at
/v1/schema/config.`,
		Example: `  binnacle config schema > krakend.schema.json`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, err := cmd.OutOrStdout().Write(configschema.JSON)
			return err
		},
	}
}
