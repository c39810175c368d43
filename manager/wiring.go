package manager

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"path/filepath"
	"strconv"
	"syscall"

	"github.com/binnacle-project/binnacle"
	"github.com/binnacle-project/binnacle/manager/access"
	"github.com/binnacle-project/binnacle/manager/pagetls"
	"github.com/binnacle-project/binnacle/membership"
	"github.com/binnacle-project/binnacle/membership/gossip"
	"github.com/binnacle-project/binnacle/otlp"
	"github.com/binnacle-project/binnacle/otlp/wire"
	"github.com/binnacle-project/binnacle/telemetry/activity"
	tsmetrics "github.com/binnacle-project/binnacle/telemetry/metrics"
	"github.com/binnacle-project/binnacle/telemetry/traces"
)

// metricsSink gives each batch to the store and to the live activity, which thereby
// finds its streams in the store's cache, and counts also what the store cannot
// take now.
type metricsSink struct {
	activity *activity.Aggregator
	store    *tsmetrics.Store
}

func (s metricsSink) WriteMetrics(ctx context.Context, o binnacle.Origin, m *wire.Metrics) (otlp.Result, error) {
	rejected, message, err := s.store.WriteMetrics(ctx, o, m)
	s.activity.WriteMetrics(ctx, o, m)
	return otlp.Result{Rejected: rejected, Message: message}, err
}

func (s metricsSink) WriteTraces(context.Context, binnacle.Origin, *wire.Traces) (otlp.Result, error) {
	return otlp.Result{}, nil
}

// tracesSink gives each batch of spans to the trace store.
type tracesSink struct{ store *traces.Store }

func (s tracesSink) WriteMetrics(context.Context, binnacle.Origin, *wire.Metrics) (otlp.Result, error) {
	return otlp.Result{}, nil
}

func (s tracesSink) WriteTraces(ctx context.Context, o binnacle.Origin, t *wire.Traces) (otlp.Result, error) {
	rejected, message, err := s.store.WriteTraces(ctx, o, t)
	return otlp.Result{Rejected: rejected, Message: message}, err
}

// members shows the registry to rollout, which waits for living nodes only.
type members struct{ registry *membership.Registry }

func (m members) InGroup(g binnacle.Group) []binnacle.NodeID { return m.registry.AliveInGroup(g) }

// identifyUnmanaged lets senders on the OTLP ports in: without a credential
// from loopback or with --otlp-anonymous, elsewhere with a bearer token that
// may write telemetry.
func (m *Manager) identifyUnmanaged(_ context.Context, s otlp.Sender) (binnacle.Origin, error) {
	origin := binnacle.Origin{Peer: s.Peer.Addr().Unmap()}
	if auth := s.Header("Authorization"); auth != "" {
		p, err := m.access.TokenOf(auth)
		if err != nil {
			return origin, fmt.Errorf("%w: %w", otlp.ErrUnauthenticated, err)
		}
		if !p.May(access.Operator, access.RightOTLPWrite) {
			return origin, fmt.Errorf("%w: the token %s lacks the right %s", otlp.ErrForbidden, p.Name, access.RightOTLPWrite)
		}
		return origin, nil
	}
	if m.opts.OTLPAnonymous || origin.Peer.IsLoopback() {
		return origin, nil
	}
	return origin, fmt.Errorf("%w: send Authorization: Bearer TOKEN (otlp.token of the manager), or start it with --otlp-anonymous", otlp.ErrUnauthenticated)
}

// startGossip joins the gossip as the cluster's seed.
func (m *Manager) startGossip(ctx context.Context, log *slog.Logger) error {
	id, err := m.authority.ManagerIdentity(m.name)
	if err != nil {
		return fmt.Errorf("make the manager's gossip identity: %w", err)
	}
	plan := m.keys.GossipPlan()
	m.gossip, err = gossip.Start(ctx, gossip.Options{
		Bind: m.opts.GossipAddr, Advertise: m.opts.Advertise, Keys: plan.Keys,
		Identity: id, CAPub: m.authority.PublicKey(), Cluster: m.authority.Cluster(),
		PeersFile: filepath.Join(m.opts.DataDir, "peers.json"),
		OnEvent:   m.registry.SetGossip,
		Allow:     m.registry.GossipAllow,
		Manager:   true, Log: log, Metrics: m.set,
	})
	if err != nil {
		if errors.Is(err, syscall.EADDRINUSE) {
			return listenError("--gossip-addr", m.opts.GossipAddr, err)
		}
		return fmt.Errorf("start gossip: %w", err)
	}
	m.onStop("gossip", func(context.Context) error { return m.gossip.Close() })
	m.keys.SetSeeds([]string{m.gossip.Addr().String()})
	return nil
}

// gossipKeysChanged gives the keyring to the manager's own gossip and, by their
// plans, to the nodes.
func (m *Manager) gossipKeysChanged() {
	if m.gossip != nil {
		if err := m.gossip.SetKeys(m.keys.Keys()); err != nil {
			m.log.Error("change the gossip keys", "error", err)
		}
	}
	m.rollout.GossipChanged()
}

// hosts are the names and addresses in the certificate of the node API. Nodes
// check the cluster's identity and not the name; people with curl do.
func (m *Manager) hosts() []string {
	hosts := []string{"localhost", "127.0.0.1", "::1", m.name}
	for _, a := range []string{m.opts.NodeAddr, m.opts.Advertise} {
		h, _, err := net.SplitHostPort(a)
		if err != nil {
			h = a
		}
		if h != "" {
			hosts = append(hosts, h)
		}
	}
	return hosts
}

// openPageTLS makes the TLS configuration of :9897, if it has one.
func (m *Manager) openPageTLS() (err error) {
	switch {
	case m.opts.TLSCert != "":
		if m.pageTLS, err = pagetls.Files(m.opts.TLSCert, m.opts.TLSKey, m.log); err != nil {
			return fmt.Errorf("--tls-cert, --tls-key: %w", err)
		}
	case m.opts.TLS == TLSAuto:
		host, _, _ := net.SplitHostPort(m.opts.HTTPAddr) // Validate looked at it
		if m.pageCA, err = pagetls.Auto(filepath.Join(m.opts.DataDir, "tls"), append(m.hosts(), host)); err != nil {
			return fmt.Errorf("--tls=auto: %w", err)
		}
		m.pageTLS = m.pageCA.Config()
	}
	return nil
}

// PageURL returns the address of the page as this machine can open it, and for
// --tls=auto the file of the authority to trust and its SHA-256, else "".
func (m *Manager) PageURL() (page, caFile, fingerprint string) {
	addr := m.HTTPAddr()
	if ap, err := netip.ParseAddrPort(addr); err == nil && ap.Addr().IsUnspecified() {
		addr = net.JoinHostPort("localhost", strconv.Itoa(int(ap.Port())))
	}
	page = "http://" + addr
	if m.pageTLS != nil {
		page = "https://" + addr
	}
	if m.pageCA != nil {
		caFile, fingerprint = m.pageCA.CAFile(), m.pageCA.Fingerprint()
	}
	return page, caFile, fingerprint
}

// parseRevision reads the revision header; anything else counts as 0, the
// node's own file.
func parseRevision(s string) binnacle.Revision {
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil {
		return 0
	}
	return binnacle.Revision(n)
}
