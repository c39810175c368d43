package manager

import (
	"cmp"
	"context"
	"errors"
	"net/http"
	"strings"
	"time"

	"github.com/binnacle-project/binnacle"
	"github.com/binnacle-project/binnacle/api"
	"github.com/binnacle-project/binnacle/membership"
)

// inTraffic returns the nodes that load balancers are told of: of one group, or
// of all for "".
func (m *Manager) inTraffic(group binnacle.Group) []api.Node {
	all := m.registry.InTraffic(time.Now(), m.rollout.Ledger)
	if group == "" {
		return all
	}
	nodes := []api.Node{}
	for _, n := range all {
		if n.Group == group {
			nodes = append(nodes, n)
		}
	}
	return nodes
}

// groupOf reads ?group=, empty for all.
func groupOf(r *http.Request) (binnacle.Group, error) {
	g := r.URL.Query().Get("group")
	if g == "" {
		return "", nil
	}
	if err := binnacle.CheckName("group", g); err != nil {
		return "", fail(http.StatusBadRequest, "%v", err)
	}
	return binnacle.Group(g), nil
}

// handleHTTPSD answers a bare array, as Prometheus HTTP SD wants it.
func (m *Manager) handleHTTPSD(w http.ResponseWriter, r *http.Request) error {
	group, err := groupOf(r)
	if err != nil {
		return err
	}
	return writeJSON(w, membership.HTTPSD(m.inTraffic(group)))
}

// handleTraefik answers a dynamic configuration for Traefik's HTTP provider.
// ?scheme=https is for gateways that serve TLS; ?health= names another path for
// Traefik's health checks, or "off".
func (m *Manager) handleTraefik(w http.ResponseWriter, r *http.Request) error {
	group, err := groupOf(r)
	if err != nil {
		return err
	}
	q := r.URL.Query()
	scheme := cmp.Or(q.Get("scheme"), "http")
	if scheme != "http" && scheme != "https" {
		return fail(http.StatusBadRequest, "scheme=%q: want http or https", scheme)
	}
	health := cmp.Or(q.Get("health"), "/__health")
	if health == "off" {
		health = ""
	} else if !strings.HasPrefix(health, "/") {
		return fail(http.StatusBadRequest, "health=%q: want a path, or off", health)
	}
	var groups []string
	if group != "" {
		groups = []string{string(group)}
	} else if groups, err = m.groupNames(r.Context()); err != nil {
		return err
	}
	return writeJSON(w, membership.TraefikConfig(m.inTraffic(group), groups, scheme, health))
}

func (m *Manager) groupNames(ctx context.Context) ([]string, error) {
	groups, err := m.rollout.Groups(ctx)
	if err != nil {
		return nil, err
	}
	names := []string{}
	for _, g := range groups {
		names = append(names, string(g.Name))
	}
	return names, nil
}

// listenDNS opens the sockets of discovery by DNS, if it is on.
func (m *Manager) listenDNS() error {
	if m.opts.DNSAddr == "" {
		return nil
	}
	d, err := membership.ListenDNS(m.opts.DNSAddr, membership.DNSOptions{
		Zone: m.opts.DNSZone, TTL: m.opts.DNSTTL, Log: m.opts.Log, Metrics: m.set,
		Nodes: func() []api.Node { return m.inTraffic("") },
	})
	if err != nil {
		return listenError("--dns-addr", m.opts.DNSAddr, err)
	}
	m.dns = d
	m.onStop("DNS", func(context.Context) error { return d.Close() })
	return nil
}

// DNSAddr returns the address of discovery by DNS, "" when it is off.
func (m *Manager) DNSAddr() string {
	if m.dns == nil {
		return ""
	}
	return m.dns.Addr()
}

// ghostsEvery is how often nodes are looked at that are gone for long.
const ghostsEvery = time.Minute

// forgetGhosts forgets nodes that are gone for longer than --forget-after. The
// gossip key changes once for all that one look finds.
func (m *Manager) forgetGhosts(ctx context.Context) error {
	tick := time.NewTicker(ghostsEvery)
	defer tick.Stop()
	for {
		if err := m.forgetOnce(ctx); err != nil && ctx.Err() == nil {
			m.log.Warn("nodes that are gone for long are not forgotten; trying on", "error", err)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}

func (m *Manager) forgetOnce(ctx context.Context) error {
	var errs []error
	forgot := false
	for _, id := range m.registry.Ghosts(time.Now(), m.opts.ForgetAfter) {
		did, err := m.registry.ForgetGhost(ctx, id, m.opts.ForgetAfter)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		if did {
			forgot = true
			errs = append(errs, m.dropNode(id))
		}
	}
	if forgot {
		errs = append(errs, m.keys.Rotate(ctx))
	}
	return errors.Join(errs...)
}
