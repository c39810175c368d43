package forward

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"

	"go.opentelemetry.io/collector/pdata/pmetric/pmetricotlp"
	"go.opentelemetry.io/collector/pdata/ptrace/ptraceotlp"
)

const (
	requestTimeout = 30 * time.Second
	// maxBroken is how often one request is sent to a remote that answers 500,
	// over some four minutes: it may be ill, or the request may be what makes it
	// so, and then all behind it would wait for good.
	maxBroken = 12
	// maxAnswer bounds what is read of an answer.
	//
	// Source: OTLP specification, clients must bound it, 4 MiB suggested.
	maxAnswer = 4 << 20
)

// remote is the engine that is forwarded to.
type remote struct {
	url       string
	tokenFile string
	client    *http.Client
}

// verdict is what an answer means for the request.
type verdict uint8

const (
	yes   verdict = iota // taken, less answer.rejected
	no                   // refused for good
	later                // to be sent again
	broke                // to be sent again, within reason
)

// answer is what came of sending a request.
type answer struct {
	verdict  verdict
	rejected int           // items not wanted of a request that was taken
	message  string        // why
	wait     time.Duration // at least so long until the request is sent again
	err      error
}

// post sends one request.
func (m remote) post(ctx context.Context, s signal, body []byte) answer {
	address := strings.TrimSuffix(m.url, "/") + "/v1/" + s.String()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, address, bytes.NewReader(body))
	if err != nil {
		return answer{verdict: no, err: err}
	}
	req.Header.Set("Content-Type", "application/x-protobuf")
	req.Header.Set("Content-Encoding", "gzip")
	if m.tokenFile != "" {
		token, err := os.ReadFile(m.tokenFile)
		if err != nil {
			return answer{verdict: later, err: err}
		}
		req.Header.Set("Authorization", "Bearer "+strings.TrimSpace(string(token)))
	}
	resp, err := m.client.Do(req)
	if err != nil {
		return answer{verdict: later, err: err}
	}
	defer resp.Body.Close()
	got, readErr := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	a := answer{verdict: judge(resp.StatusCode)}
	if a.verdict == yes {
		a.rejected, a.message = partial(s, got)
		return a
	}
	a.wait = retryAfter(resp.Header)
	a.err = errors.Join(fmt.Errorf("%s: %.200q", resp.Status, got), readErr)
	return a
}

// judge says what a status means. Beside those of OTLP, the statuses of a
// remote that is not set up yet are tried again: what is queued would be lost by
// a wrong token.
//
// Source: OTLP specification, "Retryable Response Codes".
func judge(status int) verdict {
	switch status {
	case http.StatusUnauthorized, http.StatusForbidden, http.StatusNotFound, http.StatusRequestTimeout,
		http.StatusTooManyRequests, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return later
	case http.StatusInternalServerError:
		return broke
	}
	if status/100 == 2 {
		return yes
	}
	return no
}

// retryAfter reads either form of Retry-After; 0 where there is none.
func retryAfter(h http.Header) time.Duration {
	text := h.Get("Retry-After")
	var wait time.Duration
	if n, err := strconv.Atoi(text); err == nil {
		wait = time.Duration(min(n, 3600)) * time.Second
	} else if at, err := http.ParseTime(text); err == nil {
		wait = time.Until(at)
	}
	return min(max(wait, 0), 5*time.Minute)
}

// partial reads how many items the remote rejected of a request it took, and
// why.
func partial(s signal, body []byte) (rejected int, message string) {
	var n int64
	switch s {
	case metricsSignal:
		resp := pmetricotlp.NewExportResponse()
		if resp.UnmarshalProto(body) == nil {
			n, message = resp.PartialSuccess().RejectedDataPoints(), resp.PartialSuccess().ErrorMessage()
		}
	case tracesSignal:
		resp := ptraceotlp.NewExportResponse()
		if resp.UnmarshalProto(body) == nil {
			n, message = resp.PartialSuccess().RejectedSpans(), resp.PartialSuccess().ErrorMessage()
		}
	}
	return int(max(n, 0)), message
}
