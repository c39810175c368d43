package membership

import (
	"context"
	"crypto/ed25519"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/binnacle-project/binnacle"
	"github.com/binnacle-project/binnacle/api"
	"github.com/binnacle-project/binnacle/events"
	"github.com/binnacle-project/binnacle/membership/gossip"
	"github.com/binnacle-project/binnacle/membership/pki"
	"github.com/binnacle-project/binnacle/state"
	"github.com/binnacle-project/binnacle/state/statetest"
)

var testPeer = netip.MustParseAddr("10.0.0.7")

// eventList keeps events in memory.
type eventList struct {
	mu   sync.Mutex
	list []api.Event
}

func (l *eventList) Append(_ context.Context, e api.Event) (api.Event, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.list = append(l.list, e)
	return e, nil
}

// take returns the kinds of events since the last call.
func (l *eventList) take() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	var kinds []string
	for _, e := range l.list {
		kinds = append(kinds, e.Kind)
	}
	l.list = nil
	return kinds
}

// seats admits up to a number.
type seats int

func (s seats) Admit(held int) error {
	if held >= int(s) {
		return &api.Problem{Title: "The cluster is full", Status: 403, Detail: api.SeatsMessage}
	}
	return nil
}

// cluster is a registry with what it needs and a join token.
type cluster struct {
	t         testing.TB
	store     *state.Store
	authority *pki.Authority
	tokens    *Tokens
	events    *eventList
	reg       *Registry
	token     JoinToken
	stop      func()
}

func newCluster(t testing.TB, store *state.Store, change func(*RegistryOptions)) *cluster {
	t.Helper()
	c := &cluster{t: t, store: store, authority: newAuthority(t), events: &eventList{}}
	c.tokens = newTokens(t, store, c.authority)
	c.token = c.newToken(api.NewToken{Kind: KindJoin})
	c.start(change)
	return c
}

// start opens the registry as a manager's start does, and runs it.
func (c *cluster) start(change func(*RegistryOptions)) {
	c.t.Helper()
	o := RegistryOptions{Store: c.store, Authority: c.authority, Tokens: c.tokens, Events: c.events, Log: slog.New(slog.NewTextHandler(c.t.Output(), nil))}
	if change != nil {
		change(&o)
	}
	reg, err := OpenRegistry(c.t.Context(), o)
	if err != nil {
		c.t.Fatalf("OpenRegistry: %v", err)
	}
	ctx, cancel := context.WithCancel(c.t.Context())
	done := make(chan error, 1)
	go func() { done <- reg.Run(ctx) }()
	c.reg = reg
	c.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			c.t.Errorf("Run: %v", err)
		}
	})
	c.t.Cleanup(c.stop)
}

func (c *cluster) newToken(n api.NewToken) JoinToken {
	c.t.Helper()
	made, err := c.tokens.Create(c.t.Context(), n)
	if err != nil {
		c.t.Fatal(err)
	}
	jt, err := ParseJoinToken(made.Secret)
	if err != nil {
		c.t.Fatal(err)
	}
	return jt
}

// request makes an enrollment for key with the cluster's token.
func (c *cluster) request(key ed25519.PrivateKey, name string) api.EnrollRequest {
	c.t.Helper()
	csr, err := pki.NewCSR(key)
	if err != nil {
		c.t.Fatal(err)
	}
	return api.EnrollRequest{
		TokenID: c.token.ID, Secret: c.token.Secret, CSR: string(csr), Name: name,
		Address: ":8080", GossipAddress: "0.0.0.0:9898", Version: "0.1.0",
	}
}

// enroll makes a new key a member, and has it report that it serves.
func (c *cluster) enroll(name string) (Record, *tls.ConnectionState) {
	c.t.Helper()
	key, err := pki.NewNodeKey()
	if err != nil {
		c.t.Fatal(err)
	}
	rec, certPEM, err := c.reg.Enroll(c.t.Context(), c.request(key, name), testPeer)
	if err != nil {
		c.t.Fatalf("Enroll(%s): %v", name, err)
	}
	c.report(rec.ID, func(*api.Status) {})
	return rec, connection(c.t, certPEM, key)
}

func connection(t testing.TB, certPEM []byte, key ed25519.PrivateKey) *tls.ConnectionState {
	t.Helper()
	cert, err := pki.NodeCertificate(certPEM, key)
	if err != nil {
		t.Fatal(err)
	}
	return &tls.ConnectionState{PeerCertificates: []*x509.Certificate{cert.Leaf}}
}

func (c *cluster) report(id binnacle.NodeID, change func(*api.Status)) {
	c.t.Helper()
	st := api.Status{Version: "0.1.0", Address: "10.0.0.7:8080", Serving: true}
	change(&st)
	if err := c.reg.Reported(c.t.Context(), id, st); err != nil {
		c.t.Fatalf("Reported(%s): %v", id, err)
	}
}

func (c *cluster) want(id binnacle.NodeID, want api.NodeState) {
	c.t.Helper()
	n, ok := c.reg.Get(id, time.Now())
	if !ok || n.State != want {
		c.t.Errorf("node %s is %s (%s), known %v; want %s", n.Name, n.State, n.StateCause, ok, want)
	}
}

func (c *cluster) ready(want ...string) {
	c.t.Helper()
	var names []string
	for _, n := range c.reg.Ready(time.Now()) {
		names = append(names, n.Name)
	}
	if !slices.Equal(names, want) {
		c.t.Errorf("ready are %v; want %v", names, want)
	}
}

func (c *cluster) told(want ...string) {
	c.t.Helper()
	time.Sleep(1010 * time.Millisecond) // virtual: lets Run note what happened
	if got := c.events.take(); !slices.Equal(got, want) {
		c.t.Errorf("told %v; want %v", got, want)
	}
}

// A node's life over virtual time: it polls, is killed, comes back, stops.
func TestLifeOfANode(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, statetest.Memory(t), nil)
		rec, _ := c.enroll("gw-1")
		if n, _ := c.reg.Get(rec.ID, time.Now()); n.Address != "10.0.0.7:8080" || !n.Managed || n.Group != binnacle.DefaultGroup {
			t.Errorf("enrolled as %+v", n)
		}
		end := c.reg.Polling(rec.ID, testPeer, nil)
		c.told(events.NodeEnrolled, events.NodeJoined)
		for range 20 { // ten minutes of long polls
			time.Sleep(30 * time.Second)
			end(false)
			end = c.reg.Polling(rec.ID, testPeer, nil)
			c.want(rec.ID, api.Alive)
		}
		c.ready("gw-1")

		// kill -9: the connection breaks.
		end(false)
		c.reg.Polling(rec.ID, testPeer, nil)(true)
		c.want(rec.ID, api.Alive)
		time.Sleep(1500 * time.Millisecond)
		c.want(rec.ID, api.Suspect)
		c.ready()
		time.Sleep(4 * time.Second)
		c.want(rec.ID, api.Unreachable)
		c.told(events.NodeSuspect, events.NodeUnreachable)
		time.Sleep(5*time.Minute - 4*time.Second)
		c.want(rec.ID, api.Unreachable)
		time.Sleep(4 * time.Second)
		c.want(rec.ID, api.Down)
		c.told(events.NodeDown)
		if held := c.reg.HeldSeats(time.Now()); held != 1 {
			t.Errorf("down: %d seats held; want 1 for ten minutes", held)
		}
		time.Sleep(10 * time.Minute)
		if held := c.reg.HeldSeats(time.Now()); held != 0 {
			t.Errorf("down for long: %d seats held; want 0", held)
		}

		// It comes back with its identity, serving at once.
		end = c.reg.Polling(rec.ID, testPeer, nil)
		c.want(rec.ID, api.Alive)
		c.ready("gw-1")
		c.told(events.NodeAlive)

		// A clean stop: left at once, whatever its connections do.
		end(false)
		end = c.reg.Polling(rec.ID, testPeer, nil)
		c.report(rec.ID, func(s *api.Status) { s.Leaving, s.Serving = true, false })
		end(true)
		c.want(rec.ID, api.Left)
		c.ready()
		c.told(events.NodeLeft)
		c.reg.Polled(rec.ID, testPeer) // the last poll, asked again
		c.want(rec.ID, api.Left)
		time.Sleep(time.Hour)
		c.want(rec.ID, api.Left)
		c.reg.Polled(rec.ID, testPeer)
		c.want(rec.ID, api.Alive)
		c.told(events.NodeJoined)

		// Started again at once: its first status says so.
		c.report(rec.ID, func(s *api.Status) { s.Leaving = true })
		c.reg.Polled(rec.ID, testPeer)
		c.want(rec.ID, api.Left)
		c.report(rec.ID, func(*api.Status) {})
		c.want(rec.ID, api.Alive)
	})
}

// Gossip is a hint: fast, and not believed against polls.
func TestGossipIsAHint(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, statetest.Memory(t), nil)
		rec, _ := c.enroll("gw-1")
		hint := func(k gossip.Kind) {
			c.reg.SetGossip(gossip.Event{Kind: k, Member: gossip.Member{ID: rec.ID}, At: time.Now(), Cause: "a test"})
		}
		c.reg.Polled(rec.ID, testPeer)
		c.told(events.NodeEnrolled, events.NodeJoined)

		hint(gossip.Suspect)
		c.want(rec.ID, api.Suspect)
		c.ready("gw-1")
		doubted := false
		end := c.reg.Polling(rec.ID, testPeer, func() { doubted = true })
		time.Sleep(time.Second)
		hint(gossip.Dead)
		if !doubted {
			t.Error("gossip says dead: the held poll is not ended, for the node to deny it")
		}
		end(false)
		c.want(rec.ID, api.Suspect)
		c.ready("gw-1")
		time.Sleep(DefaultPeriods().GossipLost)
		c.want(rec.ID, api.Unreachable) // the answer to its poll proved nothing
		c.ready()
		c.told(events.NodeSuspect, events.NodeUnreachable)
		time.Sleep(10 * time.Second)
		c.reg.Polled(rec.ID, testPeer) // it lives
		c.want(rec.ID, api.Alive)
		c.told(events.NodeAlive)
		// Gossip goes on being wrong, and nothing comes of it but a condition.
		for range 10 {
			time.Sleep(20 * time.Second)
			hint(gossip.Dead)
			c.want(rec.ID, api.Alive)
			c.reg.Polled(rec.ID, testPeer)
		}
		n, _ := c.reg.Get(rec.ID, time.Now())
		if len(n.Conditions) != 1 || n.Conditions[0].Kind != api.CondGossipConflict {
			t.Errorf("conditions: got %+v; want %s", n.Conditions, api.CondGossipConflict)
		}
		c.told()
		// Without polls, its word does not save the node.
		hint(gossip.Alive)
		time.Sleep(46 * time.Second)
		c.want(rec.ID, api.Unreachable)

		// Members that are no nodes are passed over.
		c.reg.SetGossip(gossip.Event{Kind: gossip.Dead, Member: gossip.Member{ID: "m-0123456789ab"}, At: time.Now()})
	})
}

// A node that gossip cannot reach, behind a NAT, is asked when gossip calls it dead,
// and never taken for lost.
func TestNodeThatGossipCannotReach(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, statetest.Memory(t), nil)
		rec, _ := c.enroll("gw-1")
		c.reg.Polled(rec.ID, testPeer)
		c.told(events.NodeEnrolled, events.NodeJoined)
		doubted := make(chan struct{})
		end := c.reg.Polling(rec.ID, testPeer, func() { close(doubted) })
		time.Sleep(10 * time.Second)
		c.reg.SetGossip(gossip.Event{Kind: gossip.Dead, Member: gossip.Member{ID: rec.ID}, At: time.Now()})
		<-doubted
		end(false)
		time.Sleep(time.Second) // as a node that asks again
		c.reg.Polled(rec.ID, testPeer)
		c.want(rec.ID, api.Alive)
		time.Sleep(20 * time.Second)
		c.want(rec.ID, api.Alive)
		n, _ := c.reg.Get(rec.ID, time.Now())
		if len(n.Conditions) != 1 || n.Conditions[0].Kind != api.CondGossipConflict {
			t.Errorf("conditions: got %+v; want %s", n.Conditions, api.CondGossipConflict)
		}
		c.ready("gw-1")
		c.told(events.NodeSuspect, events.NodeAlive)
	})
}

func TestFlappingIsDamped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, statetest.Memory(t), nil)
		rec, _ := c.enroll("gw-1")
		c.reg.Polled(rec.ID, testPeer)
		c.told(events.NodeEnrolled, events.NodeJoined)
		flap := func() {
			c.reg.Polling(rec.ID, testPeer, nil)(true)
			time.Sleep(10 * time.Second)
			c.reg.Polled(rec.ID, testPeer)
			time.Sleep(10 * time.Second)
		}
		flap()
		flap()
		c.told(events.NodeSuspect, events.NodeUnreachable, events.NodeAlive, events.NodeSuspect, events.NodeUnreachable, events.NodeAlive)
		flap()
		c.told(events.NodeSuspect, events.NodeFlapping)
		flap()
		c.told()
		n, _ := c.reg.Get(rec.ID, time.Now())
		if n.State != api.Alive || len(n.Conditions) != 1 || n.Conditions[0].Kind != api.CondFlapping {
			t.Errorf("got %s with %+v; want alive and flapping", n.State, n.Conditions)
		}
		time.Sleep(30 * time.Second)
		for range 30 {
			c.reg.Polled(rec.ID, testPeer)
			time.Sleep(30 * time.Second)
		}
		if n, _ := c.reg.Get(rec.ID, time.Now()); len(n.Conditions) != 0 {
			t.Errorf("steady for a quarter of an hour: got %+v; want no condition", n.Conditions)
		}
	})
}

// A manager's restart forgets nobody: who served is ready, who left stays left.
func TestManagerRestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, statetest.Memory(t), nil)
		alive, conn := c.enroll("gw-alive")
		left, _ := c.enroll("gw-left")
		down, _ := c.enroll("gw-down")
		for _, r := range []Record{alive, left, down} {
			c.reg.Polled(r.ID, testPeer)
		}
		c.report(left.ID, func(s *api.Status) { s.Leaving = true })
		for range 20 {
			time.Sleep(30 * time.Second)
			c.reg.Polled(alive.ID, testPeer)
		}
		c.want(down.ID, api.Down)
		time.Sleep(time.Second)
		c.stop()
		c.events.take()

		time.Sleep(3 * time.Hour) // without a manager
		c.start(nil)
		c.want(alive.ID, api.Alive)
		c.want(left.ID, api.Left)
		c.want(down.ID, api.Down)
		c.ready("gw-alive")
		c.told()
		if rec, err := c.reg.Authenticate(conn, false); err != nil || rec.ID != alive.ID {
			t.Errorf("Authenticate: got %s, %v; want %s", rec.ID, err, alive.ID)
		}
		time.Sleep(time.Minute)
		c.want(alive.ID, api.Unreachable)
		c.told(events.NodeUnreachable)
		c.reg.Polled(alive.ID, testPeer)
		c.reg.Polled(down.ID, testPeer)
		c.told(events.NodeAlive, events.NodeAlive)
	})
}

func TestEnrollRefusals(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := t.Context()
		c := newCluster(t, statetest.Memory(t), func(o *RegistryOptions) { o.Seats = seats(4) })
		edge := c.newToken(api.NewToken{Kind: KindJoin, Group: "edge"})
		once := c.newToken(api.NewToken{Kind: KindJoin, UsesMax: 1})
		enroll := func(change func(*api.EnrollRequest)) (Record, error) {
			key, err := pki.NewNodeKey()
			if err != nil {
				t.Fatal(err)
			}
			q := c.request(key, "")
			change(&q)
			rec, _, err := c.reg.Enroll(ctx, q, testPeer)
			return rec, err
		}
		with := func(jt JoinToken) func(*api.EnrollRequest) {
			return func(q *api.EnrollRequest) { q.TokenID, q.Secret = jt.ID, jt.Secret }
		}

		for name, change := range map[string]func(*api.EnrollRequest){
			"name":    func(q *api.EnrollRequest) { q.Name = "Not A Name" },
			"group":   func(q *api.EnrollRequest) { q.Group = "../x" },
			"csr":     func(q *api.EnrollRequest) { q.CSR = "x" },
			"address": func(q *api.EnrollRequest) { q.Address = "10.0.0.7" },
			"port":    func(q *api.EnrollRequest) { q.Address = "10.0.0.7:0" },
			"host":    func(q *api.EnrollRequest) { q.Address = "<script>:80" },
			"gossip":  func(q *api.EnrollRequest) { q.GossipAddress = "x" },
			"label":   func(q *api.EnrollRequest) { q.Labels = map[string]string{"": "x"} },
		} {
			_, err := enroll(change)
			if p := wantProblem(t, err, 400); !strings.Contains(p.Detail, name) {
				t.Errorf("a bad %s: %q does not name it", name, p.Detail)
			}
		}
		_, err := enroll(func(q *api.EnrollRequest) { q.Secret = "wrong" })
		wantProblem(t, err, 401)
		_, err = enroll(func(q *api.EnrollRequest) { q.TokenID = "j-none" })
		wantProblem(t, err, 401)
		// One event for each kind of refusal, however many there were.
		if kinds := c.events.take(); !slices.Equal(kinds, []string{events.NodeRefused, events.NodeRefused, events.NodeRefused}) {
			t.Errorf("told %v; want three refusals", kinds)
		}
		// Ten failures in a row, and the peer has to wait; others do not.
		_, err = enroll(with(edge))
		wantProblem(t, err, 429)
		time.Sleep(time.Minute)

		rec, err := enroll(with(edge))
		if err != nil || rec.Group != "edge" {
			t.Errorf("token of group edge: got %s, %v", rec.Group, err)
		}
		_, err = enroll(func(q *api.EnrollRequest) { with(edge)(q); q.Group = "core" })
		wantProblem(t, err, 403)
		if _, err := enroll(with(once)); err != nil {
			t.Errorf("first use of a token for one: %v", err)
		}
		_, err = enroll(with(once))
		wantProblem(t, err, 401)

		// The third and fourth seat, and no fifth.
		third, err := enroll(func(*api.EnrollRequest) {})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := enroll(func(*api.EnrollRequest) {}); err != nil {
			t.Fatal(err)
		}
		_, err = enroll(func(*api.EnrollRequest) {})
		if p := wantProblem(t, err, 403); p.Detail != api.SeatsMessage {
			t.Errorf("a full cluster says %q; want %q", p.Detail, api.SeatsMessage)
		}
		// A seat is free ten minutes after its node left.
		for _, id := range c.reg.InGroup(binnacle.DefaultGroup) {
			c.reg.Polled(id, testPeer)
		}
		c.report(third.ID, func(s *api.Status) { s.Leaving = true })
		_, err = enroll(func(*api.EnrollRequest) {})
		wantProblem(t, err, 403)
		for range 20 {
			time.Sleep(30 * time.Second)
			for _, n := range c.reg.Nodes(time.Now()) {
				if n.ID != third.ID {
					c.reg.Polled(n.ID, testPeer)
				}
			}
		}
		time.Sleep(time.Second)
		if _, err := enroll(func(*api.EnrollRequest) {}); err != nil {
			t.Errorf("after seat_hold: %v", err)
		}
	})
}

// The same key gets the same id, and counts once.
func TestEnrollAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := t.Context()
		c := newCluster(t, statetest.Memory(t), func(o *RegistryOptions) { o.Seats = seats(1) })
		c.token = c.newToken(api.NewToken{Kind: KindJoin, UsesMax: 1})
		key, err := pki.NewNodeKey()
		if err != nil {
			t.Fatal(err)
		}
		first, _, err := c.reg.Enroll(ctx, c.request(key, "gw-1"), testPeer)
		if err != nil {
			t.Fatal(err)
		}
		again, certPEM, err := c.reg.Enroll(ctx, c.request(key, "gw-1"), netip.MustParseAddr("10.0.0.99"))
		if err != nil {
			t.Fatal(err)
		}
		if again.ID != first.ID || !again.Enrolled.Equal(first.Enrolled) || again.Name != "gw-1" || again.Address != "10.0.0.99:8080" {
			t.Errorf("again as %+v; want the identity of %+v at the new address", again, first)
		}
		if n := len(c.reg.Nodes(time.Now())); n != 1 {
			t.Errorf("%d nodes; want 1", n)
		}
		if list, _ := c.tokens.List(ctx); !slices.ContainsFunc(list, func(tk api.Token) bool { return tk.ID == c.token.ID && tk.Uses == 1 }) {
			t.Errorf("tokens: %+v; want one use", list)
		}

		conn := connection(t, certPEM, key)
		if err := c.reg.Revoke(ctx, first.ID, "alice"); err != nil {
			t.Fatal(err)
		}
		wantProblem(t, second(c.reg.Authenticate(conn, false)), 403)
		wantProblem(t, second(c.reg.Authenticate(conn, true)), 403)
		_, _, err = c.reg.Enroll(ctx, c.request(key, "gw-1"), testPeer)
		wantProblem(t, err, 403)
		if n := len(c.reg.Nodes(time.Now())); n != 0 || c.reg.HeldSeats(time.Now()) != 0 {
			t.Errorf("%d nodes and %d seats after a revocation; want none", n, c.reg.HeldSeats(time.Now()))
		}
		if !c.reg.IsNode(first.ID) {
			t.Error("a revoked id is free again; want it barred")
		}
		wantProblem(t, c.reg.Revoke(ctx, first.ID, "alice"), 404)
	})
}

func TestForget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := t.Context()
		c := newCluster(t, statetest.Memory(t), nil)
		key, err := pki.NewNodeKey()
		if err != nil {
			t.Fatal(err)
		}
		rec, certPEM, err := c.reg.Enroll(ctx, c.request(key, "gw-1"), testPeer)
		if err != nil {
			t.Fatal(err)
		}
		changed := c.reg.Changed()
		if err := c.reg.Forget(ctx, rec.ID, "alice"); err != nil {
			t.Fatal(err)
		}
		select {
		case <-changed:
		default:
			t.Error("nobody was told of the change")
		}
		wantProblem(t, second(c.reg.Authenticate(connection(t, certPEM, key), true)), 401)
		wantProblem(t, c.reg.Forget(ctx, rec.ID, "alice"), 404)
		wantProblem(t, c.reg.Reported(ctx, rec.ID, api.Status{Address: "a:1"}), 404)
		if kvs, err := c.store.List(ctx, "membership/"); err != nil || len(kvs) != 1 {
			t.Errorf("%d keys are left, %v; want the token's", len(kvs), err)
		}
		again, _, err := c.reg.Enroll(ctx, c.request(key, "gw-1"), testPeer)
		if err != nil || again.ID == rec.ID {
			t.Errorf("enrolled anew: got %s, %v; want an id other than %s", again.ID, err, rec.ID)
		}
	})
}

func TestNamesOfTheLivingDiffer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, statetest.Memory(t), nil)
		a, _ := c.enroll("gw")
		b, _ := c.enroll("gw")
		if a.Name != "gw" || b.Name != "gw-2" {
			t.Errorf("names %q and %q; want gw and gw-2", a.Name, b.Name)
		}
		c.report(a.ID, func(s *api.Status) { s.Leaving = true })
		if d, _ := c.enroll("gw"); d.Name != "gw" {
			t.Errorf("after gw left: %q; want gw", d.Name)
		}
		if n, _ := c.enroll(""); n.Name != string(n.ID) {
			t.Errorf("without a name: %q; want the id %s", n.Name, n.ID)
		}
	})
}

// Two managers over one state: what one writes, the other follows.
func TestRegistryFollowsOtherManagers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, statetest.Memory(t), nil)
		one := c.reg
		c.start(nil)
		rec, conn := c.enroll("gw-1")
		time.Sleep(2 * noteAtMost)
		if got, err := one.Authenticate(conn, false); err != nil || got.ID != rec.ID {
			t.Fatalf("the other manager: got %s, %v; want %s", got.ID, err, rec.ID)
		}
		if err := c.reg.Revoke(t.Context(), rec.ID, "alice"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * noteAtMost)
		wantProblem(t, second(one.Authenticate(conn, false)), 403)
	})
}

// A join token used by many at once lets exactly as many in as it says.
func TestEnrollRace(t *testing.T) {
	c := newCluster(t, statetest.New(t), func(o *RegistryOptions) { o.Seats = seats(8) })
	c.token = c.newToken(api.NewToken{Kind: KindJoin, UsesMax: 5})
	// A second registry stands for a second manager, whose lock is another.
	first := c.reg
	c.start(func(o *RegistryOptions) { o.Seats = seats(8) })
	var wg sync.WaitGroup
	var mu sync.Mutex
	in := 0
	for i := range 12 {
		wg.Go(func() {
			reg := []*Registry{first, c.reg}[i%2]
			key, err := pki.NewNodeKey()
			if err != nil {
				t.Error(err)
				return
			}
			_, _, err = reg.Enroll(t.Context(), c.request(key, fmt.Sprintf("gw-%d", i)), testPeer)
			var p *api.Problem
			if err != nil && !errors.As(err, &p) {
				t.Errorf("Enroll: %v", err)
			}
			if err == nil {
				mu.Lock()
				in++
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	if in != 5 {
		t.Errorf("%d nodes enrolled with a token for 5", in)
	}
}

func TestGossipAllow(t *testing.T) {
	c := newCluster(t, statetest.Memory(t), nil)
	rec, _ := c.enroll("gw-1")
	if err := c.reg.GossipAllow(rec.ID, rec.PublicKey); err != nil {
		t.Errorf("a member: %v", err)
	}
	if err := c.reg.GossipAllow(rec.ID, c.authority.PublicKey()); err == nil {
		t.Error("a member with another key was let in")
	}
	if err := c.reg.Forget(t.Context(), rec.ID, "alice"); err != nil {
		t.Fatal(err)
	}
	if err := c.reg.GossipAllow(rec.ID, rec.PublicKey); err == nil {
		t.Error("a forgotten node was let in")
	}
}

func TestHTTPSD(t *testing.T) {
	if got := HTTPSD(nil); got == nil || len(got) != 0 {
		t.Errorf("HTTPSD(nil): got %v; want an empty list", got)
	}
	got := HTTPSD([]api.Node{{ID: "n-1", Name: "gw-1", Group: "edge", Address: "10.0.0.7:8080", Labels: map[string]string{"zone.a": "b"}}})
	if len(got) != 1 || !slices.Equal(got[0].Targets, []string{"10.0.0.7:8080"}) ||
		got[0].Labels["__meta_binnacle_group"] != "edge" || got[0].Labels["__meta_binnacle_label_zone_a"] != "b" {
		t.Errorf("HTTPSD: got %+v", got)
	}
}

func TestPeerLimiter(t *testing.T) {
	l, now := newPeerLimiter(), time.Now()
	v6a, v6b := netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("2001:db8::2")
	for range failuresPerPeer {
		if err := l.allow(v6a, now); err != nil {
			t.Fatal(err)
		}
		l.failed(v6a, now)
	}
	wantProblem(t, l.allow(v6b, now), 429) // the same network
	if err := l.allow(testPeer, now); err != nil {
		t.Errorf("another peer: %v", err)
	}
	if err := l.allow(v6a, now.Add(failureEvery)); err != nil {
		t.Errorf("after %v: %v", failureEvery, err)
	}
	for i := range 3 * maxLimitedPeers {
		l.failed(netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}), now)
	}
	if len(l.peers) > maxLimitedPeers {
		t.Errorf("%d peers remembered; at most %d", len(l.peers), maxLimitedPeers)
	}
	if err := l.allow(netip.Addr{}, now); err != nil {
		t.Errorf("an unknown peer: %v", err)
	}
}

func BenchmarkAuthenticate(b *testing.B) {
	c := newCluster(b, statetest.Memory(b), nil)
	_, conn := c.enroll("gw-1")
	b.ReportAllocs()
	for b.Loop() {
		if _, err := c.reg.Authenticate(conn, false); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkNodes(b *testing.B) {
	c := newCluster(b, statetest.Memory(b), nil)
	for i := range 1000 {
		id := binnacle.NodeID(fmt.Sprintf("n-%d", i))
		c.reg.mu.Lock()
		c.reg.applyLocked(Record{ID: id, Name: string(id), KeyFP: string(id), Enrolled: time.Now()}, 1, life{}, time.Now())
		c.reg.mu.Unlock()
	}
	b.ReportAllocs()
	for b.Loop() {
		c.reg.Nodes(time.Now())
	}
}

// Reading all of control state anew, as a watch that fell behind has it done,
// takes away no node that enrolls meanwhile.
func TestLoadKeepsThoseWhoEnrollMeanwhile(t *testing.T) {
	c := newCluster(t, statetest.New(t), func(o *RegistryOptions) { o.Log = nil })
	quit := make(chan struct{})
	var wg sync.WaitGroup
	loads := 0
	wg.Go(func() {
		for {
			select {
			case <-quit:
				return
			default:
			}
			if err := c.reg.load(t.Context()); err != nil {
				t.Error(err)
			}
			loads++
		}
	})
	stop := sync.OnceFunc(func() { close(quit); wg.Wait() })
	defer stop()
	lost := 0
	for i := range 300 {
		rec, cs := c.enroll(fmt.Sprintf("gw-%03d", i))
		if _, err := c.reg.Authenticate(cs, false); err != nil || !c.reg.IsNode(rec.ID) {
			lost++
		}
	}
	stop()
	t.Logf("300 enrollments while control state was read %d times: %d nodes were lost", loads, lost)
	if lost > 0 {
		t.Error("nodes were lost")
	}
}
