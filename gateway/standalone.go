package gateway

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"syscall"
	"time"

	"github.com/binnacle-project/binnacle/api"
	"github.com/binnacle-project/binnacle/gateway/agent"
	"github.com/binnacle-project/binnacle/gateway/control"
	"github.com/binnacle-project/binnacle/gateway/engine"
	"github.com/binnacle-project/binnacle/gateway/worker"
)

// standalone is a gateway that belongs to no cluster: one process, no agent, no
// manager, no limits. A changed file is swapped to inside its server; what takes
// another server (TLS files, ports, timeouts) is served by a second one on the
// same socket or a new one, while the first drains.
type standalone struct {
	opts  Options
	log   *slog.Logger
	delay time.Duration

	settings engine.ServerSettings
	// ln keeps the socket open over servers, each of which has a copy.
	ln       net.Listener
	traffic  *worker.Traffic
	retiring sync.WaitGroup
}

// runStandalone serves raw until ctx ends, then drains.
func runStandalone(ctx context.Context, o Options, raw []byte) error {
	s := &standalone{opts: o, log: o.Log.With("component", "gateway"), delay: agent.DefaultOptions().DrainDelay}
	if o.DrainDelay != nil {
		s.delay = *o.DrainDelay
	}
	worker.TuneMemory(s.log)
	defer reapIfFirst(ctx)() // of checks that an orchestrator runs in the container
	if err := s.take(ctx, raw); err != nil {
		return fmt.Errorf("%s: %w", o.ConfigFile, err)
	}
	s.log.Info("serving standalone", "address", s.ln.Addr().String(), "file", o.ConfigFile)
	notifyService(agent.PhaseReady)
	for {
		select {
		case <-o.Reload:
			notifyService(agent.PhaseReloading)
			s.reload(ctx)
			notifyService(agent.PhaseReady)
		case <-ctx.Done():
			return s.stop()
		}
	}
}

// take brings raw to serve by a server of its own, and lets the one before it
// drain. On error that one goes on.
func (s *standalone) take(ctx context.Context, raw []byte) error {
	settings, err := engine.SettingsOf(raw)
	if err != nil {
		return err
	}
	ln := s.ln
	if ln == nil || settings.Addr() != s.settings.Addr() {
		if ln, err = listen(settings, s.opts.ConfigFile); err != nil {
			return err
		}
	}
	t, err := s.start(ctx, ln, raw)
	if err != nil {
		if ln != s.ln {
			ln.Close()
		}
		return err
	}
	if s.ln != nil && ln != s.ln {
		s.log.Info("listening on another address", "from", s.ln.Addr().String(), "to", ln.Addr().String())
		s.ln.Close()
	}
	if old, limit := s.traffic, s.drainLimit(); old != nil {
		s.retiring.Go(func() { s.end(old, limit) })
	}
	s.ln, s.traffic, s.settings = ln, t, settings
	return nil
}

// start serves raw on a copy of ln.
func (s *standalone) start(ctx context.Context, ln net.Listener, raw []byte) (*worker.Traffic, error) {
	f, err := control.File(ln)
	if err != nil {
		return nil, err
	}
	own, err := net.FileListener(f)
	f.Close()
	if err != nil {
		return nil, fmt.Errorf("copy the listening socket: %w", err)
	}
	t := worker.NewTraffic(worker.TrafficOptions{Log: s.log, Metrics: s.opts.Metrics}, []net.Listener{own})
	if err := t.Apply(ctx, raw, api.RevisionRef{}); err != nil {
		s.end(t, time.Second)
		return nil, err
	}
	return t, nil
}

// listen opens the socket that the settings of file ask for.
func listen(settings engine.ServerSettings, file string) (net.Listener, error) {
	ln, err := net.Listen("tcp", settings.Addr())
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return nil, fmt.Errorf("port %d (\"port\" in %s) is in use: %w", settings.Port, file, err)
	case err != nil:
		return nil, fmt.Errorf("listen on %s (\"listen_ip\" and \"port\" in %s): %w", settings.Addr(), file, err)
	}
	return ln, nil
}

// reload serves the file as it is now. What cannot be used changes nothing.
func (s *standalone) reload(ctx context.Context) {
	raw, err := readOwn(s.opts.ConfigFile)
	if err == nil {
		err = s.bring(ctx, raw)
	}
	if err != nil {
		s.log.Error("the file cannot be taken; the one read before goes on", "file", s.opts.ConfigFile, "err", err)
		return
	}
	s.log.Info("the file was read again", "file", s.opts.ConfigFile)
}

// bring swaps to raw where a swap will do. With TLS it does not: the files that
// the configuration names may have changed, as renewed certificates do.
func (s *standalone) bring(ctx context.Context, raw []byte) error {
	if s.settings.TLS == nil {
		err := s.traffic.Apply(ctx, raw, api.RevisionRef{})
		if !control.HasCode(err, control.CodeRestart) {
			return err
		}
		s.log.Info("the changed file takes another server", "why", err)
	}
	return s.take(ctx, raw)
}

// drainLimit is how long what is in flight may take at an end.
func (s *standalone) drainLimit() time.Duration {
	if s.settings.MaxShutdownWait > 0 {
		return s.settings.MaxShutdownWait
	}
	return agent.DefaultOptions().DrainTimeout
}

// end lets t finish what it has in flight.
func (s *standalone) end(t *worker.Traffic, limit time.Duration) {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	if err := t.Stop(ctx); err != nil {
		s.log.Warn("a server did not end cleanly", "err", err)
	}
}

// stop ends the gateway: load balancers first, then the socket, then what is in
// flight.
func (s *standalone) stop() error {
	limit := s.drainLimit()
	s.log.Info("stopping", "drain_delay", s.delay, "drain_timeout", limit)
	notifyService(agent.PhaseStopping)
	s.traffic.SetDraining(true)
	time.Sleep(s.delay) // serving; a second signal ends the process at once
	s.ln.Close()
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	err := s.traffic.Stop(ctx)
	s.retiring.Wait()
	return err
}
