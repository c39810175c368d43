package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/binnacle-project/binnacle/api"
	"github.com/binnacle-project/binnacle/gateway"
	"github.com/binnacle-project/binnacle/gateway/agent"
)

func newStatus() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "status -c FILE",
		Short: "Ask the node on this machine how it is, also while the manager is away",
		Args:  noArgs,
	}
	file := config(cmd)
	dir := cmd.Flags().String("state-dir", "", "ask the node with this state folder, instead of the one of a configuration file")
	format := cmd.Flags().String("format", "text", "text or json")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if *format != "text" && *format != "json" {
			return usageError{fmt.Errorf("--format %q: want text or json", *format)}
		}
		ctx, cancel := context.WithTimeout(cmd.Context(), 5*time.Second)
		defer cancel()
		s, err := gateway.Status(ctx, *file, *dir)
		if err != nil {
			return err
		}
		if *format == "json" {
			enc := json.NewEncoder(cmd.OutOrStdout())
			enc.SetIndent("", "  ")
			return enc.Encode(s)
		}
		return printStatus(cmd.OutOrStdout(), s, time.Now())
	}
	return cmd
}

func printStatus(out io.Writer, s agent.NodeStatus, now time.Time) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	row := func(key, format string, args ...any) { fmt.Fprintf(w, key+"\t"+format+"\n", args...) }
	membership := s.Membership
	if s.Detail != "" {
		membership += " (" + s.Detail + ")"
	}
	row("membership", "%s", membership)
	if s.Node != "" {
		row("node", "%s (%s), group %s, cluster %s", s.Node, s.Name, s.Group, s.Cluster)
	}
	if !s.LastPoll.IsZero() {
		row("last poll", "answered %v ago, plan %d.%d", now.Sub(s.LastPoll).Round(time.Second), s.Epoch, s.Serial)
	}
	serving := "not serving"
	if s.Worker.Serving {
		serving = "serving on " + s.Status.Address
	}
	if s.Status.Draining {
		serving += ", draining"
	}
	if s.Stopping {
		serving += ", stopping"
	}
	row("worker", "pid %d, %s, %d crashes", s.Worker.PID, serving, s.Worker.Crashes)
	row("attempted", "%s", entry(s.Status.Attempted))
	row("applied", "%s", entry(s.Status.Applied))
	row("last good", "%s", entry(s.Status.LastGood))
	if len(s.Status.Overridden) > 0 {
		row("own keys win", "%v", s.Status.Overridden)
	}
	row("lease", "%s: %s", s.Lease.State, s.Lease.Note)
	if s.Lease.Refused != "" {
		row("", "the newest one was refused: %s", s.Lease.Refused)
	}
	if s.Gossip.On {
		alive := 0
		for _, p := range s.Gossip.Peers {
			if p.State == "alive" {
				alive++
			}
		}
		row("gossip", "%s, %d of %d other members alive", s.Gossip.Address, alive, s.Gossip.Members)
		for _, p := range s.Gossip.Peers {
			if p.State != "alive" {
				row("", "%s (%s) is %s since %v", p.ID, p.Address, p.State, now.Sub(p.Since).Round(time.Second))
			}
		}
	} else {
		row("gossip", "off")
	}
	row("telemetry", "%d exports sent, %d waiting in memory (%d bytes), %d on disk (%d bytes), %d dropped, %d damaged, %d refused",
		s.Relay.Sent, s.Relay.Waiting, s.Relay.WaitingBytes, s.Relay.Spooled, s.Relay.SpooledBytes, s.Relay.Dropped, s.Relay.Damaged, s.Relay.Refused)
	row("agent", "pid %d, version %s, up %v", s.PID, s.Version, now.Sub(s.Started).Round(time.Second))
	return w.Flush()
}

func entry(e *api.LedgerEntry) string {
	if e == nil {
		return "-"
	}
	name := fmt.Sprintf("revision %d", e.Number)
	if e.Number == 0 {
		name = "own file"
	}
	s := fmt.Sprintf("%s (%.12s) at %s", name, e.SHA256, e.Time.Format(time.RFC3339))
	if e.Error != "" {
		s += ": " + e.Error
	}
	return s
}
