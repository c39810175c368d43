package activity

import (
	"fmt"
	"log/slog"
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"go.opentelemetry.io/collector/pdata/pmetric/pmetricotlp"

	"github.com/binnacle-project/binnacle"
	"github.com/binnacle-project/binnacle/otlp/wire"
	"github.com/binnacle-project/binnacle/telemetry/metrics"
)

// TestMixedSendersAddUp has senders of exponential histograms, of explicit
// buckets, of krakend-otel's names and of deltas do different work, with a
// restart and an outage between, into a store of each form, and wants every sum
// of counts and seconds to be what was done: in the live aggregates, in the
// roll-ups, and over the raw series by each form's own query.
func TestMixedSendersAddUp(t *testing.T) {
	for _, form := range []string{metrics.Native, metrics.Classic, metrics.Both} {
		t.Run(form, func(t *testing.T) { mixedSenders(t, form) })
	}
}

func mixedSenders(t *testing.T, form string) {
	log := slog.New(slog.NewTextHandler(t.Output(), nil))
	store, err := metrics.Open(metrics.Options{Dir: t.TempDir(), Histograms: form, Log: log})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := store.Close(); err != nil {
			t.Error(err)
		}
	})
	a := open(t, Options{Dir: t.TempDir(), Rollups: OnStore(store, log)})
	begin := time.Now().Add(-5 * time.Minute).Truncate(rollupStep)
	now := begin
	a.in.now = func() time.Time { return now }
	type done struct {
		requests, errors, calls int
		seconds                 float64
	}
	var all done
	by := map[string]*done{}
	r := rand.New(rand.NewPCG(4, 2))
	var nodes []*fakeNode
	for _, kind := range []string{"exp", "explicit", "krakend", "delta"} {
		n := newFakeNode("n-" + kind)
		n.form, n.start = kind, now
		nodes = append(nodes, n)
		by[n.id] = &done{}
	}
	const rounds = 24
	for round := range rounds {
		now = now.Add(10 * time.Second)
		for i, n := range nodes {
			if round == 8+i { // each restarts once, as another process
				n.start, n.streams, n.process = now.Add(-5*time.Second), nil, "p2"
			}
			for range 1 + r.IntN(20) {
				status, seconds := 200, float64(1+r.IntN(1024))/1024 // sums without rounding
				if r.IntN(10) == 0 {
					status = 500
				}
				n.serve("/a", status, 1, seconds)
				for _, d := range []*done{&all, by[n.id]} {
					d.requests++
					d.seconds += seconds
					if status == 500 {
						d.errors++
					}
				}
				if r.IntN(2) == 0 {
					n.call("b", 80, status, 1, seconds)
					all.calls++
				}
			}
			md := n.export(now)
			o := managed(n.id, "default", 1)
			feed(t, a, o, md)
			body, err := pmetricotlp.NewExportRequestFromMetrics(md).MarshalProto()
			if err != nil {
				t.Fatal(err)
			}
			var m wire.Metrics
			if err := m.Read(body, wire.Limits{Elements: 1 << 30, Attributes: 1 << 30, Depth: 100}); err != nil {
				t.Fatal(err)
			}
			if rejected, message, err := store.WriteMetrics(t.Context(), o, &m); rejected != 0 || err != nil {
				t.Fatalf("WriteMetrics: %d %s %v", rejected, message, err)
			}
		}
		a.tick(now, writes{all: true}, nil)
	}

	for id, want := range by {
		got := a.Nodes(time.Hour)[binnacle.NodeID(id)]
		if got == nil || int(got.Requests) != want.requests || int(got.Errors) != want.errors || int(got.RequestsTotal) != want.requests {
			t.Errorf("live, %s: got %+v; want %+v", id, got, *want)
		}
	}
	ask := func(expr string, want float64) {
		t.Helper()
		got, err := store.Query(t.Context(), expr, now)
		if err != nil || len(got) != 1 || math.Abs(got[0].F-want) > 1e-9*want {
			t.Errorf("%s: got %v, %v; want %g", expr, got, err, want)
		}
	}
	ask(`histogram_count(sum(group:http_server_request_duration_seconds))`, float64(all.requests))
	ask(`histogram_sum(sum(group:http_server_request_duration_seconds))`, all.seconds)
	ask(`histogram_count(sum(group:http_server_request_duration_seconds{outcome="error"}))`, float64(all.errors))
	ask(`histogram_count(sum(endpoint:http_server_request_duration_seconds))`, float64(all.requests))
	ask(`histogram_count(sum(node_backend:http_client_request_duration_seconds))`, float64(all.calls))
	// The series begin with a zero sample, so increases over all of the time are
	// exact, too.
	whole := fmt.Sprintf("[%ds]", rounds*10+60)
	ask(`sum(max_over_time(group:http_server_request_duration_seconds_count`+whole+`) - min_over_time(group:http_server_request_duration_seconds_count`+whole+`))`, float64(all.requests))
	for id, want := range by {
		ask(fmt.Sprintf(`histogram_count(sum(node:http_server_request_duration_seconds{instance=%q}))`, id), float64(want.requests))
		ask(fmt.Sprintf(`histogram_sum(sum(node:http_server_request_duration_seconds{instance=%q}))`, id), want.seconds)
		// The raw series, as dashboards for classic histograms ask: two
		// processes, each cumulative from its start.
		raw := "http_server_request_duration_seconds"
		if id == "n-krakend" {
			raw = "http_server_duration"
		}
		ask(fmt.Sprintf(`sum(last_over_time(%s_count{instance=%q}%s))`, raw, id, whole), float64(want.requests))
		ask(fmt.Sprintf(`sum(last_over_time(%s_sum{instance=%q}%s))`, raw, id, whole), want.seconds)
		ask(fmt.Sprintf(`sum(last_over_time(%s_bucket{instance=%q,le="+Inf"}%s))`, raw, id, whole), float64(want.requests))
	}
}
