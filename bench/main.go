package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"regexp"
	"syscall"
	"time"
)

// options are the flags of all verbs.
type options struct {
	bin    string   // directory of the binaries
	beside []string // pace: directories of other binnacle-managers
	dir    string   // data of the servers
	only   *regexp.Regexp
	nodes  int
	conns  int
	rounds int
	reps   int
	settle time.Duration
	pace   time.Duration
	length time.Duration

	exponential bool   // ingest: send exponential histograms
	listen      string // floor-server: its address
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) (err error) {
	verbs := map[string]func(context.Context, options) error{"ingest": ingest, "churn": churn, "pace": pace, "query": query, "rollups": rollups, "floor-server": floorServer}
	if len(args) == 0 || verbs[args[0]] == nil {
		return fmt.Errorf("want one of ingest, churn, pace, query or rollups")
	}
	o := options{rounds: 40, settle: 6 * time.Second}
	if args[0] == "churn" {
		o.rounds, o.settle = 2, time.Second
	}
	var only string
	f := flag.NewFlagSet("bench "+args[0], flag.ContinueOnError)
	f.StringVar(&o.bin, "bin", "bin", "directory of binnacle-manager, prometheus and victoria-metrics")
	f.Func("beside", "directory of another binnacle-manager that is sent the same at the same time (pace); may be given again", func(dir string) error {
		o.beside = append(o.beside, dir)
		return nil
	})
	f.StringVar(&o.dir, "dir", "", "directory for the servers' data (default a new one, removed at the end)")
	f.StringVar(&only, "only", "", "regular expression of contenders' names")
	f.IntVar(&o.nodes, "nodes", 100, "nodes of the fleet")
	f.IntVar(&o.conns, "conns", 4, "connections to each server")
	f.IntVar(&o.rounds, "rounds", o.rounds, "exports of the fleet in one turn of a server")
	f.IntVar(&o.reps, "reps", 6, "turns of each server")
	f.DurationVar(&o.settle, "settle", o.settle, "how long a server may work on after a turn on that turn's account")
	f.DurationVar(&o.pace, "interval", 15*time.Second, "export interval of pace")
	f.DurationVar(&o.length, "for", 2*time.Minute, "how long pace measures")
	f.BoolVar(&o.exponential, "exponential", false, "send exponential histograms (ingest)")
	f.StringVar(&o.listen, "listen", "", "address of floor-server, which ingest starts itself")
	if err := f.Parse(args[1:]); err != nil {
		return err
	}
	if o.only, err = regexp.Compile(only); err != nil {
		return fmt.Errorf("-only: %w", err)
	}
	if o.dir == "" {
		if o.dir, err = os.MkdirTemp("", "binnacle-bench-"); err != nil {
			return err
		}
		defer os.RemoveAll(o.dir)
	}
	return verbs[args[0]](ctx, o)
}

// startAll starts those of cs that are asked for. The caller calls stop.
func startAll(ctx context.Context, o options, cs ...contender) (all []*server, stop func(), err error) {
	stop = func() {
		for _, s := range all {
			s.stop()
		}
	}
	for _, c := range cs {
		if !o.only.MatchString(c.name) {
			continue
		}
		s, err := start(ctx, c, o.bin, o.dir)
		if err != nil {
			stop()
			return nil, nil, err
		}
		all = append(all, s)
	}
	if len(all) == 0 {
		return nil, nil, fmt.Errorf("-only %s matches no contender", o.only)
	}
	return all, stop, nil
}
