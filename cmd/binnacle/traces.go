package main

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/binnacle-project/binnacle/api"
)

// What the commands read of Jaeger's query API; times are microseconds.
type (
	traceAnswer struct {
		Data []trace `json:"data"`
	}
	trace struct {
		TraceID   string `json:"traceID"`
		Spans     []span `json:"spans"`
		Processes map[string]struct {
			ServiceName string `json:"serviceName"`
			Tags        []tag  `json:"tags"`
		} `json:"processes"`
	}
	span struct {
		SpanID        string `json:"spanID"`
		OperationName string `json:"operationName"`
		References    []struct {
			SpanID string `json:"spanID"`
		} `json:"references"`
		StartTime int64  `json:"startTime"`
		Duration  int64  `json:"duration"`
		Tags      []tag  `json:"tags"`
		ProcessID string `json:"processID"`
	}
	tag struct {
		Key   string `json:"key"`
		Value any    `json:"value"`
	}
)

func (s span) tag(key string) string {
	for _, t := range s.Tags {
		if t.Key == key {
			return fmt.Sprint(t.Value)
		}
	}
	return ""
}

func (s span) failed() bool { return s.tag("error") == "true" || s.tag("otel.status_code") == "ERROR" }

// root is the span without a parent in the trace, else the first.
func (t trace) root() span {
	known := map[string]bool{}
	for _, s := range t.Spans {
		known[s.SpanID] = true
	}
	first := span{}
	for i, s := range t.Spans {
		if len(s.References) == 0 || !known[s.References[0].SpanID] {
			return s
		}
		if i == 0 {
			first = s
		}
	}
	return first
}

func newTraces(conn *connection) *cobra.Command {
	var service, operation, lookback string
	var minDuration time.Duration
	var limit int
	var failed bool
	var tags []string
	cmd := &cobra.Command{
		Use:   "traces",
		Short: "Find traces, newest first; show one",
		Long: `Traces lists those of a service. Answers of the gateway carry a traceresponse header: its second
part is the id to give to binnacle traces show.`,
		Example: "  binnacle traces --errors --lookback 10m\n  binnacle traces --operation 'GET /users/{id}' --min-duration 500ms",
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			q := url.Values{"service": {service}, "lookback": {lookback}, "limit": {strconv.Itoa(limit)}}
			if operation != "" {
				q.Set("operation", operation)
			}
			if minDuration > 0 {
				q.Set("minDuration", minDuration.String())
			}
			if failed {
				tags = append(tags, "error=true")
			}
			for _, t := range tags {
				key, value, ok := strings.Cut(t, "=")
				if !ok {
					return usageError{fmt.Errorf("--tag %q: want KEY=VALUE", t)}
				}
				q.Add("tag", key+":"+value)
			}
			return conn.call(cmd, func(ctx context.Context, c *api.Client) error {
				var a traceAnswer
				if err := jaeger(ctx, c, "/jaeger/api/traces?"+q.Encode(), &a); err != nil {
					return err
				}
				slices.SortStableFunc(a.Data, func(x, y trace) int { return cmp.Compare(y.root().StartTime, x.root().StartTime) })
				return conn.print(cmd.OutOrStdout(), a.Data, func(w io.Writer) { printTraces(w, a.Data, service) })
			})
		},
	}
	f := cmd.Flags()
	f.StringVar(&service, "service", "binnacle-gateway", "`NAME` of the service (binnacle traces services lists them)")
	f.StringVar(&operation, "operation", "", "only traces with a span of this `NAME`")
	f.StringVar(&lookback, "lookback", "1h", "how far back (`DURATION`, such as 10m or 2d)")
	f.DurationVar(&minDuration, "min-duration", 0, "only spans that took at least this `DURATION`")
	f.BoolVar(&failed, "errors", false, "only traces with an error; the same as --tag error=true")
	f.StringSliceVar(&tags, "tag", nil, "only spans with this attribute (`KEY=VALUE`); may be given several times")
	f.IntVar(&limit, "limit", 20, "show at most this `NUMBER`")
	cmd.AddCommand(&cobra.Command{
		Use: "show TRACE", Short: "Show one trace as a tree", Args: exactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return conn.call(cmd, func(ctx context.Context, c *api.Client) error {
				var a traceAnswer
				if err := jaeger(ctx, c, "/jaeger/api/traces/"+url.PathEscape(args[0]), &a); err != nil {
					return err
				}
				if len(a.Data) == 0 {
					return &api.Problem{Status: http.StatusNotFound, Title: "Not Found", Detail: "there is no trace " + args[0]}
				}
				return conn.print(cmd.OutOrStdout(), a.Data[0], func(w io.Writer) { printTrace(w, a.Data[0]) })
			})
		},
	}, &cobra.Command{
		Use: "services", Short: "List the services that sent spans, with their operations", Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return conn.call(cmd, func(ctx context.Context, c *api.Client) error {
				type named struct {
					Service    string   `json:"service"`
					Operations []string `json:"operations"`
				}
				var services struct {
					Data []string `json:"data"`
				}
				if err := jaeger(ctx, c, "/jaeger/api/services", &services); err != nil {
					return err
				}
				list := []named{}
				for _, s := range services.Data {
					var ops struct {
						Data []string `json:"data"`
					}
					if err := jaeger(ctx, c, "/jaeger/api/services/"+url.PathEscape(s)+"/operations", &ops); err != nil {
						return err
					}
					list = append(list, named{s, ops.Data})
				}
				return conn.print(cmd.OutOrStdout(), list, func(w io.Writer) {
					fmt.Fprintln(w, "SERVICE\tOPERATIONS")
					for _, s := range list {
						fmt.Fprintf(w, "%s\t%s\n", s.Service, strings.Join(s.Operations, ", "))
					}
				})
			})
		},
	})
	return cmd
}

func jaeger(ctx context.Context, c *api.Client, path string, out any) error {
	b, _, err := c.Do(ctx, http.MethodGet, path, nil)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(b, out); err != nil {
		return fmt.Errorf("decode the answer of %s: %w", path, err)
	}
	return nil
}

func printTraces(w io.Writer, ts []trace, service string) {
	if len(ts) == 0 {
		fmt.Fprintf(w, "no trace of %s matches: `binnacle traces services` lists who sent spans\n", service)
		return
	}
	fmt.Fprintln(w, "TRACE\tSTART\tOPERATION\tDURATION\tSPANS\tERRORS")
	for _, t := range ts {
		root, failed := t.root(), 0
		for _, s := range t.Spans {
			if s.failed() {
				failed++
			}
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%d\t%d\n", t.TraceID, time.UnixMicro(root.StartTime).Format("01-02 15:04:05.000"), root.OperationName,
			duration(float64(root.Duration)/1e6), len(t.Spans), failed)
	}
}

// printTrace draws the spans under their parents, each with its place in time.
func printTrace(w io.Writer, t trace) {
	if len(t.Spans) == 0 {
		return
	}
	children := map[string][]span{}
	known := map[string]bool{}
	begin, end := t.Spans[0].StartTime, int64(0)
	for _, s := range t.Spans {
		known[s.SpanID] = true
		begin, end = min(begin, s.StartTime), max(end, s.StartTime+s.Duration)
	}
	for _, s := range t.Spans {
		parent := ""
		if len(s.References) > 0 && known[s.References[0].SpanID] {
			parent = s.References[0].SpanID
		}
		children[parent] = append(children[parent], s)
	}
	fmt.Fprintln(w, "SPAN\tSERVICE\tNODE\tSTART\tDURATION\tWHERE IN TIME\tSTATUS")
	const deepest = 64 // a cycle of parents must not hang the command
	var draw func(parent string, depth int)
	draw = func(parent string, depth int) {
		spans := children[parent]
		slices.SortStableFunc(spans, func(a, b span) int { return cmp.Compare(a.StartTime, b.StartTime) })
		for _, s := range spans {
			p := t.Processes[s.ProcessID]
			node := ""
			for _, tag := range p.Tags {
				if tag.Key == "service.instance.id" {
					node = fmt.Sprint(tag.Value)
				}
			}
			status := firstOf(s.tag("http.response.status_code"), s.tag("http.status_code"))
			if s.failed() {
				status = strings.TrimSpace(status + " error " + firstOf(s.tag("error.type"), s.tag("otel.status_description")))
			}
			name := s.OperationName
			if peer := s.tag("server.address"); peer != "" && s.tag("span.kind") == "client" {
				name += " → " + peer + ":" + s.tag("server.port")
			}
			fmt.Fprintf(w, "%s%s\t%s\t%s\t+%s\t%s\t%s\t%s\n", strings.Repeat("  ", depth), name, p.ServiceName, node,
				duration(float64(s.StartTime-begin)/1e6), duration(float64(s.Duration)/1e6), bar(s.StartTime-begin, s.Duration, end-begin), status)
			if depth < deepest {
				draw(s.SpanID, depth+1)
			}
		}
	}
	draw("", 0)
}

// bar draws where in the whole a part lies.
func bar(start, length, whole int64) string {
	const width = 30
	if whole <= 0 {
		return strings.Repeat("━", width)
	}
	from := int(start * width / whole)
	n := max(1, int((start+length)*width/whole)-from)
	from = min(from, width-1)
	return strings.Repeat(" ", from) + strings.Repeat("━", min(n, width-from)) + strings.Repeat(" ", max(0, width-from-n))
}
