package api

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/binnacle-project/binnacle"
)

// maxResponseBytes caps what a client reads of one answer.
const maxResponseBytes = 32 << 20

// Client calls the operator API of one manager. It is safe for concurrent use.
type Client struct {
	base  string
	token string
	http  *http.Client
}

// NewClient returns a client of the manager at base, e.g.
// "http://127.0.0.1:9897". token may be empty: the caller is anonymous then. A
// nil hc means http.DefaultClient; a context bounds each call.
func NewClient(base, token string, hc *http.Client) (*Client, error) {
	if !strings.Contains(base, "://") {
		base = "http://" + base
	}
	u, err := url.Parse(base)
	if err != nil || u.Host == "" || (u.Scheme != "http" && u.Scheme != "https") {
		return nil, fmt.Errorf("manager address %q: want http://HOST:PORT or https://HOST:PORT", base)
	}
	if hc == nil {
		hc = http.DefaultClient
	}
	return &Client{base: strings.TrimSuffix(u.String(), "/"), token: token, http: hc}, nil
}

// Cluster calls GET /v1/cluster.
func (c *Client) Cluster(ctx context.Context) (Cluster, error) {
	return call[Cluster](ctx, c, http.MethodGet, "/v1/cluster", nil)
}

// Nodes calls GET /v1/nodes.
func (c *Client) Nodes(ctx context.Context) ([]Node, error) {
	return items[Node](ctx, c, "/v1/nodes")
}

// Node calls GET /v1/nodes/{id}.
func (c *Client) Node(ctx context.Context, id binnacle.NodeID) (Node, error) {
	return call[Node](ctx, c, http.MethodGet, "/v1/nodes/"+url.PathEscape(string(id)), nil)
}

// NodeAction calls POST /v1/nodes/{id}/{action}: drain, undrain, restart or
// revoke.
func (c *Client) NodeAction(ctx context.Context, id binnacle.NodeID, action string) error {
	_, err := call[json.RawMessage](ctx, c, http.MethodPost, "/v1/nodes/"+url.PathEscape(string(id))+"/"+action, nil)
	return err
}

// Forget calls DELETE /v1/nodes/{id}.
func (c *Client) Forget(ctx context.Context, id binnacle.NodeID) error {
	_, err := call[json.RawMessage](ctx, c, http.MethodDelete, "/v1/nodes/"+url.PathEscape(string(id)), nil)
	return err
}

// Backends calls GET /v1/backends.
func (c *Client) Backends(ctx context.Context) ([]Backend, error) {
	return items[Backend](ctx, c, "/v1/backends")
}

// Activity calls GET /v1/activity.
func (c *Client) Activity(ctx context.Context, by ActivityBy, window time.Duration) (ActivityList, error) {
	q := url.Values{"by": {string(by)}, "window": {strconv.Itoa(int(window.Seconds()))}}
	return call[ActivityList](ctx, c, http.MethodGet, "/v1/activity?"+q.Encode(), nil)
}

// Groups calls GET /v1/groups.
func (c *Client) Groups(ctx context.Context) ([]Group, error) {
	return items[Group](ctx, c, "/v1/groups")
}

// Revisions calls GET /v1/groups/{g}/revisions.
func (c *Client) Revisions(ctx context.Context, g binnacle.Group) ([]Revision, error) {
	return items[Revision](ctx, c, "/v1/groups/"+url.PathEscape(string(g))+"/revisions")
}

// CreateRevision calls POST /v1/groups/{g}/revisions. A refused configuration
// is a *Problem with all its faults.
func (c *Client) CreateRevision(ctx context.Context, g binnacle.Group, r NewRevision) (CreatedRevision, error) {
	q := url.Values{}
	if r.Message != "" {
		q.Set("message", r.Message)
	}
	if r.DryRun {
		q.Set("dry_run", "true")
	}
	if r.Format != "" {
		q.Set("format", r.Format)
	}
	return call[CreatedRevision](ctx, c, http.MethodPost, "/v1/groups/"+url.PathEscape(string(g))+"/revisions?"+q.Encode(), raw(r.Config))
}

// StartRollout calls POST /v1/groups/{g}/rollouts.
func (c *Client) StartRollout(ctx context.Context, g binnacle.Group, r NewRollout) (Rollout, error) {
	return call[Rollout](ctx, c, http.MethodPost, "/v1/groups/"+url.PathEscape(string(g))+"/rollouts", r)
}

// Rollouts calls GET /v1/rollouts.
func (c *Client) Rollouts(ctx context.Context) ([]Rollout, error) {
	return items[Rollout](ctx, c, "/v1/rollouts")
}

// Rollout calls GET /v1/rollouts/{id}.
func (c *Client) Rollout(ctx context.Context, id string) (Rollout, error) {
	return call[Rollout](ctx, c, http.MethodGet, "/v1/rollouts/"+url.PathEscape(id), nil)
}

// AbortRollout calls POST /v1/rollouts/{id}/abort.
func (c *Client) AbortRollout(ctx context.Context, id string) (Rollout, error) {
	return call[Rollout](ctx, c, http.MethodPost, "/v1/rollouts/"+url.PathEscape(id)+"/abort", nil)
}

// PauseRollout calls POST /v1/rollouts/{id}/pause.
func (c *Client) PauseRollout(ctx context.Context, id string) (Rollout, error) {
	return call[Rollout](ctx, c, http.MethodPost, "/v1/rollouts/"+url.PathEscape(id)+"/pause", nil)
}

// ResumeRollout calls POST /v1/rollouts/{id}/resume.
func (c *Client) ResumeRollout(ctx context.Context, id string) (Rollout, error) {
	return call[Rollout](ctx, c, http.MethodPost, "/v1/rollouts/"+url.PathEscape(id)+"/resume", nil)
}

// PromoteRollout calls POST /v1/rollouts/{id}/promote: the step under way passes
// without its gate.
func (c *Client) PromoteRollout(ctx context.Context, id string) (Rollout, error) {
	return call[Rollout](ctx, c, http.MethodPost, "/v1/rollouts/"+url.PathEscape(id)+"/promote", nil)
}

// RestartGroup calls POST /v1/groups/{g}/restart.
func (c *Client) RestartGroup(ctx context.Context, g binnacle.Group) (Rollout, error) {
	return call[Rollout](ctx, c, http.MethodPost, "/v1/groups/"+url.PathEscape(string(g))+"/restart", nil)
}

// Diff calls GET /v1/groups/{g}/diff. A from of 0 means what the group should
// run, a to of 0 its newest revision.
func (c *Client) Diff(ctx context.Context, g binnacle.Group, from, to binnacle.Revision) (Diff, error) {
	q := url.Values{}
	if from > 0 {
		q.Set("from", from.String())
	}
	if to > 0 {
		q.Set("to", to.String())
	}
	return call[Diff](ctx, c, http.MethodGet, "/v1/groups/"+url.PathEscape(string(g))+"/diff?"+q.Encode(), nil)
}

// DiffConfig calls POST /v1/groups/{g}/diff: what config, which need not be a
// revision, would change of what the group should run.
func (c *Client) DiffConfig(ctx context.Context, g binnacle.Group, config []byte) (Diff, error) {
	return call[Diff](ctx, c, http.MethodPost, "/v1/groups/"+url.PathEscape(string(g))+"/diff", raw(config))
}

// Rollback calls POST /v1/groups/{g}/rollback.
func (c *Client) Rollback(ctx context.Context, g binnacle.Group) (Rollout, error) {
	return call[Rollout](ctx, c, http.MethodPost, "/v1/groups/"+url.PathEscape(string(g))+"/rollback", nil)
}

// License calls GET /v1/license.
func (c *Client) License(ctx context.Context) (License, error) {
	return call[License](ctx, c, http.MethodGet, "/v1/license", nil)
}

// SimulateExpiry calls GET /v1/license/simulate for a license that expires that
// long from now.
func (c *Client) SimulateExpiry(ctx context.Context, in time.Duration) (Simulation, error) {
	return call[Simulation](ctx, c, http.MethodGet, "/v1/license/simulate?"+url.Values{"expire_in": {in.String()}}.Encode(), nil)
}

// SimulateOutage calls GET /v1/license/simulate for managers that are gone for
// that long.
func (c *Client) SimulateOutage(ctx context.Context, gone time.Duration) (Simulation, error) {
	return call[Simulation](ctx, c, http.MethodGet, "/v1/license/simulate?"+url.Values{"manager_gone": {gone.String()}}.Encode(), nil)
}

// InstallLicense calls PUT /v1/license.
func (c *Client) InstallLicense(ctx context.Context, token string) (License, error) {
	return call[License](ctx, c, http.MethodPut, "/v1/license", InstallLicense{License: token})
}

// Events calls GET /v1/events for events after the given id, oldest first.
func (c *Client) Events(ctx context.Context, after uint64, limit int) ([]Event, error) {
	q := url.Values{"after": {strconv.FormatUint(after, 10)}, "limit": {strconv.Itoa(limit)}}
	return items[Event](ctx, c, "/v1/events?"+q.Encode())
}

// Tokens calls GET /v1/tokens.
func (c *Client) Tokens(ctx context.Context) ([]Token, error) {
	return items[Token](ctx, c, "/v1/tokens")
}

// CreateToken calls POST /v1/tokens.
func (c *Client) CreateToken(ctx context.Context, t NewToken) (CreatedToken, error) {
	return call[CreatedToken](ctx, c, http.MethodPost, "/v1/tokens", t)
}

// RevokeToken calls DELETE /v1/tokens/{id}.
func (c *Client) RevokeToken(ctx context.Context, id string) error {
	_, err := call[json.RawMessage](ctx, c, http.MethodDelete, "/v1/tokens/"+url.PathEscape(id), nil)
	return err
}

// LoginCode calls POST /v1/login-codes: a one-time code that logs a browser in
// at /login?code=… with the caller's role.
func (c *Client) LoginCode(ctx context.Context) (LoginCode, error) {
	return call[LoginCode](ctx, c, http.MethodPost, "/v1/login-codes", nil)
}

// Discovery calls GET /v1/discovery/http_sd.
func (c *Client) Discovery(ctx context.Context) ([]TargetGroup, error) {
	return call[[]TargetGroup](ctx, c, http.MethodGet, "/v1/discovery/http_sd", nil)
}

// LoginCode answers POST /v1/login-codes.
type LoginCode struct {
	Code    string    `json:"code"`
	Expires time.Time `json:"expires"`
}

// raw is a request body that is sent as it is.
type raw []byte

func items[T any](ctx context.Context, c *Client, path string) ([]T, error) {
	l, err := call[List[T]](ctx, c, http.MethodGet, path, nil)
	return l.Items, err
}

// call sends body, if any, and decodes the answer. An answer of 400 and above
// becomes a *Problem.
func call[T any](ctx context.Context, c *Client, method, path string, body any) (T, error) {
	var out T
	req, err := c.request(ctx, method, path, body)
	if err != nil {
		return out, err
	}
	resp, err := c.send(req)
	if err != nil {
		return out, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxResponseBytes+1))
	if err != nil {
		return out, fmt.Errorf("read the answer of %s %s: %w", method, path, err)
	}
	if len(b) > maxResponseBytes {
		return out, fmt.Errorf("%s %s: the answer is over %d MiB", method, path, maxResponseBytes>>20)
	}
	if resp.StatusCode >= 400 {
		return out, problemOf(resp, b)
	}
	if len(b) == 0 {
		return out, nil
	}
	if err := json.Unmarshal(b, &out); err != nil {
		return out, fmt.Errorf("decode the answer of %s %s (is %s a manager?): %w", method, path, c.base, err)
	}
	return out, nil
}

func (c *Client) request(ctx context.Context, method, path string, body any) (*http.Request, error) {
	var r io.Reader
	switch b := body.(type) {
	case nil:
	case raw:
		r = bytes.NewReader(b)
	default:
		j, err := json.Marshal(b)
		if err != nil {
			return nil, fmt.Errorf("encode the body of %s %s: %w", method, path, err)
		}
		r = bytes.NewReader(j)
	}
	req, err := http.NewRequestWithContext(ctx, method, c.base+path, r)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Accept", "application/json")
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if c.token != "" {
		req.Header.Set("Authorization", "Bearer "+c.token)
	}
	return req, nil
}

// problemOf makes a *Problem of an error answer, also of one that is none.
func problemOf(resp *http.Response, body []byte) error {
	p := &Problem{}
	if strings.HasPrefix(resp.Header.Get("Content-Type"), ProblemType) && json.Unmarshal(body, p) == nil && p.Title != "" {
		return p
	}
	const most = 200
	text := strings.TrimSpace(string(body))
	// The Prometheus and Jaeger APIs have error bodies of their own.
	var theirs struct {
		Error  string `json:"error"`
		Errors []struct {
			Message string `json:"msg"`
		} `json:"errors"`
	}
	if json.Unmarshal(body, &theirs) == nil {
		if len(theirs.Errors) > 0 {
			theirs.Error = theirs.Errors[0].Message
		}
		if theirs.Error != "" {
			return &Problem{Title: http.StatusText(resp.StatusCode), Status: resp.StatusCode, Detail: theirs.Error}
		}
	}
	if len(text) > most {
		text = text[:most] + "…"
	}
	return &Problem{Title: http.StatusText(resp.StatusCode), Status: resp.StatusCode, Detail: fmt.Sprintf("%s: %s", resp.Status, text)}
}
