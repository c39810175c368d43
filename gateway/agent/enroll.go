package agent

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"time"

	"github.com/binnacle-project/binnacle"
	"github.com/binnacle-project/binnacle/api"
	"github.com/binnacle-project/binnacle/membership"
	"github.com/binnacle-project/binnacle/membership/pki"
)

// Pauses between tries to enroll after a refusal, as opposed to a manager that
// does not answer: a freed seat or a new token should not wait for long, and a
// wrong token must not knock all day.
const (
	refusedBase = 5 * time.Second
	refusedCap  = 30 * time.Second
)

// enroll asks for membership until it is given or ctx ends. Meanwhile the node
// serves standalone. former, if not nil, is what the node was until a manager
// said that it does not know it: should one take it back, it is that again, and
// the answer is nil.
func (a *Agent) enroll(ctx context.Context, former *identity) (*identity, *api.EnrollResponse, error) {
	key, err := a.state.loadKey()
	if err != nil {
		return nil, nil, err
	}
	last := ""
	for n := 0; ; n++ {
		id, resp, err := a.enrollOnce(ctx, key)
		if err == nil {
			a.log.Info("enrolled", "node", id.NodeID, "cluster", id.Cluster, "group", id.Group)
			return id, &resp, nil
		}
		if former != nil && a.stillKnown(ctx, former) {
			a.log.Info("the manager knows this node again", "node", former.NodeID)
			return former, nil, nil
		}
		if ctx.Err() != nil {
			return nil, nil, ctx.Err()
		}
		a.metric("binnacle_agent_enroll_failures_total").Inc()
		a.setJoin(joinWaiting, err.Error())
		// The same news again and again is for the debug log.
		if err.Error() != last {
			a.log.Warn("not a member of the cluster yet; serving standalone and asking again", "err", err)
			last = err.Error()
		} else {
			a.log.Debug("enrollment failed again", "err", err)
		}
		delay := retryDelay(n, 0, rand.Float64())
		var r *api.Refusal
		if errors.As(err, &r) && r.Status < 500 {
			delay = min(refusedBase<<min(n, 8), refusedCap)
			delay -= time.Duration(rand.Float64() * float64(delay) / 4)
			delay = max(delay, min(r.RetryAfter, refusedCap))
		}
		if err := sleep(ctx, delay); err != nil {
			return nil, nil, err
		}
	}
}

// stillKnown asks whether a manager answers a poll of id after all.
func (a *Agent) stillKnown(ctx context.Context, id *identity) bool {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	_, err := a.managers.client().Plan(ctx, id.NodeID, api.PlanPoll{})
	return err == nil
}

// enrollOnce tries each manager once and returns the first answer; of several
// failures it returns a refusal rather than silence.
func (a *Agent) enrollOnce(ctx context.Context, key ed25519Key) (*identity, api.EnrollResponse, error) {
	tok, err := a.token()
	if err != nil {
		return nil, api.EnrollResponse{}, err
	}
	csr, err := pki.NewCSR(key)
	if err != nil {
		return nil, api.EnrollResponse{}, err
	}
	rt := transport(pki.EnrollTLS(tok.Fingerprint))
	defer rt.CloseIdleConnections()
	var failed error
	for _, addr := range a.opts.Managers {
		id, resp, err := a.enrollAt(ctx, api.NewNodeClient(addr, rt), api.EnrollRequest{
			TokenID: tok.ID, Secret: tok.Secret, CSR: string(csr),
			Name: a.opts.Name, Group: a.opts.Group, Labels: a.opts.Labels,
			Address: a.advertised(), GossipAddress: a.gossipAdvertised(), Version: binnacle.Version,
		}, key)
		if err == nil {
			return id, resp, nil
		}
		if failed == nil || api.RefusedWith(err) != 0 && api.RefusedWith(failed) == 0 {
			failed = err
		}
	}
	return nil, api.EnrollResponse{}, failed
}

func (a *Agent) enrollAt(ctx context.Context, c *api.NodeClient, req api.EnrollRequest, key ed25519Key) (*identity, api.EnrollResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	resp, err := c.Enroll(ctx, req)
	if err != nil {
		return nil, resp, err
	}
	id, err := newIdentity(savedIdentity{
		NodeID: resp.NodeID, Cluster: resp.Cluster, Name: resp.Name, Group: resp.Group,
		Certificate: resp.Certificate, CA: resp.CA, MembershipCert: resp.MembershipCert,
		GossipLabel: resp.GossipLabel, Enrolled: time.Now().UTC(),
	}, key)
	if err != nil {
		return nil, resp, fmt.Errorf("enroll at %s: the answer cannot be used: %w", c.Addr(), err)
	}
	return id, resp, a.state.saveIdentity(id)
}

// token reads the join token, anew at each try: it may be put in place, or
// replaced, while the node runs.
func (a *Agent) token() (membership.JoinToken, error) {
	b, err := os.ReadFile(a.opts.TokenFile)
	if err != nil {
		return membership.JoinToken{}, fmt.Errorf("join token (token_file of the @cluster block): %w", err)
	}
	tok, err := membership.ParseJoinToken(string(b))
	if err != nil {
		return membership.JoinToken{}, fmt.Errorf("join token file %s: %w", a.opts.TokenFile, err)
	}
	return tok, nil
}

// renew asks for a new certificate once a third of its life is gone. A failure
// costs nothing: an expired certificate of a registered key can be renewed.
func (a *Agent) renew(ctx context.Context, id *identity, c *api.NodeClient) (*identity, error) {
	csr, err := pki.NewCSR(id.key)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	resp, err := c.Renew(ctx, api.RenewRequest{CSR: string(csr)})
	if err != nil {
		return nil, err
	}
	next, err := id.renewed(resp)
	if err != nil {
		return nil, fmt.Errorf("renew the certificate: the answer cannot be used: %w", err)
	}
	if err := a.state.saveIdentity(next); err != nil {
		a.log.Error("the renewed certificate could not be kept on disk", "err", err)
	}
	a.become(next)
	a.log.Info("the node's certificate was renewed", "until", next.cert.Leaf.NotAfter)
	return next, nil
}

// forgotten reports whether err says that the manager does not know this node:
// it was forgotten, and a valid token enrolls it anew.
func forgotten(err error) bool { return api.RefusedWith(err) == http.StatusUnauthorized }

// sleep waits for d or ctx, whose end is the error.
func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
