package main

import (
	"context"
	"fmt"
	"sync"
	"time"
)

// pace sends each node's exports at the true interval, each node at its own
// phase and on its own connection, to all servers, and prints the share of a core
// that each took after the first interval. The servers take turns: none is sent what
// another one is sent at the same moment. With -beside it also runs the managers of
// other directories: builds are compared under the same load, where single runs
// differ by more than what is looked for.
func pace(ctx context.Context, o options) error {
	servers, stop, err := startAll(ctx, o, binnacleNative, binnacleClassic, promNative, promClassic, victoria)
	if err != nil {
		return err
	}
	defer stop()
	for _, dir := range o.beside {
		other := binnacleNative
		other.name += ", " + dir
		s, err := start(ctx, other, dir, o.dir)
		if err != nil {
			return err
		}
		defer s.stop()
		servers = append(servers, s)
	}
	for _, s := range servers {
		s.ownConnections(o.nodes)
	}
	ctx, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	var sending sync.WaitGroup
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
				return context.Cause(ctx)
			}
			body, err := f.exportNode(n, time.Now())
			if err != nil {
				return err
			}
			for j, s := range servers {
				sending.Go(func() {
					// A server's place changes with the node: who comes after another finds
					// the processor awake.
					turn := (j + n) % len(servers)
					time.Sleep(o.pace / time.Duration(o.nodes) * time.Duration(turn) / time.Duration(len(servers)))
					if err := s.sendOne(n, body); err != nil {
						fail(fmt.Errorf("%s: %w", s.name, err))
					}
				})
			}
		}
	}
	sending.Wait()
	if err := context.Cause(ctx); err != nil {
		return err
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
