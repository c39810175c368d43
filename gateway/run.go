package gateway

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/VictoriaMetrics/metrics"

	"github.com/binnacle-project/binnacle/api"
	"github.com/binnacle-project/binnacle/gateway/agent"
	"github.com/binnacle-project/binnacle/gateway/engine"
	"github.com/binnacle-project/binnacle/gateway/engine/configfile"
	"github.com/binnacle-project/binnacle/gateway/worker"
)

// Options say how to run a node.
type Options struct {
	// ConfigFile is the node's own file.
	ConfigFile string
	// DieWithParent ends the worker with this process, whatever ends it; for
	// demos and tests. Without it a worker serves on until the next agent.
	DieWithParent bool
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
	ao.Log, ao.Metrics = o.Log, o.Metrics
	return runAgent(ctx, ao, o.Reload)
}

// runAgent runs an agent; reload makes it read the own file again.
func runAgent(ctx context.Context, ao agent.Options, reload <-chan os.Signal) error {
	ao.Notify = notifyService
	a, err := agent.New(ao)
	if err != nil {
		return err
	}
	if os.Getpid() == 1 {
		rctx, stop := context.WithCancel(context.WithoutCancel(ctx))
		defer stop()
		go reapOrphans(rctx, reapEvery)
	}
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

// drainTime bounds what a standalone gateway waits for at its end if its
// configuration does not say (max_shutdown_wait_time).
const drainTime = 10 * time.Second

// runStandalone serves raw in this process: no agent, no manager, no limits.
func runStandalone(ctx context.Context, o Options, raw []byte) error {
	log := o.Log.With("component", "gateway")
	settings, err := engine.SettingsOf(raw)
	if err != nil {
		return fmt.Errorf("%s: %w", o.ConfigFile, err)
	}
	ln, err := net.Listen("tcp", settings.Addr())
	if err != nil {
		if errors.Is(err, syscall.EADDRINUSE) {
			return fmt.Errorf("port %d (\"port\" in %s) is in use: %w", settings.Port, o.ConfigFile, err)
		}
		return fmt.Errorf("listen on %s (\"listen_ip\" and \"port\" in %s): %w", settings.Addr(), o.ConfigFile, err)
	}
	t := worker.NewTraffic(worker.TrafficOptions{Log: log, Metrics: o.Metrics}, []net.Listener{ln})
	limit := drainTime
	if settings.MaxShutdownWait > 0 {
		limit = settings.MaxShutdownWait
	}
	stop := func() error {
		sctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), limit)
		defer cancel()
		return t.Stop(sctx)
	}
	if err := t.Apply(ctx, raw, api.RevisionRef{}); err != nil {
		return errors.Join(fmt.Errorf("%s: %w", o.ConfigFile, err), stop())
	}
	log.Info("serving standalone", "address", ln.Addr().String(), "file", o.ConfigFile)
	notifyService(agent.PhaseReady)
	for {
		select {
		case <-o.Reload:
			notifyService(agent.PhaseReloading)
			reloadStandalone(ctx, o, t, log)
			notifyService(agent.PhaseReady)
		case <-ctx.Done():
			log.Info("stopping", "drain_timeout", limit)
			notifyService(agent.PhaseStopping)
			return stop()
		}
	}
}

// reloadStandalone swaps to the file as it is now. What cannot be used, or
// takes other sockets, changes nothing.
func reloadStandalone(ctx context.Context, o Options, t *worker.Traffic, log *slog.Logger) {
	raw, err := readOwn(o.ConfigFile)
	if err == nil {
		err = t.Apply(ctx, raw, api.RevisionRef{})
	}
	if err != nil {
		log.Error("the file cannot be taken; the one read before goes on", "file", o.ConfigFile, "err", err)
		return
	}
	log.Info("the file was read again", "file", o.ConfigFile)
}
