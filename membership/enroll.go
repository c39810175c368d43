package membership

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"strings"
	"time"

	"github.com/binnacle-project/binnacle"
	"github.com/binnacle-project/binnacle/api"
	"github.com/binnacle-project/binnacle/events"
	"github.com/binnacle-project/binnacle/membership/pki"
	"github.com/binnacle-project/binnacle/state"
)

// maxConflicts is how often an enrollment begins again because somebody else
// wrote first, which takes another manager or the same token used at once.
const maxConflicts = 20

// Enroll makes a node a member, or gives a member that holds the same key its
// id again, and issues its certificate. The membership is durable when Enroll
// returns. peer is where the request came from.
//
// Refusals are *api.Problem: 400 for a malformed request, 401 for the token,
// 403 for a revoked key, another group than the token's, or a full cluster, 429
// for a peer that failed too often.
func (r *Registry) Enroll(ctx context.Context, q api.EnrollRequest, peer netip.Addr) (Record, []byte, error) {
	rec, certPEM, err := r.enroll(ctx, q, peer)
	var p *api.Problem
	switch {
	case err == nil:
		r.count.enrollment("ok").Inc()
	case errors.As(err, &p):
		r.count.enrollment("refused").Inc()
		r.tellRefusal(ctx, q, peer, p)
		r.log.Warn("enrollment refused", "peer", peer, "name", q.Name, "token", fmt.Sprintf("%.32q", q.TokenID), "status", p.Status, "reason", p.Error())
	default:
		r.count.enrollment("failed").Inc()
		err = fmt.Errorf("enroll %s: %w", peer, err)
	}
	return rec, certPEM, err
}

func (r *Registry) enroll(ctx context.Context, q api.EnrollRequest, peer netip.Addr) (Record, []byte, error) {
	now := time.Now()
	if err := r.limiter.allow(peer, now); err != nil {
		return Record{}, nil, err
	}
	pub, keyFP, err := checkRequest(q)
	if err != nil {
		r.limiter.failed(peer, now)
		return Record{}, nil, err
	}
	r.enrollMu.Lock()
	defer r.enrollMu.Unlock()
	var rec Record
	for range maxConflicts {
		var use use
		if use, err = r.o.Tokens.check(ctx, q.TokenID, q.Secret, now); err != nil {
			if errors.As(err, new(*api.Problem)) {
				r.limiter.failed(peer, now)
			}
			return Record{}, nil, err
		}
		rec, err = r.admit(ctx, q, use, pub, keyFP, peer, now)
		if !errors.Is(err, state.ErrConflict) {
			break
		}
	}
	if err != nil {
		return Record{}, nil, err
	}
	if err := r.reload(ctx, rec.ID); err != nil {
		return Record{}, nil, err
	}
	certPEM, _, err := r.o.Authority.IssueNode([]byte(q.CSR), rec.ID)
	if err != nil {
		return Record{}, nil, err
	}
	r.came(rec, peer, now)
	r.tell(ctx, api.Event{Kind: events.NodeEnrolled, Group: rec.Group, Node: rec.ID, Actor: string(rec.ID),
		Message: fmt.Sprintf("%s enrolled with token %s from %s", rec.Name, rec.Token, peer)})
	r.log.Info("node enrolled", "node", rec.ID, "name", rec.Name, "group", rec.Group, "peer", peer)
	return rec, certPEM, nil
}

// tellRefusal tells of a refusal, but of the same one to the same peer once an
// hour: a node that a full cluster refused goes on asking.
func (r *Registry) tellRefusal(ctx context.Context, q api.EnrollRequest, peer netip.Addr, p *api.Problem) {
	if p.Status == http.StatusTooManyRequests || !r.refusals.first(refusal{network(peer), p.Title}, time.Now()) {
		return
	}
	r.tell(ctx, api.Event{Kind: events.NodeRefused, Group: q.Group, Actor: peer.String(), Message: "enrollment from " + peer.String() + " refused: " + p.Error()})
}

func checkRequest(q api.EnrollRequest) (ed25519.PublicKey, string, error) {
	if err := checkEnroll(q); err != nil {
		return nil, "", err
	}
	pub, keyFP, err := pki.ParseCSR([]byte(q.CSR))
	if err != nil {
		return nil, "", problem(http.StatusBadRequest, "The enrollment is not valid", "csr: %v", err)
	}
	return pub, keyFP, nil
}

// admit decides on one request and writes the record. It answers ErrConflict
// when what it decided by was changed meanwhile.
func (r *Registry) admit(ctx context.Context, q api.EnrollRequest, u use, pub ed25519.PublicKey, keyFP string, peer netip.Addr, now time.Time) (Record, error) {
	old, version, err := r.byFingerprint(ctx, keyFP)
	if err != nil {
		return Record{}, err
	}
	known := version != 0
	if known && !old.Revoked.IsZero() {
		return Record{}, errRevoked(old)
	}
	group, err := chooseGroup(q.Group, u.token.Group, old.Group)
	if err != nil {
		return Record{}, err
	}
	if !known {
		// A node that asks again with the same key lost the answer to its first
		// request, perhaps: that is no further use.
		if err := u.allowsUse(); err != nil {
			return Record{}, err
		}
	}
	if err := r.admitSeat(keyFP, now); err != nil {
		return Record{}, err
	}
	rec := Record{
		ID: old.ID, Group: group, Labels: q.Labels, KeyFP: keyFP, PublicKey: pub,
		Address: reachable(q.Address, peer), GossipAddress: reachable(q.GossipAddress, peer), Version: q.Version,
		Enrolled: old.Enrolled, Token: u.token.ID,
	}
	if !known {
		rec.ID, rec.Enrolled = newNodeID(), now.UTC()
	}
	rec.Name = r.chooseName(q.Name, rec.ID, now)
	return rec, r.write(ctx, rec, version, u)
}

// admitSeat asks the license for a seat, unless the key's node holds one.
func (r *Registry) admitSeat(keyFP string, now time.Time) error {
	if r.o.Seats == nil {
		return nil
	}
	r.mu.RLock()
	n := r.byKey[keyFP]
	holds := n != nil && r.holdsSeat(n, now)
	taken := 0
	for _, o := range r.nodes {
		if r.holdsSeat(o, now) || o != n && r.awaitsSeat(o, now) {
			taken++
		}
	}
	r.mu.RUnlock()
	if holds {
		return nil
	}
	return r.o.Seats.Admit(taken)
}

// write keeps rec. version is that of the record it replaces, 0 for none.
func (r *Registry) write(ctx context.Context, rec Record, version int64, u use) error {
	b, err := json.Marshal(rec)
	if err != nil {
		return fmt.Errorf("encode node %s: %w", rec.ID, err)
	}
	nodeKey := prefixNodes + string(rec.ID)
	conds := []state.Cond{state.IfVersion(nodeKey, version)}
	ops := []state.Op{state.OpPut(nodeKey, b)}
	if version == 0 {
		useConds, useOps, err := u.ops()
		if err != nil {
			return err
		}
		conds = append(append(conds, state.IfAbsent(prefixKeys+rec.KeyFP)), useConds...)
		ops = append(append(ops, state.OpPut(prefixKeys+rec.KeyFP, []byte(rec.ID))), useOps...)
	}
	return r.o.Store.Txn(ctx, conds, ops)
}

// byFingerprint reads the record of the node with that key, with its version,
// which is 0 if there is none.
func (r *Registry) byFingerprint(ctx context.Context, keyFP string) (Record, int64, error) {
	kv, err := r.o.Store.Get(ctx, prefixKeys+keyFP)
	if errors.Is(err, state.ErrNotFound) {
		return Record{}, 0, nil
	} else if err != nil {
		return Record{}, 0, err
	}
	return state.GetJSON[Record](ctx, r.o.Store, prefixNodes+string(kv.Value))
}

// chooseGroup decides on a node's group: the token's binds, where it has one.
func chooseGroup(asked, token, old binnacle.Group) (binnacle.Group, error) {
	switch {
	case token != "" && asked != "" && token != asked:
		return "", problem(http.StatusForbidden, "The join token is for another group",
			"the token is for group %q and the node asks for %q: use a token of that group, or leave the group out", token, asked)
	case token != "":
		return token, nil
	case asked != "":
		return asked, nil
	case old != "":
		return old, nil
	}
	return binnacle.DefaultGroup, nil
}

// chooseName returns the name asked for, with a number behind it while another
// node that lives has it. Without one, the id serves.
func (r *Registry) chooseName(asked string, id binnacle.NodeID, now time.Time) string {
	if asked == "" {
		return string(id)
	}
	taken := map[string]bool{}
	r.mu.RLock()
	for _, n := range r.nodes {
		if n.rec.ID == id || !n.rec.Revoked.IsZero() || !strings.HasPrefix(n.rec.Name, asked[:min(len(asked), 50)]) {
			continue
		}
		if v := lifeOf(n.signs, now, r.o.Periods); v.State == api.Alive || v.State == api.Suspect {
			taken[n.rec.Name] = true
		}
	}
	r.mu.RUnlock()
	name := asked
	for i := 2; taken[name]; i++ {
		suffix := fmt.Sprintf("-%d", i)
		name = asked[:min(len(asked), 63-len(suffix))] + suffix
	}
	return name
}

func newNodeID() binnacle.NodeID {
	b := make([]byte, 6)
	rand.Read(b) // never fails
	return binnacle.NodeID("n-" + hex.EncodeToString(b))
}

// Renew issues a new certificate to the node whose certificate cs shows, which
// may have expired. The key stays: a node that wants another enrolls anew.
// Refusals are *api.Problem.
func (r *Registry) Renew(_ context.Context, cs *tls.ConnectionState, csrPEM []byte) (Record, []byte, error) {
	rec, err := r.Authenticate(cs, true)
	if err != nil {
		return Record{}, nil, err
	}
	_, keyFP, err := pki.ParseCSR(csrPEM)
	if err != nil {
		return Record{}, nil, problem(http.StatusBadRequest, "The renewal is not valid", "csr: %v", err)
	}
	if keyFP != rec.KeyFP {
		return Record{}, nil, problem(http.StatusBadRequest, "The renewal is not valid",
			"csr: it is for another key than that of node %s: a new key needs a new enrollment", rec.ID)
	}
	certPEM, _, err := r.o.Authority.IssueNode(csrPEM, rec.ID)
	if err != nil {
		return Record{}, nil, err
	}
	r.log.Info("node certificate renewed", "node", rec.ID)
	return rec, certPEM, nil
}

// MembershipCert returns the membership certificate of a node in the form that
// answers carry it: base64.
func (r *Registry) MembershipCert(rec Record) string {
	return encodeCert(r.o.Authority.MembershipCert(rec.ID, rec.PublicKey))
}
