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
	"github.com/binnacle-project/binnacle/membership/gossip"
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
		GossipLabel:    gossip.Label(m.authority.Cluster()),
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
	p := poll{node: n, known: r.Header.Get("If-None-Match"), peer: peerOf(r).Addr()}
	if s := r.Header.Get(binnacle.HeaderLeaseExpires); s != "" {
		t, err := time.Parse(time.RFC3339, s)
		if err != nil {
			return fail(http.StatusBadRequest, "%s: %q is no RFC 3339 time", binnacle.HeaderLeaseExpires, s)
		}
		p.held = t
	}
	wait := preferWait(r.Header, maxWait)
	license := m.polls.seen() // first, so that no change is missed
	lease, in, err := m.leaseFor(n, p.held, time.Now())
	if err != nil {
		return err
	}
	if in >= 0 {
		wait = min(wait, in)
	}
	plan, etag := m.rollout.TaggedPlan(n.ID, n.Group)
	if etag != p.known || wait <= 0 {
		m.registry.Polled(n.ID, p.peer)
		return p.write(w, plan, etag, lease)
	}
	now := time.Now()
	h := &hold{poll: p, phase: plan.Poll.Phase, due: now.Add(wait)}
	if err := m.polls.take(h, license, now); err != nil {
		m.registry.Polled(n.ID, p.peer) // it lives
		w.Header().Set("Connection", "close")
		return err
	}
	conn, err := takeConn(w)
	if err != nil {
		m.polls.release(h)
		return err
	}
	h.mu.Lock()
	h.conn = conn
	h.mu.Unlock()
	m.startHold(h)
	return nil
}

// poll is what is kept of a poll's request.
type poll struct {
	node  membership.Record
	known string    // the ETag of the plan that the node has
	held  time.Time // when the lease ends that it holds
	peer  netip.Addr
}

// write answers with the plan, if the node does not have it, and a lease, if
// there is one.
func (p *poll) write(w http.ResponseWriter, plan api.Plan, etag, lease string) error {
	h := w.Header()
	if lease != "" {
		h.Set(binnacle.HeaderLease, lease)
	}
	h.Set("ETag", etag)
	if etag == p.known {
		w.WriteHeader(http.StatusNotModified)
		return nil
	}
	return writeJSON(w, plan)
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
