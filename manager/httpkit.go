package manager

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/binnacle-project/binnacle/api"
	"github.com/binnacle-project/binnacle/state"
)

// handlerFunc is a handler that returns its error to the one adapter that
// answers, logs and counts.
type handlerFunc func(w http.ResponseWriter, r *http.Request) error

// maxBody bounds the JSON body of a call; configurations have a bound of
// their own.
const maxBody = 1 << 20

// fail builds a problem with a public detail.
func fail(status int, format string, args ...any) *api.Problem {
	return &api.Problem{Title: http.StatusText(status), Status: status, Detail: fmt.Sprintf(format, args...)}
}

// problemOf turns any error into what the client may see. It is the one place
// where errors become statuses.
func problemOf(err error) *api.Problem {
	var p *api.Problem
	var tooBig *http.MaxBytesError
	switch {
	case errors.As(err, &p):
		return p
	case errors.As(err, &tooBig):
		return fail(http.StatusRequestEntityTooLarge, "the body is over %d bytes", tooBig.Limit)
	case errors.Is(err, state.ErrReadOnly):
		return fail(http.StatusInsufficientStorage, "the manager's disk is nearly full: nothing was written; free some space and try again")
	case errors.Is(err, state.ErrConflict):
		return fail(http.StatusConflict, "somebody else changed this at the same time: look at it again and repeat")
	case errors.Is(err, state.ErrUnavailable), errors.Is(err, context.DeadlineExceeded):
		return fail(http.StatusServiceUnavailable, "the manager's state does not answer in time: try again; its log says why")
	}
	return fail(http.StatusInternalServerError, "the manager could not do this; its log says why")
}

// serve adapts h. A client that has left is no error.
func serve(log *slog.Logger, h handlerFunc) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		err := h(w, r)
		if err == nil || r.Context().Err() != nil {
			return
		}
		p := problemOf(err)
		if p.Status == http.StatusInternalServerError || p.Status == http.StatusInsufficientStorage {
			log.Error("request failed", "method", r.Method, "path", r.URL.Path, "error", err)
		} else {
			log.Debug("request refused", "method", r.Method, "path", r.URL.Path, "status", p.Status, "error", err)
		}
		writeProblem(w, p)
	})
}

func writeProblem(w http.ResponseWriter, p *api.Problem) {
	h := w.Header()
	h.Set("Content-Type", api.ProblemType)
	h.Set("Cache-Control", "no-store")
	if p.Status == http.StatusServiceUnavailable || p.Status == http.StatusTooManyRequests {
		h.Set("Retry-After", strconv.Itoa(5+rand.IntN(10))) // not all in one moment
	}
	w.WriteHeader(p.Status)
	_ = json.NewEncoder(w).Encode(p) // the client may have left
}

// writeJSON answers 200 with v.
func writeJSON(w http.ResponseWriter, v any) error { return writeJSONStatus(w, http.StatusOK, v) }

func writeJSONStatus(w http.ResponseWriter, status int, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encode the answer: %w", err)
	}
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_, err = w.Write(append(b, '\n'))
	return err
}

func writeList[T any](w http.ResponseWriter, items []T) error {
	if items == nil {
		items = []T{}
	}
	return writeJSON(w, api.List[T]{Items: items})
}

// readJSON decodes a bounded body strictly.
func readJSON[T any](w http.ResponseWriter, r *http.Request) (T, error) {
	var v T
	d := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxBody))
	d.DisallowUnknownFields()
	if err := d.Decode(&v); err != nil {
		var tooBig *http.MaxBytesError
		if errors.As(err, &tooBig) {
			return v, err
		}
		return v, fail(http.StatusBadRequest, "the body is not the JSON that %s %s takes: %v", r.Method, r.URL.Path, err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return v, fail(http.StatusBadRequest, "something follows the JSON document in the body")
	}
	return v, nil
}

// queryInt reads a number from the query, within bounds.
func queryInt(r *http.Request, name string, def, least, most int) (int, error) {
	s := r.URL.Query().Get(name)
	if s == "" {
		return def, nil
	}
	n, err := strconv.Atoi(s)
	if err != nil || n < least || n > most {
		return 0, fail(http.StatusBadRequest, "%s=%q: want a number from %d to %d", name, s, least, most)
	}
	return n, nil
}

// preferWait reads the wait preference of a long poll, capped at most.
//
// Source: RFC 7240, section 4.3.
func preferWait(h http.Header, most time.Duration) time.Duration {
	for _, v := range h.Values("Prefer") {
		for part := range strings.SplitSeq(v, ",") {
			name, value, _ := strings.Cut(strings.TrimSpace(part), "=")
			if !strings.EqualFold(strings.TrimSpace(name), "wait") {
				continue
			}
			n, err := strconv.Atoi(strings.Trim(strings.TrimSpace(value), `"`))
			if err == nil && n >= 0 {
				return min(time.Duration(n)*time.Second, most)
			}
		}
	}
	return 0
}

// bodyDeadline gives each request's body bodyTimeout to arrive. The deadline
// ends with the body, so that an answer may take longer.
func bodyDeadline(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Body != nil && r.Body != http.NoBody {
			rc := http.NewResponseController(w)
			if rc.SetReadDeadline(time.Now().Add(bodyTimeout)) == nil {
				r.Body = &deadlineBody{r.Body, rc}
			}
		}
		next.ServeHTTP(w, r)
	})
}

type deadlineBody struct {
	io.ReadCloser
	rc *http.ResponseController
}

func (b *deadlineBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err == io.EOF {
		_ = b.rc.SetReadDeadline(time.Time{})
	}
	return n, err
}
