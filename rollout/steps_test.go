package rollout

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/binnacle-project/binnacle"
	"github.com/binnacle-project/binnacle/api"
)

func TestChoose(t *testing.T) {
	nodes := func(spec string) []candidate {
		var out []candidate
		for f := range strings.FieldsSeq(spec) {
			id, zone, _ := strings.Cut(f, "@")
			out = append(out, candidate{binnacle.NodeID(id), zone})
		}
		return out
	}
	f := func(have, free string, n int, want string) {
		t.Helper()
		if got := fmt.Sprint(choose(nodes(have), nodes(free), n)); got != want {
			t.Errorf("choose(%s, %s, %d): got %s; want %s", have, free, n, got, want)
		}
	}
	f("", "", 1, "[]")
	f("", "b a c", 1, "[a]")
	f("", "b a c", 9, "[a b c]")
	f("", "a@x b@y c@y", 1, "[b]")          // where most nodes are
	f("", "a@x b@x c@y d@y", 3, "[a c b]")  // one of each before two of one
	f("c@y", "a@x b@x d@y", 1, "[a]")       // y has one already
	f("a@x", "b@x c@y d@y", 2, "[c b]")     // then they are equal
	f("a@x c@y", "b@x d@z", 1, "[d]")       // z has none
	f("", "a@x1 b@x1 c@x1 d@y", 2, "[a d]") // a small zone is not forgotten
	f("", "n10 n2 n1", 2, "[n1 n10]")       // by id
}

func TestWanted(t *testing.T) {
	f := func(s api.NewStep, last bool, group, want int) {
		t.Helper()
		if got := wanted(s, last, group); got != want {
			t.Errorf("wanted(%+v, %t, %d): got %d; want %d", s, last, group, got, want)
		}
	}
	f(api.NewStep{Nodes: 1}, false, 5, 1)
	f(api.NewStep{Nodes: 9}, false, 5, 5)
	f(api.NewStep{Percent: 10}, false, 5, 1)
	f(api.NewStep{Percent: 10}, false, 30, 3)
	f(api.NewStep{Percent: 10}, false, 31, 4)
	f(api.NewStep{Percent: 50}, false, 5, 3)
	f(api.NewStep{Percent: 0.1}, false, 5, 1)
	f(api.NewStep{Percent: 100}, true, 5, 5)
	f(api.NewStep{Percent: 10}, false, 0, 0)
}

func TestCheckSteps(t *testing.T) {
	f := func(steps []api.NewStep, want int, fault string) {
		t.Helper()
		got, err := checkSteps(steps)
		if (err == nil) != (fault == "") || err != nil && !strings.Contains(err.Error(), fault) || err == nil && len(got) != want {
			t.Errorf("checkSteps(%+v): got %d steps, %v; want %d, %q", steps, len(got), err, want, fault)
		}
	}
	f(nil, 4, "")
	f([]api.NewStep{{Nodes: 1, Bake: 5}}, 2, "") // all follow
	f([]api.NewStep{{Percent: 100}}, 1, "")
	f([]api.NewStep{{Nodes: 1}, {Percent: 5}, {Nodes: 7}, {Percent: 100}}, 4, "")
	f([]api.NewStep{{}}, 0, "either nodes or percent")
	f([]api.NewStep{{Nodes: 1, Percent: 1}}, 0, "either nodes or percent")
	f([]api.NewStep{{Percent: 101}}, 0, "up to 100")
	f([]api.NewStep{{Nodes: 1, Bake: -1}}, 0, "bake")
	f([]api.NewStep{{Percent: 50}, {Percent: 10}}, 0, "no further")
	f(make([]api.NewStep, 21), 0, "too many")
}

// viewer builds the views of TestNextMove.
type viewer struct{ stepsView }

func aView(nodes int, steps ...api.NewStep) *viewer {
	v := &viewer{stepsView{Now: time.Unix(1_000_000, 0), Told: set(), Confirmed: set(), Pending: set(), Away: set(), Failed: map[binnacle.NodeID]string{}}}
	if len(steps) == 0 {
		steps = defaultSteps()
	}
	for _, s := range steps {
		v.Steps = append(v.Steps, api.RolloutStep{NewStep: s, State: api.StepWaiting})
	}
	for i := range nodes {
		v.Alive = append(v.Alive, candidate{ID: binnacle.NodeID(fmt.Sprintf("n%d", i))})
	}
	return v
}

func set(ids ...binnacle.NodeID) map[binnacle.NodeID]bool { return setOf(ids) }

func (v *viewer) at(step int) *viewer { v.Step = step; v.Steps[step].State = api.StepRolling; return v }
func (v *viewer) pending(ids ...binnacle.NodeID) *viewer {
	for _, id := range ids {
		v.Told[id], v.Pending[id] = true, true
		v.Steps[v.Step].Added = append(v.Steps[v.Step].Added, id)
	}
	return v
}
func (v *viewer) confirmed(ids ...binnacle.NodeID) *viewer {
	for _, id := range ids {
		v.Told[id], v.Confirmed[id] = true, true
		v.Steps[v.Step].Added = append(v.Steps[v.Step].Added, id)
	}
	return v
}
func (v *viewer) before(ids ...binnacle.NodeID) *viewer { // confirmed in an earlier step
	for _, id := range ids {
		v.Told[id], v.Confirmed[id] = true, true
	}
	return v
}
func (v *viewer) away(ids ...binnacle.NodeID) *viewer {
	for _, id := range ids {
		v.Away[id] = true
		for i, c := range v.Alive {
			if c.ID == id {
				v.Alive = append(v.Alive[:i:i], v.Alive[i+1:]...)
			}
		}
	}
	return v
}
func (v *viewer) bakes(ago time.Duration, result api.VerdictResult) *viewer {
	s := &v.Steps[v.Step]
	s.State, s.BakeStarted = api.StepBaking, v.Now.Add(-ago)
	if result != "" {
		s.Verdict = &api.Verdict{Result: result, Reason: "because"}
	}
	return v
}
func (v *viewer) paused() *viewer   { v.Paused = true; return v }
func (v *viewer) promoted() *viewer { v.Steps[v.Step].PromotedBy = "ann"; return v }
func (v *viewer) failed(id binnacle.NodeID, why string) *viewer {
	v.Failed[id] = why
	return v
}

func TestNextMove(t *testing.T) {
	const min = time.Minute
	asking := aView(5).at(0).confirmed("n0").bakes(9*min, api.VerdictInconclusive)
	asking.Steps[0].State = api.StepAsking
	atOnce2 := aView(9, api.NewStep{Percent: 100, Bake: 1}).at(0).pending("n0")
	atOnce2.MaxUnavailable = 2
	for _, tc := range []struct {
		name   string
		v      *viewer
		want   moveKind
		nodes  string
		reason string
	}{
		{"the canary", aView(5), moveTell, "[n0]", ""},
		{"nobody is there", aView(0), moveWait, "[]", "no node"},
		{"it is to confirm", aView(5).at(0).pending("n0"), moveWait, "[]", "1 node is to confirm"},
		{"it has", aView(5).at(0).confirmed("n0"), moveBake, "[]", ""},
		{"it refused", aView(5).at(0).pending("n0").failed("n0", "no such plugin"), moveRollBack, "[]", "node n0: no such plugin"},
		{"it died before it answered: nobody else is tried", aView(5).at(0).pending("n0").away("n0"), moveWait, "[]", "no node that has the revision is alive"},
		{"it died after", aView(5).at(0).confirmed("n0").away("n0"), moveWait, "[]", "no node that has the revision is alive"},
		{"a bake", aView(5).at(0).confirmed("n0").bakes(min, api.VerdictPass), moveWait, "[]", ""},
		{"a bake fails early", aView(5).at(0).confirmed("n0").bakes(min, api.VerdictFail), moveRollBack, "[]", "because"},
		{"a bake ends", aView(5).at(0).confirmed("n0").bakes(2*min, api.VerdictPass), moveOn, "[]", ""},
		{"thin traffic holds", aView(5).at(0).confirmed("n0").bakes(2*min, api.VerdictInconclusive), moveWait, "[]", "the bake goes on: because"},
		{"nobody looked", aView(5).at(0).confirmed("n0").bakes(2*min, ""), moveWait, "[]", "nobody has looked"},
		{"thin traffic asks", aView(5).at(0).confirmed("n0").bakes(8*min, api.VerdictInconclusive), moveAsk, "[]", "promote or abort?"},
		{"it has asked", asking, moveWait, "[]", "promote or abort?"},
		{"promoted", aView(5).at(0).confirmed("n0").bakes(min, "").promoted(), moveOn, "[]", ""},
		{"promoted, but it fails", aView(5).at(0).confirmed("n0").bakes(min, api.VerdictFail).promoted(), moveRollBack, "[]", ""},
		{"paused", aView(5).paused(), moveWait, "[]", ""},
		{"paused in a bake", aView(5).at(0).confirmed("n0").bakes(2*min, api.VerdictPass).paused(), moveWait, "[]", ""},
		{"paused, and it fails", aView(5).at(0).confirmed("n0").bakes(min, api.VerdictFail).paused(), moveRollBack, "[]", ""},
		{"10 % of five is the one that has it", aView(5).before("n0").at(1), moveOn, "[]", ""},
		{"half of five", aView(5).before("n0").at(2), moveTell, "[n1 n2]", ""},
		{"the rest", aView(5).before("n0", "n1", "n2").at(3), moveTell, "[n3 n4]", ""},
		{"all are done", aView(5).before("n0", "n1", "n2").at(3).confirmed("n3", "n4").bakes(2*min, api.VerdictPass), moveComplete, "[]", ""},
		{"an away node of the last step is not waited for", aView(3).before("n0").at(3).confirmed("n1").pending("n2").away("n2"), moveBake, "[]", ""},
		{"a group of one ends after its canary", aView(1).before("n0").at(3), moveComplete, "[]", ""},
		{"without a bake there is no gate", aView(3, api.NewStep{Percent: 100}).at(0).confirmed("n0", "n1", "n2"), moveComplete, "[]", ""},
		{"max_unavailable", atOnce2, moveTell, "[n1]", ""},
		{"a quarter at once", aView(9, api.NewStep{Percent: 100, Bake: 1}), moveTell, "[n0 n1 n2]", ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			m := nextMove(tc.v.stepsView)
			if m.Kind != tc.want || fmt.Sprint(m.Nodes) != tc.nodes || !strings.Contains(m.Reason, tc.reason) {
				t.Errorf("nextMove: got %d %v %q; want %d %s %q", m.Kind, m.Nodes, m.Reason, tc.want, tc.nodes, tc.reason)
			}
		})
	}
}

// TestStepsProperties plays rollouts whose nodes answer, die, come back and
// whose gates say anything, and checks what must hold at each move.
func TestStepsProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(1, 12).Draw(t, "nodes")
		v := aView(n, []api.NewStep{{Nodes: 1, Bake: 10}, {Percent: 40, Bake: 10}, {Percent: 100, Bake: 10}}...)
		v.MaxUnavailable = rapid.IntRange(0, 3).Draw(t, "max")
		everyone := append([]candidate(nil), v.Alive...)
		for range 200 {
			v.Now = v.Now.Add(time.Second)
			m := nextMove(v.stepsView)
			s := &v.Steps[v.Step]
			switch m.Kind {
			case moveTell:
				waiting := 0
				for id := range v.Pending {
					if !v.Away[id] {
						waiting++
					}
				}
				if most := atOnce(v.MaxUnavailable, len(v.Alive)); waiting+len(m.Nodes) > most {
					t.Fatalf("%d wait and %v are told; want %d at once", waiting, m.Nodes, most)
				}
				if v.Step < len(v.Steps)-1 && len(v.Told)+len(m.Nodes) > wanted(s.NewStep, false, n) {
					t.Fatalf("step %d: %d told and %v more; want %d", v.Step, len(v.Told), m.Nodes, wanted(s.NewStep, false, n))
				}
				s.State = api.StepRolling
				for _, id := range m.Nodes {
					if v.Told[id] || v.Away[id] {
						t.Fatalf("%s is told twice, or away", id)
					}
				}
				v.pending(m.Nodes...)
			case moveBake:
				for id := range v.Pending {
					if !v.Away[id] {
						t.Fatalf("a bake begins before %s has confirmed", id)
					}
				}
				s.State, s.BakeStarted = api.StepBaking, v.Now
			case moveOn, moveComplete:
				if len(s.Added) > 0 && (s.Verdict == nil || s.Verdict.Result != api.VerdictPass || v.Now.Sub(s.BakeStarted) < 10*time.Second) {
					t.Fatalf("step %d passed without a verdict that passed: %+v", v.Step, s)
				}
				if m.Kind == moveComplete {
					return
				}
				v.Step++
			case moveAsk:
				s.State = api.StepAsking
			case moveRollBack:
				if len(v.Failed) == 0 && (s.Verdict == nil || s.Verdict.Result != api.VerdictFail) {
					t.Fatal("a rollback without a reason")
				}
				return
			}
			for id := range v.Pending {
				if !v.Away[id] && rapid.IntRange(0, 2).Draw(t, "answer") == 0 {
					delete(v.Pending, id)
					v.Confirmed[id] = true
				}
			}
			if c := rapid.SampledFrom(everyone).Draw(t, "who"); rapid.IntRange(0, 9).Draw(t, "dies") == 0 {
				if v.Away[c.ID] {
					delete(v.Away, c.ID)
					v.Alive = append(v.Alive, c)
				} else {
					v.away(c.ID)
				}
			}
			if s.State == api.StepBaking || s.State == api.StepAsking {
				if rapid.IntRange(0, 3).Draw(t, "look") == 0 {
					r := rapid.SampledFrom([]api.VerdictResult{api.VerdictPass, api.VerdictPass, api.VerdictInconclusive, api.VerdictFail}).Draw(t, "verdict")
					s.Verdict = &api.Verdict{Result: r}
				}
			}
		}
	})
}

func TestNextStage(t *testing.T) {
	at := time.Unix(1_000_000, 0)
	since := func(d time.Duration) time.Time { return at.Add(-d) }
	for _, tc := range []struct {
		name   string
		v      turnView
		next   stage
		done   bool
		failed string
	}{
		{"told to drain", turnView{Turn: turn{Stage: stageDrain, Since: since(0)}}, stageDrain, false, ""},
		{"drains", turnView{Turn: turn{Stage: stageDrain, Since: since(0)}, Draining: true}, stageIdle, false, ""},
		{"does not", turnView{Turn: turn{Stage: stageDrain, Since: since(3 * time.Minute)}}, stageDrain, false, "more than"},
		{"is not idle", turnView{Turn: turn{Stage: stageIdle, Since: since(20 * time.Second), Still: since(time.Second)}}, stageIdle, false, ""},
		{"is idle", turnView{Turn: turn{Stage: stageIdle, Since: since(20 * time.Second), Still: since(5 * time.Second)}}, stageRestart, false, ""},
		{"never idle", turnView{Turn: turn{Stage: stageIdle, Since: since(30 * time.Second)}}, stageRestart, false, ""},
		{"restarts", turnView{Turn: turn{Stage: stageRestart, Since: since(0), Order: "o"}, Done: "p", Right: true, Serving: true}, stageRestart, false, ""},
		{"restarted, and runs something else", turnView{Turn: turn{Stage: stageRestart, Since: since(0), Order: "o"}, Done: "o", Serving: true}, stageRestart, false, ""},
		{"restarted", turnView{Turn: turn{Stage: stageRestart, Since: since(0), Order: "o"}, Done: "o", Right: true, Serving: true}, stageReady, false, ""},
		{"could not", turnView{Turn: turn{Stage: stageRestart, Since: since(0), Order: "o"}, Done: "o", Error: "restart order o: no memory"}, stageRestart, false, "no memory"},
		{"still drains", turnView{Turn: turn{Stage: stageReady, Since: since(0)}, Alive: true, Right: true, Serving: true, Draining: true}, stageReady, false, ""},
		{"ready", turnView{Turn: turn{Stage: stageReady, Since: since(0)}, Alive: true, Right: true, Serving: true}, stageReady, true, ""},
		{"ready, drained by an operator", turnView{Turn: turn{Stage: stageReady, Since: since(0), Drained: true}, Alive: true, Right: true, Serving: true, Draining: true}, stageReady, true, ""},
	} {
		tc.v.Now = at
		next, done, failed := nextStage(tc.v)
		if next != tc.next || done != tc.done || (failed == "") != (tc.failed == "") || !strings.Contains(failed, tc.failed) {
			t.Errorf("%s: nextStage: got %s, %t, %q; want %s, %t, %q", tc.name, next, done, failed, tc.next, tc.done, tc.failed)
		}
	}
}
