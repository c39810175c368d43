package activity

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"go.opentelemetry.io/collector/pdata/pmetric"

	"github.com/binnacle-project/binnacle"
)

func TestRollupLabels(t *testing.T) {
	for _, tc := range []struct {
		id   rollupID
		want string
	}{
		{rollupID{kind: rollupGroup, managed: true, group: "default", revision: 0}, `{__name__="group:http_server_request_duration_seconds", group="default", outcome="ok", revision="0"}`},
		{rollupID{kind: rollupNode, managed: true, group: "g", revision: 7, outcome: binnacle.Error, node: "n1"}, `{__name__="node:http_server_request_duration_seconds", group="g", instance="n1", outcome="error", revision="7"}`},
		{rollupID{kind: rollupEndpoint, managed: true, group: "g", revision: 7, outcome: binnacle.ClientError, method: "GET", route: "/a"}, `{__name__="endpoint:http_server_request_duration_seconds", group="g", http_request_method="GET", http_route="/a", outcome="client_error", revision="7"}`},
		{rollupID{kind: rollupBackend, managed: true, group: "g", revision: 7, outcome: binnacle.Limited, address: "b", port: 80}, `{__name__="backend:http_client_request_duration_seconds", group="g", outcome="limited", revision="7", server_address="b", server_port="80"}`},
		{rollupID{kind: rollupNodeBackend, node: "k@::1", address: "b"}, `{__name__="node_backend:http_client_request_duration_seconds", instance="k@::1", outcome="ok", server_address="b"}`},
	} {
		l := tc.id.labels()
		if got := l.String(); got != tc.want {
			t.Errorf("labels: got %s; want %s", got, tc.want)
		}
		if back, ok := rollupIDOf(tc.id.kind, l); !ok || back != tc.id {
			t.Errorf("rollupIDOf(%s): got %+v, %v; want %+v", l, back, ok, tc.id)
		}
	}
	for _, l := range []labels.Labels{
		labels.FromStrings("outcome", "odd"),
		labels.FromStrings("outcome", "ok", "revision", "x"),
		labels.FromStrings("outcome", "ok", "le", "1"),
	} {
		if _, ok := rollupIDOf(rollupGroup, l); ok {
			t.Errorf("rollupIDOf(%s): got ok", l)
		}
	}
}

// TestRollupsAreExactFromTheFirstSample: what a query over the roll-ups adds
// up is what happened, in each roll-up and outcome.
func TestRollupsAreExactFromTheFirstSample(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		roll := &memRollups{}
		a := open(t, Options{Rollups: roll})
		run(t, a)
		time.Sleep(3 * time.Second)
		n1, n2 := newFakeNode("n1"), newFakeNode("n2")
		n2.form = "explicit"
		for i := range 12 {
			time.Sleep(10 * time.Second)
			n1.serve("/a", 200, 10, 0.01)
			n2.serve("/a", 200, 20, 0.02)
			if i%4 == 3 { // an outcome that is rare begins and pauses
				n1.serve("/a", 503, 2, 0.5)
			}
			n1.call("b", 81, 200, 10, 0.01)
			for _, n := range []*fakeNode{n1, n2} {
				feed(t, a, managed(n.id, "default", 1), n.export(time.Now()))
			}
		}
		time.Sleep(20 * time.Second)
		for _, tc := range []struct {
			name  string
			match map[string]string
			want  uint64
		}{
			{binnacle.RollupGroup, map[string]string{"outcome": "ok"}, 360},
			{binnacle.RollupGroup, map[string]string{"outcome": "error"}, 6},
			{binnacle.RollupNode, map[string]string{"instance": "n1"}, 126},
			{binnacle.RollupNode, map[string]string{"instance": "n2", "group": "default", "revision": "1"}, 240},
			{binnacle.RollupEndpoint, map[string]string{"http_route": "/a", "http_request_method": "GET"}, 366},
			{binnacle.RollupBackend, map[string]string{"server_address": "b", "server_port": "81"}, 120},
			{binnacle.RollupNodeBackend, map[string]string{"server_address": "b", "instance": "n1"}, 120},
		} {
			if got := roll.increase(tc.name, tc.match); got != tc.want {
				t.Errorf("%s%v: got an increase of %d; want %d", tc.name, tc.match, got, tc.want)
			}
		}
		for _, s := range roll.all() {
			if s.samples[0].h.Count != 0 {
				t.Errorf("%s begins with %d; want a zero sample", s.labels, s.samples[0].h.Count)
			}
			for _, x := range s.samples {
				if err := x.h.Validate(); err != nil {
					t.Errorf("%s: %v", s.labels, err)
				}
			}
		}
	})
}

// TestRollupsEndWithTheirSenders: a gap is a gap.
func TestRollupsEndWithTheirSenders(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		roll := &memRollups{}
		a := open(t, Options{Rollups: roll})
		run(t, a)
		n := newFakeNode("n1")
		export := func() { feed(t, a, managed("n1", "default", 1), n.export(time.Now())) }
		for range 3 {
			time.Sleep(10 * time.Second)
			n.serve("/a", 200, 10, 0.01)
			export()
		}
		time.Sleep(5 * time.Minute)
		for _, s := range roll.all() {
			if last := s.samples[len(s.samples)-1]; last.h != nil {
				t.Errorf("%s: the newest sample is no stale marker", s.labels)
			}
			if got := len(s.samples); got > 10 {
				t.Errorf("%s: got %d samples; want none after the end", s.labels, got)
			}
		}
		// It comes back.
		n.serve("/a", 200, 1000, 0.01)
		export() // after an outage: nobody knows when
		time.Sleep(10 * time.Second)
		n.serve("/a", 200, 7, 0.01)
		export()
		time.Sleep(15 * time.Second)
		if got := roll.increase(binnacle.RollupNode, nil); got != 37 {
			t.Errorf("increase: got %d; want 37", got)
		}
	})
}

func TestBakeWritesEveryTwoSeconds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		roll := &memRollups{}
		a := open(t, Options{Rollups: roll})
		run(t, a)
		a.SetBake("canary", true)
		nodes := map[binnacle.Group]*fakeNode{"canary": newFakeNode("n1"), "default": newFakeNode("n2")}
		for range 30 {
			time.Sleep(2 * time.Second)
			for g, n := range nodes {
				n.serve("/a", 200, 1, 0.01)
				feed(t, a, managed(n.id, g, 1), n.export(time.Now()))
			}
		}
		time.Sleep(11 * time.Second)
		for g, atLeast := range map[string]int{"canary": 30, "default": 6} {
			s := roll.one(labels.FromStrings("__name__", binnacle.RollupGroup, "group", g, "outcome", "ok", "revision", "1"))
			if got := len(s.samples); got < atLeast || g == "default" && got > 9 {
				t.Errorf("%s: got %d samples; want about %d", g, got, atLeast)
			}
			if got := roll.increase(binnacle.RollupGroup, map[string]string{"group": g}); got != 30 {
				t.Errorf("%s: got an increase of %d; want 30", g, got)
			}
		}
		a.SetBake("canary", false)
	})
}

func TestStoreRefusesForAWhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		roll := &memRollups{fail: errors.New("disk full")}
		a := open(t, Options{Rollups: roll})
		run(t, a)
		n := newFakeNode("n1")
		for i := range 9 {
			time.Sleep(10 * time.Second)
			if i == 5 {
				roll.setFail(nil)
			}
			n.serve("/a", 200, 10, 0.01)
			feed(t, a, managed("n1", "default", 1), n.export(time.Now()))
		}
		time.Sleep(11 * time.Second)
		if got := roll.increase(binnacle.RollupGroup, nil); got != 90 {
			t.Errorf("increase: got %d; want 90", got)
		}
	})
}

// life is a manager that may be killed; nodes and store outlive it.
type life struct {
	t    *testing.T
	dir  string
	roll *memRollups
	way  *gate
	a    *Aggregator
	stop func()
}

func (l *life) start() {
	l.way = &gate{Rollups: l.roll}
	l.a = open(l.t, Options{Dir: l.dir, Rollups: l.way})
	l.stop = run(l.t, l.a)
}

// kill abandons the aggregator as kill -9 does: what it writes at its end goes
// nowhere, and the checkpoint is the one given.
func (l *life) kill(checkpoint []byte) {
	l.way.shut.Store(true)
	l.stop()
	if err := os.WriteFile(filepath.Join(l.dir, checkpointFile), checkpoint, 0o600); err != nil {
		l.t.Fatal(err)
	}
}

// TestRestarts sends a steady load through clean and hard restarts, short and
// long ones: the totals are exact, the roll-ups never count twice, and the
// windows are filled again.
func TestRestarts(t *testing.T) {
	for _, tc := range []struct {
		name  string
		kill  bool
		old   int // age of the checkpoint when killed, in s, beside the last tick
		away  time.Duration
		short bool // short enough for live increases to go on
	}{
		{"stopped for 4 s", false, 0, 4 * time.Second, true},
		{"killed, back after 4 s", true, 0, 4 * time.Second, true},
		{"killed with a checkpoint of the tick before", true, 10, 4 * time.Second, true},
		{"killed with a checkpoint too old for live increases", true, 50, 4 * time.Second, true},
		{"stopped for 10 min", false, 0, 10 * time.Minute, false},
		{"killed, back after 10 min", true, 0, 10 * time.Minute, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := &life{t: t, dir: t.TempDir(), roll: &memRollups{}}
				nodes := []*fakeNode{newFakeNode("n1"), newFakeNode("n2"), newFakeNode("n3")}
				nodes[1].form, nodes[2].form = "explicit", "krakend"
				var sent uint64
				tick := 0
				// Each node serves 3 requests a second and exports every ten
				// seconds, each at its own time; what nobody hears is lost.
				pass := func(d time.Duration, heard bool) {
					for range int(d / time.Second) {
						time.Sleep(time.Second)
						tick++
						for i, n := range nodes {
							n.serve("/a", 200, 3, 0.01)
							n.call("b", 81, 200, 3, 0.005)
							sent += 3
							if tick%10 == i*3 && heard {
								feed(t, l.a, managed(n.id, "default", 1), n.export(time.Now()))
							}
						}
					}
				}
				finish := func() uint64 {
					for _, n := range nodes {
						feed(t, l.a, managed(n.id, "default", 1), n.export(time.Now()))
					}
					step()
					var sum uint64
					for _, act := range l.a.Nodes(time.Minute) {
						sum += act.RequestsTotal
					}
					return sum
				}
				l.start()
				pass(time.Duration(203-tc.old)*time.Second, true)
				old, err := os.ReadFile(filepath.Join(l.dir, checkpointFile))
				if err != nil {
					t.Fatal(err)
				}
				pass(time.Duration(tc.old)*time.Second, true)
				if tc.kill {
					l.kill(old)
				} else {
					l.stop()
				}
				pass(tc.away, false)
				before := sent
				l.start()
				time.Sleep(time.Millisecond)
				synctest.Wait()
				if tc.short && tc.old < 30 {
					// The windows are there before any node has reported.
					if got := l.a.Cluster(5 * time.Minute); requests(got) < 1600 || total(got) < 1600 {
						t.Errorf("refilled: got %+v; want most of 1827 requests", got)
					}
					if got := requests(l.a.Backends(5 * time.Minute)["b:81"]); got < 1000 {
						t.Errorf("refilled backend: got %d", got)
					}
				}
				pass(200*time.Second, true)
				if got := finish(); got != sent {
					t.Errorf("requests_total: got %d; want %d", got, sent)
				}
				time.Sleep(11 * time.Second)
				got := l.roll.increase(binnacle.RollupNode, nil)
				switch {
				case tc.short && !tc.kill && got != sent:
					t.Errorf("roll-ups: got %d; want %d", got, sent)
				case tc.short && (got > sent || got < sent-180):
					// Each node may lose what it did from the last tick to its
					// first export, if that spans more than three intervals.
					t.Errorf("roll-ups: got %d; want %d or up to two exports of each node less", got, sent)
				case !tc.short && (got > sent-(before-1827) || got < 3300):
					t.Errorf("roll-ups: got %d of %d, %d of them live", got, sent, 1827+sent-before)
				}
				w := requests(l.a.Cluster(time.Minute))
				if w < 480 || w > 560 {
					t.Errorf("last minute: got %d; want about 540", w)
				}
			})
		})
	}
}

// TestLostCheckpoint: totals begin with what nodes report, roll-ups go on from
// the store.
func TestLostCheckpoint(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &life{t: t, dir: t.TempDir(), roll: &memRollups{}}
		n := newFakeNode("n1")
		pass := func(steps int) {
			for range steps {
				time.Sleep(10 * time.Second)
				n.serve("/a", 200, 10, 0.01)
				feed(t, l.a, managed("n1", "default", 1), n.export(time.Now()))
			}
		}
		l.start()
		pass(20)
		time.Sleep(11 * time.Second)
		l.stop()
		l.dir = t.TempDir()
		l.start()
		pass(1)
		step()
		if got := total(l.a.Nodes(time.Minute)["n1"]); got != 210 {
			t.Errorf("total: got %d; want 210, all that the process counted", got)
		}
		if got := requests(l.a.Nodes(5 * time.Minute)["n1"]); got < 180 {
			t.Errorf("refilled: got %d; want some 190", got)
		}
		pass(20)
		time.Sleep(11 * time.Second)
		if got := l.roll.increase(binnacle.RollupNode, nil); got < 390 || got > 410 {
			t.Errorf("roll-ups: got %d; want 400", got)
		}
	})
}

func TestDuplicateAfterARestart(t *testing.T) {
	for _, form := range []string{"exp", "delta"} {
		synctest.Test(t, func(t *testing.T) {
			l := &life{t: t, dir: t.TempDir(), roll: &memRollups{}}
			l.start()
			n := newFakeNode("n1")
			n.form = form
			var last pmetric.Metrics
			for range 3 {
				time.Sleep(10 * time.Second)
				n.serve("/a", 200, 10, 0.01)
				last = n.export(time.Now())
				feed(t, l.a, managed("n1", "default", 1), last)
			}
			time.Sleep(time.Second)
			l.stop()
			l.start()
			feed(t, l.a, managed("n1", "default", 1), last)
			step()
			if got := total(l.a.Nodes(time.Minute)["n1"]); got != 30 {
				t.Errorf("%s: got %d; want 30", form, got)
			}
		})
	}
}

// TestPairsAreWrittenAtTheirSendersPace: what a node that exports every 15 s tells
// of its backends is written every 20 s, and exact; after a pause the old value
// stands at the tick before.
func TestPairsAreWrittenAtTheirSendersPace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		roll := &memRollups{}
		a := open(t, Options{Rollups: roll})
		stop := run(t, a)
		n := newFakeNode("n1")
		pass := func(exports int, calls bool) {
			for range exports {
				time.Sleep(15 * time.Second)
				n.serve("/a", 200, 10, 0.01)
				if calls {
					n.call("b", 81, 200, 10, 0.01)
				}
				feed(t, a, managed("n1", "default", 1), n.export(time.Now()))
			}
		}
		pair := labels.FromStrings("__name__", binnacle.RollupNodeBackend, "group", "default", "instance", "n1", "outcome", "ok", "revision", "1", "server_address", "b", "server_port", "81")
		pass(41, true)
		old := len(roll.one(pair).samples)
		if old < 29 || old > 33 {
			t.Errorf("in ten minutes: got %d samples; want about 31", old)
		}
		for _, name := range []string{binnacle.RollupNodeBackend, binnacle.RollupNode, binnacle.RollupBackend} {
			if got := roll.increase(name, nil); got < 390 || got > 410 {
				t.Errorf("%s: got an increase of %d; want 410 or what the newest export told less", name, got)
			}
		}
		pass(4, false)
		pass(1, true)
		time.Sleep(20 * time.Second)
		s := roll.one(pair).samples
		at := len(s) - 1
		for s[at].h.Count == s[at-1].h.Count {
			at--
		}
		if got := time.Duration(s[at].t-s[at-1].t) * time.Millisecond; got != rollupStep || s[at].h.Count-s[at-1].h.Count != 10 {
			t.Errorf("after a pause: got an increase of %d over %v; want 10 over %v", s[at].h.Count-s[at-1].h.Count, got, rollupStep)
		}
		pass(1, true)
		stop()
		if got := roll.increase(binnacle.RollupNodeBackend, nil); got != 430 {
			t.Errorf("at the end: got an increase of %d; want 430", got)
		}
	})
}
