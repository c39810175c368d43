package gate

import (
	"math"
	"math/rand/v2"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/binnacle-project/binnacle/api"
)

// fleet is what befalls a simulated group: the share of errors of a node at a second
// counted from the begin of the bake, before it below 0. Node 0 is the canary. Groups
// are told apart by one number, and the bakes of a group by another.
type fleet func(group uint64) func(node int, second float64, bake uint64) float64

// alike is a fleet whose nodes and groups do not differ.
func alike(share func(second float64) float64) fleet {
	return func(uint64) func(int, float64, uint64) float64 {
		return func(_ int, second float64, _ uint64) float64 { return share(second) }
	}
}

func always(p float64) fleet { return alike(func(float64) float64 { return p }) }

// rise has the errors of both sides rise at a second of the bake.
func rise(from, to, second float64) fleet {
	return alike(func(at float64) float64 {
		if at >= second {
			return to
		}
		return from
	})
}

// bursts adds, to a share of errors, bursts of ten seconds in which a share of 0.2
// fails: so many an hour, of all nodes or of each node alone. One side may show
// a burst a look before the other.
func bursts(p, hourly float64, alone bool) fleet {
	return func(group uint64) func(int, float64, uint64) float64 {
		return func(node int, second float64, bake uint64) float64 {
			if second < 0 {
				bake = 0
			}
			if node > 0 {
				second += 2 * float64(int(bake%3)-1)
			}
			if !alone {
				node = 0
			}
			slot := uint64(int64(math.Floor(second/10))) + 1<<20
			if rand.New(rand.NewPCG(group^bake, slot*nodesPlayed+uint64(node))).Float64() < hourly/360 {
				return p + 0.2
			}
			return p
		}
	}
}

// nodesPlayed is the canary, and three that serve with it before the rollout. One of
// them is the control, so that both sides have as many requests.
const nodesPlayed = 4

// played is what a simulated group served before: 10 requests/s of each node.
type played struct {
	history *History
	recent  Tally
	own     [2][]Counts // of the canary and of all, part by part
	share   func(node int, second float64, bake uint64) float64
	found   map[[4]float64]test
	mu      sync.Mutex
}

func (f fleet) past(rnd *rand.Rand, spells int) *played {
	p := &played{share: f(rnd.Uint64()), history: &History{}, found: map[[4]float64]test{}}
	p.own = [2][]Counts{make([]Counts, OwnParts), make([]Counts, OwnParts)}
	g := simGate{rnd: rnd}
	for spell := -spells; spell < 0; spell++ {
		var all Counts
		for node := range nodesPlayed {
			for tens := range 12 {
				bad := g.binomial(100, p.share(node, float64(120*spell+10*tens), 0))
				all = Counts{all.Requests + 100, all.Bad + bad}
				if i := OwnParts - 1 - (-spell-1)*120/int((HistoryFor/OwnParts).Seconds()); i >= 0 {
					p.own[1][i] = Counts{p.own[1][i].Requests + 100, p.own[1][i].Bad + bad}
					if node == 0 {
						p.own[0][i] = Counts{p.own[0][i].Requests + 100, p.own[0][i].Bad + bad}
					}
				}
			}
		}
		p.history.Spells = append(p.history.Spells, all)
		if spell >= -5 {
			p.recent.Requests, p.recent.Errors = p.recent.Requests+all.Requests, p.recent.Errors+all.Bad
		}
	}
	return p
}

// best is bestTest, made once for all gates with the same past.
func (p *played) best(n, m int, alpha float64, e expected) test {
	p.mu.Lock()
	defer p.mu.Unlock()
	key := [4]float64{float64(n), float64(m), alpha, indicator(e.known != nil)}
	t, ok := p.found[key]
	if !ok {
		t = bestTest(n, m, alpha, e)
		p.found[key] = t
	}
	return t
}

// play plays one gate with this past; extra is what the canary's revision fails, blind
// says that the hours before are not known.
func (p *played) play(seed uint64, extra float64, looks int, blind bool) (outcome, string) {
	g := newSimGate(seed, quality{}, 0, false)
	g.all.Baseline = p.recent
	if !blind {
		g.history, g.all.Spell = p.history, OwnShare(p.own[0], p.own[1])
		for _, e := range g.ends {
			e.Spell = g.all.Spell
		}
	}
	g.state.best = p.best
	for i, second := 1, 0.0; i <= looks; i++ {
		wide := 1.0 // looks after the first test take three times as long, to play faster
		if i > bakeLooks+1 {
			wide = 3
		}
		at := second + wide
		second += 2 * wide
		v := g.look(usual(p.share(0, at, seed)+extra), usual(p.share(1, at, seed)), 500/bakeLooks*wide)
		if v.Result == api.VerdictFail {
			return outcome{failed: true}, v.Reason
		}
		if i > bakeLooks && v.Result == api.VerdictPass && extra > 0 {
			return outcome{passed: true}, ""
		}
	}
	return outcome{}, ""
}

// TestScenarios plays gates of groups whose hours before are known, each looked at 50
// times until 2,000 requests on each side. A canary that is as good as its control fails
// in at most 1 % of gates while the bake is like the hours before, and in at most 5 %
// whatever happens to both sides. One with 2 points more errors is found as often as
// computed.
func TestScenarios(t *testing.T) {
	full := os.Getenv("BINNACLE_LOAD") == "full"
	gates, pasts, every, seed := 16, 2, 4, uint64(7)
	if full {
		gates, pasts, every, seed = 10_000, 50, 10, uint64(time.Now().UnixNano())
		t.Logf("seed %d", seed)
	}
	for k, sc := range []struct {
		name   string
		fleet  fleet
		spells int
		most   float64 // that may fail falsely
		power  float64 // at 500 requests, at least
	}{
		{"0 % errors", always(0), 180, 0.01, 0.95},
		{"0.01 % errors", always(0.0001), 180, 0.01, 0.95},
		{"0.05 % errors", always(0.0005), 180, 0.01, 0.95},
		{"0.1 % errors", always(0.001), 180, 0.01, 0.95},
		{"0.2 % errors", always(0.002), 180, 0.01, 0.92},
		{"0.5 % errors", always(0.005), 180, 0.01, 0.82},
		{"1 % errors", always(0.01), 180, 0.01, 0.66},
		{"2 % errors", always(0.02), 180, 0.01, 0.40},
		{"0.1 %, an hour and a half", always(0.001), 45, 0.01, 0.94},
		{"0.1 %, half an hour: too little", always(0.001), 15, 0.01, 0.82},
		{"drifts from 0.1 to 1 %", alike(func(at float64) float64 { return 0.01 + 0.009*at/21600 }), 180, 0.01, 0.60},
		{"between 0.1 and 0.9 % by the hour of the day", func(group uint64) func(int, float64, uint64) float64 {
			phase := 2 * math.Pi * float64(group%1000) / 1000
			return func(_ int, at float64, _ uint64) float64 { return 0.005 + 0.004*math.Sin(phase+2*math.Pi*at/86400) }
		}, 180, 0.01, 0.70},
		{"bursts of all, 6 an hour", bursts(0.001, 6, false), 180, 0.01, 0.65},
		{"an outage of all four hours ago", alike(func(at float64) float64 {
			if at > -14400 && at < -13800 {
				return 0.5
			}
			return 0.001
		}), 180, 0.01, 0.80},
		{"canary 1 %, others 0.1 %", func(uint64) func(int, float64, uint64) float64 {
			return func(node int, _ float64, _ uint64) float64 {
				return map[bool]float64{true: 0.01, false: 0.001}[node == 0]
			}
		}, 180, 0.01, 0.7},
		{"bursts of single nodes, 1 an hour", bursts(0.001, 1, true), 180, 1, 0.80},
		{"bursts of single nodes, 6 an hour", bursts(0.001, 6, true), 180, 1, 0.60},
		{"both rise from 0 to 0.57 % at the step", rise(0, 0.0057, 0), 180, 0.01, 0},
		{"both rise from 0.1 to 1.5 % at the step", rise(0.001, 0.015, 0), 180, 0.05, 0},
		{"both rise from 0.1 to 10 % at the step", rise(0.001, 0.1, 0), 180, 0.05, 0},
		{"both rise from 0.5 to 3 % at the step", rise(0.005, 0.03, 0), 180, 0.05, 0},
		{"both rise from 0.1 to 2 % amid the bake", rise(0.001, 0.02, 25), 180, 0.05, 0},
		{"both rise from 0.1 to 50 % at the last look", rise(0.001, 0.5, 48), 180, 0.05, 0},
		{"both rose from 0.1 to 2 % five minutes before", rise(0.001, 0.02, -300), 180, 0.01, 0},
	} {
		t.Run(sc.name, func(t *testing.T) {
			rnd := rand.New(rand.NewPCG(seed, uint64(k)))
			failed, found, passed, n, powered, blindFailed, blindFound := 0, 0, 0, 0, 0, 0, 0
			for range pasts {
				p := sc.fleet.past(rnd, sc.spells)
				for i := range gates / pasts {
					s := rnd.Uint64()
					if o, why := p.play(s, 0, 2*bakeLooks, false); o.failed {
						failed++
						if testing.Verbose() && !full {
							t.Log(why)
						}
					}
					n++
					if i%every != 0 {
						continue
					}
					powered++
					o, _ := p.play(s, exactEffect, bakeLooks+1, false)
					if o.failed {
						found++
					}
					if o.passed {
						passed++
					}
					if !full {
						continue
					}
					if o, _ := p.play(s, 0, 2*bakeLooks, true); o.failed {
						blindFailed++
					}
					if o, _ := p.play(s, exactEffect, bakeLooks+1, true); o.failed {
						blindFound++
					}
				}
			}
			share := func(k, n int) float64 { return float64(k) / float64(n) }
			t.Logf("%-46s %5d gates: %.2f %% failed falsely; with 2 points more %.1f %% failed at 500, %.1f %% passed", sc.name, n, 100*share(failed, n), 100*share(found, powered), 100*share(passed, powered))
			if full {
				t.Logf("%-46s   without the hours before: %.2f %% failed falsely; with 2 points more %.1f %%", "", 100*share(blindFailed, powered), 100*share(blindFound, powered))
			}
			if most := sc.most * float64(n); float64(failed) > most+3.5*math.Sqrt(most)+1 {
				t.Errorf("%s: %d of %d failed falsely; want at most %.0f", sc.name, failed, n, most)
			}
			if least := sc.power * float64(powered); float64(found) < least-3.5*math.Sqrt(least*(1-sc.power))-1 {
				t.Errorf("%s: %d of %d found; want %.0f %%", sc.name, found, powered, 100*sc.power)
			}
		})
	}
}
