package rollout_test

import (
	"context"
	"fmt"
	"regexp"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"

	"github.com/binnacle-project/binnacle"
	"github.com/binnacle-project/binnacle/api"
	"github.com/binnacle-project/binnacle/rollout"
	"github.com/binnacle-project/binnacle/state"
	"github.com/binnacle-project/binnacle/state/statetest"
)

// fakeTelemetry serves roll-ups of steady traffic: each revision has its own
// rates of good and bad requests, in requests per second since the beginning.
type fakeTelemetry struct {
	mu    sync.Mutex
	begin time.Time
	rates map[string][2]float64 // by revision
	down  bool
}

func newFakeTelemetry() *fakeTelemetry {
	return &fakeTelemetry{begin: time.Now(), rates: map[string][2]float64{}}
}

func (f *fakeTelemetry) set(revision binnacle.Revision, good, bad float64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.rates[revision.String()] = [2]float64{good, bad}
}

var revisionRE = regexp.MustCompile(`revision="(\d+)"`)

// Query understands the plain selectors of gates; quantiles and raw series have
// no data here.
func (f *fakeTelemetry) Query(_ context.Context, expr string, at time.Time) (promql.Vector, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.down {
		return nil, fmt.Errorf("the store is closed")
	}
	m := revisionRE.FindStringSubmatch(expr)
	if m == nil || strings.Contains(expr, "quantile") || strings.Contains(expr, "_count{") {
		return nil, nil
	}
	var out promql.Vector
	for i, outcome := range []string{"ok", "error"} {
		n := float64(int(f.rates[m[1]][i] * at.Sub(f.begin).Seconds()))
		l := labels.FromStrings("outcome", outcome)
		if strings.Contains(expr, binnacle.RollupEndpoint) {
			l = labels.FromStrings("outcome", outcome, "http_request_method", "GET", "http_route", "/a")
		}
		out = append(out, promql.Sample{T: at.UnixMilli(), Metric: l, H: &histogram.FloatHistogram{Count: n}})
	}
	return out, nil
}

// QueryRange has no hours before a rollout to tell of.
func (f *fakeTelemetry) QueryRange(context.Context, string, time.Time, time.Time, time.Duration) (promql.Matrix, error) {
	return nil, nil
}

var shortSteps = []api.NewStep{{Nodes: 1, Bake: 20}, {Percent: 100, Bake: 20}}

// stepped is a bench whose group of five runs revision 1 and has a revision 2.
func stepped(t *testing.T, s *state.Store) (*bench, *fakeTelemetry, func()) {
	tel := newFakeTelemetry()
	b := open(t, s, nil, func(o *rollout.Options) { o.Telemetry = tel })
	b.fleet.set(def, five...)
	stop := b.run(t)
	b.push(t, def, 1)
	b.push(t, def, 2)
	b.start(t, def, 1)
	b.applyAll(t)
	time.Sleep(time.Second)
	tel.set(1, 100, 0)
	tel.set(2, 50, 0)
	time.Sleep(10 * time.Minute) // a baseline
	return b, tel, stop
}

var five = []binnacle.NodeID{"n1", "n2", "n3", "n4", "n5"}

// applyAll has each node do what its plan says.
func (b *bench) applyAll(t testing.TB) {
	t.Helper()
	for _, id := range five {
		if b.Plan(id, def).Revision != nil {
			b.apply(t, id, def)
		}
	}
}

// live has the nodes do what their plans say for a while.
func (b *bench) live(t testing.TB, d time.Duration) {
	t.Helper()
	for end := time.Now().Add(d); time.Now().Before(end); time.Sleep(time.Second) {
		b.applyAll(t)
	}
}

// on lists the nodes whose plan is a revision.
func (b *bench) on(n binnacle.Revision) string {
	var ids []string
	for _, id := range five {
		if p := b.Plan(id, def); p.Revision != nil && p.Revision.Number == n {
			ids = append(ids, string(id))
		}
	}
	return strings.Join(ids, " ")
}

func (b *bench) steps(t testing.TB, n binnacle.Revision) api.Rollout {
	t.Helper()
	r, err := b.StartRollout(t.Context(), def, api.NewRollout{Revision: n, Strategy: "steps", Steps: shortSteps}, "ann")
	if err != nil {
		t.Fatalf("StartRollout: %v", err)
	}
	return r
}

func TestStepsComplete(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, _, _ := stepped(t, statetest.Memory(t))
		r := b.steps(t, 2)
		if p := b.Plan("n5", def); p.Telemetry.Interval != 2 || p.Revision.Number != 1 {
			t.Errorf("plan of a node that waits: %+v; want revision 1 and an export every 2 s", p)
		}
		time.Sleep(time.Second)
		if got := b.on(2); got != "n1" {
			t.Errorf("the first step: %q have revision 2; want n1", got)
		}
		if l := b.Ledger("n1"); l.Desired.Number != 2 || b.Ledger("n2").Desired.Number != 1 {
			t.Errorf("ledger of n1: %+v; want 2 desired", l)
		}
		b.live(t, 10*time.Second)
		if r = b.rollout(t, r.ID); r.Steps[0].State != api.StepBaking || r.Steps[0].Verdict == nil || b.on(2) != "n1" {
			t.Fatalf("a bake: %+v on %s", r, b.on(2))
		}
		b.live(t, 20*time.Second)
		if r = b.rollout(t, r.ID); r.Steps[0].State != api.StepPassed || b.on(2) != "n1 n2 n3 n4 n5" {
			t.Fatalf("after the first bake: %+v on %s", r.Steps[0], b.on(2))
		}
		v := r.Steps[0].Verdict
		if v.Result != api.VerdictPass || v.Control != "nodes" || fmt.Sprint(v.Canaries, v.Controls) != "[n1] [n2 n3 n4 n5]" || v.Looks < 8 || len(v.Comparisons) == 0 {
			t.Errorf("verdict: %+v", v)
		}
		c := v.Comparisons[0]
		if c.What != "errors" || c.Canary.Requests < 900 || c.Control.Requests < 1800 || c.Baseline == nil || c.Baseline.Requests < 50_000 ||
			!strings.Contains(c.CanaryQuery, `instance=~"n1"`) || !strings.Contains(c.ControlQuery, `revision="1"`) {
			t.Errorf("comparison: %+v", c)
		}
		b.live(t, 40*time.Second)
		if r = b.rollout(t, r.ID); r.State != api.RolloutCompleted || r.Steps[1].Verdict.Control != "before" || len(r.Confirmed) != 5 {
			t.Errorf("at the end: %+v, verdict %+v", r, r.Steps[1].Verdict)
		}
		if p := b.Plan("n1", def); p.Telemetry.Interval != 10 || p.Revision.Number != 2 {
			t.Errorf("plan at the end: %+v", p)
		}
		b.live(t, 20*time.Second)
		if rep := b.rollout(t, r.ID).Report; rep == nil || rep.All.Before.Requests < 50_000 || rep.All.After.Requests < 500 || len(rep.Endpoints) != 1 {
			t.Errorf("report: %+v", rep)
		}
		const want = "rollout.started rollout.completed rollout.report rollout.started rollout.step rollout.bake rollout.verdict rollout.step rollout.bake rollout.verdict rollout.completed rollout.report"
		if got := b.kinds(t, "rollout."); strings.Replace(got, "rollout.report ", "", 1) != strings.Replace(want, "rollout.report ", "", 1) {
			t.Errorf("events:\n got %s\nwant %s", got, want)
		}
	})
}

func TestGateRollsBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, tel, _ := stepped(t, statetest.Memory(t))
		tel.set(2, 45, 5)
		before := b.Plan("n1", def)
		r := b.steps(t, 2)
		for b.on(2) == "" {
			time.Sleep(100 * time.Millisecond)
		}
		b.applyAll(t)
		began := time.Now()
		for b.rollout(t, r.ID).State == api.RolloutRunning {
			if b.on(2) != "n1" && b.on(2) != "" {
				t.Fatalf("%s have revision 2; want the canary alone", b.on(2))
			}
			time.Sleep(100 * time.Millisecond)
		}
		if took := time.Since(began); took > 10*time.Second {
			t.Errorf("the gate failed after %v; want a few looks", took)
		}
		if p := b.Plan("n1", def); p.Revision.Number != 1 || !p.Newer(before) {
			t.Errorf("plan of the canary: %+v; want revision 1 again, newer than %+v", p, before)
		}
		if r = b.rollout(t, r.ID); r.State != api.RolloutRollingBack || r.Steps[0].State != api.StepFailed || r.Steps[0].Verdict.Result != api.VerdictFail {
			t.Errorf("rolling back: %+v", r)
		}
		b.live(t, 3*time.Second)
		if r = b.rollout(t, r.ID); r.State != api.RolloutFailed || fmt.Sprint(r.Returned) != "[n1]" || !strings.Contains(r.Reason, "errors") {
			t.Errorf("at the end: %+v; want failed, n1 back", r)
		}
		b.live(t, 2*time.Minute)
		if got := b.on(2); got != "" {
			t.Errorf("%s have revision 2 after the rollback", got)
		}
	})
}

func TestNodesFailSteps(t *testing.T) {
	for name, fail := range map[string]func(t *testing.T, b *bench){
		"refuses": func(t *testing.T, b *bench) { b.refuse(t, "n1", def, "no such plugin") },
		"crashes": func(t *testing.T, b *bench) {
			b.apply(t, "n1", def)
			time.Sleep(5 * time.Second)
			e := &api.LedgerEntry{RevisionRef: b.Plan("n1", def).Revision.RevisionRef, Time: time.Now()}
			if err := b.Report(t.Context(), "n1", def, api.Status{Attempted: e, Applied: e, Crashes: 1}); err != nil {
				t.Error(err)
			}
		},
		"leaves it": func(t *testing.T, b *bench) {
			b.apply(t, "n1", def)
			time.Sleep(5 * time.Second)
			b.refuse(t, "n1", def, "the worker died again and again")
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b, _, _ := stepped(t, statetest.Memory(t))
				r := b.steps(t, 2)
				time.Sleep(time.Second)
				fail(t, b)
				time.Sleep(time.Second)
				if got := b.on(2); got != "" {
					t.Errorf("%s have revision 2; want nobody", got)
				}
				b.live(t, 2*time.Second)
				if r = b.rollout(t, r.ID); r.State != api.RolloutFailed || !strings.Contains(r.Reason, "n1") {
					t.Errorf("got %s, %q; want failed for n1", r.State, r.Reason)
				}
			})
		})
	}
}

func TestThinTrafficAsks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, tel, _ := stepped(t, statetest.Memory(t))
		tel.set(2, 0.5, 0)
		r := b.steps(t, 2)
		b.live(t, 30*time.Second)
		if r = b.rollout(t, r.ID); r.Steps[0].State != api.StepBaking || !strings.Contains(r.Reason, "too few requests") {
			t.Errorf("after the bake: %s, %q; want it extended", r.Steps[0].State, r.Reason)
		}
		b.live(t, 60*time.Second)
		if r = b.rollout(t, r.ID); r.Steps[0].State != api.StepAsking || b.on(2) != "n1" {
			t.Errorf("after the extensions: %s on %s; want it to ask", r.Steps[0].State, b.on(2))
		}
		if _, err := b.Promote(t.Context(), r.ID, "bob"); err != nil {
			t.Fatal(err)
		}
		b.live(t, 2*time.Second)
		if r = b.rollout(t, r.ID); r.Steps[0].State != api.StepPassed || r.Steps[0].PromotedBy != "bob" || r.Step != 1 {
			t.Errorf("promoted: %+v", r.Steps[0])
		}
		if got := b.kinds(t, "rollout.asks"); got != "rollout.asks" {
			t.Errorf("events: %q", got)
		}
	})
}

func TestPauseAndAbort(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, _, _ := stepped(t, statetest.Memory(t))
		ctx := t.Context()
		r := b.steps(t, 2)
		b.live(t, 2*time.Second)
		if p, err := b.Pause(ctx, r.ID, "bob"); err != nil || p.State != api.RolloutPaused {
			t.Fatalf("Pause: %+v, %v", p, err)
		}
		if _, err := b.Pause(ctx, r.ID, "bob"); status(err) != 409 {
			t.Errorf("Pause twice: %v; want 409", err)
		}
		b.live(t, time.Minute)
		if got := b.on(2); got != "n1" {
			t.Errorf("paused: %s have revision 2; want n1", got)
		}
		if _, err := b.Resume(ctx, r.ID, "bob"); err != nil {
			t.Fatal(err)
		}
		b.live(t, 3*time.Second)
		if got := b.on(2); got != "n1 n2 n3 n4 n5" {
			t.Errorf("resumed: %s have revision 2; want all", got)
		}
		if a, err := b.Rollback(ctx, def, "bob"); err != nil || a.ID != r.ID || a.State != api.RolloutAborted {
			t.Errorf("a rollback during a rollout in steps: %+v, %v; want it aborted", a, err)
		}
		if got := b.on(1); got != "n1 n2 n3 n4 n5" {
			t.Errorf("aborted: %s have revision 1; want all", got)
		}
		for _, call := range []func(context.Context, string, string) (api.Rollout, error){b.Pause, b.Resume, b.Promote, b.Abort} {
			if _, err := call(ctx, r.ID, "bob"); status(err) != 409 {
				t.Errorf("after the end: %v; want 409", err)
			}
			if _, err := call(ctx, "r99", "bob"); status(err) != 404 {
				t.Errorf("of nothing: %v; want 404", err)
			}
		}
	})
}

func TestQueueAndSupersede(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, _, _ := stepped(t, statetest.Memory(t))
		b.push(t, def, 3)
		ctx := t.Context()
		r := b.steps(t, 2)
		b.live(t, 2*time.Second)
		queued, err := b.StartRollout(ctx, def, api.NewRollout{Revision: 3, WhenBusy: "queue"}, "bob")
		if err != nil || queued.State != api.RolloutQueued {
			t.Fatalf("queue: %+v, %v", queued, err)
		}
		b.live(t, time.Minute)
		if r = b.rollout(t, r.ID); r.State != api.RolloutCompleted {
			t.Errorf("the first: %+v", r)
		}
		if q := b.rollout(t, queued.ID); q.State != api.RolloutCompleted || q.From != 2 {
			t.Errorf("the queued: %+v; want completed, from 2", q)
		}

		// Superseding takes the revision away from those who had it.
		r = b.steps(t, 2)
		b.live(t, 2*time.Second)
		if b.on(2) != "n1" {
			t.Fatalf("on 2: %s", b.on(2))
		}
		if _, err := b.StartRollout(ctx, def, api.NewRollout{Revision: 1, Strategy: "steps", Steps: []api.NewStep{{Nodes: 2, Bake: 20}}}, "bob"); err != nil {
			t.Fatal(err)
		}
		if b.on(2) != "" || b.on(3) != "n1 n2 n3 n4 n5" {
			t.Errorf("superseded: on 2 %q, on 3 %q", b.on(2), b.on(3))
		}
		b.live(t, 2*time.Second)
		if b.on(1) != "n1 n2" || b.rollout(t, r.ID).State != api.RolloutSuperseded {
			t.Errorf("the new one: on 1 %q", b.on(1))
		}
	})
}

// TestManagerRestartsInABake starts the service anew in the middle: the rollout
// goes on at the same step, the same nodes have the revision, and no plan is
// older than before.
func TestManagerRestartsInABake(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := statetest.Memory(t)
		b, tel, stop := stepped(t, s)
		r := b.steps(t, 2)
		b.live(t, 12*time.Second)
		before := map[binnacle.NodeID]api.Plan{}
		for _, id := range five {
			before[id] = b.Plan(id, def)
		}
		old := b.rollout(t, r.ID)
		stop()
		b = open(t, s, b.fleet, func(o *rollout.Options) { o.Telemetry = tel })
		for id, want := range before {
			if got := b.Plan(id, def); got.ETag() != want.ETag() {
				t.Errorf("plan of %s: got %+v; want %+v as before", id, got, want)
			}
		}
		if is := b.rollout(t, r.ID); is.Step != old.Step || !is.Steps[0].BakeStarted.Equal(old.Steps[0].BakeStarted) || is.Steps[0].Verdict.Looks != old.Steps[0].Verdict.Looks {
			t.Errorf("after the restart: %+v; want %+v", is.Steps[0], old.Steps[0])
		}
		b.run(t)
		b.live(t, time.Minute)
		if r = b.rollout(t, r.ID); r.State != api.RolloutCompleted {
			t.Errorf("at the end: %s, %s", r.State, r.Reason)
		}
	})
}

// TestAwayNodes: a node that was away gets what it missed, and never what was
// rolled back.
func TestAwayNodes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, tel, _ := stepped(t, statetest.Memory(t))
		here := five[:4]
		b.fleet.set(def, here...)
		r := b.steps(t, 2)
		for range 70 {
			for _, id := range here {
				b.apply(t, id, def)
			}
			time.Sleep(time.Second)
		}
		if r = b.rollout(t, r.ID); r.State != api.RolloutCompleted {
			t.Fatalf("without n5: %s, %s", r.State, r.Reason)
		}
		if p := b.Plan("n5", def); p.Revision.Number != 2 {
			t.Errorf("n5 comes back: %+v; want revision 2", p.Revision)
		}
		b.fleet.set(def, five...)
		b.push(t, def, 3)
		tel.set(3, 10, 40)
		r = b.steps(t, 3)
		b.live(t, 20*time.Second)
		if r = b.rollout(t, r.ID); r.State != api.RolloutFailed || b.on(3) != "" {
			t.Errorf("a bad one: %s, on 3 %q", r.State, b.on(3))
		}
	})
}

func TestNoTelemetryHolds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, tel, _ := stepped(t, statetest.Memory(t))
		tel.mu.Lock()
		tel.down = true
		tel.mu.Unlock()
		r := b.steps(t, 2)
		b.live(t, 2*time.Minute)
		if r = b.rollout(t, r.ID); r.Steps[0].State != api.StepAsking || b.on(2) != "n1" {
			t.Errorf("without telemetry: %s on %s; want it to ask", r.Steps[0].State, b.on(2))
		}
	})
}

func TestGroupRestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, _, _ := stepped(t, statetest.Memory(t))
		r, err := b.RestartGroup(t.Context(), def, "ann")
		if err != nil {
			t.Fatal(err)
		}
		var order []string
		for range 600 {
			draining := 0
			for _, id := range five {
				p := b.Plan(id, def)
				e := &api.LedgerEntry{RevisionRef: p.Revision.RevisionRef, Time: time.Now()}
				st := api.Status{Attempted: e, Applied: e, Serving: true, Draining: p.Drain}
				if p.Drain {
					draining++
				}
				if p.Restart != nil {
					st.RestartDone = p.Restart.ID
					if len(order) == 0 || order[len(order)-1] != string(id) {
						if !containsString(order, string(id)) {
							order = append(order, string(id))
						}
					}
				}
				if err := b.Report(t.Context(), id, def, st); err != nil {
					t.Fatal(err)
				}
			}
			if draining > 1 {
				t.Fatalf("%d nodes drain at once", draining)
			}
			if b.rollout(t, r.ID).State.Ended() {
				break
			}
			time.Sleep(time.Second)
		}
		if r = b.rollout(t, r.ID); r.State != api.RolloutCompleted || fmt.Sprint(order) != "[n1 n2 n3 n4 n5]" || len(r.Confirmed) != 5 {
			t.Errorf("got %s, %q, in the order %v", r.State, r.Reason, order)
		}
		for _, id := range five {
			if b.Draining(id) {
				t.Errorf("%s still drains", id)
			}
		}
	})
}

func containsString(list []string, s string) bool {
	for _, x := range list {
		if x == s {
			return true
		}
	}
	return false
}

// TestDriftIsRepaired: a node that runs something else is told of, asked again,
// ever more rarely, and told of when it is right again.
func TestDriftIsRepaired(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, _, _ := stepped(t, statetest.Memory(t))
		b.start(t, def, 2)
		b.live(t, 2*time.Second)
		rev1, _, _ := b.Revision(t.Context(), def, 1)
		old := &api.LedgerEntry{RevisionRef: rev1.RevisionRef, Time: time.Now()}
		bad := &api.LedgerEntry{RevisionRef: b.Plan("n3", def).Revision.RevisionRef, Time: time.Now(), Error: "disk full"}
		if err := b.Report(t.Context(), "n3", def, api.Status{Attempted: bad, Applied: old}); err != nil {
			t.Fatal(err)
		}
		plans := map[uint64]bool{}
		for range 600 {
			plans[b.Plan("n3", def).Serial] = true
			time.Sleep(time.Second)
		}
		if len(plans) < 4 || len(plans) > 6 {
			t.Errorf("in ten minutes the node was asked %d times; want about four", len(plans)-1)
		}
		b.applyAll(t)
		time.Sleep(2 * time.Second)
		if got := b.kinds(t, "node."); got != "node.drifted node.settled" {
			t.Errorf("events: %s", got)
		}
	})
}
