package manager

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"time"

	"github.com/binnacle-project/binnacle"
	"github.com/binnacle-project/binnacle/api"
	"github.com/binnacle-project/binnacle/membership"
	"github.com/binnacle-project/binnacle/otlp"
)

// maxWait bounds a long poll. It stays under the minute after which many
// proxies and NATs drop an idle connection.
const maxWait = 50 * time.Second

// nodeHandler is the whole of :9899. Every route but POST /v1/enroll needs a
// client certificate, which is looked up in the registry for each request, so
// that a forgotten or revoked node is refused at once.
func (m *Manager) nodeHandler() http.Handler {
	mux := http.NewServeMux()
	handle := func(pattern string, h handlerFunc) { mux.Handle(pattern, serve(m.log, h)) }
	handle("POST /v1/enroll", m.handleEnroll)
	handle("POST /v1/renew", m.handleRenew)
	handle("GET /v1/nodes/{id}/plan", m.node(m.handlePlan))
	handle("PUT /v1/nodes/{id}/status", m.node(m.handleStatus))
	handle("GET /v1/configs/{sha256}", m.node(m.handleNodeConfig))
	otlpHandler := m.receiver.HTTPHandler(m.identifyNode)
	for _, signal := range []string{"metrics", "traces", "logs"} {
		mux.Handle("POST /v1/"+signal, otlpHandler)
	}
	handle("/", func(_ http.ResponseWriter, r *http.Request) error {
		return fail(http.StatusNotFound, "there is no %s %s on the node API; the operator API has another port", r.Method, r.URL.Path)
	})
	return mux
}

// nodeFunc is a handler for a node that proved its certificate.
type nodeFunc func(w http.ResponseWriter, r *http.Request, n membership.Record) error

// node authenticates; a path's {id} must be the certificate's own.
func (m *Manager) node(h nodeFunc) handlerFunc {
	return func(w http.ResponseWriter, r *http.Request) error {
		n, err := m.registry.Authenticate(r.TLS, false)
		if err != nil {
			return err
		}
		if id := r.PathValue("id"); id != "" && id != string(n.ID) {
			return fail(http.StatusForbidden, "the certificate is that of node %s, not of %s", n.ID, id)
		}
		return h(w, r, n)
	}
}

func (m *Manager) handleEnroll(w http.ResponseWriter, r *http.Request) error {
	req, err := readJSON[api.EnrollRequest](w, r)
	if err != nil {
		return err
	}
	rec, cert, err := m.registry.Enroll(r.Context(), req, peerOf(r).Addr())
	if err != nil {
		return err
	}
	m.keeper.Forget(rec.ID) // it may have lost the answer to its first request
	lease, info, _, err := m.keeper.Lease(rec.ID, rec.KeyFP, time.Time{}, time.Now())
	if err != nil {
		return err
	}
	m.leases.set(rec.ID, info)
	return writeJSONStatus(w, http.StatusCreated, api.EnrollResponse{
		NodeID: rec.ID, Cluster: m.authority.Cluster(), Name: rec.Name, Group: rec.Group,
		Certificate: string(cert), CA: string(m.authority.CAPEM()),
		MembershipCert: m.registry.MembershipCert(rec),
		GossipLabel:    membership.GossipLabel(m.authority.Cluster()),
		Plan:           m.rollout.Plan(rec.ID, rec.Group),
		Lease:          lease,
	})
}

func (m *Manager) handleRenew(w http.ResponseWriter, r *http.Request) error {
	req, err := readJSON[api.RenewRequest](w, r)
	if err != nil {
		return err
	}
	rec, cert, err := m.registry.Renew(r.Context(), r.TLS, []byte(req.CSR))
	if err != nil {
		return err
	}
	return writeJSON(w, api.RenewResponse{
		Certificate: string(cert), CA: string(m.authority.CAPEM()), MembershipCert: m.registry.MembershipCert(rec),
	})
}

// handlePlan is the long poll. It answers at once when the plan differs from
// the one the node has, or when a lease is due; the wait is never longer than
// until the lease becomes due.
func (m *Manager) handlePlan(w http.ResponseWriter, r *http.Request, n membership.Record) error {
	doubted, end := m.registry.Polling(r.Context(), n.ID, peerOf(r).Addr())
	defer end()

	var held time.Time
	if s := r.Header.Get(binnacle.HeaderLeaseExpires); s != "" {
		t, err := time.Parse(time.RFC3339, s)
		if err != nil {
			return fail(http.StatusBadRequest, "%s: %q is no RFC 3339 time", binnacle.HeaderLeaseExpires, s)
		}
		held = t
	}
	known := r.Header.Get("If-None-Match")
	wait := preferWait(r.Header, maxWait)
	now := time.Now()
	licenseChanged := m.leases.changed() // first, so that no change is missed
	lease, in, err := m.leaseFor(n, held, now)
	if err != nil {
		return err
	}
	if in >= 0 {
		wait = min(wait, in)
	}

	plan := m.rollout.Plan(n.ID, n.Group)
	if plan.ETag() == known && wait > 0 {
		ctx, cancel := context.WithTimeout(r.Context(), wait)
		defer cancel()
		stop := context.AfterFunc(m.stopCtx, cancel) // a stopping manager lets its nodes go
		defer stop()
		after := licenseSpread.of(plan.Poll.Phase, m.registry.Count())
		undoubt := context.AfterFunc(doubted, cancel)
		defer undoubt()
		unwatch := context.AfterFunc(licenseChanged, func() { time.AfterFunc(after, cancel) })
		defer unwatch()
		plan, err = m.rollout.Wait(ctx, n.ID, n.Group, known)
		switch {
		case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
			plan = m.rollout.Plan(n.ID, n.Group)
		case err != nil:
			return err
		default:
			pause(ctx, planSpread.of(plan.Poll.Phase, m.registry.Count()))
			plan = m.rollout.Plan(n.ID, n.Group)
		}
		if r.Context().Err() != nil {
			return nil // the node has gone
		}
		// Forgotten or revoked while it waited?
		if _, err := m.registry.Authenticate(r.TLS, false); err != nil {
			return err
		}
		if lease, _, err = m.leaseFor(n, held, time.Now()); err != nil {
			return err
		}
	}
	h := w.Header()
	if lease != "" {
		h.Set(binnacle.HeaderLease, lease)
	}
	etag := plan.ETag()
	h.Set("ETag", etag)
	if etag == known {
		w.WriteHeader(http.StatusNotModified)
		return nil
	}
	return writeJSON(w, plan)
}

func pause(ctx context.Context, d time.Duration) {
	if d <= 0 {
		return
	}
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

func (m *Manager) handleStatus(w http.ResponseWriter, r *http.Request, n membership.Record) error {
	st, err := readJSON[api.Status](w, r)
	if err != nil {
		return err
	}
	if err := m.registry.Reported(r.Context(), n.ID, st); err != nil {
		return err
	}
	if err := m.rollout.Report(r.Context(), n.ID, n.Group, st); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// handleNodeConfig gives a configuration to a node of its group only: the hash
// is no capability.
func (m *Manager) handleNodeConfig(w http.ResponseWriter, r *http.Request, n membership.Record) error {
	zipped, groups, err := m.rollout.Config(r.Context(), r.PathValue("sha256"))
	if err != nil {
		return err
	}
	if !slices.Contains(groups, n.Group) {
		return fail(http.StatusForbidden, "this configuration is not of group %s", n.Group)
	}
	return writeConfig(w, r, zipped)
}

// identifyNode says which node sends telemetry on :9899.
func (m *Manager) identifyNode(_ context.Context, s otlp.Sender) (binnacle.Origin, error) {
	n, err := m.registry.Authenticate(s.TLS, false)
	var p *api.Problem
	if errors.As(err, &p) && p.Status == http.StatusForbidden {
		return binnacle.Origin{}, fmt.Errorf("%w: %w", otlp.ErrForbidden, err)
	} else if err != nil {
		return binnacle.Origin{}, fmt.Errorf("%w: %w", otlp.ErrUnauthenticated, err)
	}
	return binnacle.Origin{
		Managed: true, Cluster: m.authority.Cluster(), Node: n.ID, Group: n.Group,
		Revision: parseRevision(s.Header(binnacle.HeaderRevision)), Peer: s.Peer.Addr(),
	}, nil
}

func peerOf(r *http.Request) netip.AddrPort {
	p, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return netip.AddrPort{}
	}
	return netip.AddrPortFrom(p.Addr().Unmap(), p.Port())
}
