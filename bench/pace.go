package main

import (
	"context"
	"fmt"
	"sync"
	"time"
)

// pace sends each node's exports at the true interval, each node at its own
// phase, to all servers at once, and prints the share of a core that each
// took after the first interval.
func pace(ctx context.Context, o options) error {
	servers, stop, err := startAll(ctx, o, binnacleNative, binnacleClassic, promNative, promClassic, victoria)
	if err != nil {
		return err
	}
	defer stop()
	f := newFleet(o.nodes, explicitHistograms, time.Now())
	intervals := int(o.length/o.pace) + 1
	begin := make([]time.Duration, len(servers))
	started := time.Now()
	var measured time.Time
	for i := range intervals {
		if i == 1 { // the series are there
			measured = time.Now()
			for j, s := range servers {
				if begin[j], err = s.cpu(); err != nil {
					return err
				}
			}
		}
		for n := range o.nodes {
			due := started.Add(time.Duration(i)*o.pace + o.pace*time.Duration(n)/time.Duration(o.nodes))
			select {
			case <-time.After(time.Until(due)):
			case <-ctx.Done():
				return ctx.Err()
			}
			body, err := f.exportNode(n, time.Now())
			if err != nil {
				return err
			}
			errs := make([]error, len(servers))
			var wg sync.WaitGroup
			for j, s := range servers {
				wg.Go(func() { errs[j] = s.sendOne(n, body) })
			}
			wg.Wait()
			for j, err := range errs {
				if err != nil {
					return fmt.Errorf("%s: %w", servers[j].name, err)
				}
			}
		}
	}
	wall := time.Since(measured)
	fmt.Printf("%d nodes x %d points every %v, %v after the first interval\n\n", o.nodes, pointsPerNode, o.pace, wall.Round(time.Second))
	t := newTable("server", "% of a core", "CPU s / M points", "RSS MiB", "peak", "disk MiB")
	points := float64((intervals - 1) * o.nodes * pointsPerNode)
	for j, s := range servers {
		end, err := s.cpu()
		if err != nil {
			return err
		}
		used := (end - begin[j]).Seconds()
		now, peak := s.memory()
		t.row(s.name, fmt.Sprintf("%.1f", 100*used/wall.Seconds()), fmt.Sprintf("%.2f", used/points*1e6), mib(now), mib(peak), mib(s.disk()))
	}
	t.print()
	return nil
}
