package manager

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/VictoriaMetrics/metrics"
	"google.golang.org/grpc"

	"github.com/binnacle-project/binnacle"
	"github.com/binnacle-project/binnacle/api"
	"github.com/binnacle-project/binnacle/events"
	"github.com/binnacle-project/binnacle/licensing"
	"github.com/binnacle-project/binnacle/manager/access"
	"github.com/binnacle-project/binnacle/manager/backup"
	"github.com/binnacle-project/binnacle/manager/pagetls"
	"github.com/binnacle-project/binnacle/membership"
	"github.com/binnacle-project/binnacle/otlp"
	"github.com/binnacle-project/binnacle/otlp/forward"
	"github.com/binnacle-project/binnacle/rollout"
	"github.com/binnacle-project/binnacle/state"
	"github.com/binnacle-project/binnacle/state/etcd"
	"github.com/binnacle-project/binnacle/telemetry/activity"
	tsmetrics "github.com/binnacle-project/binnacle/telemetry/metrics"
	"github.com/binnacle-project/binnacle/telemetry/traces"
)

// Manager is one running manager. New opens it, Run serves.
type Manager struct {
	opts    Options
	log     *slog.Logger
	name    string
	started time.Time
	set     *metrics.Set

	store     *state.Store
	events    *events.Log
	authority *membership.Authority
	tokens    *membership.Tokens
	registry  *membership.Registry
	keys      *membership.GossipKeys
	gossip    *membership.Gossip // nil when gossip is off
	dns       *membership.DNS    // nil when it is off
	keeper    *licensing.Keeper
	rollout   *rollout.Service
	metrics   *tsmetrics.Store
	traces    *traces.Store
	activity  *activity.Aggregator
	access    *access.Access
	forward   *forward.Forwarder // nil when it is off
	receiver  *otlp.Receiver
	backups   *backup.Regular
	self      *selfTelemetry
	leases    *leases
	polls     *polls
	nodeConns *nodeListener // nil before Run

	maxNodeConns int
	hub          *hub

	httpLn, nodeLn, grpcLn, otlpLn net.Listener
	pageTLS                        *tls.Config        // of httpLn, nil for plain HTTP
	pageCA                         *pagetls.Authority // nil unless --tls=auto

	ready    atomic.Bool
	stopping chan struct{} // closed when the stop begins

	stops    []stop // undone last to first
	stopOnce sync.Once
	stopErr  error
}

type stop struct {
	what string
	do   func(context.Context) error
}

// onStop registers the undoing of what was just acquired.
func (m *Manager) onStop(what string, do func(context.Context) error) {
	m.stops = append(m.stops, stop{what, do})
}

// New opens the disks and the sockets of a manager and wires its parts. On an
// error everything that was opened is closed again.
//
// It is one straight story, in the order of need: state, identity, rights,
// stores, the features over them, and the listeners last, so that no request
// ever meets a part that is not there yet.
func New(o Options) (_ *Manager, err error) {
	if err := o.Validate(); err != nil {
		return nil, err
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	host, err := os.Hostname()
	if err != nil {
		host = "manager"
	}
	m := &Manager{
		opts: o, log: o.Log.With("component", "manager"), name: host, started: time.Now().UTC(),
		set: metrics.NewSet(), leases: newLeases(), stopping: make(chan struct{}),
	}
	m.hub = newHub(m.overview)
	mostPolls, mostConns := nodeBounds(o.MaxPolls, openFiles())
	if mostPolls < o.MaxPolls {
		m.log.Warn("few files may be open: fewer polls are held than --max-polls; raise the limit (LimitNOFILE, ulimit -n) for more nodes", "files", openFiles(), "polls", mostPolls)
	}
	m.polls, m.maxNodeConns = newPolls(mostPolls, m.set), mostConns
	defer func() {
		if err != nil {
			err = errors.Join(err, m.Stop(context.Background()))
		}
	}()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()

	// Control state and the log of what happened.
	if m.store, err = etcd.Open(ctx, etcd.Options{Dir: filepath.Join(o.DataDir, "state"), Log: o.Log, Metrics: m.set}); err != nil {
		return nil, fmt.Errorf("open the control state: %w", err)
	}
	m.onStop("state", func(context.Context) error { return m.store.Close() })
	if m.events, err = events.Open(ctx, events.Options{Store: m.store, Log: o.Log, Metrics: m.set}); err != nil {
		return nil, fmt.Errorf("open the event log: %w", err)
	}

	// Identity: the cluster key, join tokens, and who may call the API.
	if m.authority, err = membership.OpenAuthority(filepath.Join(o.DataDir, "ca")); err != nil {
		return nil, fmt.Errorf("open the cluster key: %w", err)
	}
	if m.tokens, err = membership.OpenTokens(membership.TokensOptions{Store: m.store, Fingerprint: m.authority.Fingerprint(), Log: o.Log}); err != nil {
		return nil, fmt.Errorf("open the join tokens: %w", err)
	}
	if err := m.tokens.EnsureFile(ctx, filepath.Join(o.tokensDir(), "join.token")); err != nil {
		return nil, err
	}
	if m.access, err = access.Open(ctx, access.Options{
		Store: m.store, TokensDir: o.tokensDir(), AnonymousRole: o.AnonymousRole, Secure: o.secure(), Log: o.Log,
	}); err != nil {
		return nil, err
	}

	if err := m.noteRestore(ctx); err != nil {
		return nil, err
	}
	m.backups = backup.NewRegular(backup.Options{
		Source: backup.Source{Store: m.store, Cluster: m.authority.Cluster(), DataDir: o.DataDir, Dir: o.backupDir()},
		Every:  o.BackupEvery, Keep: o.BackupKeep, Log: o.Log, Metrics: m.set,
	})

	// The license, and the registry that asks it for seats.
	if m.keeper, err = licensing.OpenKeeper(ctx, licensing.KeeperOptions{
		Store: m.store, Dir: o.DataDir, LicenseFile: o.License, KeysFile: o.LicenseKeys,
		ClusterFingerprint: m.authority.Fingerprint(), ClusterKey: m.authority.Key(), Cluster: m.authority.Cluster(),
		Epoch: m.store.Epoch, Seats: m.seatsHeld, LeaseLife: o.LeaseLife, Events: m.events, Log: o.Log, Metrics: m.set,
	}); err != nil {
		return nil, fmt.Errorf("open the license: %w", err)
	}
	if m.registry, err = membership.OpenRegistry(ctx, membership.RegistryOptions{
		Store: m.store, Events: m.events, Authority: m.authority, Tokens: m.tokens, Seats: m.keeper,
		DownAfter: o.DownAfter, SeatHold: o.SeatHold, GossipOff: o.GossipAddr == GossipOff, Log: o.Log, Metrics: m.set,
	}); err != nil {
		return nil, fmt.Errorf("open the node registry: %w", err)
	}
	if m.keys, err = membership.OpenGossipKeys(ctx, membership.GossipKeysOptions{Store: m.store, Events: m.events, Log: o.Log}); err != nil {
		return nil, fmt.Errorf("open the gossip keys: %w", err)
	}

	// Telemetry: metrics, traces, live activity, and what receives them.
	if m.metrics, err = tsmetrics.Open(tsmetrics.Options{
		Dir: filepath.Join(o.DataDir, "metrics"), Retention: o.MetricsRetention, Histograms: o.MetricsHistograms,
		MaxBytes: o.MetricsMaxBytes, MaxSeries: o.MetricsMaxSeries, MaxSeriesPerInstance: o.MetricsMaxSeriesPerNode,
		Query:  tsmetrics.QueryLimits{MaxSamples: o.maxSamples(debug.SetMemoryLimit(-1)), Timeout: o.QueryTimeout, Concurrency: o.QueryConcurrency},
		Events: m.events, Log: o.Log, Metrics: m.set,
	}); err != nil {
		return nil, fmt.Errorf("open the metrics store: %w", err)
	}
	m.onStop("metrics", func(context.Context) error { return m.metrics.Close() })
	rules, err := traces.ParseRules(o.TracesSample...)
	if err != nil {
		return nil, fmt.Errorf("--traces-sample: %w", err)
	}
	if m.traces, err = traces.Open(traces.Options{
		Dir: filepath.Join(o.DataDir, "traces"), Retention: o.TracesRetention, MaxBytes: o.TracesMaxBytes, Queries: o.QueryConcurrency,
		Sampling: traces.Sampling{Rules: rules, Window: o.TracesSampleWindow, MaxBytes: o.TracesSampleBytes}, Log: o.Log, Metrics: m.set,
	}); err != nil {
		return nil, fmt.Errorf("open the trace store: %w", err)
	}
	m.onStop("traces", func(context.Context) error { return m.traces.Close() })
	if m.activity, err = activity.Open(activity.Options{
		Rollups: activity.OnStore(m.metrics, o.Log), Dir: filepath.Join(o.DataDir, "activity"), Log: o.Log, Metrics: m.set,
	}); err != nil {
		return nil, fmt.Errorf("open the activity: %w", err)
	}
	sinks := []otlp.Sink{metricsSink{m.activity, m.metrics}, tracesSink{m.traces}}
	if o.ForwardOTLP != "" {
		fo := o.forward()
		fo.Metrics = m.set
		if m.forward, err = forward.Open(fo); err != nil {
			return nil, fmt.Errorf("--forward-otlp: %w", err)
		}
		m.onStop("forwarding", func(context.Context) error { return m.forward.Close() })
		sinks = append(sinks, m.forward)
	}
	m.receiver = otlp.New(otlp.Options{
		Sink: otlp.Fan(sinks...), IsNode: m.registry.IsNode,
		MaxBytes: o.MaxRequestBytes, Log: o.Log, Metrics: m.set,
	})
	if m.self, err = startSelfTelemetry(ctx, m.receiver, m.name); err != nil {
		return nil, err
	}
	m.onStop("own telemetry", m.self.stop)

	// Configurations, and the gossip whose keys the plans carry.
	if m.rollout, err = rollout.Open(ctx, rollout.Options{
		Store: m.store, Events: m.events, Cluster: m.authority.Cluster(), Key: m.authority.Key(),
		GatewayBinary: o.gatewayBinary(), Nodes: members{m.registry}, Labels: nodeLabels{m.registry},
		Telemetry: m.metrics, Bakes: m.activity, Gossip: m.keys, Log: o.Log, Metrics: m.set,
	}); err != nil {
		return nil, fmt.Errorf("open the configurations: %w", err)
	}
	if o.gatewayBinary() == "" {
		m.log.Warn("no binnacle-gateway beside this program: configurations are checked but not dry-built; see --gateway-binary")
	}
	if o.GossipAddr != GossipOff {
		if err := m.startGossip(ctx, o.Log); err != nil {
			return nil, err
		}
		m.rollout.GossipChanged()
	}

	// Listeners last.
	if err := m.openPageTLS(); err != nil {
		return nil, err
	}
	return m, m.listen()
}

// listen opens every socket; an address in use is told with its flag.
func (m *Manager) listen() error {
	for _, l := range []struct {
		flag, addr string
		ln         *net.Listener
	}{
		{"--http-addr", m.opts.HTTPAddr, &m.httpLn},
		{"--node-addr", m.opts.NodeAddr, &m.nodeLn},
		{"--otlp-grpc-addr", m.opts.OTLPGRPCAddr, &m.grpcLn},
		{"--otlp-http-addr", m.opts.OTLPHTTPAddr, &m.otlpLn},
	} {
		if l.addr == "" {
			continue
		}
		ln, err := net.Listen("tcp", l.addr)
		if err != nil {
			return listenError(l.flag, l.addr, err)
		}
		*l.ln = ln
		m.onStop("listener "+l.flag, func(context.Context) error {
			if err := ln.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
				return err
			}
			return nil
		})
	}
	return m.listenDNS()
}

// HTTPAddr, NodeAddr, OTLPGRPCAddr and OTLPHTTPAddr return the addresses that
// are listened on, "" for a receiver that is off.
func (m *Manager) HTTPAddr() string     { return addrOf(m.httpLn) }
func (m *Manager) NodeAddr() string     { return addrOf(m.nodeLn) }
func (m *Manager) OTLPGRPCAddr() string { return addrOf(m.grpcLn) }
func (m *Manager) OTLPHTTPAddr() string { return addrOf(m.otlpLn) }

func addrOf(ln net.Listener) string {
	if ln == nil {
		return ""
	}
	return ln.Addr().String()
}

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

// Stop closes everything, last opened first. It is safe twice, and after a New
// that failed.
func (m *Manager) Stop(ctx context.Context) error {
	m.stopOnce.Do(func() {
		var errs []error
		for _, s := range slices.Backward(m.stops) {
			if err := s.do(ctx); err != nil {
				errs = append(errs, fmt.Errorf("stop %s: %w", s.what, err))
			}
		}
		m.stopErr = errors.Join(errs...)
	})
	return m.stopErr
}

// seatsHeld counts seats for the license; the license opens before the registry.
func (m *Manager) seatsHeld() int {
	if m.registry == nil {
		return 0
	}
	return m.registry.HeldSeats(time.Now())
}

// record appends an event; that it cannot is logged and stops nothing.
func (m *Manager) record(ctx context.Context, e api.Event) {
	if _, err := m.events.Append(ctx, e); err != nil {
		m.log.Error("record an event", "kind", e.Kind, "error", err)
	}
}
