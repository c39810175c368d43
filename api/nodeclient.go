package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/binnacle-project/binnacle"
)

// MaxNodeBody bounds what a node reads of any answer, after decompression: the
// largest one, a rendered configuration, has at most 8 MiB.
const MaxNodeBody = 16 << 20

// maxProblemBody bounds error documents, which are short.
const maxProblemBody = 1 << 20

// NodeClient speaks the node API of one manager on :9899. It is safe for
// concurrent use. It retries nothing: who calls it knows what a failure means.
//
// Errors: an answer of the manager that is no success is a *Refusal, which
// errors.As also finds as *Problem; everything else (connection, time-out,
// broken body) is wrapped as it came.
type NodeClient struct {
	base string
	http *http.Client
}

// NewNodeClient returns a client for the manager at addr (host:port, https is
// implied) over rt, which carries the node's certificate and proves the
// manager. Redirects are not followed: a manager sends none.
func NewNodeClient(addr string, rt http.RoundTripper) *NodeClient {
	base := addr
	if !strings.Contains(base, "://") {
		base = "https://" + base
	}
	return &NodeClient{
		base: strings.TrimSuffix(base, "/"),
		http: &http.Client{Transport: rt, CheckRedirect: func(*http.Request, []*http.Request) error {
			return http.ErrUseLastResponse
		}},
	}
}

// Addr returns the manager's base URL.
func (c *NodeClient) Addr() string { return c.base }

// Refusal is an answer that is no success.
type Refusal struct {
	*Problem
	// RetryAfter is what the manager asked for, 0 if nothing.
	RetryAfter time.Duration
}

// Unwrap gives errors.As the *Problem.
func (r *Refusal) Unwrap() error { return r.Problem }

// Enroll asks for membership. The transport needs no client certificate.
func (c *NodeClient) Enroll(ctx context.Context, r EnrollRequest) (EnrollResponse, error) {
	var out EnrollResponse
	_, err := c.call(ctx, http.MethodPost, "/v1/enroll", r, &out)
	if err == nil && (out.NodeID == "" || out.Certificate == "" || out.CA == "") {
		err = fmt.Errorf("POST %s/v1/enroll: the answer lacks the node id, the certificate or the CA", c.base)
	}
	return out, err
}

// Renew asks for a new certificate; the one of the connection says who asks
// and may have expired.
func (c *NodeClient) Renew(ctx context.Context, r RenewRequest) (RenewResponse, error) {
	var out RenewResponse
	_, err := c.call(ctx, http.MethodPost, "/v1/renew", r, &out)
	return out, err
}

// PlanPoll says what a poll already holds.
type PlanPoll struct {
	// ETag of the plan held; empty to be answered at once.
	ETag string
	// Wait is how long the manager may hold the answer back, in whole seconds;
	// 0 asks for an answer at once.
	Wait time.Duration
	// LeaseExpires is the end of the lease held, the zero time for none.
	LeaseExpires time.Time
}

// PlanAnswer is the answer to a poll.
type PlanAnswer struct {
	// Plan is nil after 304: what the ETag names still holds.
	Plan *Plan
	ETag string
	// Lease is a fresh lease (a compact JWT), empty when none is due.
	Lease string
	// Date is the manager's clock, the zero time when it sent none.
	Date time.Time
}

// Plan is one long poll. The caller's ctx must outlast p.Wait by some seconds.
func (c *NodeClient) Plan(ctx context.Context, id binnacle.NodeID, p PlanPoll) (PlanAnswer, error) {
	req, err := c.request(ctx, http.MethodGet, "/v1/nodes/"+url.PathEscape(string(id))+"/plan", nil)
	if err != nil {
		return PlanAnswer{}, err
	}
	if p.ETag != "" {
		req.Header.Set("If-None-Match", p.ETag)
	}
	if p.Wait > 0 {
		req.Header.Set("Prefer", "wait="+strconv.Itoa(int(p.Wait/time.Second)))
	}
	if !p.LeaseExpires.IsZero() {
		req.Header.Set(binnacle.HeaderLeaseExpires, p.LeaseExpires.UTC().Format(time.RFC3339))
	}
	resp, err := c.do(req)
	if err != nil {
		return PlanAnswer{}, err
	}
	defer drainClose(resp.Body)
	a := PlanAnswer{ETag: resp.Header.Get("ETag"), Lease: resp.Header.Get(binnacle.HeaderLease)}
	a.Date, _ = http.ParseTime(resp.Header.Get("Date")) // absent or odd: the zero time
	switch resp.StatusCode {
	case http.StatusNotModified:
		if a.ETag == "" {
			a.ETag = p.ETag
		}
		return a, nil
	case http.StatusOK:
		a.Plan = new(Plan)
		if err := decodeBody(resp, a.Plan); err != nil {
			return PlanAnswer{}, err
		}
		return a, nil
	}
	return PlanAnswer{}, refusal(resp)
}

// Config fetches the bytes of a configuration by hash. The caller checks the
// hash.
func (c *NodeClient) Config(ctx context.Context, sha256 string) ([]byte, error) {
	req, err := c.request(ctx, http.MethodGet, "/v1/configs/"+url.PathEscape(sha256), nil)
	if err != nil {
		return nil, err
	}
	resp, err := c.do(req)
	if err != nil {
		return nil, err
	}
	defer drainClose(resp.Body)
	if resp.StatusCode != http.StatusOK {
		return nil, refusal(resp)
	}
	return readBody(resp, MaxNodeBody)
}

// PutStatus reports the node's own account.
func (c *NodeClient) PutStatus(ctx context.Context, id binnacle.NodeID, s Status) error {
	_, err := c.call(ctx, http.MethodPut, "/v1/nodes/"+url.PathEscape(string(id))+"/status", s, nil)
	return err
}

// call sends in as JSON and decodes a success into out, if that is not nil.
func (c *NodeClient) call(ctx context.Context, method, path string, in, out any) (http.Header, error) {
	body, err := json.Marshal(in)
	if err != nil {
		return nil, fmt.Errorf("%s %s%s: encode: %w", method, c.base, path, err)
	}
	req, err := c.request(ctx, method, path, body)
	if err != nil {
		return nil, err
	}
	resp, err := c.do(req)
	if err != nil {
		return nil, err
	}
	defer drainClose(resp.Body)
	if resp.StatusCode/100 != 2 {
		return resp.Header, refusal(resp)
	}
	if out == nil {
		return resp.Header, nil
	}
	return resp.Header, decodeBody(resp, out)
}

func (c *NodeClient) request(ctx context.Context, method, path string, body []byte) (*http.Request, error) {
	req, err := http.NewRequestWithContext(ctx, method, c.base+path, bytes.NewReader(body))
	if err != nil {
		return nil, fmt.Errorf("%s %s%s: %w", method, c.base, path, err)
	}
	if body == nil {
		req.Body, req.ContentLength = nil, 0
	} else {
		req.Header.Set("Content-Type", "application/json")
	}
	req.Header.Set("Accept", "application/json")
	req.Header.Set("User-Agent", binnacle.ServiceGateway+"/"+binnacle.Version)
	return req, nil
}

// do sends req. The error of net/http already names method and URL.
func (c *NodeClient) do(req *http.Request) (*http.Response, error) { return c.http.Do(req) }

// drainClose lets the connection be used again, unless much is left unread.
func drainClose(body io.ReadCloser) {
	io.CopyN(io.Discard, body, 64<<10) //nolint:errcheck // only for reuse of the connection
	body.Close()
}

// readBody reads at most limit bytes, after decompression by net/http.
func readBody(resp *http.Response, limit int64) ([]byte, error) {
	b, err := io.ReadAll(io.LimitReader(resp.Body, limit+1))
	if err != nil {
		return nil, fmt.Errorf("read the answer of %s: %w", resp.Request.URL, err)
	}
	if int64(len(b)) > limit {
		return nil, fmt.Errorf("read the answer of %s: more than %d bytes; refused", resp.Request.URL, limit)
	}
	return b, nil
}

func decodeBody(resp *http.Response, out any) error {
	b, err := readBody(resp, MaxNodeBody)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(b, out); err != nil {
		return fmt.Errorf("decode the answer of %s: %w", resp.Request.URL, err)
	}
	return nil
}

// refusal reads the problem document of resp, or makes one from its status.
func refusal(resp *http.Response) error {
	p := &Problem{}
	mt, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	if b, err := readBody(resp, maxProblemBody); err == nil && (mt == ProblemType || mt == "application/json") {
		if json.Unmarshal(b, p) != nil {
			p = &Problem{}
		}
	}
	p.Status = resp.StatusCode
	if p.Title == "" {
		p.Title = http.StatusText(resp.StatusCode)
	}
	r := &Refusal{Problem: p}
	if n, err := strconv.Atoi(resp.Header.Get("Retry-After")); err == nil && n > 0 && n < 86400 {
		r.RetryAfter = time.Duration(n) * time.Second
	}
	return fmt.Errorf("%s %s: %w", resp.Request.Method, resp.Request.URL, r)
}

// RefusedWith returns the HTTP status of a *Refusal in err's chain, 0 if there
// is none.
func RefusedWith(err error) int {
	var r *Refusal
	if errors.As(err, &r) {
		return r.Status
	}
	return 0
}
