package rollout_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/signal"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/binnacle-project/binnacle"
	"github.com/binnacle-project/binnacle/api"
	"github.com/binnacle-project/binnacle/events"
	"github.com/binnacle-project/binnacle/rollout"
	"github.com/binnacle-project/binnacle/state"
	"github.com/binnacle-project/binnacle/state/statetest"
)

// TestMain lets the test binary play the gateway's "check" for the dry build.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "check" {
		os.Exit(fakeCheck(os.Args[2:]))
	}
	os.Exit(m.Run())
}

// fakeCheck does what the configuration's "test" key says.
func fakeCheck(args []string) int {
	if len(args) != 4 || args[0] != "-c" || args[2] != "--format" || args[3] != "json" {
		fmt.Fprintf(os.Stderr, "bad arguments %q", args)
		return 2
	}
	raw, err := os.ReadFile(args[1])
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 2
	}
	var cfg struct {
		Test string `json:"test"`
		Port any    `json:"port"`
	}
	if err := json.Unmarshal(raw, &cfg); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 2
	}
	switch cfg.Test {
	case "faults":
		fmt.Println(`[{"stage":"build","path":"/endpoints/0","message":"one"},{"stage":"build","message":"two"}]`)
		return 1
	case "warn":
		fmt.Println(`[{"stage":"schema","message":"unknown namespace"}]`)
		return 0
	case "panic":
		panic("the build panicked")
	case "sleep":
		signal.Ignore(os.Interrupt)
		time.Sleep(time.Hour)
	case "memory":
		var all [][]byte
		for {
			b := make([]byte, 64<<20)
			for i := range b {
				b[i] = 1
			}
			all = append(all, b)
			runtime.KeepAlive(all)
		}
	case "env":
		fmt.Printf(`[{"stage":"build","message":%q}]`, fmt.Sprint(os.Environ(), cfg.Port))
		return 1
	}
	fmt.Println("[]")
	return 0
}

// fleet is the nodes of a test.
type fleet struct {
	mu     sync.Mutex
	groups map[binnacle.Group][]binnacle.NodeID
	gossip api.GossipPlan
}

func (f *fleet) InGroup(g binnacle.Group) []binnacle.NodeID {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]binnacle.NodeID(nil), f.groups[g]...)
}

func (f *fleet) set(g binnacle.Group, ids ...binnacle.NodeID) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.groups[g] = ids
}

func (f *fleet) GossipPlan() api.GossipPlan {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.gossip
}

const def = binnacle.DefaultGroup

var (
	clusterKey = ed25519.NewKeyFromSeed(bytes.Repeat([]byte{7}, ed25519.SeedSize))
	clusterID  = binnacle.ClusterID("c-test")
)

type bench struct {
	*rollout.Service
	events *events.Log
	fleet  *fleet
}

// open opens the service on s, without Run.
func open(t testing.TB, s *state.Store, f *fleet, change ...func(*rollout.Options)) *bench {
	t.Helper()
	log := slog.New(slog.NewTextHandler(t.Output(), nil))
	l, err := events.Open(t.Context(), events.Options{Store: s, Log: log})
	if err != nil {
		t.Fatal(err)
	}
	if f == nil {
		f = &fleet{groups: make(map[binnacle.Group][]binnacle.NodeID)}
	}
	o := rollout.Options{Store: s, Events: l, Cluster: clusterID, Key: clusterKey, Nodes: f, Gossip: f, Log: log}
	for _, c := range change {
		c(&o)
	}
	svc, err := rollout.Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	return &bench{svc, l, f}
}

// run starts Run and returns a function that ends it.
func (b *bench) run(t testing.TB) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- b.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	t.Cleanup(stop)
	return stop
}

// config is a good configuration; n and the rest make it differ.
func config(n int, rest ...string) []byte {
	return fmt.Appendf(nil, `{"version": 3, "name": "n%d", %s "endpoints": []}`, n, strings.Join(rest, ""))
}

func (b *bench) push(t testing.TB, g binnacle.Group, n int) api.CreatedRevision {
	t.Helper()
	rev, err := b.CreateRevision(t.Context(), g, api.NewRevision{Config: config(n), Author: "ann"})
	if err != nil {
		t.Fatalf("CreateRevision: %v", err)
	}
	return rev
}

func (b *bench) start(t testing.TB, g binnacle.Group, n binnacle.Revision) api.Rollout {
	t.Helper()
	r, err := b.StartRollout(t.Context(), g, api.NewRollout{Revision: n, Strategy: rollout.StrategyAll}, "ann")
	if err != nil {
		t.Fatalf("StartRollout: %v", err)
	}
	return r
}

// apply reports that the node runs what its plan says.
func (b *bench) apply(t testing.TB, id binnacle.NodeID, g binnacle.Group) {
	t.Helper()
	p := b.Plan(id, g)
	e := &api.LedgerEntry{RevisionRef: p.Revision.RevisionRef, Time: time.Now()}
	if err := b.Report(t.Context(), id, g, api.Status{Attempted: e, Applied: e}); err != nil {
		t.Fatalf("Report: %v", err)
	}
}

// refuse reports that the node could not apply what its plan says.
func (b *bench) refuse(t testing.TB, id binnacle.NodeID, g binnacle.Group, why string) {
	t.Helper()
	p := b.Plan(id, g)
	st := api.Status{Attempted: &api.LedgerEntry{RevisionRef: p.Revision.RevisionRef, Time: time.Now(), Error: why}}
	if l := b.Ledger(id); l != nil {
		st.Applied = l.Applied
	}
	if err := b.Report(t.Context(), id, g, st); err != nil {
		t.Fatalf("Report: %v", err)
	}
}

func (b *bench) rollout(t testing.TB, id string) api.Rollout {
	t.Helper()
	r, err := b.Rollout(t.Context(), id)
	if err != nil {
		t.Fatalf("Rollout(%s): %v", id, err)
	}
	return r
}

func (b *bench) kinds(t testing.TB, prefix string) string {
	t.Helper()
	es, err := b.events.List(t.Context(), events.Filter{Kind: prefix})
	if err != nil {
		t.Fatal(err)
	}
	var kinds []string
	for _, e := range es {
		kinds = append(kinds, e.Kind)
	}
	return strings.Join(kinds, " ")
}

func status(err error) int {
	var p *api.Problem
	if errors.As(err, &p) {
		return p.Status
	}
	return 0
}

func TestRevisions(t *testing.T) {
	s := statetest.New(t)
	b := open(t, s, nil)
	ctx := t.Context()
	first := b.push(t, def, 1)
	if first.Number != 1 || first.Existing || first.Author != "ann" || first.Bytes != len(config(1)) || first.Created.IsZero() {
		t.Errorf("first revision: %+v", first)
	}
	if len(first.Warnings) != 1 || !strings.Contains(first.Warnings[0].Message, "build was not tried") {
		t.Errorf("warnings without a binary: %+v", first.Warnings)
	}
	if again := b.push(t, def, 1); again.Number != 1 || !again.Existing {
		t.Errorf("the same bytes again: %+v; want revision 1, existing", again)
	}
	if other := b.push(t, "edge", 1); other.Number != 1 || other.Existing || other.SHA256 != first.SHA256 {
		t.Errorf("the same bytes in another group: %+v", other)
	}
	if second := b.push(t, def, 2); second.Number != 2 || second.Parent != 1 {
		t.Errorf("second revision: %+v; want 2 with parent 1", second)
	}
	dry, err := b.CreateRevision(ctx, def, api.NewRevision{Config: config(3), DryRun: true})
	if err != nil || dry.Number != 0 {
		t.Errorf("dry run: %+v, %v; want number 0", dry, err)
	}

	b = open(t, s, nil) // as after a restart
	revs, err := b.Revisions(ctx, def)
	if err != nil || len(revs) != 2 || revs[0].Number != 1 || revs[1].Number != 2 {
		t.Errorf("Revisions: %+v, %v; want 1 and 2", revs, err)
	}
	_, raw, err := b.Revision(ctx, def, 2)
	if err != nil || !bytes.Equal(raw, config(2)) {
		t.Errorf("Revision: %q, %v; want the bytes pushed", raw, err)
	}
	zipped, groups, err := b.Config(ctx, first.SHA256)
	if err != nil || fmt.Sprint(groups) != "[default edge]" {
		t.Fatalf("Config: groups %v, %v; want default and edge", groups, err)
	}
	r, err := gzip.NewReader(bytes.NewReader(zipped))
	if err != nil {
		t.Fatal(err)
	}
	if raw, err = io.ReadAll(r); err != nil || !bytes.Equal(raw, config(1)) {
		t.Errorf("Config: %q, %v; want the bytes pushed", raw, err)
	}
	if _, _, err := b.Config(ctx, "none"); status(err) != 404 {
		t.Errorf("Config of nothing: %v; want 404", err)
	}
	for _, n := range []binnacle.Revision{0, 9} {
		if _, _, err := b.Revision(ctx, def, n); status(err) != 404 {
			t.Errorf("Revision %d: %v; want 404", n, err)
		}
	}
	gs, err := b.Groups(ctx)
	if err != nil || len(gs) != 2 || gs[0].Name != def || gs[0].Revisions != 2 || gs[1].Name != "edge" {
		t.Errorf("Groups: %+v, %v", gs, err)
	}
	if got := b.kinds(t, "revision."); got != "revision.created revision.created revision.created" {
		t.Errorf("events: %s", got)
	}
}

func TestRefusedConfigs(t *testing.T) {
	b := open(t, statetest.Memory(t), nil)
	f := func(g binnacle.Group, config string, want int, faults int, text string) {
		t.Helper()
		_, err := b.CreateRevision(t.Context(), g, api.NewRevision{Config: []byte(config)})
		var p *api.Problem
		if !errors.As(err, &p) || p.Status != want || len(p.Faults) != faults || !strings.Contains(p.Detail, text) {
			t.Errorf("CreateRevision(%.40s): got %v with %+v; want %d with %d faults, %q", config, err, p, want, faults, text)
		}
	}
	f("Bad Name", `{}`, 422, 0, "not valid")
	f(def, `{"version": 3`, 422, 1, "line 1, column 14")
	f(def, `{"version": 2, "endpoints": [null, null]}`, 422, 3, "3 faults")
	f(def, `{"version": 3, "version": 3}`, 422, 1, "twice")
	f(def, strings.Repeat(" ", 8<<20+1), 413, 0, "8388609 bytes")
	if got, want := b.kinds(t, ""), "revision.refused revision.refused revision.refused"; got != want {
		t.Errorf("events: got %s; want %s", got, want)
	}
}

// TestLargeRevision takes several chunks.
func TestLargeRevision(t *testing.T) {
	noise := make([]byte, 3<<20)
	rnd := rand.New(rand.NewPCG(1, 2))
	for i := range noise {
		noise[i] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789+-"[rnd.IntN(64)]
	}
	s := statetest.New(t)
	raw := config(1, fmt.Sprintf(`"extra_config": {"x": %q},`, noise))
	rev, err := open(t, s, nil).CreateRevision(t.Context(), def, api.NewRevision{Config: raw})
	if err != nil {
		t.Fatal(err)
	}
	if kvs, err := s.List(t.Context(), "rollout/blobs/"); err != nil || len(kvs) < 3 {
		t.Errorf("chunks: %d, %v; want 3 or more", len(kvs), err)
	}
	_, got, err := open(t, s, nil).Revision(t.Context(), def, rev.Number)
	if err != nil || !bytes.Equal(got, raw) {
		t.Errorf("Revision: %d bytes, %v; want the %d pushed", len(got), err, len(raw))
	}
}

func TestHistoryIsBounded(t *testing.T) {
	s := statetest.Memory(t)
	b := open(t, s, nil, func(o *rollout.Options) { o.KeepRevisions = 3 })
	b.push(t, def, 1)
	b.start(t, def, 1)
	for i := 2; i <= 6; i++ {
		b.push(t, def, i)
	}
	revs, _ := b.Revisions(t.Context(), def)
	var got []binnacle.Revision
	for _, r := range revs {
		got = append(got, r.Number)
	}
	if fmt.Sprint(got) != "[1 5 6]" {
		t.Errorf("kept revisions: %v; want 1, which is desired, 5 and 6", got)
	}
	if kvs, _ := s.List(t.Context(), "rollout/blobs/"); len(kvs) != 3 {
		t.Errorf("kept blobs: %d; want 3", len(kvs))
	}
	if rev := b.push(t, def, 2); rev.Number != 7 {
		t.Errorf("bytes that were dropped: got number %d; want 7", rev.Number)
	}
}

func TestDryBuild(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("SECRET_OF_THE_MANAGER", "x")
	b := open(t, statetest.Memory(t), nil, func(o *rollout.Options) { o.GatewayBinary = self })
	try := func(what, rest string) (api.CreatedRevision, string) {
		rev, err := b.CreateRevision(t.Context(), def, api.NewRevision{Config: config(1, fmt.Sprintf(`%s "test": %q,`, rest, what))})
		var p *api.Problem
		if errors.As(err, &p) {
			var out []string
			for _, f := range p.Faults {
				out = append(out, fmt.Sprintf("%s %d %s", f.Stage, f.Line, f.Message))
			}
			return rev, strings.Join(out, "\n")
		} else if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		return rev, ""
	}
	if rev, faults := try("good", ""); faults != "" || rev.Number != 1 || len(rev.Warnings) != 0 {
		t.Errorf("good: %+v, %s", rev, faults)
	}
	if rev, faults := try("warn", ""); faults != "" || len(rev.Warnings) != 1 {
		t.Errorf("warn: %+v, %s", rev, faults)
	}
	if _, faults := try("faults", ""); faults != "build 0 one\nbuild 0 two" { // that endpoint is none
		t.Errorf("faults: %s", faults)
	}
	if _, faults := try("panic", ""); !strings.Contains(faults, "exit status 2") {
		t.Errorf("panic: %s", faults)
	}
	if _, faults := try("env", `"port": 99,`); strings.Contains(faults, "SECRET") || !strings.Contains(faults, "GOMEMLIMIT") || !strings.Contains(faults, "<nil>") {
		t.Errorf("what the build sees: %s; want neither the manager's environment nor the node's port", faults)
	}
	if runtime.GOOS == "linux" {
		if _, faults := try("memory", ""); !strings.Contains(faults, "the build ended with") {
			t.Errorf("memory: %.200s", faults)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	start := time.Now()
	_, err = b.CreateRevision(ctx, def, api.NewRevision{Config: config(1, `"test": "sleep",`)})
	if err == nil || time.Since(start) > 5*time.Second {
		t.Errorf("a canceled build: %v after %v", err, time.Since(start))
	}
}

func TestRolloutCompletes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := open(t, statetest.Memory(t), nil)
		b.fleet.set(def, "n2", "n1", "n3")
		b.run(t)
		if p := b.Plan("n1", def); p.Revision != nil || p.Epoch != 1 || p.Serial == 0 || p.Telemetry.Interval != 10 {
			t.Errorf("plan before any revision: %+v", p)
		}
		rev := b.push(t, def, 1)
		r := b.start(t, def, 1)
		if r.State != api.RolloutRunning || fmt.Sprint(r.Pending) != "[n1 n2 n3]" || r.From != 0 || r.To != 1 || r.ID != "r1" {
			t.Errorf("started: %+v", r)
		}
		p := b.Plan("n1", def)
		if p.Revision == nil || p.Revision.SHA256 != rev.SHA256 {
			t.Fatalf("plan: %+v; want revision 1", p)
		}
		if err := api.VerifyRevision(clusterKey.Public().(ed25519.PublicKey), clusterID, def, *p.Revision); err != nil {
			t.Error(err)
		}
		b.apply(t, "n1", def)
		b.refuse(t, "n2", def, "address in use")
		b.apply(t, "n9", def) // came later: nobody waits for it
		time.Sleep(time.Second)
		r = b.rollout(t, "r1")
		if r.State != api.RolloutRunning || fmt.Sprint(r.Confirmed, r.Pending, r.Refused) != "[n1] [n3] map[n2:address in use]" {
			t.Errorf("under way: %+v", r)
		}
		b.apply(t, "n2", def) // tried again
		b.apply(t, "n3", def)
		time.Sleep(time.Second)
		r = b.rollout(t, "r1")
		if r.State != api.RolloutCompleted || len(r.Pending)+len(r.Refused) != 0 || r.Ended.IsZero() {
			t.Errorf("at the end: %+v; want completed", r)
		}
		if got, want := b.kinds(t, "rollout."), "rollout.started rollout.node_refused rollout.completed"; got != want {
			t.Errorf("events: got %s; want %s", got, want)
		}
		l := b.Ledger("n1")
		if l == nil || l.Desired == nil || l.Desired.Number != 1 || l.Applied.SHA256 != rev.SHA256 {
			t.Errorf("ledger: %+v", l)
		}
		if again := b.start(t, def, 1); again.ID == "r1" {
			t.Error("a new rollout of the same revision has the old id")
		}
		time.Sleep(time.Second)
		if r := b.rollout(t, "r2"); r.State != api.RolloutCompleted {
			t.Errorf("rollout to what all run: %+v; want completed", r)
		}
	})
}

func TestRolloutFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := open(t, statetest.Memory(t), nil)
		b.fleet.set(def, "n1", "n2")
		b.run(t)
		for i := 1; i <= 2; i++ {
			b.push(t, def, i)
		}
		b.start(t, def, 1)
		b.apply(t, "n1", def)
		b.apply(t, "n2", def)
		time.Sleep(time.Second)
		b.start(t, def, 2)
		b.apply(t, "n1", def)
		b.refuse(t, "n2", def, "no such plugin")
		time.Sleep(time.Second)
		if r := b.rollout(t, "r2"); r.State != api.RolloutFailed || !strings.Contains(r.Reason, "no such plugin") {
			t.Errorf("got %+v; want failed with the reason", r)
		}

		// The same revision again: the old failure is no answer.
		b.start(t, def, 2)
		time.Sleep(2 * time.Second)
		if r := b.rollout(t, "r3"); r.State != api.RolloutRunning || fmt.Sprint(r.Pending) != "[n2]" {
			t.Errorf("second try: %+v; want n2 pending", r)
		}
		if r, err := b.Rollback(t.Context(), def, "bob"); err != nil || r.To != 1 {
			t.Errorf("Rollback: %+v, %v; want to 1", r, err)
		}
		if r := b.rollout(t, "r3"); r.State != api.RolloutSuperseded {
			t.Errorf("after the rollback: %+v; want superseded", r)
		}
		b.apply(t, "n1", def)
		time.Sleep(time.Second)
		if r := b.rollout(t, "r4"); r.State != api.RolloutCompleted || len(r.Confirmed) != 2 {
			t.Errorf("rollback: %+v; want completed by both, n2 never left", r)
		}
		if _, err := b.Rollback(t.Context(), def, "bob"); status(err) != 409 {
			t.Errorf("a rollback from the first revision: %v; want 409", err)
		}
	})
}

func TestRolloutGoesOnWithoutTheDead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := open(t, statetest.Memory(t), nil)
		b.fleet.set(def, "n1", "n2", "n3")
		b.run(t)
		b.push(t, def, 1)
		b.start(t, def, 1)
		b.apply(t, "n1", def)
		b.fleet.set(def, "n1")
		if err := b.Forget("n3"); err != nil {
			t.Error(err)
		}
		time.Sleep(50 * time.Second)
		if r := b.rollout(t, "r1"); r.State != api.RolloutRunning || fmt.Sprint(r.Pending) != "[n2]" {
			t.Errorf("soon after a death: %+v; want running, n2 pending", r)
		}
		time.Sleep(15 * time.Second)
		if r := b.rollout(t, "r1"); r.State != api.RolloutCompleted || !strings.Contains(r.Reason, "away") || fmt.Sprint(r.Pending) != "[n2]" {
			t.Errorf("a minute after: %+v; want completed with n2 away", r)
		}
	})
}

func TestAbort(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := open(t, statetest.Memory(t), nil)
		b.fleet.set(def, "n1")
		b.run(t)
		first := b.push(t, def, 1)
		b.push(t, def, 2)
		b.start(t, def, 1)
		b.apply(t, "n1", def)
		time.Sleep(time.Second)
		b.start(t, def, 2)
		r, err := b.Abort(t.Context(), "r2", "bob")
		if err != nil || r.State != api.RolloutAborted || !strings.Contains(r.Reason, "bob") {
			t.Errorf("Abort: %+v, %v", r, err)
		}
		if p := b.Plan("n1", def); p.Revision.SHA256 != first.SHA256 {
			t.Errorf("plan after the abort: %+v; want revision 1", p.Revision)
		}
		if _, err := b.Abort(t.Context(), "r2", "bob"); status(err) != 409 {
			t.Errorf("Abort twice: %v; want 409", err)
		}
		for _, id := range []string{"r9", "", "r", "r02", "x"} {
			if _, err := b.Abort(t.Context(), id, "bob"); status(err) != 404 {
				t.Errorf("Abort of %q: %v; want 404", id, err)
			}
		}
	})
}

func TestStartRefusals(t *testing.T) {
	b := open(t, statetest.Memory(t), nil)
	b.push(t, def, 1)
	f := func(r api.NewRollout, want int) {
		t.Helper()
		if _, err := b.StartRollout(t.Context(), def, r, "ann"); status(err) != want {
			t.Errorf("StartRollout(%+v): %v; want %d", r, err, want)
		}
	}
	f(api.NewRollout{Revision: 1, Strategy: "steps", Steps: []api.NewStep{{}}}, 422)
	f(api.NewRollout{Revision: 1, Strategy: "magic"}, 422)
	f(api.NewRollout{Revision: 2, Strategy: "all"}, 404)
	f(api.NewRollout{Strategy: "all"}, 404)
	if _, err := b.Rollback(t.Context(), def, "ann"); status(err) != 409 {
		t.Errorf("Rollback of nothing: %v; want 409", err)
	}
}

// TestRestartOfTheManager ends the manager in the middle of a rollout, by Stop
// or by a crash.
func TestRestartOfTheManager(t *testing.T) {
	for _, clean := range []bool{true, false} {
		t.Run(fmt.Sprintf("clean=%t", clean), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := statetest.Memory(t)
				b := open(t, s, nil)
				f := b.fleet
				f.set(def, "n1", "n2")
				stop := b.run(t)
				b.push(t, def, 1)
				b.start(t, def, 1)
				b.apply(t, "n1", def)
				if _, err := b.Restart(t.Context(), "n2", "ann"); err != nil {
					t.Fatal(err)
				}
				if err := b.Drain(t.Context(), "n2", true, "ann"); err != nil {
					t.Fatal(err)
				}
				if !clean {
					time.Sleep(2 * time.Second) // what was settled is kept
				}
				stop()
				before := map[binnacle.NodeID]api.Plan{"n1": b.Plan("n1", def), "n2": b.Plan("n2", def)}

				b = open(t, s, f)
				for id, want := range before {
					if got := b.Plan(id, def); got.ETag() != want.ETag() {
						t.Errorf("plan of %s: got %+v; want %+v as before", id, got, want)
					}
				}
				if r := b.rollout(t, "r1"); fmt.Sprint(r.Confirmed, r.Pending) != "[n1] [n2]" {
					t.Errorf("rollout: %+v; want n1 confirmed and n2 pending", r)
				}
				if l := b.Ledger("n1"); l == nil || l.Applied == nil {
					t.Errorf("ledger of n1: %+v; want it kept", l)
				}
				b.run(t)
				b.apply(t, "n2", def)
				time.Sleep(time.Second)
				if r := b.rollout(t, "r1"); r.State != api.RolloutCompleted {
					t.Errorf("rollout: %+v; want completed", r)
				}
			})
		})
	}
}

func TestOrders(t *testing.T) {
	b := open(t, statetest.Memory(t), nil)
	ctx := t.Context()
	p0 := b.Plan("n1", def)
	if err := b.Drain(ctx, "n1", true, "ann"); err != nil {
		t.Fatal(err)
	}
	p1 := b.Plan("n1", def)
	if !p1.Drain || !p1.Newer(p0) || !b.Draining("n1") {
		t.Errorf("drained: %+v after %+v", p1, p0)
	}
	if err := b.Drain(ctx, "n1", true, "ann"); err != nil || b.Plan("n1", def).ETag() != p1.ETag() {
		t.Errorf("drained twice: the plan changed, %v", err)
	}
	if other := b.Plan("n2", def); other.Drain || other.Serial != p0.Serial {
		t.Errorf("another node: %+v; want it untouched", other)
	}
	id, err := b.Restart(ctx, "n1", "ann")
	if err != nil {
		t.Fatal(err)
	}
	p2 := b.Plan("n1", def)
	if p2.Restart == nil || p2.Restart.ID != id || !p2.Drain || !p2.Newer(p1) {
		t.Errorf("restart: %+v; want order %s", p2, id)
	}
	for range 2 {
		if err := b.Report(ctx, "n1", def, api.Status{RestartDone: id}); err != nil {
			t.Fatal(err)
		}
	}
	if err := b.Drain(ctx, "n1", false, "ann"); err != nil || b.Draining("n1") {
		t.Errorf("undrained: %v", err)
	}
	if got, want := b.kinds(t, ""), "node.drained node.restart_ordered node.restarted node.undrained"; got != want {
		t.Errorf("events: got %s; want %s", got, want)
	}
	if err := b.Report(ctx, "n1", def, api.Status{RestartDone: strings.Repeat("x", 99)}); status(err) != 422 {
		t.Errorf("a long restart_done: %v; want 422", err)
	}
	long := &api.LedgerEntry{Error: strings.Repeat("ä", 5000)}
	if err := b.Report(ctx, "n1", def, api.Status{Attempted: long}); err != nil {
		t.Fatal(err)
	}
	if got := len(b.Ledger("n1").Attempted.Error); got > 2100 {
		t.Errorf("a long error: %d bytes are kept", got)
	}
}

// TestSerialsRise moves a node between groups, changes the gossip plan, rolls
// back: every change of a plan has a higher serial, also over a restart.
func TestSerialsRise(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := statetest.Memory(t)
		b := open(t, s, nil)
		f := b.fleet
		stop := b.run(t)
		b.push(t, "old", 1)
		b.start(t, "old", 1)
		b.push(t, def, 1)
		b.push(t, def, 2)
		last := b.Plan("n1", def)
		check := func(what string, g binnacle.Group) {
			t.Helper()
			p := b.Plan("n1", g)
			if p.ETag() == last.ETag() || !p.Newer(last) {
				t.Errorf("%s: serial %d after %d", what, p.Serial, last.Serial)
			}
			last = p
		}
		b.start(t, def, 2)
		check("a rollout", def)
		b.start(t, def, 1)
		check("a rollout backwards", def)
		check("a move to a group that rested", "old")
		time.Sleep(2 * time.Second)
		stop()
		b = open(t, s, f)
		if p := b.Plan("n1", "old"); p.ETag() != last.ETag() {
			t.Errorf("after a restart: %+v; want %+v", p, last)
		}
		stop = b.run(t)
		f.mu.Lock()
		f.gossip = api.GossipPlan{Keys: []api.GossipKey{{ID: "k", Key: []byte("x")}}, Seeds: []string{"10.0.0.1:9898"}}
		f.mu.Unlock()
		b.GossipChanged()
		synctest.Wait()
		check("a gossip key", "old")
		b.GossipChanged()
		synctest.Wait()
		if p := b.Plan("n1", "old"); p.ETag() != last.ETag() {
			t.Error("a gossip plan that is the same changed the plan")
		}
		stop()
		f.mu.Lock()
		f.gossip = api.GossipPlan{}
		f.mu.Unlock()
		b = open(t, s, f)
		check("a gossip plan that changed while the manager was away", "old")
	})
}

// Wait watches until the plan has another ETag, as the manager does for a poll.
func (b *bench) Wait(ctx context.Context, id binnacle.NodeID, g binnacle.Group, etag string) (api.Plan, error) {
	woken := make(chan struct{}, 1)
	w := b.WatchPlan(id, g, func() {
		select {
		case woken <- struct{}{}:
		default:
		}
	})
	defer w.Stop()
	for {
		if now, err := w.ETag(); err != nil {
			return api.Plan{}, err
		} else if now != etag {
			return b.Plan(id, g), nil
		}
		select {
		case <-woken:
		case <-ctx.Done():
			return api.Plan{}, ctx.Err()
		}
	}
}

func TestWatchPlan(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := open(t, statetest.Memory(t), nil)
		b.run(t)
		b.push(t, def, 1)
		p, err := b.Wait(t.Context(), "n1", def, "")
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()
		start := time.Now()
		if _, err := b.Wait(ctx, "n1", def, p.ETag()); !errors.Is(err, context.DeadlineExceeded) || time.Since(start) != 30*time.Second {
			t.Errorf("Wait for nothing: %v after %v", err, time.Since(start))
		}

		type result struct {
			plan api.Plan
			err  error
		}
		wait := func(id binnacle.NodeID) <-chan result {
			etag := b.Plan(id, def).ETag()
			ch := make(chan result, 1)
			go func() {
				p, err := b.Wait(context.Background(), id, def, etag)
				ch <- result{p, err}
			}()
			synctest.Wait()
			return ch
		}
		const nodes = 1000
		chs := make([]<-chan result, nodes)
		for i := range chs {
			chs[i] = wait(binnacle.NodeID(fmt.Sprint("n", i)))
		}
		b.start(t, def, 1)
		for i, ch := range chs {
			if r := <-ch; r.err != nil || r.plan.Revision == nil {
				t.Fatalf("waiter %d: %+v", i, r)
			}
		}
		one, other := wait("n1"), wait("n2")
		if err := b.Drain(t.Context(), "n1", true, "ann"); err != nil {
			t.Fatal(err)
		}
		if r := <-one; r.err != nil || !r.plan.Drain {
			t.Errorf("an order woke: %+v", r)
		}
		synctest.Wait()
		select {
		case r := <-other:
			t.Errorf("an order to n1 woke n2: %+v", r)
		default:
		}
		if err := b.Forget("n2"); err != nil {
			t.Fatal(err)
		}
		if r := <-other; !errors.Is(r.err, rollout.ErrForgotten) {
			t.Errorf("forgotten: %+v; want ErrForgotten", r)
		}
		if l := b.Ledger("n2"); l != nil {
			t.Errorf("ledger of a forgotten node: %+v", l)
		}
	})
}

// BenchmarkWake publishes a revision to 10,000 waiting polls.
func BenchmarkWake(b *testing.B) {
	svc := open(b, statetest.Memory(b), nil)
	svc.push(b, def, 1)
	svc.push(b, def, 2)
	const nodes = 10_000
	var got sync.WaitGroup
	for i := 0; b.Loop(); i++ {
		b.StopTimer()
		got.Add(nodes)
		var ready sync.WaitGroup
		ready.Add(nodes)
		for n := range nodes {
			go func() {
				defer got.Done()
				id := binnacle.NodeID(fmt.Sprint("n", n))
				etag := svc.Plan(id, def).ETag()
				ready.Done()
				if _, err := svc.Wait(b.Context(), id, def, etag); err != nil {
					b.Error(err)
				}
			}()
		}
		ready.Wait()
		b.StartTimer()
		svc.start(b, def, binnacle.Revision(i%2+1))
		got.Wait()
	}
}
