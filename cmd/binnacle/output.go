package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"regexp"
	"strings"
	"text/tabwriter"
	"time"

	"go.yaml.in/yaml/v3"
	"golang.org/x/term"

	"github.com/binnacle-project/binnacle/api"
)

// print writes v as JSON or YAML, or calls table for people.
func (c *connection) print(w io.Writer, v any, table func(w io.Writer)) error {
	if done, err := c.encode(w, v); done {
		return err
	}
	return c.table(w, table)
}

// encode writes v in the form that scripts asked for; it reports false when a
// person is to read it. Field names and their order are those of the API in
// both forms. With --watch each turn is one line of JSON, or one YAML document.
func (c *connection) encode(w io.Writer, v any) (bool, error) {
	switch c.output {
	case "json":
		e := json.NewEncoder(w)
		if c.watch == 0 {
			e.SetIndent("", "  ")
		}
		return true, e.Encode(v)
	case "yaml":
		b, err := json.Marshal(v)
		if err != nil {
			return true, err
		}
		var n yaml.Node // JSON is YAML
		if err := yaml.Unmarshal(b, &n); err != nil {
			return true, err
		}
		plain(&n)
		if c.watch != 0 {
			fmt.Fprintln(w, "---")
		}
		e := yaml.NewEncoder(w)
		e.SetIndent(2)
		if err := e.Encode(&n); err != nil {
			return true, err
		}
		return true, e.Close()
	}
	return false, nil
}

// plain takes JSON's braces and quotes away; what would be read as something
// else without quotes keeps them.
func plain(n *yaml.Node) {
	n.Style = 0
	if n.Kind == yaml.ScalarNode && strings.Contains(n.Value, "\n") {
		n.Style = yaml.LiteralStyle
	}
	for _, c := range n.Content {
		plain(c)
	}
}

// table aligns what f writes with tabs between, and colors it on a terminal.
func (c *connection) table(w io.Writer, f func(w io.Writer)) error {
	var b bytes.Buffer
	tw := tabwriter.NewWriter(&b, 0, 4, 2, ' ', 0)
	f(tw)
	if err := tw.Flush(); err != nil {
		return err
	}
	text := b.String()
	if c.colors(w) {
		text = colorize(text)
	}
	_, err := io.WriteString(w, text)
	return err
}

// colors reports whether w is a terminal of somebody who wants colors.
//
// Source: no-color.org: NO_COLOR, when set and not empty, prevents colors.
func (c *connection) colors(w io.Writer) bool {
	return !c.noColor && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb" && isTerminal(w)
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// ANSI styles.
const (
	reset  = "\x1b[0m"
	bold   = "\x1b[1m"
	red    = "\x1b[31m"
	green  = "\x1b[32m"
	yellow = "\x1b[33m"
)

var (
	// A state is a cell of its own: words within a message stay as they are.
	cell      = regexp.MustCompile(`(?m)(^|  )([a-z_]+)(  |$)`)
	heading   = regexp.MustCompile(`(?m)^[A-Z][A-Z0-9 ]+$`)
	stateTint = map[string]string{
		"alive": green, "completed": green, "valid": green, "pass": green, "ready": green,
		"suspect": yellow, "unreachable": yellow, "draining": yellow, "paused": yellow, "inconclusive": yellow, "warning": yellow,
		"grace": yellow, "asking": yellow, "running": yellow, "queued": yellow,
		"down": red, "failed": red, "fail": red, "expired": red, "degraded": red, "rolling_back": red, "drifted": red, "lease_ended": red,
	}
)

// colorize paints headings and the cells that are states.
func colorize(text string) string {
	text = cell.ReplaceAllStringFunc(text, func(m string) string {
		word := strings.TrimSpace(m)
		if tint := stateTint[word]; tint != "" {
			return strings.Replace(m, word, tint+word+reset, 1)
		}
		return m
	})
	return heading.ReplaceAllString(text, bold+"$0"+reset)
}

// clearScreen makes room for the next turn of --watch: on a terminal it starts
// at the top, elsewhere an empty line parts the turns.
func clearScreen(w io.Writer, first bool) {
	switch {
	case isTerminal(w):
		fmt.Fprint(w, "\x1b[H\x1b[2J")
	case !first:
		fmt.Fprintln(w)
	}
}

// dash stands for no data; a zero is printed as 0.
const dash = "–"

func rate(a *api.Activity) string {
	if a == nil {
		return dash
	}
	return fmt.Sprintf("%.3g/s", a.RequestsPerSecond)
}

func ratio(a *api.Activity) string {
	if a == nil || a.ErrorRatio == nil {
		return dash
	}
	return fmt.Sprintf("%.2f %%", 100**a.ErrorRatio)
}

func p99(a *api.Activity) string {
	if a == nil || a.Latency == nil {
		return dash
	}
	return duration(a.Latency.P99)
}

func total(a *api.Activity) string {
	if a == nil {
		return dash
	}
	return fmt.Sprint(a.RequestsTotal)
}

// duration prints seconds with three significant digits.
func duration(s float64) string {
	switch {
	case s < 1e-3:
		return fmt.Sprintf("%.3g µs", s*1e6)
	case s < 1:
		return fmt.Sprintf("%.3g ms", s*1e3)
	}
	return fmt.Sprintf("%.3g s", s)
}

// since prints the age of t in its largest unit.
func since(t time.Time) string {
	if t.IsZero() {
		return dash
	}
	return coarse(time.Since(t))
}

// coarse prints a duration in its largest unit.
func coarse(d time.Duration) string {
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%d s", int(d.Seconds()))
	case d < time.Hour:
		return fmt.Sprintf("%d min", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%d h", int(d.Hours()))
	}
	return fmt.Sprintf("%d days", int(d.Hours()/24))
}

func entry(e *api.LedgerEntry) string {
	if e == nil {
		return dash
	}
	s := fmt.Sprint(e.Number)
	if e.Number == 0 {
		s = "own file"
	}
	if e.Error != "" {
		s += "!"
	}
	return s
}

func conditions(cs []api.Condition) string {
	if len(cs) == 0 {
		return ""
	}
	kinds := make([]string, len(cs))
	for i, c := range cs {
		kinds[i] = c.Kind
	}
	return strings.Join(kinds, " ")
}

// quantile is p50, p95 or p99 of an activity.
func quantile(a *api.Activity, q int) string {
	if a == nil || a.Latency == nil {
		return dash
	}
	switch q {
	case 50:
		return duration(a.Latency.P50)
	case 95:
		return duration(a.Latency.P95)
	}
	return duration(a.Latency.P99)
}
