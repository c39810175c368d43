package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/binnacle-project/binnacle/api"
)

// print writes v as JSON, or calls table for people.
func (c *connection) print(w io.Writer, v any, table func(w io.Writer)) error {
	if c.output == "json" {
		e := json.NewEncoder(w)
		e.SetIndent("", "  ")
		return e.Encode(v)
	}
	tw := tabwriter.NewWriter(w, 0, 4, 2, ' ', 0)
	table(tw)
	return tw.Flush()
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
	d := time.Since(t)
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%d s", int(d.Seconds()))
	case d < time.Hour:
		return fmt.Sprintf("%d min", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%d h", int(d.Hours()))
	}
	return fmt.Sprintf("%d d", int(d.Hours()/24))
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
