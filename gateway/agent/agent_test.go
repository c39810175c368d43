package agent

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/binnacle-project/binnacle"
	"github.com/binnacle-project/binnacle/api"
	"github.com/binnacle-project/binnacle/membership/gossip"
)

func TestEnrollApplyStop(t *testing.T) {
	m := newManager(t)
	n := newNode(t, m).run()
	n.which("own")
	waitFor(t, "membership", func() bool { return n.agent.Status().Membership == joinMember })

	ref := m.push(1, n.config("one"))
	m.applied(ref)
	n.which("one")
	waitFor(t, "last good", func() bool {
		s := m.last()
		return s.LastGood != nil && s.LastGood.RevisionRef == ref
	})
	s := n.agent.Status()
	if s.Node != "n-1" || s.Cluster != m.auth.Cluster() || s.Lease.State != "valid" || !s.Worker.Serving {
		t.Errorf("status: got %+v", s)
	}
	if want := fmt.Sprintf("127.0.0.1:%d", n.port); s.Status.Address != want {
		t.Errorf("address: got %s; want %s", s.Status.Address, want)
	}
	asked, err := AskStatus(t.Context(), n.state)
	if err != nil || asked.Node != s.Node {
		t.Errorf("status over the socket: got %+v, %v", asked, err)
	}

	// Back to the node's own file.
	m.change(func(p *api.Plan) { p.Serial++; p.Revision = nil })
	m.applied(api.RevisionRef{SHA256: hashOf(n.config("own"))})
	n.which("own")

	if err := n.stop(); err != nil {
		t.Fatal(err)
	}
	if s := m.last(); !s.Leaving || s.Serving {
		t.Errorf("last status: got %+v; want leaving", s)
	}
	if got := m.count(func() int { return len(m.exports) }); got == 0 {
		t.Error("no telemetry was relayed")
	}
	if _, err := n.get("/which"); err == nil {
		t.Error("the port is still served after the stop")
	}
}

// TestTelemetryCarriesTheRevision looks for an export under the revision that
// was left and one under the revision that came, at once at the swap.
func TestTelemetryCarriesTheRevision(t *testing.T) {
	m := newManager(t)
	n := newNode(t, m).run()
	m.applied(m.push(1, n.config("one")))
	n.which("one")
	m.applied(m.push(2, n.config("two")))
	waitFor(t, "exports under both revisions", func() bool {
		seen := map[string]bool{}
		m.mu.Lock()
		defer m.mu.Unlock()
		for _, e := range m.exports {
			seen[e] = true
		}
		return seen["/v1/metrics 1"] && seen["/v1/metrics 2"]
	})
}

func TestPlanChangesUnderLoadLoseNothing(t *testing.T) {
	m := newManager(t)
	n := newNode(t, m).run()
	stop := n.load(16)
	for i := range 8 {
		m.applied(m.push(binnacle.Revision(i+1), n.config(fmt.Sprint("r", i))))
	}
	sent, failed := stop()
	t.Logf("%d requests over 8 revisions", sent)
	if len(failed) > 0 {
		t.Errorf("%d of %d requests failed; the first: %v", len(failed), sent, failed[0])
	}
	n.which("r7")
}

func TestRestartOrdersUnderLoadLoseNothing(t *testing.T) {
	m := newManager(t)
	n := newNode(t, m).run()
	m.applied(m.push(1, n.config("one")))
	stop := n.load(16)
	pids := map[int]bool{n.agent.Status().Worker.PID: true}
	for i := range 3 {
		id := fmt.Sprint("order-", i)
		m.change(func(p *api.Plan) { p.Serial++; p.Restart = &api.RestartOrder{ID: id} })
		waitFor(t, id, func() bool { return m.last().RestartDone == id })
		pids[n.agent.Status().Worker.PID] = true
	}
	// New server settings take a new process as well.
	m.applied(m.push(2, n.configAt(n.port, "two", `, "read_timeout": "7s"`)))
	pids[n.agent.Status().Worker.PID] = true
	sent, failed := stop()
	t.Logf("%d requests over 4 workers taking over", sent)
	if len(failed) > 0 {
		t.Errorf("%d of %d requests failed; the first: %v", len(failed), sent, failed[0])
	}
	if len(pids) != 5 {
		t.Errorf("workers that served: got pids %v; want 5", pids)
	}
	n.which("two")
}

func TestBrokenRevisionChangesNothing(t *testing.T) {
	m := newManager(t)
	n := newNode(t, m).run()
	good := m.push(1, n.config("one"))
	m.applied(good)
	pid := n.agent.Status().Worker.PID
	for i, raw := range []string{`{"version": 3`, `{"version": 2}`, twice(n.config("x"))} {
		ref := m.push(binnacle.Revision(i+2), []byte(raw))
		waitFor(t, "the refusal", func() bool {
			s := m.last()
			return s.Attempted != nil && s.Attempted.RevisionRef == ref && s.Attempted.Error != ""
		})
		if s := m.last(); s.Applied == nil || s.Applied.RevisionRef != good || !s.Serving {
			t.Errorf("%.20s: applied %+v; want the good one", raw, s.Applied)
		}
		n.which("one")
	}
	if got := n.agent.Status().Worker.PID; got != pid {
		t.Errorf("worker: got pid %d; want %d as before", got, pid)
	}
}

// twice lists the endpoint of a configuration two times, which only the build
// of the router finds out.
func twice(raw []byte) string {
	s := string(raw)
	i, j := strings.Index(s, "{ \"endpoint\""), strings.LastIndex(s, " ]")
	return s[:j] + ", " + s[i:j] + s[j:]
}

func TestForgedRevisionsAreRefused(t *testing.T) {
	m := newManager(t)
	n := newNode(t, m).run()
	good := m.push(1, n.config("one"))
	m.applied(good)

	// Signed for another group.
	ref := api.RevisionRef{Number: 2, SHA256: hashOf(n.config("evil"))}
	m.mu.Lock()
	m.configs[ref.SHA256] = n.config("evil")
	m.mu.Unlock()
	m.change(func(p *api.Plan) {
		p.Serial++
		p.Revision = &api.PlanRevision{RevisionRef: ref, Signature: api.SignRevision(m.auth.Key(), m.auth.Cluster(), "other", ref)}
	})
	waitFor(t, "the refusal", func() bool {
		s := m.last()
		return s.Attempted != nil && s.Attempted.RevisionRef == ref && strings.Contains(s.Attempted.Error, "did not sign")
	})
	n.which("one")

	// Other bytes than the hash names: fetched again and again, never run.
	m.mu.Lock()
	m.lie = n.config("evil")
	m.mu.Unlock()
	next := m.push(3, n.config("three"))
	waitFor(t, "the plan", func() bool { return n.agent.Status().Serial == m.plan.Serial })
	n.which("one")
	m.mu.Lock()
	m.lie = nil
	m.mu.Unlock()
	m.applied(next)
	n.which("three")
}

func TestOlderPlanIsRefused(t *testing.T) {
	m := newManager(t)
	m.plan.Epoch, m.plan.Serial = 3, 50
	n := newNode(t, m).run()
	ref := m.push(7, n.config("seven"))
	m.applied(ref)
	m.change(func(p *api.Plan) { p.Epoch, p.Serial, p.Revision = 2, 900, nil })
	waitFor(t, "the refusal", func() bool { return n.agent.metric("binnacle_agent_plans_refused_total").Get() > 0 })
	n.which("seven")
	m.change(func(p *api.Plan) { p.Epoch, p.Serial, p.Revision = 4, 1, nil })
	waitFor(t, "the newer epoch", func() bool { got, _ := n.get("/which"); return got == "/own" })
}

func TestWorkerKilled(t *testing.T) {
	m := newManager(t)
	n := newNode(t, m).run()
	ref := m.push(1, n.config("one"))
	m.applied(ref)
	pid := n.agent.Status().Worker.PID
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	// The socket is the agent's: connections wait in it for the next worker.
	waitFor(t, "an answer", func() bool { got, err := n.get("/which"); return err == nil && got == "/one" })
	waitFor(t, "the next worker", func() bool { s := n.agent.Status().Worker; return s.PID != 0 && s.PID != pid })
	if got := n.agent.Status().Worker.Crashes; got != 1 {
		t.Errorf("crashes: got %d; want 1", got)
	}
}

// TestCrashLoopFallsBack kills the worker twice within a minute of an apply.
func TestCrashLoopFallsBack(t *testing.T) {
	m := newManager(t)
	n := newNode(t, m).run()
	good := m.push(1, n.config("one"))
	waitFor(t, "last good", func() bool {
		s := m.last()
		return s.LastGood != nil && s.LastGood.RevisionRef == good
	})
	bad := m.push(2, n.config("two"))
	m.applied(bad)
	for range 2 {
		pid := n.agent.Status().Worker.PID
		if err := syscall.Kill(pid, syscall.SIGABRT); err != nil {
			t.Fatal(err)
		}
		waitFor(t, "the next worker", func() bool {
			s := n.agent.Status().Worker
			return s.Serving && s.PID != 0 && s.PID != pid
		})
	}
	m.applied(good)
	n.which("one")
	s := m.last()
	if s.Attempted == nil || s.Attempted.RevisionRef != bad || !strings.Contains(s.Attempted.Error, "SIGABRT") {
		t.Errorf("attempted: got %+v; want revision 2 failed with the text of its crash", s.Attempted)
	}
	if s.LastGood == nil || s.LastGood.RevisionRef != good {
		t.Errorf("last good: got %+v; want revision 1", s.LastGood)
	}
	// A new plan may try it again.
	m.change(func(p *api.Plan) { p.Serial++ })
	m.applied(bad)
}

func TestBootsFromLastGoodWithoutManager(t *testing.T) {
	m := newManager(t)
	n := newNode(t, m).run()
	ref := m.push(1, n.config("one"))
	waitFor(t, "last good", func() bool {
		s := m.last()
		return s.LastGood != nil && s.LastGood.RevisionRef == ref
	})
	if err := n.stop(); err != nil {
		t.Fatal(err)
	}
	m.stop()
	began := time.Now()
	n.run()
	t.Logf("serving after %v", time.Since(began))
	n.which("one")
	if s := n.agent.Status(); s.Node != "n-1" || s.Membership != joinAway || s.Lease.State != "valid" {
		t.Errorf("status: got %+v", s)
	}
	// The manager returns with something else.
	m.start()
	m.applied(m.push(2, n.config("two")))
	n.which("two")
	if m.enrolls != 1 {
		t.Errorf("enrollments: got %d; want 1", m.enrolls)
	}
}

func TestManagerAwayAtFirstStart(t *testing.T) {
	m := newManager(t)
	m.stop()
	n := newNode(t, m).run()
	n.which("own")
	if got := n.agent.Status().Membership; got != joinWaiting {
		t.Errorf("membership: got %s; want %s", got, joinWaiting)
	}
	m.start()
	m.applied(m.push(1, n.config("one")))
}

func TestFullClusterIsAskedAgain(t *testing.T) {
	m := newManager(t)
	m.refusal = &api.Problem{Title: "Forbidden", Status: http.StatusForbidden, Detail: api.SeatsMessage}
	n := newNode(t, m).run()
	waitFor(t, "the refusal", func() bool { return strings.Contains(n.agent.Status().Detail, api.SeatsMessage) })
	n.which("own")
	m.mu.Lock()
	m.refusal = nil
	m.mu.Unlock()
	waitFor(t, "membership", func() bool { return n.agent.Status().Membership == joinMember })
}

func TestForgottenNodeEnrollsAnew(t *testing.T) {
	m := newManager(t)
	n := newNode(t, m).run()
	m.applied(m.push(1, n.config("one")))
	m.mu.Lock()
	m.gone = true
	clear(m.nodes)
	m.nodes["another node"] = "n-1"
	m.plan.Serial = 1 // a new life counts anew
	m.mu.Unlock()
	m.change(func(*api.Plan) {})
	waitFor(t, "another id", func() bool { return n.agent.Status().Node == "n-2" })
	n.which("one")
	m.applied(m.push(2, n.config("two")))
}

func TestDrainOrder(t *testing.T) {
	m := newManager(t)
	n := newNode(t, m).run()
	m.change(func(p *api.Plan) { p.Serial++; p.Drain = true })
	waitFor(t, "draining", func() bool { return m.last().Draining })
	closes := func() bool {
		resp, err := http.Get(fmt.Sprintf("http://127.0.0.1:%d/which", n.port))
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		return resp.Close
	}
	if !closes() {
		t.Error("a draining node keeps connections; want Connection: close")
	}
	if s := m.last(); !s.Serving {
		t.Error("a draining node does not serve")
	}
	m.change(func(p *api.Plan) { p.Serial++; p.Drain = false })
	waitFor(t, "undrained", func() bool { return !m.last().Draining })
	if closes() {
		t.Error("an undrained node closes connections")
	}
}

// TestOwnKeysWin pushes a revision that sets what belongs to the node.
func TestOwnKeysWin(t *testing.T) {
	m := newManager(t)
	n := newNode(t, m).run()
	m.applied(m.push(1, n.configAt(1, "one", "")))
	n.which("one")
	if s := m.last(); fmt.Sprint(s.Overridden) != "[port]" {
		t.Errorf("overridden: got %v; want [port]", s.Overridden)
	}
}

// TestOwnFileAgain moves the node to another port while it serves.
func TestOwnFileAgain(t *testing.T) {
	m := newManager(t)
	n := newNode(t, m).run()
	m.applied(m.push(1, n.config("one")))
	before := n.port
	n.port = freePort(t)
	n.write(n.file, n.config("own"))
	n.agent.Reload()
	want := fmt.Sprintf("127.0.0.1:%d", n.port)
	waitFor(t, "the new address", func() bool { return m.last().Address == want })
	n.which("one")
	n.write(n.file, []byte(`{"version": 3, "port": "`))
	n.agent.Reload()
	n.which("one")
	n.port = before
	if got, err := n.get("/which"); err == nil {
		t.Errorf("the old port still answers %q", got)
	}
}

func TestStateCutInHalf(t *testing.T) {
	m := newManager(t)
	n := newNode(t, m).run()
	ref := m.push(1, n.config("one"))
	waitFor(t, "last good", func() bool {
		s := m.last()
		return s.LastGood != nil && s.LastGood.RevisionRef == ref
	})
	if err := n.stop(); err != nil {
		t.Fatal(err)
	}
	// All that is on disk loses its second half.
	err := filepath.WalkDir(n.state, func(p string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(p)
		if err != nil {
			return err
		}
		return os.WriteFile(p, b[:len(b)/2], 0o600)
	})
	if err != nil {
		t.Fatal(err)
	}
	n.run()
	n.which("own")
	m.applied(m.push(2, n.config("two")))
}

// A node that is asked to stop leaves discovery first and goes on taking new
// clients until they stay away: whoever turns away within a second of the news
// meets no closed port.
func TestStopServesOnUntilTrafficIsGone(t *testing.T) {
	m := newManager(t)
	n := newNode(t, m)
	n.delay = 20 * time.Second
	n.run()
	m.applied(m.push(1, n.config("one")))
	fresh := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	url := fmt.Sprintf("http://127.0.0.1:%d", n.port)
	stopped := make(chan struct{})
	began := time.Now()
	go func() { defer close(stopped); _ = n.stop() }()
	waitFor(t, "the manager to hear that the node drains", func() bool { return m.last().Draining })
	if s := m.last(); !s.Serving || s.Leaving {
		t.Errorf("the first word of the stop is %+v; want draining and serving", s)
	}
	requests, unhealthy := 0, 0
	for told := time.Now(); time.Since(told) < 2*quietEnough; requests++ {
		resp, err := fresh.Get(url + "/which")
		if err != nil {
			t.Fatalf("request %d, %v after the news: %v", requests, time.Since(told), err)
		}
		resp.Body.Close()
		if resp, err = fresh.Get(url + "/__health"); err == nil {
			if resp.Body.Close(); resp.StatusCode == http.StatusServiceUnavailable {
				unhealthy++
			}
		}
		time.Sleep(20 * time.Millisecond) // a client's pace
	}
	last := time.Now()
	// Health checks go on: they are no traffic.
	for open := true; open; {
		select {
		case <-stopped:
			open = false
		case <-time.After(100 * time.Millisecond):
			if resp, err := fresh.Get(url + "/__health"); err == nil {
				resp.Body.Close()
			}
		}
	}
	if unhealthy == 0 {
		t.Error("the health page never failed")
	}
	if s := m.last(); !s.Leaving {
		t.Errorf("the last word is %+v; want leaving", s)
	}
	after := time.Since(last)
	if after < quietEnough/2 || after > 15*time.Second { // of the second, the last request itself took some
		t.Errorf("it stopped %v after the last request; want a second or somewhat more", after)
	}
	t.Logf("%d requests in the %v after the news, none failed; it stopped %v after the last", requests, last.Sub(began).Round(time.Millisecond), after.Round(time.Millisecond))
}

// Clients that never turn away do not hold the end up for longer than the delay.
func TestStopUnderTrafficEndsAfterTheDelay(t *testing.T) {
	m := newManager(t)
	n := newNode(t, m)
	n.delay = 1500 * time.Millisecond
	n.run()
	m.applied(m.push(1, n.config("one")))
	fresh := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	stopped := make(chan struct{})
	begin := time.Now()
	go func() { defer close(stopped); _ = n.stop() }()
	failed := time.Duration(0)
	for running := true; running; {
		select {
		case <-stopped:
			running = false
		case <-time.After(20 * time.Millisecond):
			resp, err := fresh.Get(fmt.Sprintf("http://127.0.0.1:%d/which", n.port))
			if err == nil {
				resp.Body.Close()
			} else if failed == 0 {
				failed = time.Since(begin)
			}
		}
	}
	took := time.Since(begin)
	if failed == 0 {
		failed = took // it closed between two requests, at the very end
	}
	if failed < n.delay || took > n.delay+8*time.Second {
		t.Errorf("the port closed after %v, the stop took %v; want both soon after %v", failed, took, n.delay)
	}
	t.Logf("the port closed %v after SIGTERM; the delay is %v", failed.Round(time.Millisecond), n.delay)
}

func TestStateFolderAfterAStop(t *testing.T) {
	m := newManager(t)
	n := newNode(t, m).run()
	m.applied(m.push(1, n.config("one")))
	if err := n.stop(); err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(n.state)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), "worker-") || e.Name() == socketAgent {
			t.Errorf("%s was left in the state folder", e.Name())
		}
		fi, err := e.Info()
		if err != nil {
			t.Fatal(err)
		}
		if fi.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s has mode %v; want none for others", e.Name(), fi.Mode())
		}
	}
	var p api.Plan
	b, err := os.ReadFile(filepath.Join(n.state, filePlan))
	if err != nil {
		t.Fatal(err)
	}
	body, err := unseal(filePlan, b)
	if err != nil || json.Unmarshal(body, &p) != nil || p.Revision == nil {
		t.Errorf("plan on disk: %s, %v", body, err)
	}
}

func TestExpiredCertificateIsRenewed(t *testing.T) {
	m := newManager(t)
	n := newNode(t, m).run()
	ref := m.push(1, n.config("one"))
	m.applied(ref)
	m.mu.Lock()
	m.expired = true
	m.mu.Unlock()
	m.stop() // ends the poll that waits
	m.start()
	next := m.push(2, n.config("two"))
	m.applied(next)
	if r, e := m.count(func() int { return m.renewals }), m.count(func() int { return m.enrolls }); r != 1 || e != 1 {
		t.Errorf("got %d renewals and %d enrollments; want 1 and 1", r, e)
	}
}

// TestKnownAgain has a manager deny a node that no token can bring back, and
// then remember it.
func TestKnownAgain(t *testing.T) {
	m := newManager(t)
	n := newNode(t, m).run()
	m.applied(m.push(1, n.config("one")))
	n.write(n.token, nil)
	m.mu.Lock()
	m.gone = true
	m.mu.Unlock()
	m.change(func(p *api.Plan) { p.Serial++ })
	waitFor(t, "the node to be nobody", func() bool { s := n.agent.Status(); return s.Membership == joinWaiting && s.Node == "" })
	n.which("one")
	m.mu.Lock()
	m.gone = false
	m.mu.Unlock()
	waitFor(t, "membership", func() bool { s := n.agent.Status(); return s.Membership == joinMember && s.Node == "n-1" })
	m.applied(m.push(2, n.config("two")))
}

// TestDeathWhileApplying ends the worker while it builds a large revision: the
// one before is served again, and the large one is not tried once more.
func TestDeathWhileApplying(t *testing.T) {
	m := newManager(t)
	n := newNode(t, m).run()
	good := m.push(1, n.config("one"))
	m.applied(good)
	large := string(n.config("large"))
	i, j := strings.Index(large, "{ \"endpoint\""), strings.LastIndex(large, " ]")
	var b strings.Builder
	b.WriteString(large[:i])
	for k := range 20000 {
		b.WriteString(strings.Replace(large[i:j], "/which", fmt.Sprintf("/which%d", k), 1) + ",\n")
	}
	b.WriteString(large[i:])
	pid := n.agent.Status().Worker.PID
	ref := m.push(2, []byte(b.String()))
	waitFor(t, "the attempt", func() bool { a := n.agent.reporter.get().Attempted; return a != nil && a.RevisionRef == ref })
	if err := syscall.Kill(pid, syscall.SIGABRT); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "the failure", func() bool {
		s := m.last()
		return s.Attempted != nil && s.Attempted.RevisionRef == ref && strings.Contains(s.Attempted.Error, "SIGABRT")
	})
	waitFor(t, "the next worker", func() bool { s := n.agent.Status().Worker; return s.Serving && s.PID != pid })
	n.which("one")
	if s := m.last(); s.Applied == nil || s.Applied.RevisionRef != good {
		t.Errorf("applied: got %+v; want revision 1", s.Applied)
	}
}

func TestGossip(t *testing.T) {
	m := newManager(t)
	id, err := m.auth.ManagerIdentity("m1")
	if err != nil {
		t.Fatal(err)
	}
	keys := []api.GossipKey{{ID: "k1", Key: []byte(strings.Repeat("k", 32))}}
	seed, err := gossip.Start(t.Context(), gossip.Options{
		Identity: id, Cluster: m.auth.Cluster(), CAPub: m.auth.PublicKey(), Bind: "127.0.0.1:0", Keys: keys, Manager: true, Log: testLog(t),
	})
	if err != nil {
		t.Fatal(err)
	}
	defer seed.Close()
	m.plan.Gossip = api.GossipPlan{Keys: keys, Seeds: []string{seed.Addr().String()}}
	n := newNode(t, m)
	n.gossip = "127.0.0.1:0"
	n.run()
	member := func() gossip.Member {
		for _, mem := range seed.Members() {
			if mem.ID == "n-1" {
				return mem
			}
		}
		return gossip.Member{}
	}
	waitFor(t, "the node in gossip", func() bool { mem := member(); return mem.State == gossip.Alive && mem.Meta.Serving })
	ref := m.push(1, n.config("one"))
	waitFor(t, "the revision in gossip", func() bool { return member().Meta.Revision == ref.Number })
	waitFor(t, "key and address in the status", func() bool {
		s := m.last()
		return s.GossipKeyID == gossip.KeyID(keys) && s.GossipAddress == member().Gossip.String()
	})
	if err := n.stop(); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "the good-bye", func() bool { return member().State == gossip.Left })
}
