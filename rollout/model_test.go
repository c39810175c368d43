package rollout_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/anishathalye/porcupine"

	"github.com/binnacle-project/binnacle"
	"github.com/binnacle-project/binnacle/api"
	"github.com/binnacle-project/binnacle/events"
	"github.com/binnacle-project/binnacle/rollout"
	"github.com/binnacle-project/binnacle/state"
)

// The model of revisions and rollouts of one group, against which histories of a
// real service are checked: operators push, roll out, at once or after what is under
// way, abort and roll back, nodes poll, all at once, while the manager is killed between any two writes, with or without
// the last one, and starts anew over what is durable.

// modelState is what an operator would say of the group. A rollout under way may
// complete at any time, for the nodes decide that, and the next one of the queue
// begin at any time when none is under way (movedOn).
type modelState struct {
	Revisions [modelConfigs]uint8 // number of each configuration, 0 for none
	Last      uint8               // the last number given to a revision
	Rollouts  uint8               // the last number given to a rollout
	Desired   uint8
	Running   modelRollout
	Queue     [modelQueue]modelRollout // the first first; an ID of 0 is none
	// Past has of each rollout, by number, what a rollback has to know: To if it
	// completed, and From if it was a rollback itself.
	Past [modelRollouts]struct{ To, From uint8 }
}

type modelRollout struct {
	ID, From, To    uint8
	Steps, Rollback bool
	Ahead           uint8 // nodes that have seen To, as bits
}

const (
	modelConfigs  = 5
	modelNodes    = 3
	modelQueue    = 36 // more than all operators ask for
	modelRollouts = 48
)

// opKind is what was asked.
type opKind uint8

const (
	opPush  opKind = iota // Arg is the configuration
	opStart               // Arg is the revision
	opAbort               // Arg is the rollout
	opRollback
	opPoll // Arg is the node
)

type modelIn struct {
	Kind         opKind
	Arg          uint8
	Steps, Queue bool
}

// modelOut is the answer. An operation that met the manager's death may have
// happened or not.
type modelOut struct {
	Unknown bool
	Refused int // HTTP status, 0 for done
	Got     uint8
}

// movedOn are the state and those that it may have become by itself: the rollout
// under way completed, the next one of the queue began, and so on.
func (s modelState) movedOn() []modelState {
	all := []modelState{s}
	for {
		switch {
		case s.Running.ID != 0:
			s.Past[s.Running.ID-1].To = s.Running.To
			s.Desired, s.Running = s.Running.To, modelRollout{}
		case s.Queue[0].ID != 0:
			next := s.Queue[0]
			copy(s.Queue[:], s.Queue[1:])
			s = s.begin(next)
		default:
			return all
		}
		all = append(all, s)
	}
}

// begin makes a rollout the one under way; another one is superseded.
func (s modelState) begin(r modelRollout) modelState {
	r.From = s.Desired
	s.Running = r
	if r.Rollback {
		s.Past[r.ID-1].From = r.From
	}
	if !r.Steps {
		s.Desired = r.To
	}
	return s
}

func (s modelState) has(revision uint8) bool {
	for _, n := range s.Revisions {
		if n == revision && n != 0 {
			return true
		}
	}
	return false
}

// push, start and abort return the answer and what follows from it.
func (s modelState) push(config uint8) (modelState, modelOut) {
	if n := s.Revisions[config]; n != 0 {
		return s, modelOut{Got: n}
	}
	s.Last++
	s.Revisions[config] = s.Last
	return s, modelOut{Got: s.Last}
}

func (s modelState) start(in modelIn, rollback bool) (modelState, modelOut) {
	if !s.has(in.Arg) {
		return s, modelOut{Refused: 404}
	}
	if r := s.Running; r.ID != 0 && r.Steps == in.Steps && r.To == in.Arg {
		return s, modelOut{Got: r.ID}
	}
	s.Rollouts++
	r := modelRollout{ID: s.Rollouts, To: in.Arg, Steps: in.Steps, Rollback: rollback}
	if in.Queue && (s.Running.ID != 0 || s.Queue[0].ID != 0) {
		for i := range s.Queue {
			if s.Queue[i].ID == 0 {
				s.Queue[i] = r
				return s, modelOut{Got: r.ID}
			}
		}
	}
	return s.begin(r), modelOut{Got: s.Rollouts}
}

func (s modelState) abort(id uint8) (modelState, modelOut) {
	for i, r := range s.Queue {
		if r.ID != 0 && r.ID == id {
			copy(s.Queue[i:], s.Queue[i+1:])
			return s, modelOut{Got: id}
		}
	}
	switch {
	case id == 0 || id > s.Rollouts:
		return s, modelOut{Refused: 404}
	case s.Running.ID != id:
		return s, modelOut{Refused: 409}
	}
	s.Desired, s.Running = s.Running.From, modelRollout{}
	return s, modelOut{Got: id}
}

// rollback goes back to the newest revision that completed a rollout and was not
// rolled back since; a rollout in steps it aborts.
func (s modelState) rollback() (modelState, modelOut) {
	if s.Running.ID != 0 && s.Running.Steps {
		return s.abort(s.Running.ID)
	}
	left := map[uint8]bool{0: true, s.Desired: true}
	for i := int(s.Rollouts) - 1; i >= 0; i-- {
		if to := s.Past[i].To; !left[to] {
			return s.start(modelIn{Arg: to}, true)
		}
		left[s.Past[i].From] = true
	}
	return s, modelOut{Refused: 409}
}

// poll returns the states in which a node may be told got.
func (s modelState) poll(node, got uint8) []modelState {
	bit := uint8(1) << node
	var out []modelState
	if r := s.Running; r.ID != 0 && r.Steps && r.To == got {
		ahead := s
		ahead.Running.Ahead |= bit
		out = append(out, ahead)
	}
	// Who is ahead does not fall back while the rollout is under way.
	if s.Desired == got && !(s.Running.ID != 0 && s.Running.Steps && s.Running.Ahead&bit != 0 && s.Running.To != got) {
		out = append(out, s)
	}
	return out
}

func modelStep(st, input, output any) []any {
	in, out := input.(modelIn), output.(modelOut)
	var next []any
	for _, s := range st.(modelState).movedOn() {
		if in.Kind == opPoll {
			for _, n := range s.poll(in.Arg, out.Got) {
				next = append(next, n)
			}
			continue
		}
		if out.Unknown {
			next = append(next, s)
		}
		var then modelState
		var want modelOut
		switch in.Kind {
		case opPush:
			then, want = s.push(in.Arg)
		case opStart:
			then, want = s.start(in, false)
		case opAbort:
			then, want = s.abort(in.Arg)
		case opRollback:
			then, want = s.rollback()
		}
		if out.Unknown || out == want {
			next = append(next, then)
		}
	}
	return next
}

var rolloutModel = (&porcupine.NondeterministicModel{
	Init:  func() []any { return []any{modelState{}} },
	Step:  modelStep,
	Equal: func(a, b any) bool { return a.(modelState) == b.(modelState) },
	DescribeOperation: func(input, output any) string {
		return fmt.Sprintf("%+v -> %+v", input, output)
	},
}).ToModel()

// history is one run: the service of now, and all that was asked and answered.
type history struct {
	t     *testing.T
	fleet *fleet

	mu      sync.Mutex // guards what follows
	store   *state.Store
	svc     *rollout.Service
	stop    func()
	life    int
	rnd     *rand.Rand
	clock   int64
	ops     []porcupine.Operation
	pushed  map[string]bool  // hashes that somebody tried to push
	numbers map[uint8]string // hash of each number that a node was told
	settled bool             // nobody asks for anything any more
	kills   int
	rolled  int // polls that gave a revision
}

// live opens the service anew over what is durable. The caller holds h.mu, or is
// alone.
func (h *history) live() {
	if h.store == nil {
		s, err := state.OpenMemory(context.Background(), state.Options{})
		if err != nil {
			h.t.Fatal(err)
		}
		h.store = s
	} else {
		s, err := state.OpenMemoryAgain(context.Background(), state.Options{}, h.store)
		if err != nil {
			h.t.Fatal(err)
		}
		h.store = s
		h.kills++
	}
	log := slog.New(slog.DiscardHandler)
	l, err := events.Open(context.Background(), events.Options{Store: h.store, Log: log})
	if err != nil {
		h.t.Fatal(err)
	}
	svc, err := rollout.Open(context.Background(), rollout.Options{Store: h.store, Events: l, Cluster: clusterID, Key: clusterKey, Nodes: h.fleet, Log: log})
	if err != nil {
		h.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { _ = svc.Run(ctx); close(done) }() // of a dead store it cannot end well
	h.svc, h.stop, h.life = svc, func() { cancel(); <-done }, h.life+1
}

// now returns the service, and which one it is.
func (h *history) now() (*rollout.Service, int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.svc, h.life
}

// kill ends the manager of that life, if it has not ended yet, and starts the
// next, which will die, too, some writes later, unless it is the last.
func (h *history) kill(life int, last bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.life != life {
		return
	}
	dead := h.stop
	h.live()
	if !last {
		h.store.KillAfter(1+h.rnd.IntN(40), h.rnd.IntN(2) == 0)
	}
	dead() // its store takes nothing any more
}

func (h *history) tick() int64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.clock++
	return h.clock
}

// slowness is how much rarer nodes poll when nothing is asked any more.
func (h *history) slowness() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.settled {
		return 30
	}
	return 1
}

func (h *history) intn(n int) int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.rnd.IntN(n)
}

// record notes an operation. Who met the death of a manager does not know when
// it took effect: it ends with the history.
func (h *history) record(client int, in modelIn, call int64, out modelOut) {
	end := h.tick()
	if out.Unknown {
		end = 1 << 40
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.ops = append(h.ops, porcupine.Operation{ClientId: client, Input: in, Call: call, Output: out, Return: end})
}

// operator asks a dozen things. An operation of unknown end makes it another
// client.
func (h *history) operator(client int) {
	for range 12 {
		time.Sleep(time.Duration(h.intn(200)) * time.Millisecond)
		svc, life := h.now()
		in := modelIn{Kind: opKind(h.intn(4)), Arg: uint8(h.intn(modelConfigs)), Steps: h.intn(2) == 0, Queue: h.intn(3) == 0}
		if in.Kind == opAbort && h.intn(2) == 0 {
			in.Kind = opStart
		}
		if in.Kind != opPush {
			in.Arg++ // numbers begin with 1
		}
		if in.Kind == opAbort {
			in.Arg = 0
			for _, r := range svc.Running() {
				fmt.Sscanf(r.ID, "r%d", &in.Arg)
			}
		}
		if in.Kind == opRollback {
			in.Arg = 0
		}
		if in.Kind != opStart {
			in.Steps, in.Queue = false, false
		}
		if in.Kind == opPush {
			sum := sha256.Sum256(config(int(in.Arg)))
			h.mu.Lock()
			h.pushed[hex.EncodeToString(sum[:])] = true
			h.mu.Unlock()
		}
		call := h.tick()
		out, err := modelOut{}, error(nil)
		switch in.Kind {
		case opPush:
			var rev api.CreatedRevision
			rev, err = svc.CreateRevision(context.Background(), def, api.NewRevision{Config: config(int(in.Arg))})
			out.Got = uint8(rev.Number)
		case opStart:
			r := api.NewRollout{Revision: binnacle.Revision(in.Arg), Strategy: rollout.StrategyAll}
			if in.Steps {
				r.Strategy, r.Steps, r.MaxUnavailable = rollout.StrategySteps, []api.NewStep{{Nodes: 1}, {Percent: 100}}, modelNodes
			}
			if in.Queue {
				r.WhenBusy = rollout.WhenBusyQueue
			}
			var ro api.Rollout
			ro, err = svc.StartRollout(context.Background(), def, r, "ann")
			fmt.Sscanf(ro.ID, "r%d", &out.Got)
		case opAbort:
			_, err = svc.Abort(context.Background(), fmt.Sprintf("r%d", in.Arg), "ann")
			out.Got = in.Arg
		case opRollback:
			var ro api.Rollout
			ro, err = svc.Rollback(context.Background(), def, "ann")
			fmt.Sscanf(ro.ID, "r%d", &out.Got)
		}
		if err != nil {
			if out = (modelOut{Refused: status(err)}); out.Refused == 0 {
				out = modelOut{Unknown: true}
			}
		}
		h.record(client, in, call, out)
		if out.Unknown {
			client += 100 // the old one is still waiting, as far as anybody knows
			h.kill(life, false)
		}
	}
}

// node polls, fetches, checks what no node may ever see broken, and reports.
func (h *history) node(client int, me uint8, quit <-chan struct{}) {
	id := binnacle.NodeID(fmt.Sprintf("n-%d", me))
	var held api.Plan
	var applied *api.LedgerEntry
	for {
		select {
		case <-quit:
			return
		case <-time.After(time.Duration(20+h.intn(150)) * time.Millisecond * time.Duration(h.slowness())):
		}
		svc, life := h.now()
		call := h.tick()
		p := svc.Plan(id, def)
		out := modelOut{}
		if p.Revision != nil {
			out.Got = uint8(p.Revision.Number)
		}
		h.record(client, modelIn{Kind: opPoll, Arg: me}, call, out)
		if held.Newer(p) {
			h.t.Errorf("node %s: serial %d after %d", id, p.Serial, held.Serial)
		}
		if !p.Newer(held) && p.ETag() != held.ETag() && held.Serial != 0 {
			h.t.Errorf("node %s: two plans of serial %d: %+v and %+v", id, p.Serial, held, p)
		}
		held = p
		if p.Revision == nil {
			applied = nil
		} else if err := h.fetch(svc, p); err == state.ErrClosed {
			h.kill(life, false)
			continue
		} else if err != nil {
			h.t.Errorf("node %s: %v", id, err)
		} else {
			applied = &api.LedgerEntry{RevisionRef: p.Revision.RevisionRef, Time: time.Now()}
		}
		_ = svc.Report(context.Background(), id, def, api.Status{Attempted: applied, Applied: applied, Serving: true})
	}
}

// fetch gets the configuration of a plan and checks that it was published.
func (h *history) fetch(svc *rollout.Service, p api.Plan) error {
	if err := api.VerifyRevision(clusterKey.Public().(ed25519.PublicKey), clusterID, def, *p.Revision); err != nil {
		return err
	}
	h.mu.Lock()
	h.rolled++
	n, sha := uint8(p.Revision.Number), p.Revision.SHA256
	published, same := h.pushed[sha], h.numbers[n] == "" || h.numbers[n] == sha
	h.numbers[n] = sha
	h.mu.Unlock()
	if !published {
		return fmt.Errorf("revision %d, %s, was never pushed", n, sha)
	}
	if !same {
		return fmt.Errorf("revision %d has two hashes", n)
	}
	zipped, _, err := svc.Config(context.Background(), sha)
	if err != nil {
		if strings.Contains(err.Error(), state.ErrClosed.Error()) {
			return state.ErrClosed
		}
		return err
	}
	zr, err := gzip.NewReader(bytes.NewReader(zipped))
	if err != nil {
		return err
	}
	raw, err := io.ReadAll(zr)
	if err != nil {
		return err
	}
	if sum := sha256.Sum256(raw); hex.EncodeToString(sum[:]) != sha {
		return fmt.Errorf("revision %d: the bytes are not those of its hash", n)
	}
	return nil
}

// playHistory is one history of three operators, three nodes and a manager that
// dies again and again. At its end it lives on, and everything must settle.
func playHistory(t *testing.T, seed uint64) *history {
	h := &history{t: t, rnd: rand.New(rand.NewPCG(seed, 1)), pushed: map[string]bool{}, numbers: map[uint8]string{},
		fleet: &fleet{groups: map[binnacle.Group][]binnacle.NodeID{def: {"n-0", "n-1", "n-2"}}}}
	h.live()
	h.store.KillAfter(1+h.rnd.IntN(40), h.rnd.IntN(2) == 0)
	quit := make(chan struct{})
	var nodes, operators sync.WaitGroup
	for i := range uint8(modelNodes) {
		nodes.Go(func() { h.node(10+int(i), i, quit) })
	}
	for i := range 3 {
		operators.Go(func() { h.operator(i) })
	}
	operators.Wait()
	_, life := h.now()
	h.kill(life, true)
	h.mu.Lock()
	h.settled = true
	h.mu.Unlock()
	time.Sleep(3 * time.Minute) // virtual: what nodes and rollouts need to settle
	close(quit)
	nodes.Wait()
	svc, _ := h.now()
	if running := svc.Running(); len(running) > 0 {
		t.Errorf("seed %d: three minutes after the last kill rollouts are still under way: %+v", seed, running)
	}
	groups, err := svc.Groups(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	for i := range modelNodes {
		id := binnacle.NodeID(fmt.Sprintf("n-%d", i))
		runs := binnacle.Revision(0)
		if l := svc.Ledger(id); l != nil && l.Applied != nil {
			runs = l.Applied.Number
		}
		if runs != groups[0].Desired {
			t.Errorf("seed %d: %s runs revision %d; the group should run %d", seed, id, runs, groups[0].Desired)
		}
	}
	h.mu.Lock()
	h.stop()
	h.mu.Unlock()
	return h
}

// TestHistories checks histories against the model: 1,000 with
// BINNACLE_LOAD=full and fresh seeds.
func TestHistories(t *testing.T) {
	n, seed := 40, uint64(1)
	if os.Getenv("BINNACLE_LOAD") == "full" {
		n, seed = 1000, uint64(time.Now().UnixNano())
	}
	ops, kills, polls, unknown := 0, 0, 0, 0
	for i := range n {
		synctest.Test(t, func(t *testing.T) {
			h := playHistory(t, seed+uint64(i))
			ops, kills, polls = ops+len(h.ops), kills+h.kills, polls+h.rolled
			for _, op := range h.ops {
				if op.Output.(modelOut).Unknown {
					unknown++
				}
			}
			// Polls at rest say the same again and again: one of each row is kept.
			if !porcupine.CheckOperations(rolloutModel, thin(h.ops)) {
				t.Errorf("seed %d: the history is not that of one group", seed+uint64(i))
				for _, op := range h.ops {
					if op.Input.(modelIn).Kind != opPoll {
						t.Logf("client %d, %d to %d: %s", op.ClientId, op.Call, op.Return, rolloutModel.DescribeOperation(op.Input, op.Output))
					}
				}
			}
		})
		if t.Failed() {
			break
		}
	}
	t.Logf("%d histories from seed %d: %d operations, %d of them of unknown end, %d kills, %d polls that gave a revision", n, seed, ops, unknown, kills, polls)
	if kills < n || polls < n || unknown < n/2 {
		t.Errorf("%d kills, %d polls, %d unknown: too few to show anything", kills, polls, unknown)
	}
}

// thin drops polls of a node that lie between two others with the same answer.
func thin(ops []porcupine.Operation) []porcupine.Operation {
	var out []porcupine.Operation
	last := map[int][]int{} // by client, where its newest polls are in out
	for _, op := range ops {
		if op.Input.(modelIn).Kind == opPoll {
			at := last[op.ClientId]
			if k := len(at); k >= 2 && out[at[k-1]].Output == op.Output && out[at[k-2]].Output == op.Output {
				out[at[k-1]] = op
				continue
			}
			last[op.ClientId] = append(at, len(out))
		}
		out = append(out, op)
	}
	return out
}
