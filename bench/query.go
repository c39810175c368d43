package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

const (
	// hour is what is asked for, at a step of a chart.
	hour      = time.Hour
	queryStep = 15 * time.Second
	// rollupNodes is the size of the fleet whose roll-ups are asked for.
	rollupNodes = 1000
)

// asked is one query, in the form that each contender has the data in.
type asked struct {
	what string
	expr string
	// by is who answers it from what it stores: those of each list are compared.
	by []string
	// again asks at the same steps each time, like a page that is loaded anew.
	again bool
}

// query fills all stores with an hour of what senders send, then asks them in
// turn.
func query(ctx context.Context, o options) error {
	end := time.Now().Truncate(queryStep)
	servers, stop, err := startAll(ctx, o, binnacleNative, binnacleClassic, promNative, promClassic, victoria)
	if err != nil {
		return err
	}
	defer stop()
	steps := int(hour / queryStep)
	for _, s := range servers {
		f := newFleet(o.nodes, explicitHistograms, end.Add(-hour))
		for i := range steps {
			bodies, err := f.export(end.Add(time.Duration(i+1-steps) * queryStep))
			if err != nil {
				return err
			}
			if err := s.send(bodies, o.conns); err != nil {
				return err
			}
		}
	}
	time.Sleep(5 * time.Second) // VictoriaMetrics shows samples some seconds late
	const total = "http_server_request_duration_seconds"
	floats := []string{"binnacle", "binnacle classic", "prometheus nhcb", "prometheus", "victoriametrics"}
	classic := []string{"binnacle classic", "binnacle", "prometheus", "victoriametrics"}
	histograms := []string{"binnacle", "prometheus nhcb"}
	fmt.Printf("raw series: %d nodes, 1 h at %v; CPU ms of the process for each query, and wall ms\n\n", o.nodes, queryStep)
	return askAll(ctx, o, servers, end, []asked{
		{what: "numbers", expr: `sum by (instance) ({__name__=~"go_(counter|gauge)_.*"})`, by: floats},
		{what: "requests, classic", expr: `sum by (instance) (rate(` + total + `_count[5m]))`, by: classic},
		{what: "p99, classic", expr: `histogram_quantile(0.99, sum by (le) (rate(` + total + `_bucket[5m])))`, by: classic},
		{what: "requests, native", expr: `histogram_count(sum by (instance) (rate(` + total + `[5m])))`, by: histograms},
		{what: "p99, native", expr: `histogram_quantile(0.99, sum(rate(` + total + `[5m])))`, by: histograms},
	})
}

// rollups asks for the panels of the dashboards, over an hour of a large fleet.
func rollups(ctx context.Context, o options) error {
	end := time.Now().Truncate(queryStep)
	c := binnacleNative
	setup := c.setup
	c.setup = func(s *server) ([]string, error) {
		args, err := setup(s)
		if err != nil {
			return nil, err
		}
		return args, writeRollups(filepath.Join(s.dir, "data", "metrics"), end)
	}
	c.name = "binnacle rollups"
	servers, stop, err := startAll(ctx, o, c)
	if err != nil {
		return err
	}
	defer stop()
	if err := servers[0].quiet(ctx); err != nil { // it reads the last hour at its start
		return err
	}
	us := []string{c.name}
	fmt.Printf("roll-ups of %d nodes, 1 h at %v\n\n", rollupNodes, queryStep)
	const (
		group    = `group:http_server_request_duration_seconds{group=~".*"}[1m]`
		endpoint = `endpoint:http_server_request_duration_seconds{group=~".*"}[1m]`
		backend  = `backend:http_client_request_duration_seconds{group=~".*"}[1m]`
		node     = `node:http_server_request_duration_seconds{group=~".*"}[1m]`
		pair     = `node_backend:http_client_request_duration_seconds{server_address="backend-7.internal"}[1m]`
	)
	panels := []asked{
		{what: "requests of the fleet", expr: `histogram_count(sum(rate(` + group + `)))`, by: us},
		{what: "requests by outcome", expr: `histogram_count(sum by (outcome) (rate(` + group + `)))`, by: us},
		{what: "p99 of the fleet", expr: `histogram_quantile(0.99, sum(rate(` + group + `)))`, by: us},
		{what: "requests by endpoint", expr: `histogram_count(sum by (http_request_method, http_route) (rate(` + endpoint + `)))`, by: us},
		{what: "p99 by endpoint", expr: `histogram_quantile(0.99, sum by (http_request_method, http_route) (rate(` + endpoint + `)))`, by: us},
		{what: "calls by backend", expr: `histogram_count(sum by (server_address, server_port) (rate(` + backend + `)))`, by: us},
		{what: "p99 by backend", expr: `histogram_quantile(0.99, sum by (server_address, server_port) (rate(` + backend + `)))`, by: us},
		{what: "one backend by node", expr: `histogram_quantile(0.99, sum by (instance, server_address, server_port) (rate(` + pair + `)))`, by: us},
		{what: "requests by node", expr: `histogram_count(sum by (instance) (rate(` + node + `)))`, by: us},
		{what: "p99 by node", expr: `histogram_quantile(0.99, sum by (instance) (rate(` + node + `)))`, by: us},
	}
	for _, p := range panels[:len(panels):len(panels)] {
		p.what, p.again = p.what+", again", true
		panels = append(panels, p)
	}
	return askAll(ctx, o, servers, end, panels)
}

// enough is how much CPU time a server uses in one turn of a query, if it does so
// within some asks: the clock of a process counts in steps of 10 ms.
const (
	enough  = 300 * time.Millisecond
	mostAsk = 40
)

// answers are what one server's turns with one query were like.
type answers struct {
	s         *server
	cpu, wall []float64 // ms for each ask, by turn
	series    int
}

// turn asks until enough CPU time was used, each time at other steps: what is
// kept of the time before is of no use, unless again says that the steps are
// the same.
func (a *answers) turn(ctx context.Context, q asked, end *time.Time) error {
	before, err := a.s.cpu()
	if err != nil {
		return err
	}
	begin := time.Now()
	for n := 1; ; n++ {
		if !q.again {
			*end = end.Add(-7 * time.Millisecond)
		}
		if a.series, err = a.s.ask(ctx, q.expr, *end); err != nil {
			return fmt.Errorf("%s: %s: %w", a.s.name, q.expr, err)
		}
		if a.series == 0 {
			return fmt.Errorf("%s: %s: no data", a.s.name, q.expr)
		}
		after, err := a.s.cpu()
		if err != nil {
			return err
		}
		if used := after - before; used >= enough || n == mostAsk {
			a.cpu = append(a.cpu, float64(used.Microseconds())/1000/float64(n))
			a.wall = append(a.wall, float64(time.Since(begin).Microseconds())/1000/float64(n))
			return nil
		}
	}
}

// askAll asks each query of each server that has the data for it, in turns, and
// prints what they used, and how much of each peer's that is, turn by turn.
func askAll(ctx context.Context, o options, servers []*server, end time.Time, queries []asked) error {
	t := newTable("query", "server", "series", "CPU ms", "wall ms")
	ratios := newTable("query", "ours", "peer", "ours / peer")
	for _, q := range queries {
		var all []*answers
		for _, name := range q.by {
			for _, s := range servers {
				if s.name == name {
					all = append(all, &answers{s: s})
				}
			}
		}
		at := end
		for rep := range o.reps + 1 { // the first fills the caches of the kernel
			for i := range all {
				if err := all[(i+rep)%len(all)].turn(ctx, q, &at); err != nil {
					return err
				}
			}
		}
		for _, a := range all {
			a.cpu, a.wall = a.cpu[1:], a.wall[1:]
		}
		for _, a := range all {
			t.row(q.what, a.s.name, strconv.Itoa(a.series), spread("%.1f", a.cpu), spread("%.0f", a.wall))
			for _, peer := range all {
				if a.s.ours && !peer.s.ours {
					r := make([]float64, len(a.cpu))
					for i := range r {
						r[i] = a.cpu[i] / peer.cpu[i]
					}
					ratios.row(q.what, a.s.name, peer.s.name, spread("%.2f", r))
				}
			}
		}
	}
	t.print()
	if len(ratios.rows) > 1 {
		fmt.Println()
		ratios.print()
	}
	return nil
}

func seconds(t time.Time) string { return strconv.FormatFloat(float64(t.UnixMilli())/1000, 'f', 3, 64) }

// ask runs one range query and returns how many series the answer has.
func (s *server) ask(ctx context.Context, expr string, end time.Time) (int, error) {
	if s.instance != "" {
		expr = strings.ReplaceAll(expr, "by (instance)", "by ("+s.instance+")")
	}
	v := url.Values{"query": {expr}, "step": {fmt.Sprint(queryStep.Seconds())},
		"start": {seconds(end.Add(-hour))}, "end": {seconds(end)}}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.api+"/api/v1/query_range?"+v.Encode(), nil)
	if err != nil {
		return 0, err
	}
	resp, err := s.client.Do(req)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, err
	}
	if resp.StatusCode != http.StatusOK {
		return 0, fmt.Errorf("%s: %.300s", resp.Status, b)
	}
	var answer struct {
		Data struct{ Result []json.RawMessage }
	}
	if err := json.Unmarshal(b, &answer); err != nil {
		return 0, err
	}
	return len(answer.Data.Result), nil
}
