package gateway

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/VictoriaMetrics/metrics"

	"github.com/binnacle-project/binnacle/gateway/agent"
	"github.com/binnacle-project/binnacle/gateway/engine/configfile"
)

// Options say how to run a node.
type Options struct {
	// ConfigFile is the node's own file.
	ConfigFile string
	// DieWithParent ends the worker with this process, whatever ends it; for
	// demos and tests. Without it a worker serves on until the next agent.
	DieWithParent bool
	// DrainDelay is how long the gateway serves on after it was asked to stop
	// and has said that it is not ready; nil is what the block says, or the
	// agent's default.
	DrainDelay *time.Duration
	// WorkerCommand starts a worker; empty is this program's worker command.
	WorkerCommand []string
	// LogFormat (text or json) and LogLevel are passed on to the worker.
	LogFormat string
	LogLevel  string
	Log       *slog.Logger
	Metrics   *metrics.Set
	// Reload asks to read the own file again; nil never does.
	Reload <-chan os.Signal
}

// Run serves the node's file until ctx ends, then drains and returns. Which of
// the two gateways it is, standalone or member, only the @cluster block says.
func Run(ctx context.Context, o Options) error {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	file, err := filepath.Abs(o.ConfigFile)
	if err != nil {
		return fmt.Errorf("configuration %s: %w", o.ConfigFile, err)
	}
	o.ConfigFile = file
	raw, err := readOwn(file)
	if err != nil {
		return err
	}
	block, err := ParseBlock(raw)
	if err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	if block == nil {
		return runStandalone(ctx, o, raw)
	}
	return runMember(ctx, o, block)
}

// readOwn reads the node's own file, in any of the forms that configfile knows,
// as JSON.
func readOwn(path string) ([]byte, error) { return configfile.Load(path, os.Environ()) }

// runMember runs the agent of a node in a cluster.
func runMember(ctx context.Context, o Options, block *Block) error {
	ao := block.Options(o.ConfigFile)
	ao.DieWithParent, ao.WorkerCommand = o.DieWithParent, o.WorkerCommand
	ao.LogFormat, ao.LogLevel = o.LogFormat, o.LogLevel
	ao.Log, ao.Metrics, ao.ReadFile = o.Log, o.Metrics, readOwn
	if o.DrainDelay != nil {
		ao.DrainDelay = *o.DrainDelay
	}
	return runAgent(ctx, ao, o.Reload)
}

// runAgent runs an agent; reload makes it read the own file again.
func runAgent(ctx context.Context, ao agent.Options, reload <-chan os.Signal) error {
	ao.Notify = notifyService
	a, err := agent.New(ao)
	if err != nil {
		return err
	}
	defer reapIfFirst(ctx)()
	done := make(chan struct{})
	defer close(done)
	go func() {
		for {
			select {
			case <-reload: // a nil channel never speaks
				a.Reload()
			case <-done:
				return
			}
		}
	}()
	return a.Run(ctx)
}
