package main

import (
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/binnacle-project/binnacle/api"
)

func newQuery(conn *connection) *cobra.Command {
	var at string
	var length, step time.Duration
	cmd := &cobra.Command{
		Use:   "query PROMQL",
		Short: "Ask the manager's metrics store by PromQL",
		Long: `Query asks the Prometheus HTTP API of the manager, now or at --at; with --range it asks for the
past, and the table shows the first, the lowest, the highest and the last value of each series.`,
		Example: `  binnacle query 'histogram_quantile(0.99, sum(rate(group:http_server_request_duration_seconds[5m])))'
  binnacle query --range 6h 'sum by (kind) (increase(binnacle_events_total[5m]))'`,
		Args: exactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			var when time.Time
			if at != "" {
				var err error
				if when, err = time.Parse(time.RFC3339, at); err != nil {
					return usageError{fmt.Errorf("--at %q: want a time such as 2026-11-28T03:00:00Z", at)}
				}
			}
			if length > 0 && step == 0 {
				step = max(length/240, time.Second).Round(time.Second)
			}
			if length < 0 || step < 0 || step > 0 && length == 0 {
				return usageError{fmt.Errorf("--range %v --step %v: want durations above zero, and no --step without --range", length, step)}
			}
			return conn.call(cmd, func(ctx context.Context, c *api.Client) error {
				rs, err := c.Query(ctx, args[0], when, length, step)
				if err != nil {
					return err
				}
				return conn.print(cmd.OutOrStdout(), rs, func(w io.Writer) { printSeries(w, rs, length > 0) })
			})
		},
	}
	f := cmd.Flags()
	f.StringVar(&at, "at", "", "ask as of this `TIME` (RFC 3339)")
	f.DurationVar(&length, "range", 0, "ask for the past `DURATION` before that")
	f.DurationVar(&step, "step", 0, "`DURATION` between values of a range (default a 240th of it)")
	return conn.watchable(cmd)
}

func printSeries(w io.Writer, rs []api.QueryResult, past bool) {
	if len(rs) == 0 {
		fmt.Fprintln(w, "no data: no series matches now; `binnacle query 'count by (__name__) ({__name__=~\".+\"})'` lists what there is")
		return
	}
	if past {
		fmt.Fprintln(w, "SERIES\tFIRST\tLOWEST\tHIGHEST\tLAST\tVALUES")
	} else {
		fmt.Fprintln(w, "SERIES\tVALUE")
	}
	for _, r := range rs {
		if !past {
			fmt.Fprintf(w, "%s\t%s\n", seriesName(r.Metric), value(r))
			continue
		}
		var nums []float64
		for _, pair := range r.Values {
			if p, ok := pair.([]any); ok && len(p) == 2 {
				if n, err := strconv.ParseFloat(fmt.Sprint(p[1]), 64); err == nil {
					nums = append(nums, n)
				}
			}
		}
		if len(nums) == 0 {
			fmt.Fprintf(w, "%s\t%s\t\t\t\t0 (histograms: wrap it in histogram_quantile, histogram_count …)\n", seriesName(r.Metric), dash)
			continue
		}
		fmt.Fprintf(w, "%s\t%.5g\t%.5g\t%.5g\t%.5g\t%d\n", seriesName(r.Metric), nums[0], slices.Min(nums), slices.Max(nums), nums[len(nums)-1], len(nums))
	}
}

// value is one value for people: a number, or count and sum of a histogram.
func value(r api.QueryResult) string {
	if len(r.Value) == 2 {
		text := fmt.Sprint(r.Value[1])
		if n, err := strconv.ParseFloat(text, 64); err == nil {
			return fmt.Sprintf("%.6g", n)
		}
		return text
	}
	if len(r.Histogram) == 2 {
		if h, ok := r.Histogram[1].(map[string]any); ok {
			return fmt.Sprintf("histogram of %v values, sum %v", h["count"], h["sum"])
		}
	}
	return dash
}

// seriesName writes labels as PromQL has them.
func seriesName(labels map[string]string) string {
	var parts []string
	for _, k := range slices.Sorted(maps.Keys(labels)) {
		if k != "__name__" {
			parts = append(parts, fmt.Sprintf("%s=%q", k, labels[k]))
		}
	}
	if len(parts) == 0 && labels["__name__"] != "" {
		return labels["__name__"]
	}
	return labels["__name__"] + "{" + strings.Join(parts, ",") + "}"
}
