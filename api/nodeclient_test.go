package api

import (
	"compress/gzip"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/binnacle-project/binnacle"
)

func nodeClient(t *testing.T, h http.HandlerFunc) *NodeClient {
	t.Helper()
	srv := httptest.NewServer(h)
	t.Cleanup(srv.Close)
	return NewNodeClient(srv.URL, http.DefaultTransport)
}

func TestNodeClientPlan(t *testing.T) {
	plan := Plan{Epoch: 1, Serial: 2}
	expires := time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)
	var got *http.Request
	c := nodeClient(t, func(w http.ResponseWriter, r *http.Request) {
		got = r
		w.Header().Set("ETag", plan.ETag())
		w.Header().Set(binnacle.HeaderLease, "fresh")
		if r.Header.Get("If-None-Match") == plan.ETag() {
			w.WriteHeader(http.StatusNotModified)
			return
		}
		json.NewEncoder(w).Encode(plan)
	})
	a, err := c.Plan(t.Context(), "n-1", PlanPoll{})
	if err != nil || a.Plan == nil || a.Plan.Serial != 2 || a.ETag != plan.ETag() || a.Lease != "fresh" || a.Date.IsZero() {
		t.Fatalf("first poll: got %+v, %v", a, err)
	}
	for _, h := range []string{"If-None-Match", "Prefer", binnacle.HeaderLeaseExpires} {
		if v := got.Header.Get(h); v != "" {
			t.Errorf("first poll: %s is %q; want none", h, v)
		}
	}
	a, err = c.Plan(t.Context(), "n-1", PlanPoll{ETag: a.ETag, Wait: 30 * time.Second, LeaseExpires: expires})
	if err != nil || a.Plan != nil || a.ETag != plan.ETag() {
		t.Fatalf("second poll: got %+v, %v; want no plan", a, err)
	}
	if got.URL.Path != "/v1/nodes/n-1/plan" || got.Header.Get("Prefer") != "wait=30" || got.Header.Get(binnacle.HeaderLeaseExpires) != "2026-11-01T12:00:00Z" {
		t.Errorf("second poll: got %s %v", got.URL, got.Header)
	}
}

func TestNodeClientRefusals(t *testing.T) {
	f := func(name string, h http.HandlerFunc, status int, retry time.Duration, detail string) {
		t.Run(name, func(t *testing.T) {
			_, err := nodeClient(t, h).Enroll(t.Context(), EnrollRequest{})
			var r *Refusal
			var p *Problem
			if !errors.As(err, &r) || !errors.As(err, &p) {
				t.Fatalf("got %v; want a Refusal and a Problem in it", err)
			}
			if r.Status != status || r.RetryAfter != retry || !strings.Contains(err.Error(), detail) || RefusedWith(err) != status {
				t.Errorf("got %+v after %v, %v; want %d after %v, %q", r.Problem, r.RetryAfter, err, status, retry, detail)
			}
		})
	}
	f("problem document", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", ProblemType)
		w.WriteHeader(http.StatusForbidden)
		json.NewEncoder(w).Encode(Problem{Title: "Forbidden", Status: 403, Detail: SeatsMessage})
	}, http.StatusForbidden, 0, SeatsMessage)
	f("asks to wait", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Retry-After", "7")
		w.WriteHeader(http.StatusServiceUnavailable)
	}, http.StatusServiceUnavailable, 7*time.Second, "Service Unavailable")
	f("a proxy's page", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		w.WriteHeader(http.StatusBadGateway)
		io.WriteString(w, "<h1>no</h1>")
	}, http.StatusBadGateway, 0, "Bad Gateway")
	f("a document that is no JSON", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", ProblemType)
		w.WriteHeader(http.StatusBadRequest)
		io.WriteString(w, "{")
	}, http.StatusBadRequest, 0, "Bad Request")
	f("a redirect is not followed", func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "http://127.0.0.1:1/", http.StatusTemporaryRedirect)
	}, http.StatusTemporaryRedirect, 0, "Temporary Redirect")
}

// TestNodeClientBounds answers with a little gzip that inflates to more than a
// node reads.
func TestNodeClientBounds(t *testing.T) {
	c := nodeClient(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Encoding", "gzip")
		zw := gzip.NewWriter(w)
		io.CopyN(zw, zeros{}, MaxNodeBody+1)
		zw.Close()
	})
	if b, err := c.Config(t.Context(), "x"); err == nil || !strings.Contains(err.Error(), "refused") {
		t.Errorf("a bomb: got %d bytes, %v; want a refusal", len(b), err)
	}
	c = nodeClient(t, func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, `{"node_id": "n-1"}`) })
	if _, err := c.Enroll(t.Context(), EnrollRequest{}); err == nil {
		t.Error("an enrollment without a certificate: got no error")
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}
