package main

import (
	"context"
	"fmt"
	"slices"
	"time"
)

// turns is what one server used in its turns.
type turns struct {
	s     *server
	fleet *fleet
	first float64   // CPU seconds per million points of the turn that made the series
	each  []float64 // the same of the turns after it
}

// ingest measures the CPU time of known series: of explicit histograms, and by
// itself of the exponential ones that gateways of our own send.
func ingest(ctx context.Context, o options) error {
	if o.exponential {
		return byTurns(ctx, o, "known series, exponential histograms", func(*fleet) {}, binnacleExpo, promExpo, victoriaExpo)
	}
	return byTurns(ctx, o, "known series", func(*fleet) {}, binnacleNative, binnacleClassic, promNative, promClassic, victoria, theFloor)
}

// churn measures it where every round brings nodes that nobody knew.
func churn(ctx context.Context, o options) error {
	return byTurns(ctx, o, "each series new", (*fleet).restart, binnacleNative, binnacleClassic, promNative, promClassic, victoria)
}

// byTurns lets the servers take turns, each time in another order, and prints
// what they used. Points are stamped when they are sent, so that all that works
// on live data is at work.
func byTurns(ctx context.Context, o options, what string, before func(*fleet), cs ...contender) error {
	servers, stop, err := startAll(ctx, o, cs...)
	if err != nil {
		return err
	}
	defer stop()
	all := make([]*turns, len(servers))
	for i, s := range servers {
		all[i] = &turns{s: s, fleet: newFleet(o.nodes, s.histograms, time.Now())}
	}
	for rep := range o.reps + 1 { // the first makes the series
		for i := range all {
			t := all[(i+rep)%len(all)]
			used, err := t.turn(ctx, o, before)
			if err != nil {
				return err
			}
			if rep == 0 {
				t.first = used
			} else {
				t.each = append(t.each, used)
			}
		}
	}
	fmt.Printf("%s: %d nodes x %d points, %d turns of %d rounds and the %v after them, %d connections; CPU seconds of the process per million data points\n\n",
		what, o.nodes, pointsPerNode, o.reps, o.rounds, o.settle, o.conns)
	printTurns(all)
	return nil
}

// turn sends the rounds of one turn and returns CPU seconds per million points,
// with what the server still does after the last: VictoriaMetrics flushes what
// it holds in memory every 5 seconds.
func (t *turns) turn(ctx context.Context, o options, before func(*fleet)) (float64, error) {
	begin, err := t.s.cpu()
	if err != nil {
		return 0, err
	}
	for range o.rounds {
		if err := ctx.Err(); err != nil {
			return 0, err
		}
		before(t.fleet)
		bodies, err := t.fleet.export(time.Now())
		if err != nil {
			return 0, err
		}
		if err := t.s.send(bodies, o.conns); err != nil {
			return 0, err
		}
	}
	time.Sleep(o.settle)
	end, err := t.s.cpu()
	points := float64(o.rounds * o.nodes * pointsPerNode)
	return (end - begin).Seconds() / points * 1e6, err
}

// printTurns prints what each server used, and how much of each peer's that
// is, turn by turn.
func printTurns(all []*turns) {
	table := newTable("server", "first turn", "CPU s / M points", "RSS MiB", "peak", "disk MiB")
	for _, t := range all {
		now, peak := t.s.memory()
		table.row(t.s.name, fmt.Sprintf("%.2f", t.first), spread("%.2f", t.each), mib(now), mib(peak), mib(t.s.disk()))
	}
	table.print()
	ratios := newTable("ours", "peer", "ours / peer")
	for _, our := range all {
		for _, peer := range all {
			if our.s.ours && !peer.s.ours {
				r := make([]float64, len(our.each))
				for i := range r {
					r[i] = our.each[i] / peer.each[i]
				}
				m := median(r)
				ratio := spread("%.3f", r)
				if m < 1 {
					ratio += fmt.Sprintf(" = 1/%.1f", 1/m)
				}
				ratios.row(our.s.name, peer.s.name, ratio)
			}
		}
	}
	fmt.Println()
	ratios.print()
}

func median(v []float64) float64 {
	if len(v) == 0 {
		return 0
	}
	s := slices.Sorted(slices.Values(v))
	if n := len(s); n%2 == 0 {
		return (s[n/2-1] + s[n/2]) / 2
	}
	return s[len(s)/2]
}

// spread shows the median of v with its least and greatest.
func spread(format string, v []float64) string {
	if len(v) == 0 {
		return "-"
	}
	return fmt.Sprintf(format+" ("+format+" … "+format+")", median(v), slices.Min(v), slices.Max(v))
}

func mib(n int64) string { return fmt.Sprintf("%d", n>>20) }
