package manager

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/VictoriaMetrics/metrics"

	"github.com/binnacle-project/binnacle/api"
	"github.com/binnacle-project/binnacle/events"
	"github.com/binnacle-project/binnacle/licensing"
	"github.com/binnacle-project/binnacle/manager/access"
	"github.com/binnacle-project/binnacle/manager/backup"
	"github.com/binnacle-project/binnacle/manager/pagetls"
	"github.com/binnacle-project/binnacle/membership"
	"github.com/binnacle-project/binnacle/membership/gossip"
	"github.com/binnacle-project/binnacle/membership/pki"
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
	authority *pki.Authority
	tokens    *membership.Tokens
	registry  *membership.Registry
	keys      *membership.GossipKeys
	gossip    *gossip.Gossip  // nil when gossip is off
	dns       *membership.DNS // nil when it is off
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
	if m.authority, err = pki.OpenAuthority(filepath.Join(o.DataDir, "ca")); err != nil {
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
		MaxBytes: o.MaxRequestBytes, Gather: gatherTelemetry, Log: o.Log, Metrics: m.set,
	})
	if m.self, err = startSelfTelemetry(ctx, m.receiver, m.name, m.set); err != nil {
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
