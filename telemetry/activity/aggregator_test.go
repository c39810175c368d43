package activity

import (
	"testing"
	"testing/synctest"
	"time"

	"go.opentelemetry.io/collector/pdata/pmetric"

	"github.com/binnacle-project/binnacle"
	"github.com/binnacle-project/binnacle/api"
)

// step sleeps to where a step that has just been booked is whole.
func step() { time.Sleep(fineStep * time.Second) }

func TestWindowsSlide(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := open(t, Options{})
		n := newFakeNode("n1")
		time.Sleep(10 * time.Second)
		n.serve("/users/{id}", 200, 90, 0.010)
		n.serve("/users/{id}", 404, 6, 0.002)
		n.serve("/orders", 503, 3, 0.5)
		n.serve("/orders", 0, 1, 2)
		n.call("users.internal", 8080, 200, 90, 0.008)
		n.call("orders.internal", 8081, 503, 4, 0.4)
		o := managed("n1", "default", 3)
		feed(t, a, o, n.export(time.Now()))
		step()

		act := a.Cluster(30 * time.Second)
		if act == nil || act.Requests != 100 || act.Errors != 4 || act.ClientErrors != 6 || act.RequestsTotal != 100 {
			t.Fatalf("Cluster(30s): got %+v; want 100 requests, 4 errors, 6 client errors", act)
		}
		if act.ErrorRatio == nil || *act.ErrorRatio != 0.04 || act.RequestsPerSecond != 100.0/30 {
			t.Errorf("Cluster(30s): got ratio %v, %g per second; want 0.04, 3.33", act.ErrorRatio, act.RequestsPerSecond)
		}
		if l := act.Latency; l == nil || l.P50 < 0.009 || l.P50 > 0.011 || l.P99 < 0.4 || l.P99 > 0.6 {
			t.Errorf("latency: got %+v; want p50 near 0.010, p99 near 0.5", l)
		}
		for _, w := range Windows {
			for name, got := range map[string]*api.Activity{
				"cluster":  a.Cluster(w),
				"group":    a.Groups(w)["default"],
				"node":     a.Nodes(w)["n1"],
				"revision": a.Revisions(w)[GroupRevision{"default", 3}],
			} {
				if requests(got) != 100 {
					t.Errorf("%s over %v: got %+v; want 100 requests", name, w, got)
				}
			}
			if got := a.Endpoints(w)[Endpoint{"default", "GET", "/orders"}]; requests(got) != 4 || got.Errors != 4 {
				t.Errorf("endpoint /orders over %v: got %+v; want 4 requests, 4 errors", w, got)
			}
			if got := a.Backends(w)["orders.internal:8081"]; requests(got) != 4 || got.Errors != 4 {
				t.Errorf("backend over %v: got %+v; want 4 requests, 4 errors", w, got)
			}
			if w > time.Minute {
				continue // moves on later, see TestMatrixMovesOnInStepsOfItsOwn
			}
			if got := a.BackendNodes("users.internal:8080", w); len(got) != 1 || got[0].Node != "n1" || requests(got[0].Activity) != 90 {
				t.Errorf("matrix row over %v: got %+v; want n1 with 90", w, got)
			}
		}

		// No request happens, but the node goes on exporting: zeros, not gaps.
		for range 6 {
			time.Sleep(10 * time.Second)
			feed(t, a, o, n.export(time.Now()))
		}
		step()
		for _, w := range []time.Duration{5 * time.Minute, time.Hour} {
			if got := a.BackendNodes("users.internal:8080", w); len(got) != 1 || got[0].Node != "n1" || requests(got[0].Activity) != 90 {
				t.Errorf("matrix row over %v: got %+v; want n1 with 90", w, got)
			}
		}
		act = a.Cluster(time.Minute)
		if act == nil || act.Requests != 0 || act.ErrorRatio != nil || act.Latency != nil || act.RequestsTotal != 100 {
			t.Errorf("idle: got %+v; want zero requests of 100, null ratio and latency", act)
		}
		if got := requests(a.Cluster(5 * time.Minute)); got != 100 {
			t.Errorf("5 min: got %d; want 100", got)
		}
		// The node stops: a gap.
		time.Sleep(2 * time.Minute)
		if act := a.Cluster(time.Minute); act != nil {
			t.Errorf("silent: got %+v; want null", act)
		}
		if got := requests(a.Cluster(5 * time.Minute)); got != 100 {
			t.Errorf("5 min, silent: got %d; want 100", got)
		}
		time.Sleep(5 * time.Minute)
		if got := requests(a.Cluster(time.Hour)); got != 100 {
			t.Errorf("1 h: got %d; want 100", got)
		}
		time.Sleep(time.Hour)
		if act := a.Cluster(time.Hour); act != nil {
			t.Errorf("1 h later: got %+v; want null", act)
		}
	})
}

// TestWindowIsExact sends one request a second for ten minutes and asks at
// each step: once full, a window of up to a minute holds as many requests as
// it has seconds, and the rate is one whatever the window.
func TestWindowIsExact(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := open(t, Options{})
		n := newFakeNode("n1")
		time.Sleep(time.Second)
		for i := range 60 {
			for range 5 {
				time.Sleep(2 * time.Second)
				n.serve("/a", 200, 2, 0.01)
				if i < 31 {
					continue
				}
				for _, w := range []time.Duration{30 * time.Second, time.Minute} {
					if got := requests(a.Cluster(w)); got != uint64(w/time.Second) {
						t.Fatalf("after %d s, over %v: got %d requests", i*10, w, got)
					}
				}
				if got := a.Cluster(5 * time.Minute).RequestsPerSecond; got < 0.96 || got > 1.04 {
					t.Fatalf("after %d s, over 5 min: got %g per second; want 1", i*10, got)
				}
			}
			feed(t, a, managed("n1", "default", 1), n.export(time.Now()))
		}
	})
}

// TestTwiceLateAndOutOfOrder feeds the same exports in ways that networks and
// spools do: the total is what happened.
func TestTwiceLateAndOutOfOrder(t *testing.T) {
	for _, form := range []string{"exp", "explicit", "krakend", "delta"} {
		t.Run(form, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a := open(t, Options{})
				n := newFakeNode("n1")
				n.form = form
				o := managed("n1", "default", 1)
				var exports []pmetric.Metrics
				for range 6 {
					time.Sleep(10 * time.Second)
					n.serve("/a", 200, 10, 0.01)
					exports = append(exports, n.export(time.Now()))
				}
				for _, i := range []int{0, 0, 1, 2, 1, 3, 3, 5, 4, 5} {
					feed(t, a, o, exports[i])
				}
				step()
				act := a.Nodes(time.Minute)["n1"]
				if total(act) != 60 || requests(act) != 60 {
					t.Errorf("got %+v; want 60 requests and 60 in total", act)
				}
			})
		})
	}
}

func TestProcessRestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := open(t, Options{})
		o := managed("n1", "default", 1)
		n := newFakeNode("n1")
		time.Sleep(10 * time.Second)
		n.serve("/a", 200, 100, 0.01)
		feed(t, a, o, n.export(time.Now()))

		// A worker drains while its successor serves; both export.
		m := newFakeNode("n1")
		m.process = "p2"
		time.Sleep(10 * time.Second)
		n.serve("/a", 200, 5, 0.01)
		m.serve("/a", 200, 20, 0.01)
		feed(t, a, o, m.export(time.Now()))
		feed(t, a, o, n.export(time.Now()))

		// An unmanaged-style restart: same identity, new start, lower counts.
		r := newFakeNode("n1")
		r.process = "p2"
		time.Sleep(10 * time.Second)
		r.serve("/a", 200, 3, 0.01)
		feed(t, a, o, r.export(time.Now()))
		step()
		if got := a.Nodes(time.Minute)["n1"]; total(got) != 128 || requests(got) != 128 {
			t.Errorf("got %+v; want 128", got)
		}
	})
}

// TestOutage: what a node did while nobody heard of it is known in sum and
// not in time, so that it must not show as a burst.
func TestOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		roll := &memRollups{}
		a := open(t, Options{Rollups: roll})
		o := managed("n1", "default", 1)
		n := newFakeNode("n1")
		for range 3 {
			time.Sleep(10 * time.Second)
			n.serve("/a", 200, 10, 0.01)
			feed(t, a, o, n.export(time.Now()))
		}
		time.Sleep(10 * time.Minute)
		n.serve("/a", 200, 5000, 0.01)
		feed(t, a, o, n.export(time.Now()))
		step()
		got := a.Nodes(time.Minute)["n1"]
		if total(got) != 5030 || requests(got) != 0 {
			t.Errorf("after an outage: got %+v; want none of 5030", got)
		}
		time.Sleep(8 * time.Second)
		n.serve("/a", 200, 7, 0.01)
		feed(t, a, o, n.export(time.Now()))
		step()
		if got := a.Nodes(time.Minute)["n1"]; total(got) != 5037 || requests(got) != 7 {
			t.Errorf("going on: got %+v; want 7 of 5037", got)
		}
	})
}

// TestIdleNode: a node that had no request for an hour has nothing to export;
// its first requests are as live as any.
func TestIdleNode(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		roll := &memRollups{}
		a := open(t, Options{Rollups: roll})
		run(t, a)
		time.Sleep(time.Second)
		n := newFakeNode("n1")
		time.Sleep(time.Hour)
		n.serve("/a", 200, 25, 0.01)
		feed(t, a, managed("n1", "default", 1), n.export(time.Now()))
		time.Sleep(11 * time.Second)
		if got := a.Nodes(time.Minute)["n1"]; requests(got) != 25 || total(got) != 25 {
			t.Errorf("got %+v; want 25 of 25", got)
		}
		if got := roll.increase(binnacle.RollupGroup, nil); got != 25 {
			t.Errorf("roll-up: got %d; want 25", got)
		}
	})
}

// TestBackfill: exports that a spool kept come in order but late; each is
// booked at its own time.
func TestBackfill(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := open(t, Options{})
		o := managed("n1", "default", 1)
		n := newFakeNode("n1")
		var spooled []pmetric.Metrics
		for range 60 {
			time.Sleep(10 * time.Second)
			n.serve("/a", 200, 10, 0.01)
			spooled = append(spooled, n.export(time.Now()))
		}
		for _, md := range spooled {
			feed(t, a, o, md)
		}
		step()
		if got := a.Nodes(time.Minute)["n1"]; requests(got) != 60 || total(got) != 600 {
			t.Errorf("1 min: got %+v; want 60 of 600", got)
		}
		if got := requests(a.Nodes(time.Hour)["n1"]); got != 600 {
			t.Errorf("1 h: got %d; want 600", got)
		}
	})
}

// TestDialectsAgree feeds the same work by three kinds of senders.
func TestDialectsAgree(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := open(t, Options{})
		time.Sleep(10 * time.Second)
		for _, form := range []string{"exp", "explicit", "krakend"} {
			n := newFakeNode("node-" + form)
			n.form = form
			n.start = time.Now().Add(-5 * time.Second)
			for i := range 100 {
				route := "/users/{id}"
				if form == "krakend" {
					route = "/users/:id"
				}
				n.serve(route, 200, 1, 0.01+float64(i)*0.001)
				n.call("users.internal", 80, 200, 1, 0.008)
			}
			feed(t, a, managed(n.id, "default", 1), n.export(time.Now()))
		}
		step()
		if got := a.Endpoints(time.Minute)[Endpoint{"default", "GET", "/users/{id}"}]; requests(got) != 300 {
			t.Errorf("endpoint: got %+v; want 300", got)
		}
		want := a.Nodes(time.Minute)["node-exp"].Latency
		for _, form := range []string{"explicit", "krakend"} {
			got := a.Nodes(time.Minute)[binnacle.NodeID("node-"+form)].Latency
			if got.P50 < want.P50*0.9 || got.P50 > want.P50*1.1 || got.P99 < want.P99*0.9 || got.P99 > want.P99*1.1 {
				t.Errorf("%s: got %+v; want %+v within 10 %%", form, got, want)
			}
		}
		// krakend-otel's port is not to be trusted.
		if got := a.Backends(time.Minute); requests(got["users.internal:80"]) != 200 || requests(got["users.internal"]) != 100 {
			t.Errorf("backends: got %v", got)
		}
		if got := a.BackendEndpoints("users.internal"); len(got) != 1 || got[0] != "/users/{id}" {
			t.Errorf("BackendEndpoints: got %v; want [/users/{id}]", got)
		}
	})
}

func TestOwnProcessesStayOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := open(t, Options{})
		time.Sleep(10 * time.Second)
		for _, service := range []string{binnacle.ServiceAgent, binnacle.ServiceManager} {
			n := newFakeNode("n1")
			n.service = service
			n.start = time.Now().Add(-time.Second)
			n.serve("/v1/cluster", 200, 10, 0.01)
			feed(t, a, managed("n1", "default", 1), n.export(time.Now()))
		}
		step()
		if got := a.Nodes(time.Minute); len(got) != 0 {
			t.Errorf("Nodes: got %v; want none", got)
		}
	})
}

func TestUnmanaged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		roll := &memRollups{}
		a := open(t, Options{Rollups: roll})
		run(t, a)
		time.Sleep(10 * time.Second)
		stock := newFakeNode("krakend-1")
		stock.service, stock.form, stock.process = "krakend", "krakend", ""
		stock.start = time.Now()
		backend := newFakeNode("users-7f")
		backend.service, backend.process = "users", ""
		backend.start = time.Now()
		time.Sleep(10 * time.Second)
		stock.serve("/users/:id", 200, 40, 0.01)
		stock.call("users.internal", 80, 200, 40, 0.01)
		backend.serve("/users/{id}", 200, 40, 0.01)
		for _, n := range []*fakeNode{stock, backend} {
			feed(t, a, binnacle.Origin{}, n.export(time.Now()))
		}
		time.Sleep(10*time.Second + fineStep*time.Second)
		if got := requests(a.Cluster(time.Minute)); got != 40 {
			t.Errorf("cluster: got %d; want 40, each request once", got)
		}
		if got := a.Nodes(time.Minute); requests(got["krakend-1"]) != 40 || requests(got["users-7f"]) != 40 {
			t.Errorf("nodes: got %v", got)
		}
		got := a.Unmanaged()
		if len(got) != 2 || got[0].ID != "krakend-1" || !got[0].Gateway || got[1].Gateway || got[1].Service != "users" {
			t.Errorf("Unmanaged: got %+v", got)
		}
		for _, s := range roll.all() {
			if s.labels.Get("group") != "" || s.labels.Has("revision") {
				t.Errorf("roll-up of an unmanaged sender: got %s; want no group and no revision", s.labels)
			}
		}
		if got := roll.increase(binnacle.RollupGroup, nil); got != 40 {
			t.Errorf("group roll-up: got %d; want 40", got)
		}
	})
}

func TestRevisionIsThatOfTheExport(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := open(t, Options{})
		n := newFakeNode("n1")
		time.Sleep(10 * time.Second)
		n.serve("/a", 200, 10, 0.01)
		feed(t, a, managed("n1", "default", 1), n.export(time.Now()))
		time.Sleep(3 * time.Second)
		n.serve("/a", 200, 4, 0.01)
		feed(t, a, managed("n1", "default", 1), n.export(time.Now())) // just before the swap
		time.Sleep(50 * time.Millisecond)
		feed(t, a, managed("n1", "default", 2), n.export(time.Now())) // just after it
		time.Sleep(7 * time.Second)
		n.serve("/a", 200, 6, 0.01)
		feed(t, a, managed("n1", "default", 2), n.export(time.Now()))
		step()
		revs := a.Revisions(time.Minute)
		if requests(revs[GroupRevision{"default", 1}]) != 14 || requests(revs[GroupRevision{"default", 2}]) != 6 {
			t.Errorf("revisions: got %+v, %+v; want 14 and 6", revs[GroupRevision{"default", 1}], revs[GroupRevision{"default", 2}])
		}
	})
}

// TestStepIsSmooth: exports come every ten seconds, the chart's steps are even.
func TestStepIsSmooth(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := open(t, Options{})
		run(t, a)
		nodes := []*fakeNode{newFakeNode("n1"), newFakeNode("n2"), newFakeNode("n3")}
		for i := range 200 {
			time.Sleep(time.Second)
			for j, n := range nodes {
				n.serve("/a", 200, 4, 0.01)
				if i%10 == j*3 {
					feed(t, a, managed(n.id, "default", 1), n.export(time.Now()))
				}
			}
			if i < 60 {
				continue
			}
			got, end := a.Step()
			if got == nil || got.Requests < 23 || got.Requests > 25 || got.RequestsPerSecond < 11.5 || got.RequestsPerSecond > 12.5 {
				t.Fatalf("step to %v: got %+v; want 24 requests", end, got)
			}
			if lag := time.Since(end); lag > 14*time.Second {
				t.Fatalf("step is %v old; want at most 14 s", lag)
			}
		}
		time.Sleep(time.Minute)
		if got, _ := a.Step(); got != nil {
			t.Errorf("silent: got %+v; want nil", got)
		}
	})
}

func TestLimits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := open(t, Options{MaxStreamsPerSender: 5, MaxKeys: 8})
		n := newFakeNode("n1")
		time.Sleep(10 * time.Second)
		for i := range 20 {
			n.serve("/r"+string(rune('a'+i)), 200, 1, 0.01)
		}
		feed(t, a, managed("n1", "default", 1), n.export(time.Now()))
		if a.streams != 5 || len(a.keys.byID) > 8 {
			t.Errorf("got %d streams, %d keys; want 5 and at most 8", a.streams, len(a.keys.byID))
		}
		if got := a.self.overStreams.Get(); got != 15 {
			t.Errorf("points over the limit: got %d; want 15", got)
		}
	})
}

func TestForget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := open(t, Options{})
		time.Sleep(10 * time.Second)
		for _, id := range []string{"n1", "n2"} {
			n := newFakeNode(id)
			n.start = time.Now().Add(-time.Second)
			n.serve("/a", 200, 10, 0.01)
			n.call("b", 1, 200, 10, 0.01)
			feed(t, a, managed(id, "default", 1), n.export(time.Now()))
		}
		step()
		a.Forget("n1")
		if got := a.Nodes(time.Minute); len(got) != 1 || got["n2"] == nil {
			t.Errorf("Nodes: got %v; want n2 alone", got)
		}
		if got := a.BackendNodes("b:1", time.Minute); len(got) != 1 || got[0].Node != "n2" {
			t.Errorf("BackendNodes: got %v; want n2 alone", got)
		}
		if a.streams != 2 {
			t.Errorf("streams: got %d; want 2", a.streams)
		}
	})
}

func TestListNamesWhatThereIs(t *testing.T) {
	a := open(t, Options{})
	for _, by := range []api.ActivityBy{api.ByCluster, api.ByGroup, api.ByNode, api.ByBackend, api.ByNodeBackend, api.ByEndpoint, api.ByRevision} {
		if _, err := a.List(by, time.Minute); err != nil {
			t.Errorf("List(%s): %v", by, err)
		}
	}
	for _, tc := range []struct {
		by api.ActivityBy
		w  time.Duration
	}{{"color", time.Minute}, {api.ByNode, 7 * time.Second}} {
		if _, err := a.List(tc.by, tc.w); err == nil {
			t.Errorf("List(%s, %v): got no error", tc.by, tc.w)
		}
	}
}

// TestMatrixMovesOnInStepsOfItsOwn asks every two seconds: each matrix says when
// its window ends, which is where its step says, with Run and without, and holds
// just what was told until then; a pair that is younger than that is not in it.
func TestMatrixMovesOnInStepsOfItsOwn(t *testing.T) {
	for _, running := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			a := open(t, Options{})
			if running {
				run(t, a)
			}
			n := newFakeNode("n1")
			time.Sleep(125 * time.Second) // so that its start is within a step
			n.start = time.Now().Add(-time.Second)
			type told struct {
				at int64
				n  uint64
			}
			var all []told
			for round := range 150 {
				if round%5 == 0 {
					n.call("b", 80, 200, 1+round, 0.01)
					all = append(all, told{time.Now().Unix(), uint64(1 + round)})
					feed(t, a, managed("n1", "default", 1), n.export(time.Now()))
				}
				time.Sleep(2 * time.Second)
				now := time.Now().Unix()
				for i, w := range Windows {
					list, err := a.List(api.ByNodeBackend, w)
					if err != nil {
						t.Fatal(err)
					}
					end := list.Time.Unix()
					if end%matrixSteps[i] != 0 || end > now || end <= now-matrixSteps[i]-fineStep {
						t.Fatalf("%v: the window ends %d s ago; want a step of %d s", w, now-end, matrixSteps[i])
					}
					if end < all[0].at {
						if len(list.Rows) != 0 {
							t.Fatalf("%v: got %+v before the first point", w, list.Rows[0].Activity)
						}
						continue
					}
					if len(list.Rows) != 1 {
						t.Fatalf("%v: got %d rows", w, len(list.Rows))
					}
					var want uint64
					parts, _ := cut(end, int64(w/time.Second))
					for _, x := range all {
						for tier := range topTier(int64(w/time.Second)) + 1 {
							if s := slotOf(x.at*1e9, tiers[tier].step); s > parts[tier].from && s <= parts[tier].to {
								want += x.n
							}
						}
					}
					if got := requests(list.Rows[0].Activity); got != want {
						t.Fatalf("running %v, %v to %d s ago: got %d; want %d", running, w, now-end, got, want)
					}
				}
			}
		})
	}
}
