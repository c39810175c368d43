package manager

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"google.golang.org/grpc"

	"github.com/binnacle-project/binnacle"
	"github.com/binnacle-project/binnacle/api"
	"github.com/binnacle-project/binnacle/events"
)

// Bounds of the HTTP servers. There is no ReadTimeout: it would end long polls
// and event streams; bodies have a deadline of their own (bodyDeadline), event
// streams one for each write.
const (
	headerTimeout = 5 * time.Second
	bodyTimeout   = 30 * time.Second
	idleTimeout   = 2 * time.Minute
	maxHeader     = 16 << 10
)

// Run serves until ctx ends, then stops everything and returns. It may be
// called once.
func (m *Manager) Run(ctx context.Context) (err error) {
	defer func() {
		stopCtx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 30*time.Second)
		defer cancel()
		err = errors.Join(err, m.Stop(stopCtx))
	}()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var wg sync.WaitGroup
	defer wg.Wait()
	// run starts a part that lives as long as the manager; one that ends with an
	// error ends the manager.
	run := func(what string, f func(context.Context) error) {
		wg.Go(func() {
			if err := f(ctx); err != nil && ctx.Err() == nil {
				cancel(fmt.Errorf("%s: %w", what, err))
			}
		})
	}
	run("metrics store", m.metrics.Run)
	run("trace store", m.traces.Run)
	run("activity", m.activity.Run)
	if m.forward != nil {
		run("forwarding", m.forward.Run)
	}
	run("node registry", m.registry.Run)
	run("license", m.keeper.Run)
	run("license changes", m.followLicense)
	run("rollouts", m.rollout.Run)
	run("page", m.hub.run)
	run("own metrics", m.copyOwnMetrics)
	run("ghosts", m.forgetGhosts)
	run("backups", m.backups.Run)
	run("garbage collector", m.tuneGC)
	if m.dns != nil {
		run("DNS", m.dns.Run)
	}
	run("gossip keys", func(ctx context.Context) error { return m.keys.Run(ctx, m.registry.GossipReports, m.gossipKeysChanged) })

	operator := m.httpServer(m.self.instrument(m.operatorHandler()))
	nodes := m.httpServer(m.nodeHandler())
	serverTLS, err := m.authority.ServerTLS(m.hosts())
	if err != nil {
		return fmt.Errorf("make the certificate of the node API: %w", err)
	}
	httpLn := m.httpLn
	if m.pageTLS != nil {
		httpLn = tls.NewListener(httpLn, m.pageTLS)
	} else if !loopback(httpLn.Addr()) {
		m.log.Warn("the page and the API are plain HTTP on an address beyond this machine: give --tls-cert and --tls-key, or --tls=auto", "addr", m.HTTPAddr())
	}
	run("operator API", serving(operator, httpLn))
	m.nodeConns = listenForNodes(m.nodeLn, serverTLS, m.maxNodeConns, m.log, m.set)
	nodes.ConnState = m.nodeConns.connState
	run("node API", serving(nodes, m.nodeConns))
	servers := []*http.Server{operator, nodes}
	if m.otlpLn != nil {
		s := m.receiver.HTTPServer(m.identifyUnmanaged)
		servers = append(servers, s)
		run("OTLP over HTTP", serving(s, m.receiver.LimitConnections(m.otlpLn, "http")))
	}
	var grpcServer *grpc.Server
	if m.grpcLn != nil {
		grpcServer = m.receiver.GRPCServer(m.identifyUnmanaged)
		run("OTLP over gRPC", func(context.Context) error { return grpcServer.Serve(m.receiver.LimitConnections(m.grpcLn, "grpc")) })
	}
	m.record(ctx, api.Event{Kind: events.ManagerStarted, Actor: "manager", Message: "the manager " + binnacle.Version + " started"})
	m.ready.Store(true)
	m.log.Info("ready", "http", m.HTTPAddr(), "nodes", m.NodeAddr(), "otlp_grpc", m.OTLPGRPCAddr(), "otlp_http", m.OTLPHTTPAddr(), "cluster", m.authority.Cluster())

	<-ctx.Done()
	// Red first, then no new requests, then let those under way end.
	m.ready.Store(false)
	close(m.stopping)
	m.polls.stop()
	shutCtx, shutCancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer shutCancel()
	var shut sync.WaitGroup
	for _, s := range servers {
		shut.Go(func() {
			if s.Shutdown(shutCtx) != nil {
				_ = s.Close() // waited long enough
			}
		})
	}
	if grpcServer != nil {
		shut.Go(func() {
			done := make(chan struct{})
			go func() { grpcServer.GracefulStop(); close(done) }()
			select {
			case <-done:
			case <-shutCtx.Done():
				grpcServer.Stop()
			}
		})
	}
	shut.Go(func() { m.polls.wait(shutCtx) })
	shut.Wait()
	if cause := context.Cause(ctx); !errors.Is(cause, context.Canceled) {
		return cause
	}
	return nil
}

func (m *Manager) httpServer(h http.Handler) *http.Server {
	return &http.Server{
		Handler: bodyDeadline(h), ReadHeaderTimeout: headerTimeout, IdleTimeout: idleTimeout, MaxHeaderBytes: maxHeader,
		ErrorLog: slog.NewLogLogger(m.log.Handler(), slog.LevelDebug), // what clients do wrong
	}
}

// serving adapts a server to run; its orderly end is no error.
func serving(s *http.Server, ln net.Listener) func(context.Context) error {
	return func(context.Context) error {
		if err := s.Serve(ln); !errors.Is(err, http.ErrServerClosed) {
			return err
		}
		return nil
	}
}
