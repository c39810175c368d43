package api

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/binnacle-project/binnacle"
)

// Me answers GET /v1/me: who the caller is to the manager.
type Me struct {
	Name   string   `json:"name"`
	Role   string   `json:"role"`
	Rights []string `json:"rights"`
}

// Me calls GET /v1/me.
func (c *Client) Me(ctx context.Context) (Me, error) {
	return call[Me](ctx, c, http.MethodGet, "/v1/me", nil)
}

// Ready calls GET /readyz; an error says that the manager starts or stops.
func (c *Client) Ready(ctx context.Context) error {
	_, err := call[struct{}](ctx, c, http.MethodGet, "/readyz", nil)
	return err
}

// Backend calls GET /v1/backends/{id}.
func (c *Client) Backend(ctx context.Context, id binnacle.BackendID) (Backend, error) {
	return call[Backend](ctx, c, http.MethodGet, "/v1/backends/"+url.PathEscape(string(id)), nil)
}

// Revision calls GET /v1/groups/{g}/revisions/{n}.
func (c *Client) Revision(ctx context.Context, g binnacle.Group, n binnacle.Revision) (Revision, error) {
	return call[Revision](ctx, c, http.MethodGet, "/v1/groups/"+url.PathEscape(string(g))+"/revisions/"+n.String(), nil)
}

// ConfigBytes calls GET /v1/configs/{sha256}: the bytes as they were pushed.
func (c *Client) ConfigBytes(ctx context.Context, sha256 string) ([]byte, error) {
	b, _, err := c.Do(ctx, http.MethodGet, "/v1/configs/"+url.PathEscape(sha256), nil)
	return b, err
}

// EventFilter chooses events; its zero value is the newest hundred of all.
type EventFilter struct {
	// After is the id of the newest event that is known already.
	After uint64
	Limit int
	// Kind is a kind or its beginning, such as "node.".
	Kind  string
	Group binnacle.Group
	Node  binnacle.NodeID
}

// FindEvents calls GET /v1/events with a filter; the newest comes last.
func (c *Client) FindEvents(ctx context.Context, f EventFilter) ([]Event, error) {
	q := url.Values{}
	set := func(k, v string) {
		if v != "" && v != "0" {
			q.Set(k, v)
		}
	}
	set("after", strconv.FormatUint(f.After, 10))
	set("limit", strconv.Itoa(f.Limit))
	set("kind", f.Kind)
	set("group", string(f.Group))
	set("node", string(f.Node))
	return items[Event](ctx, c, "/v1/events?"+q.Encode())
}

// Do calls any path of the API and returns the body with its content type. An
// answer of 400 and above becomes a *Problem.
func (c *Client) Do(ctx context.Context, method, path string, body []byte) ([]byte, string, error) {
	var b any
	if body != nil {
		b = raw(body)
	}
	req, err := c.request(ctx, method, path, b)
	if err != nil {
		return nil, "", err
	}
	req.Header.Set("Accept", "*/*")
	resp, err := c.send(req)
	if err != nil {
		return nil, "", err
	}
	defer resp.Body.Close()
	out, err := io.ReadAll(io.LimitReader(resp.Body, maxResponseBytes+1))
	if err != nil {
		return nil, "", fmt.Errorf("read the answer of %s %s: %w", method, path, err)
	}
	if len(out) > maxResponseBytes {
		return nil, "", fmt.Errorf("%s %s: the answer is over %d MiB", method, path, maxResponseBytes>>20)
	}
	if resp.StatusCode >= 400 {
		return nil, "", problemOf(resp, out)
	}
	return out, resp.Header.Get("Content-Type"), nil
}

// Backup calls GET /v1/backup and writes the snapshot to w. It returns its size.
func (c *Client) Backup(ctx context.Context, w io.Writer) (int64, error) {
	req, err := c.request(ctx, http.MethodGet, "/v1/backup", nil)
	if err != nil {
		return 0, err
	}
	req.Header.Set("Accept", "*/*")
	resp, err := c.send(req)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	if resp.StatusCode >= 400 {
		b, _ := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
		return 0, problemOf(resp, b)
	}
	n, err := io.Copy(w, resp.Body)
	if err != nil {
		return n, fmt.Errorf("read the backup: %w", err)
	}
	return n, nil
}

// errStreamEnded is what a stream ends with that the manager closed.
var errStreamEnded = errors.New("the manager ended the stream")

// maxStreamLine bounds one line of a stream: an overview of a large fleet is
// one line.
const maxStreamLine = 16 << 20

// Stream reads the server-sent events of path and calls f with the data of
// each, until ctx ends, f fails, or the manager ends the stream.
//
// Source: WHATWG HTML, "Server-sent events"; of its fields only data is read.
func (c *Client) Stream(ctx context.Context, path string, f func(data []byte) error) error {
	req, err := c.request(ctx, http.MethodGet, path, nil)
	if err != nil {
		return err
	}
	req.Header.Set("Accept", "text/event-stream")
	resp, err := c.send(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode >= 400 {
		b, _ := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
		return problemOf(resp, b)
	}
	lines := bufio.NewScanner(resp.Body)
	lines.Buffer(nil, maxStreamLine)
	for lines.Scan() {
		data, ok := bytes.CutPrefix(lines.Bytes(), []byte("data:"))
		if !ok {
			continue
		}
		if err := f(bytes.TrimSpace(data)); err != nil {
			return err
		}
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if err := lines.Err(); err != nil {
		return fmt.Errorf("read the stream of %s: %w", path, err)
	}
	return errStreamEnded
}

// ErrUnreachable marks a call that got no answer at all.
var ErrUnreachable = errors.New("no answer from the manager")

// unreachable says what did not answer and why.
type unreachable struct {
	base string
	err  error
}

func (u *unreachable) Error() string {
	return fmt.Sprintf("reach the manager at %s: %v", u.base, u.err)
}
func (u *unreachable) Unwrap() []error { return []error{u.err, ErrUnreachable} }

// send is http.Client.Do with the address in our own words.
func (c *Client) send(req *http.Request) (*http.Response, error) {
	resp, err := c.http.Do(req)
	if err == nil {
		return resp, nil
	}
	var ue *url.Error
	if errors.As(err, &ue) {
		err = ue.Err
	}
	if ctx := req.Context(); ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	return nil, &unreachable{c.base, err}
}

// QueryResult is one series of an instant PromQL query.
type QueryResult struct {
	Metric map[string]string `json:"metric"`
	// Value is the time in Unix seconds and the value as text; a histogram has
	// Histogram instead.
	Value     []any `json:"value,omitempty"`
	Histogram []any `json:"histogram,omitempty"`
	// Values are those of a range query.
	Values []any `json:"values,omitempty"`
}

// Query calls the Prometheus HTTP API; at may be zero (now). With step above
// zero it asks for the range from at-length to at.
func (c *Client) Query(ctx context.Context, expr string, at time.Time, length, step time.Duration) ([]QueryResult, error) {
	q := url.Values{"query": {expr}}
	if at.IsZero() {
		at = time.Now()
	}
	unix := func(t time.Time) string { return strconv.FormatFloat(float64(t.UnixMilli())/1e3, 'f', 3, 64) }
	path := "/prometheus/api/v1/query?"
	if step > 0 {
		path = "/prometheus/api/v1/query_range?"
		q.Set("start", unix(at.Add(-length)))
		q.Set("end", unix(at))
		q.Set("step", strconv.FormatFloat(step.Seconds(), 'f', 3, 64))
	} else {
		q.Set("time", unix(at))
	}
	var answer struct {
		Data struct {
			Type   string          `json:"resultType"`
			Result json.RawMessage `json:"result"`
		} `json:"data"`
	}
	b, _, err := c.Do(ctx, http.MethodGet, path+q.Encode(), nil)
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(b, &answer); err != nil {
		return nil, fmt.Errorf("decode the answer to %s: %w", expr, err)
	}
	var out []QueryResult
	if answer.Data.Type == "scalar" || answer.Data.Type == "string" {
		out = make([]QueryResult, 1)
		err = json.Unmarshal(answer.Data.Result, &out[0].Value)
	} else {
		err = json.Unmarshal(answer.Data.Result, &out)
	}
	if err != nil {
		return nil, fmt.Errorf("decode the %s that answers %s: %w", answer.Data.Type, expr, err)
	}
	return out, nil
}
