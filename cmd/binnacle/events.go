package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/binnacle-project/binnacle"
	"github.com/binnacle-project/binnacle/api"
)

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
