package manager

import (
	"bufio"
	"context"
	"encoding/json"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/binnacle-project/binnacle/api"
)

// TestHubServesAllFromOne: an overview is made once per interval however many
// look, at once for the first, and never while nobody does.
func TestHubServesAllFromOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var made atomic.Int64
		h := newHub(func() api.Overview { made.Add(1); return api.Overview{Time: time.Now()} })
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- h.run(ctx) }()

		time.Sleep(time.Minute)
		synctest.Wait()
		if n := made.Load(); n != 0 {
			t.Errorf("nobody looked for a minute: %d overviews; want none", n)
		}
		var leaves []func()
		for range 100 {
			leaves = append(leaves, h.join())
		}
		synctest.Wait()
		if latest, _ := h.next(); latest == nil || made.Load() != 1 {
			t.Errorf("after the first viewer came: %d overviews, the latest %q; want one at once", made.Load(), latest)
		}
		time.Sleep(10 * overviewInterval)
		synctest.Wait()
		if n := made.Load(); n < 10 || n > 12 {
			t.Errorf("100 viewers for %v: %d overviews; want about 10", 10*overviewInterval, n)
		}
		for _, leave := range leaves {
			leave()
		}
		before := made.Load()
		time.Sleep(time.Minute)
		synctest.Wait()
		if n := made.Load(); n != before {
			t.Errorf("after all left: %d more overviews; want none", n-before)
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// TestActivityStream reads the stream as the page does, and sees it end when
// the manager stops.
func TestActivityStream(t *testing.T) {
	m := startTest(t, nil)
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+m.HTTPAddr()+"/v1/activity/stream", nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if ct := resp.Header.Get("Content-Type"); ct != "text/event-stream" {
		t.Errorf("content type %q", ct)
	}
	s := bufio.NewScanner(resp.Body)
	s.Buffer(nil, 1<<20)
	var got int
	for s.Scan() && got < 2 {
		data, ok := strings.CutPrefix(s.Text(), "data: ")
		if !ok {
			continue
		}
		var o api.Overview
		if err := json.Unmarshal([]byte(data), &o); err != nil {
			t.Fatalf("event %q: %v", data, err)
		}
		if o.Cluster.ID != m.authority.Cluster() {
			t.Errorf("the event is of cluster %q; want %q", o.Cluster.ID, m.authority.Cluster())
		}
		got++
	}
	if got < 2 {
		t.Fatalf("%d events, then %v; want at least 2", got, s.Err())
	}
}

func TestPreferWaitIsCapped(t *testing.T) {
	if got := preferWait(http.Header{"Prefer": {"wait=86400"}}, maxWait); got != maxWait {
		t.Errorf("got %v; want %v", got, maxWait)
	}
}
