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
		f := newFleet(o.nodes, end.Add(-hour))
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
		{"numbers", `sum by (instance) ({__name__=~"go_(counter|gauge)_.*"})`, floats},
		{"requests, classic", `sum by (instance) (rate(` + total + `_count[5m]))`, classic},
		{"p99, classic", `histogram_quantile(0.99, sum by (le) (rate(` + total + `_bucket[5m])))`, classic},
		{"requests, native", `histogram_count(sum by (instance) (rate(` + total + `[5m])))`, histograms},
		{"p99, native", `histogram_quantile(0.99, sum(rate(` + total + `[5m])))`, histograms},
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
	return askAll(ctx, o, servers, end, []asked{
		{"requests of the fleet", `histogram_count(sum(rate(` + group + `)))`, us},
		{"requests by outcome", `histogram_count(sum by (outcome) (rate(` + group + `)))`, us},
		{"p99 of the fleet", `histogram_quantile(0.99, sum(rate(` + group + `)))`, us},
		{"requests by endpoint", `histogram_count(sum by (http_request_method, http_route) (rate(` + endpoint + `)))`, us},
		{"p99 by endpoint", `histogram_quantile(0.99, sum by (http_request_method, http_route) (rate(` + endpoint + `)))`, us},
		{"calls by backend", `histogram_count(sum by (server_address, server_port) (rate(` + backend + `)))`, us},
		{"p99 by backend", `histogram_quantile(0.99, sum by (server_address, server_port) (rate(` + backend + `)))`, us},
		{"one backend by node", `histogram_quantile(0.99, sum by (instance, server_address, server_port) (rate(` + pair + `)))`, us},
		{"requests by node", `histogram_count(sum by (instance) (rate(` + node + `)))`, us},
		{"p99 by node", `histogram_quantile(0.99, sum by (instance) (rate(` + node + `)))`, us},
	})
}

// askAll asks each query of each server that has the data for it, in turns.
func askAll(ctx context.Context, o options, servers []*server, end time.Time, queries []asked) error {
	t := newTable("query", "server", "series", "CPU ms", "wall ms")
	for _, q := range queries {
		type answers struct {
			s         *server
			cpu, wall []float64
			series    int
		}
		var all []*answers
		for _, name := range q.by {
			for _, s := range servers {
				if s.name == name {
					all = append(all, &answers{s: s})
				}
			}
		}
		for rep := range o.reps + 1 { // the first fills the caches of the kernel
			for i := range all {
				a := all[(i+rep)%len(all)]
				before, err := a.s.cpu()
				if err != nil {
					return err
				}
				begin := time.Now()
				n, err := a.s.ask(ctx, q.expr, end)
				if err != nil {
					fmt.Printf("%s: %s: %v\n", a.s.name, q.expr, err)
					continue
				}
				wall := time.Since(begin)
				after, err := a.s.cpu()
				if err != nil {
					return err
				}
				if n == 0 {
					fmt.Printf("%s: %s: no data\n", a.s.name, q.expr)
				}
				if a.series = n; rep > 0 {
					a.cpu = append(a.cpu, float64((after - before).Milliseconds()))
					a.wall = append(a.wall, float64(wall.Microseconds())/1000)
				}
			}
		}
		for _, a := range all {
			t.row(q.what, a.s.name, strconv.Itoa(a.series), spread("%.0f", a.cpu), spread("%.0f", a.wall))
		}
	}
	t.print()
	return nil
}

// ask runs one range query and returns how many series the answer has.
func (s *server) ask(ctx context.Context, expr string, end time.Time) (int, error) {
	if s.instance != "" {
		expr = strings.ReplaceAll(expr, "by (instance)", "by ("+s.instance+")")
	}
	v := url.Values{"query": {expr}, "step": {fmt.Sprint(queryStep.Seconds())},
		"start": {strconv.FormatInt(end.Add(-hour).Unix(), 10)}, "end": {strconv.FormatInt(end.Unix(), 10)}}
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
