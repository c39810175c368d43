package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
	"unicode/utf8"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/binnacle-project/binnacle/api"
)

func newTop(conn *connection) *cobra.Command {
	var frames int
	cmd := &cobra.Command{
		Use:   "top",
		Short: "Watch the cluster live: traffic, nodes, backends, rollouts",
		Long: `Top shows what the overview page shows, every two seconds: the cluster's traffic of the past
minute, what needs attention first, then the busiest nodes and backends. q or Ctrl-C ends it.

Where the output is no terminal each frame is plain text; -n 1 prints one. With -o json each frame
is one line of JSON.`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			client, err := conn.client()
			if err != nil {
				return err
			}
			s := &screen{conn: conn, out: cmd.OutOrStdout(), left: frames}
			ctx, cancel := context.WithCancelCause(cmd.Context())
			defer cancel(nil)
			if conn.output == "table" && isTerminal(s.out) {
				defer s.open(cancel)()
			}
			for {
				err = client.Stream(ctx, "/v1/activity/stream", s.show)
				var p *api.Problem
				switch {
				case errors.Is(err, errEnough), ctx.Err() != nil:
					return nil
				case s.shown == 0, errors.As(err, &p):
					return err
				}
				s.note = fmt.Sprintf("%v; trying again", err)
				s.draw()
				select { // the manager is away for a moment, as at its restart
				case <-ctx.Done():
					return nil
				case <-time.After(2 * time.Second):
				}
			}
		},
	}
	cmd.Flags().IntVarP(&frames, "frames", "n", 0, "end after this `NUMBER` of frames; 0 goes on")
	return cmd
}

// errEnough ends a stream that has shown all that was asked for.
var errEnough = errors.New("enough")

// screen draws overviews as they come.
type screen struct {
	conn    *connection
	out     io.Writer
	live    bool // a terminal in raw mode
	left    int  // frames to go, 0 for no end
	shown   int
	last    api.Overview
	history []float64 // requests per second of the past frames, oldest first
	note    string
}

// historyMax is four minutes of frames.
const historyMax = 120

// open takes the terminal over; the returned function gives it back.
func (s *screen) open(cancel context.CancelCauseFunc) func() {
	in := int(os.Stdin.Fd())
	old, err := term.MakeRaw(in)
	if err == nil {
		go func() {
			key := make([]byte, 1)
			for {
				if _, err := os.Stdin.Read(key); err != nil {
					return
				}
				if key[0] == 'q' || key[0] == 3 || key[0] == 4 { // Ctrl-C, Ctrl-D
					cancel(errEnough)
					return
				}
			}
		}()
	}
	s.live = true
	fmt.Fprint(s.out, "\x1b[?1049h\x1b[?25l") // the other screen, no cursor
	return func() {
		fmt.Fprint(s.out, "\x1b[?25h\x1b[?1049l")
		if old != nil {
			_ = term.Restore(in, old)
		}
	}
}

func (s *screen) show(data []byte) error {
	if err := json.Unmarshal(data, &s.last); err != nil {
		return fmt.Errorf("decode an overview: %w", err)
	}
	s.note = ""
	if a := s.last.Cluster.Activity; a != nil {
		s.history = append(s.history, a.RequestsPerSecond)
		s.history = s.history[max(0, len(s.history)-historyMax):]
	}
	s.shown++
	s.draw()
	if s.left > 0 && s.shown >= s.left {
		return errEnough
	}
	return nil
}

func (s *screen) draw() {
	if s.shown == 0 {
		return
	}
	if s.conn.output != "table" {
		w := *s.conn
		w.watch = 1 // one line each
		_, _ = w.encode(s.out, s.last)
		return
	}
	width, height := 200, 0
	if s.live {
		if w, h, err := term.GetSize(int(s.out.(*os.File).Fd())); err == nil {
			width, height = w, h
		}
	}
	text := frame(s.last, s.history, s.note, width, height)
	if s.conn.colors(s.out) {
		text = colorize(text)
	}
	if s.live {
		// Each line clears what stood there: no flicker.
		text = "\x1b[H" + strings.ReplaceAll(text, "\n", "\x1b[K\r\n") + "\x1b[J"
	} else if s.shown > 1 {
		text = "\n" + text
	}
	_, _ = io.WriteString(s.out, text)
}

// frame lays one overview out in width columns and, unless height is 0, height
// lines. What needs attention comes first.
func frame(o api.Overview, history []float64, note string, width, height int) string {
	var b strings.Builder
	c := o.Cluster
	fmt.Fprintf(&b, "cluster %s   %s   license %s, %s\n", c.ID, o.Time.Local().Format(time.TimeOnly), c.License.Plan, c.License.State)
	fmt.Fprintf(&b, "nodes   %s, %d unmanaged\n", states(c.Nodes), c.Unmanaged)
	fmt.Fprintf(&b, "traffic %s, %s errors, p50 %s, p95 %s, p99 %s   %s\n", rate(c.Activity), ratio(c.Activity),
		quantile(c.Activity, 50), quantile(c.Activity, 95), p99(c.Activity), sparkline(history, 40))
	for _, r := range c.Rollouts {
		fmt.Fprintf(&b, "rollout %s of group %s: %s\n", r.ID, r.Group, progress(r))
	}
	if note != "" {
		fmt.Fprintf(&b, "!       %s\n", note)
	}
	b.WriteByte('\n')

	nodes := slices.Clone(o.Nodes)
	slices.SortStableFunc(nodes, func(a, b api.Node) int {
		return cmp.Or(cmp.Compare(trouble(b), trouble(a)), cmp.Compare(perSecond(b.Activity), perSecond(a.Activity)), cmp.Compare(a.Name, b.Name))
	})
	backends := slices.Clone(o.Backends)
	slices.SortStableFunc(backends, func(a, b api.Backend) int {
		return cmp.Or(cmp.Compare(failing(b.Activity), failing(a.Activity)), cmp.Compare(perSecond(b.Activity), perSecond(a.Activity)), cmp.Compare(a.ID, b.ID))
	})
	nodeLines, backendLines := len(nodes), len(backends)
	if height > 0 {
		room := max(2, height-strings.Count(b.String(), "\n")-4)
		backendLines = min(backendLines, max(room/2, room-nodeLines))
		nodeLines = min(nodeLines, room-backendLines)
	}
	tw := tabwriter.NewWriter(&b, 0, 4, 2, ' ', 0)
	fmt.Fprintln(tw, "NODE\tGROUP\tSTATE\tREVISION\tREQUESTS\tERRORS\tP50\tP99\tCONDITIONS")
	for _, n := range nodes[:nodeLines] {
		var applied *api.LedgerEntry
		if n.Ledger != nil {
			applied = n.Ledger.Applied
		}
		fmt.Fprintf(tw, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", n.Name, n.Group, n.State, entry(applied),
			rate(n.Activity), ratio(n.Activity), quantile(n.Activity, 50), p99(n.Activity), conditions(n.Conditions))
	}
	_ = tw.Flush()
	more(&b, len(nodes)-nodeLines, "nodes")
	b.WriteByte('\n')
	fmt.Fprintln(tw, "BACKEND\tCALLERS\tREQUESTS\tERRORS\tP50\tP99\tFAILS FROM")
	for _, be := range backends[:backendLines] {
		from := dash
		if len(be.Nodes) > 0 {
			from = fmt.Sprintf("%d of %d nodes", len(be.Nodes), be.Callers)
		}
		fmt.Fprintf(tw, "%s\t%d\t%s\t%s\t%s\t%s\t%s\n", be.ID, be.Callers, rate(be.Activity), ratio(be.Activity), quantile(be.Activity, 50), p99(be.Activity), from)
	}
	_ = tw.Flush()
	more(&b, len(backends)-backendLines, "backends")
	return fit(b.String(), width, height)
}

func more(b *strings.Builder, n int, what string) {
	if n > 0 {
		fmt.Fprintf(b, "… and %d more %s\n", n, what)
	}
}

// trouble ranks what is wrong with a node; 0 is nothing.
func trouble(n api.Node) float64 {
	t := failing(n.Activity)
	if n.State != api.Alive && n.State != api.Left {
		t += 2
	}
	return t + float64(len(n.Conditions))
}

func failing(a *api.Activity) float64 {
	if a == nil || a.ErrorRatio == nil {
		return 0
	}
	return *a.ErrorRatio
}

func perSecond(a *api.Activity) float64 {
	if a == nil {
		return 0
	}
	return a.RequestsPerSecond
}

// states writes counts by state, alive first.
func states(counts map[api.NodeState]int) string {
	var out []string
	for _, s := range []api.NodeState{api.Alive, api.Suspect, api.Unreachable, api.Down, api.Left} {
		if n := counts[s]; n > 0 {
			out = append(out, fmt.Sprintf("%d %s", n, s))
		}
	}
	if len(out) == 0 {
		return "none"
	}
	return strings.Join(out, ", ")
}

// sparkline draws the newest n values; the highest fills its cell.
func sparkline(values []float64, n int) string {
	const levels = "▁▂▃▄▅▆▇█"
	values = values[max(0, len(values)-n):]
	if len(values) == 0 {
		return ""
	}
	top := slices.Max(values)
	var b strings.Builder
	for _, v := range values {
		i := 0
		if top > 0 {
			i = min(7, int(v/top*7.999))
		}
		b.WriteString(levels[3*i : 3*i+3]) // each is three bytes of UTF-8
	}
	return b.String()
}

// fit cuts lines to the width, and the whole to the height.
func fit(text string, width, height int) string {
	lines := strings.Split(strings.TrimRight(text, "\n"), "\n")
	if height > 0 && len(lines) > height-1 {
		lines = lines[:max(0, height-1)]
	}
	for i, l := range lines {
		l = strings.TrimRight(l, " ")
		if utf8.RuneCountInString(l) > width {
			l = string([]rune(l)[:max(0, width-1)]) + "…"
		}
		lines[i] = l
	}
	return strings.Join(lines, "\n") + "\n"
}
