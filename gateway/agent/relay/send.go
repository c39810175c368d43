package relay

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"time"

	"github.com/binnacle-project/binnacle"
)

var errNotMember = errors.New("the node is no member of a cluster yet")

// lostExport is an answer after which sending again is of no use.
type lostExport struct{ status int }

// Error names the answer.
func (e *lostExport) Error() string { return fmt.Sprintf("answered %d", e.status) }

// send delivers one export. wait is what the manager asked for before the next
// try.
//
// Source: OTLP specification, "OTLP/HTTP Response": 429, 502, 503 and 504 are
// retryable, all others are not. 401 is kept as well: an agent that enrolls
// anew can send then.
func (r *Relay) send(ctx context.Context, e export) (wait time.Duration, err error) {
	rt, base := r.Manager()
	if rt == nil {
		return time.Second, errNotMember
	}
	ctx, cancel := context.WithTimeout(ctx, exportTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, base+e.path, bytes.NewReader(e.body))
	if err != nil {
		return 0, err
	}
	req.Header.Set("Content-Type", e.contentType)
	if e.encoding != "" {
		req.Header.Set("Content-Encoding", e.encoding)
	}
	if e.revision != "" {
		req.Header.Set(binnacle.HeaderRevision, e.revision)
	}
	req.Header.Set("User-Agent", binnacle.ServiceGateway+"/"+binnacle.Version)
	resp, err := rt.RoundTrip(req)
	if err != nil {
		r.Failed()
		return 0, fmt.Errorf("send telemetry to %s: %w", base, err)
	}
	defer resp.Body.Close()
	io.CopyN(io.Discard, resp.Body, 1<<20) //nolint:errcheck // only for reuse of the connection
	switch resp.StatusCode {
	case http.StatusOK, http.StatusAccepted, http.StatusNoContent:
		return 0, nil
	case http.StatusTooManyRequests, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout, http.StatusUnauthorized:
		if n, err := strconv.Atoi(resp.Header.Get("Retry-After")); err == nil && n > 0 {
			wait = min(time.Duration(n)*time.Second, time.Minute)
		}
		return wait, fmt.Errorf("send telemetry to %s: answered %d", base, resp.StatusCode)
	}
	return 0, fmt.Errorf("send telemetry to %s: %w", base, &lostExport{resp.StatusCode})
}
