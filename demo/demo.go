// Package demo starts a whole cluster on one machine and keeps it under
// traffic: one manager and a few gateways as real processes, four small
// backends with characters of their own, and a steady source of requests that
// finds the gateways through the manager's discovery endpoint. It is what
// `binnacle demo` and `make run` show, and it leaves everything it shows to the
// binaries that it starts.
package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/binnacle-project/binnacle"
	"github.com/binnacle-project/binnacle/api"
)

// Options says what to start.
type Options struct {
	// Dir keeps the data of manager and nodes, their logs and tokens. A second
	// start in it continues where the first stopped.
	Dir string
	// Nodes is the number of gateways, 1 to 50.
	Nodes int
	// PortOffset is added to every port.
	PortOffset int
	// BinDir holds binnacle-manager and binnacle-gateway; empty means beside
	// the running program.
	BinDir string
	// RequestsPerSecond is the rate of the traffic source; 0 means none.
	RequestsPerSecond float64
	// Out gets a line per step.
	Out io.Writer
}

// DefaultOptions are those of `binnacle demo` without flags.
func DefaultOptions() Options {
	return Options{Dir: "binnacle-demo", Nodes: 3, RequestsPerSecond: 40, Out: os.Stdout}
}

// Validate names the flag at fault.
func (o Options) Validate() error {
	switch {
	case o.Dir == "":
		return errors.New("--dir is empty: name a folder for the demo's data")
	case o.Nodes < 1 || o.Nodes > 50:
		return fmt.Errorf("--nodes %d: want 1 to 50", o.Nodes)
	case o.PortOffset < 0 || o.PortOffset > 50000:
		return fmt.Errorf("--port-offset %d: want 0 to 50000", o.PortOffset)
	case o.RequestsPerSecond < 0 || o.RequestsPerSecond > 5000:
		return fmt.Errorf("--rate %g: want 0 to 5000", o.RequestsPerSecond)
	}
	return nil
}

// startTimeout bounds each wait for a part of the cluster to come up.
const startTimeout = 60 * time.Second

// Run starts the cluster and serves until ctx ends, then stops everything.
// Whatever way this process ends, nothing that it started goes on.
func Run(ctx context.Context, o Options) (err error) {
	if err := o.Validate(); err != nil {
		return err
	}
	if o.Dir, err = filepath.Abs(o.Dir); err != nil {
		return err
	}
	if o.BinDir == "" {
		exe, err := os.Executable()
		if err != nil {
			return err
		}
		o.BinDir = filepath.Dir(exe)
	}
	for _, d := range []string{o.Dir, filepath.Join(o.Dir, "logs")} {
		if err := os.MkdirAll(d, 0o700); err != nil {
			return err
		}
	}
	unlock, err := lockDir(o.Dir)
	if err != nil {
		return err
	}
	defer unlock()

	l := layoutOf(o)
	if err := l.checkPorts(); err != nil {
		return err
	}
	say := func(format string, args ...any) { fmt.Fprintf(o.Out, format+"\n", args...) }
	began := time.Now()

	stopBackends, err := startBackends(func(i int) string { return l.addr(backendPort + i) })
	if err != nil {
		return err
	}
	defer stopBackends()
	say("backends    orders %s (healthy), search %s (slow, long tail), billing %s (3 %% fail), stock %s (away 10 s each minute)",
		l.backend("orders"), l.backend("search"), l.backend("billing"), l.backend("stock"))

	procs := newProcesses(filepath.Join(o.Dir, "logs"))
	defer func() {
		say("stopping    nodes drain and leave, then the manager stops")
		err = errors.Join(err, procs.stop())
		say("stopped     data stays in %s", o.Dir)
	}()

	if err := procs.start("manager", filepath.Join(o.BinDir, "binnacle-manager"), l.managerArgs(o)...); err != nil {
		return err
	}
	base := "http://" + l.http()
	if err := waitReady(ctx, base, procs); err != nil {
		return err
	}
	say("manager     %s, OTLP on %s and %s, log in %s", base, l.otlpGRPC(), l.otlpHTTP(), procs.logFile("manager"))

	admin, err := os.ReadFile(filepath.Join(l.tokensDir(o), "admin.token"))
	if err != nil {
		return fmt.Errorf("read the admin token that the manager made: %w", err)
	}
	client, err := api.NewClient(base, strings.TrimSpace(string(admin)), nil)
	if err != nil {
		return err
	}
	for i := range o.Nodes {
		name := nodeName(i)
		conf, err := writeNodeConfig(o, l, i)
		if err != nil {
			return err
		}
		if err := procs.start(name, filepath.Join(o.BinDir, "binnacle-gateway"), "run", "-c", conf, "--die-with-parent", "--drain-delay", "0s"); err != nil {
			return err
		}
	}
	if err := waitAlive(ctx, client, o.Nodes, procs, say); err != nil {
		return err
	}

	trafficCtx, stopTraffic := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		Traffic(trafficCtx, client, o.RequestsPerSecond)
	}()
	defer func() { stopTraffic(); <-done }()
	if o.RequestsPerSecond > 0 {
		say("traffic     %g requests/s over the nodes that discovery names", o.RequestsPerSecond)
	}

	code, err := client.LoginCode(ctx)
	if err != nil {
		return fmt.Errorf("ask the manager for a one-time login: %w", err)
	}
	say("")
	say("ready in %.1f s. Open the page (the link works once, until %s):", time.Since(began).Seconds(), code.Expires.Local().Format("15:04"))
	say("")
	say("    %s/login?code=%s", base, code.Code)
	say("")
	say("Ctrl-C stops everything. Try, in another terminal:")
	say("    %s --manager %s --token-file %s nodes", filepath.Join(o.BinDir, "binnacle"), base, filepath.Join(l.tokensDir(o), "admin.token"))
	say("    curl http://%s/home", l.node(0))

	select {
	case <-ctx.Done():
		return nil
	case p := <-procs.manager():
		return fmt.Errorf("the manager ended by itself (%v): see %s", p, procs.logFile("manager"))
	}
}

// waitReady polls /readyz until the manager answers 200.
func waitReady(ctx context.Context, base string, procs *processes) error {
	return wait(ctx, procs, "manager", func(ctx context.Context) (bool, error) {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, base+"/readyz", nil)
		if err != nil {
			return false, err
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			return false, nil // not listening yet
		}
		resp.Body.Close()
		return resp.StatusCode == http.StatusOK, nil
	})
}

// waitAlive waits until n nodes are alive and says each as it comes.
func waitAlive(ctx context.Context, c *api.Client, n int, procs *processes, say func(string, ...any)) error {
	seen := map[string]bool{}
	return wait(ctx, procs, nodeName(0), func(ctx context.Context) (bool, error) {
		nodes, err := c.Nodes(ctx)
		if err != nil {
			return false, nil
		}
		for _, node := range nodes {
			if node.Managed && node.State == api.Alive && node.Address != "" && !seen[node.Name] {
				seen[node.Name] = true
				say("node        %-6s serves on http://%s as %s", node.Name, node.Address, node.ID)
			}
		}
		return len(seen) >= n, nil
	})
}

// wait asks ready four times a second until it is true, ctx ends, startTimeout
// is over, or the named process ends.
func wait(ctx context.Context, procs *processes, name string, ready func(context.Context) (bool, error)) error {
	ctx, cancel := context.WithTimeoutCause(ctx, startTimeout, fmt.Errorf("%s was not ready after %v: see %s", name, startTimeout, procs.logFile(name)))
	defer cancel()
	tick := time.NewTicker(250 * time.Millisecond)
	defer tick.Stop()
	for {
		ok, err := ready(ctx)
		if ok || err != nil {
			return err
		}
		select {
		case <-tick.C:
		case <-procs.ended(name):
			return fmt.Errorf("%s ended while starting: see %s", name, procs.logFile(name))
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

func nodeName(i int) string { return fmt.Sprintf("gw-%d", i+1) }

// userAgent marks the traffic as the demo's.
const userAgent = "binnacle-demo/" + binnacle.Version
