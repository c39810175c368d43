package manager

import (
	"bufio"
	"compress/gzip"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/binnacle-project/binnacle/api"
)

// TestCompression asks as a browser does: long text comes compressed, an event
// of a stream at once; short answers, and callers who do not ask, get plain
// text.
func TestCompression(t *testing.T) {
	m := startTest(t, nil)
	get := func(path, accept string) *http.Response {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+m.HTTPAddr()+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Accept-Encoding", accept) // set by hand, the client does not inflate
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { resp.Body.Close() })
		return resp
	}
	for _, c := range []struct{ path, accept, want string }{
		{"/metrics", "gzip, deflate, br", "gzip"},
		{"/metrics", "identity", ""},
		{"/v1/schema/config", "gzip", "gzip"},
		{"/healthz", "gzip", ""},
		{"/v1/activity/stream", "gzip;q=0", ""},
	} {
		resp := get(c.path, c.accept)
		if got := resp.Header.Get("Content-Encoding"); got != c.want {
			t.Errorf("%s, Accept-Encoding: %s: Content-Encoding %q; want %q", c.path, c.accept, got, c.want)
		}
		if !strings.Contains(resp.Header.Get("Vary"), "Accept-Encoding") {
			t.Errorf("%s: Vary %q; want Accept-Encoding in it, for caches", c.path, resp.Header.Get("Vary"))
		}
	}

	zr, err := gzip.NewReader(get("/metrics", "gzip").Body)
	if err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(zr)
	if err != nil || !strings.Contains(string(text), "binnacle_nodes_ready") {
		t.Errorf("inflated metrics: %v, %d bytes without binnacle_nodes_ready", err, len(text))
	}

	// The first overview must be readable while the stream goes on.
	resp := get("/v1/activity/stream", "gzip")
	if got := resp.Header.Get("Content-Encoding"); got != "gzip" {
		t.Fatalf("stream: Content-Encoding %q; want gzip", got)
	}
	if zr, err = gzip.NewReader(resp.Body); err != nil {
		t.Fatal(err)
	}
	for s := bufio.NewScanner(zr); ; {
		if !s.Scan() {
			t.Fatalf("the stream ended before its first overview: %v", s.Err())
		}
		if data, ok := strings.CutPrefix(s.Text(), "data: "); ok {
			var o api.Overview
			if err := json.Unmarshal([]byte(data), &o); err != nil {
				t.Fatal(err)
			}
			return
		}
	}
}
