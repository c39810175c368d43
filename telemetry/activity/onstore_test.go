package activity

import (
	"log/slog"
	"testing"
	"time"

	"github.com/binnacle-project/binnacle/telemetry/metrics"
)

// TestOnStore writes through the real store and asks PromQL, as gates and
// dashboards do.
func TestOnStore(t *testing.T) {
	log := slog.New(slog.NewTextHandler(t.Output(), nil))
	store, err := metrics.Open(metrics.Options{Dir: t.TempDir(), Log: log})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := store.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	dir := t.TempDir()
	a := open(t, Options{Dir: dir, Rollups: OnStore(store, log)})
	now := time.Now().Add(-3 * time.Minute).Truncate(rollupStep)
	a.in.now = func() time.Time { return now }
	n1, n2 := newFakeNode("n1"), newFakeNode("n2")
	n2.form = "krakend"
	n1.start, n2.start = now, now
	for range 12 {
		now = now.Add(10 * time.Second)
		n1.serve("/a", 200, 50, 0.010)
		n2.serve("/a", 200, 30, 0.120)
		n2.serve("/a", 500, 3, 0.120)
		n2.call("b", 80, 503, 3, 0.1)
		for _, n := range []*fakeNode{n1, n2} {
			feed(t, a, managed(n.id, "default", 1), n.export(now))
		}
		a.tick(now, writes{all: true, news: true, checkpoint: true}, nil)
	}
	for _, tc := range []struct {
		expr string
		want float64
	}{
		{`histogram_count(sum(group:http_server_request_duration_seconds))`, 996},
		{`histogram_count(sum(group:http_server_request_duration_seconds{group="default",revision="1",outcome="error"}))`, 36},
		{`histogram_count(sum(node:http_server_request_duration_seconds{instance="n2"}))`, 396},
		{`histogram_count(sum(node_backend:http_client_request_duration_seconds{server_address="b",instance="n2"}))`, 36},
		{`count(group:http_server_request_duration_seconds)`, 2},
	} {
		got, err := store.Query(t.Context(), tc.expr, now)
		if err != nil || len(got) != 1 {
			t.Fatalf("%s: got %v, %v", tc.expr, got, err)
		}
		if got[0].F != tc.want {
			t.Errorf("%s: got %g; want %g", tc.expr, got[0].F, tc.want)
		}
	}
	// The first increase is read in full: the series began with a zero sample.
	got, err := store.Query(t.Context(), `histogram_sum(sum(rate(node:http_server_request_duration_seconds{instance="n1"}[2m:10s]))) / histogram_count(sum(rate(node:http_server_request_duration_seconds{instance="n1"}[2m:10s])))`, now)
	if err != nil || len(got) != 1 || got[0].F < 0.00999 || got[0].F > 0.01001 {
		t.Errorf("mean: got %v, %v; want 0.010: sums are exact", got, err)
	}
	p99, err := store.Query(t.Context(), `histogram_quantile(0.99, sum(rate(group:http_server_request_duration_seconds[2m])))`, now)
	if err != nil || len(p99) != 1 || p99[0].F < 0.11 || p99[0].F > 0.13 {
		t.Errorf("p99: got %v, %v; want some 0.12", p99, err)
	}

	// A new life reads its windows back.
	b := open(t, Options{Dir: dir, Rollups: OnStore(store, log)})
	b.started = now
	if err := b.refill(t.Context()); err != nil {
		t.Fatalf("refill: %v", err)
	}
	k := b.keys.get(keyID{kind: kindNode, node: "n2"})
	if k == nil {
		t.Fatal("refill: node n2 is not there")
	}
	act, _ := k.activity(300, aligned(now)+fineStep, &b.reading)
	if act == nil || act.Requests != 396 || act.Errors != 36 || act.RequestsTotal != 396 {
		t.Errorf("refilled: got %+v; want 396 requests, 36 errors", act)
	}
}
