package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/binnacle-project/binnacle/api"
	"github.com/binnacle-project/binnacle/gateway/agent"
	"github.com/binnacle-project/binnacle/licensing"
)

const (
	// fallbackRate is what the test's license leaves to a fallen node, in
	// requests per second; calm is under it, hot well over.
	fallbackRate = 30
	calm, hot    = 10, 120
	leaseLife    = 10 * time.Second
	// pollAndTen is the promise for the way back: one poll and ten seconds.
	pollAndTen = 40 * time.Second
)

// TestFallAndReturn lets real nodes fall twice, under load all the time: once
// with their manager killed, once with it alive and the license at its end.
// Clients see answers and, above the fallback rate and only between fall and
// return, 429s. Each time the nodes are full members again, with a new life in
// the gossip, within one poll and ten seconds.
func TestFallAndReturn(t *testing.T) {
	b := startBackends(t)
	l := newLicensed(t, "--lease-life", leaseLife.String())
	l.put("first", 3, "--expires-in", "720h")
	l.startManager()
	c := l.cluster
	for _, name := range []string{"calm", "hot-1", "hot-2"} {
		c.addNode(name, b.config())
	}
	c.waitStates(60*time.Second, map[string]api.NodeState{"calm": api.Alive, "hot-1": api.Alive, "hot-2": api.Alive})
	l.waitMembers("the nodes gossip", 60*time.Second)
	load := startLeaseLoad(map[*node]int{c.nodes[0]: calm, c.nodes[1]: hot, c.nodes[2]: hot})

	// The manager dies. Nodes count their leases down on their own.
	killed := time.Now()
	c.manager.kill(t)
	down := l.waitFall(killed)
	l.observe(load, down, 4*time.Second)
	back := time.Now()
	c.runManager()
	l.waitMembers("the nodes are members again after the manager's return", pollAndTen)
	t.Logf("manager back to all nodes full members: %v", time.Since(back).Round(100*time.Millisecond))
	l.freshGossip(2)
	up := time.Now()

	// The license ends while the manager lives. What would follow is known before.
	before, err := c.client.SimulateExpiry(t.Context(), 0)
	if err != nil || before.Falls != 3 {
		t.Errorf("simulate --expire-in 0s: got %+v, %v; want 3 nodes to fall", before, err)
	}
	l.put("short", 3, "--expires-in", "3s", "--grace", "0s")
	down2 := l.waitFall(time.Now())
	eventually(t, 10*time.Second, "the manager's entries read left (lease ended)", l.entriesSayLeft)
	// What is rolled out meanwhile reaches nodes once they are members again.
	added := filepath.Join(c.dir, "added.json")
	writeJSON(t, added, b.configWith("/added"))
	l.run("config", "push", "--rollout=all", "--no-wait", added)
	l.observe(load, down2, 3*time.Second)
	for _, n := range c.nodes {
		if s, err := statusOf(n); err != nil || s.Status.Applied == nil || s.Status.Applied.Number != 0 {
			t.Errorf("%s, fallen: runs %+v, %v; want its own file", n.name, s.Status.Applied, err)
		}
	}
	if targets, err := c.client.Discovery(t.Context()); err != nil || len(targets) != 3 {
		t.Errorf("load balancers are told of %+v, %v; want all 3 nodes: they serve", targets, err)
	}
	back = time.Now()
	l.put("renewed", 3, "--expires-in", "720h", "--feature", "beacon")
	l.waitMembers("the nodes are members again with a renewed license", pollAndTen)
	t.Logf("license renewed to all nodes full members: %v", time.Since(back).Round(100*time.Millisecond))
	l.freshGossip(3)
	for _, n := range c.nodes {
		eventually(t, 15*time.Second, n.name+" takes the revision", func() error {
			return once(defaultClient, "http://"+n.addr+"/added")
		})
		if s, err := statusOf(n); err != nil || !slices.Contains(s.Lease.Features, "beacon") {
			t.Errorf("%s: features %v, %v; want the license's", n.name, s.Lease.Features, err)
		}
	}
	load.stop()
	load.check(t, []interval{{down.first, up}, {down2.first, time.Now()}})
	l.events("license.expired", "license.installed", "node.left", "node.joined")
}

// licensed is a cluster whose manager watches a license file of a test's issuer.
type licensed struct {
	*cluster
	t      *testing.T
	issuer string
	file   string
	extra  []string
}

func newLicensed(t *testing.T, extra ...string) *licensed {
	t.Helper()
	dir := t.TempDir()
	l := &licensed{t: t, cluster: &cluster{t: t}, issuer: filepath.Join(dir, "issuer.key"), file: filepath.Join(dir, "installed.jwt")}
	l.extra = append([]string{"--license-keys", l.issuer + ".pub", "--license", l.file}, extra...)
	l.run("license", "keygen", "--out", l.issuer)
	return l
}

func (l *licensed) startManager() { l.cluster = startManager(l.t, l.extra...) }

func (l *licensed) run(args ...string) string {
	l.t.Helper()
	stdout, stderr, code := l.cli(args...)
	if code != 0 {
		l.t.Fatalf("binnacle %v: exit code %d\n%s%s", args, code, stdout, stderr)
	}
	return stdout
}

// put issues a license and puts it in the place of the watched one.
func (l *licensed) put(customer string, seats int, args ...string) {
	l.t.Helper()
	next := l.file + ".next"
	l.run(append([]string{
		"license", "issue", "--key", l.issuer, "--customer", customer, "--seats", fmt.Sprint(seats),
		"--fallback-rate", fmt.Sprint(fallbackRate), "--out", next,
	}, args...)...)
	if err := os.Rename(next, l.file); err != nil {
		l.t.Fatal(err)
	}
}

// statusOf asks a node itself, as its operator does with the manager away.
func statusOf(n *node) (agent.NodeStatus, error) {
	var s agent.NodeStatus
	out, err := exec.Command(filepath.Join(bin, "binnacle-gateway"), "status", "-c", n.conf, "--format", "json").Output()
	if err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			err = fmt.Errorf("%w: %s", err, exit.Stderr)
		}
		return s, err
	}
	return s, json.Unmarshal(out, &s)
}

// waitMembers waits until each node calls itself a member, without a limit, and
// sees the others and the manager in the gossip, and the manager agrees.
func (l *licensed) waitMembers(what string, within time.Duration) {
	l.t.Helper()
	eventually(l.t, within, what, func() error {
		for _, n := range l.nodes {
			s, err := statusOf(n)
			if err != nil {
				return err
			}
			if s.Membership != "member" || s.Lease.Limit != nil || !s.Gossip.On || s.Gossip.Members < len(l.nodes) {
				return fmt.Errorf("%s: %s, lease %s, limit %v, gossip %+v", n.name, s.Membership, s.Lease.State, s.Lease.Limit, s.Gossip)
			}
		}
		nodes, err := l.client.Nodes(l.t.Context())
		if err != nil {
			return err
		}
		for _, n := range nodes {
			if n.State != api.Alive || len(n.Conditions) > 0 {
				return fmt.Errorf("the manager has %s as %s with %+v", n.Name, n.State, n.Conditions)
			}
		}
		return nil
	})
}

// fall is when the first and the last node fell.
type fall struct{ first, last time.Time }

// waitFall waits until all nodes have fallen, and wants each to do so in the
// second in which its lease ended.
func (l *licensed) waitFall(from time.Time) fall {
	l.t.Helper()
	var f fall
	for _, n := range l.nodes {
		var s agent.NodeStatus
		eventually(l.t, leaseLife+20*time.Second, n.name+" falls", func() (err error) {
			if s, err = statusOf(n); err == nil && (s.Lease.State != licensing.LeaseFallen || s.Gossip.On) {
				err = fmt.Errorf("lease %s, gossip %+v", s.Lease.State, s.Gossip)
			}
			return err
		})
		late := s.Lease.Since.Sub(s.Lease.Expires)
		l.t.Logf("%s fell %v after it lost its manager or license, %v from the end of its lease", n.name, s.Lease.Since.Sub(from).Round(100*time.Millisecond), late.Round(10*time.Millisecond))
		if late < -1100*time.Millisecond || late > 2*time.Second {
			l.t.Errorf("%s fell at %v, and its lease ended at %v", n.name, s.Lease.Since, s.Lease.Expires)
		}
		if s.Membership != "left" || s.Lease.Limit == nil || *s.Lease.Limit != fallbackRate || !s.Worker.Serving {
			l.t.Errorf("%s after its fall: %s, limit %v, serving %v; want left, %d, true", n.name, s.Membership, s.Lease.Limit, s.Worker.Serving, fallbackRate)
		}
		if f.first.IsZero() || s.Lease.Since.Before(f.first) {
			f.first = s.Lease.Since
		}
		if s.Lease.Since.After(f.last) {
			f.last = s.Lease.Since
		}
	}
	return f
}

// observe lets fallen nodes serve for a while: the rate is the license's, and
// health is not limited.
func (l *licensed) observe(load *leaseLoad, f fall, d time.Duration) {
	l.t.Helper()
	begin := time.Now()
	if settled := f.last.Add(2 * time.Second); begin.Before(settled) {
		begin = settled // the second's worth that the limit begins with is used up
	}
	end := begin.Add(d)
	eventually(l.t, time.Until(end)+10*time.Second, "requests came for a while", func() error {
		if time.Now().Before(end) {
			return errors.New("not yet")
		}
		return nil
	})
	for _, n := range l.nodes {
		ok, limited := load.between(n.name, begin, end)
		l.t.Logf("%s, fallen: in %v %d answers and %d times 429", n.name, d, ok, limited)
		allowed := fallbackRate * d.Seconds()
		if float64(ok) > 1.1*allowed+2 {
			l.t.Errorf("%s gave %d answers in %v; want at most %g/s", n.name, ok, d, float64(fallbackRate))
		}
		if float64(ok+limited) > 1.5*allowed && float64(ok) < 0.8*allowed {
			l.t.Errorf("%s gave only %d answers in %v while %d were refused; want %g/s", n.name, ok, d, limited, float64(fallbackRate))
		}
		for range 40 {
			if err := once(defaultClient, "http://"+n.addr+"/__health"); err != nil {
				l.t.Errorf("%s: its health is limited: %v", n.name, err)
				break
			}
		}
	}
}

// freshGossip wants each node to have begun its life in the gossip so often.
func (l *licensed) freshGossip(lives int) {
	l.t.Helper()
	for _, n := range l.nodes {
		if got := strings.Count(n.out.String(), "gossip started"); got != lives {
			l.t.Errorf("%s has begun %d lives in the gossip; want %d", n.name, got, lives)
		}
	}
}

// entriesSayLeft looks at the API and at the command line.
func (l *licensed) entriesSayLeft() error {
	nodes, err := l.client.Nodes(l.t.Context())
	if err != nil {
		return err
	}
	for _, n := range nodes {
		ended := slices.ContainsFunc(n.Conditions, func(c api.Condition) bool { return c.Kind == api.CondLeaseEnded })
		if n.State != api.Left || n.StateCause != "its lease ended" || !ended || n.Lease == nil || n.Lease.State != licensing.LeaseFallen {
			return fmt.Errorf("%s is %s (%s) with %+v, lease %+v", n.Name, n.State, n.StateCause, n.Conditions, n.Lease)
		}
	}
	if out := l.run("license"); !strings.Contains(out, fmt.Sprintf("%d fallen", len(l.nodes))) {
		return fmt.Errorf("binnacle license says:\n%s", out)
	}
	if out := l.run("nodes"); strings.Count(out, "left (lease ended)") != len(l.nodes) {
		return fmt.Errorf("binnacle nodes says:\n%s", out)
	}
	lic, err := l.client.License(l.t.Context())
	if err != nil || lic.State != licensing.StateExpired || lic.Leases[licensing.LeaseFallen] != len(l.nodes) {
		return fmt.Errorf("license %+v, %w", lic, err)
	}
	return nil
}

func (l *licensed) events(kinds ...string) {
	l.t.Helper()
	evs, err := l.client.Events(l.t.Context(), 0, 500)
	if err != nil {
		l.t.Fatal(err)
	}
	for _, k := range kinds {
		if !slices.ContainsFunc(evs, func(e api.Event) bool { return e.Kind == k }) {
			l.t.Errorf("no event %s was recorded", k)
		}
	}
}

// leaseLoad asks each node for about so many answers a second and keeps what
// became of each request.
type leaseLoad struct {
	mu   sync.Mutex
	seen []answer
	quit chan struct{}
	wg   sync.WaitGroup
}

type answer struct {
	node   string
	at     time.Time
	status int
	err    string
}

type interval struct{ from, to time.Time }

func startLeaseLoad(rates map[*node]int) *leaseLoad {
	l := &leaseLoad{quit: make(chan struct{})}
	const workers = 4
	for n, rate := range rates {
		for w := range workers {
			l.wg.Go(func() {
				// Half of the workers open a new connection for each request.
				client := &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{DisableKeepAlives: w%2 == 1}}
				defer client.CloseIdleConnections()
				tick := time.NewTicker(workers * time.Second / time.Duration(rate))
				defer tick.Stop()
				for {
					select {
					case <-l.quit:
						return
					case <-tick.C:
					}
					a := ask(client, n)
					l.mu.Lock()
					l.seen = append(l.seen, a)
					l.mu.Unlock()
				}
			})
		}
	}
	return l
}

func ask(c *http.Client, n *node) answer {
	a := answer{node: n.name}
	resp, err := c.Get("http://" + n.addr + "/healthy/1")
	if err == nil {
		_, err = io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
		a.status = resp.StatusCode
		if a.status == http.StatusTooManyRequests && resp.Header.Get("Retry-After") == "" {
			err = errors.New("429 without Retry-After")
		}
	}
	if err != nil {
		a.err = err.Error()
	}
	a.at = time.Now()
	return a
}

func (l *leaseLoad) stop() { close(l.quit); l.wg.Wait() }

func (l *leaseLoad) between(node string, from, to time.Time) (ok, limited int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, a := range l.seen {
		if a.node != node || a.at.Before(from) || !a.at.Before(to) {
			continue
		}
		if a.status == http.StatusOK {
			ok++
		} else {
			limited++
		}
	}
	return ok, limited
}

// check wants nothing but answers, and 429s on hot nodes within the falls only.
func (l *leaseLoad) check(t *testing.T, falls []interval) {
	t.Helper()
	counts, bad := map[string]int{}, 0
	for _, a := range l.seen {
		counts[fmt.Sprintf("%s %d", a.node, a.status)]++
		fallen := slices.ContainsFunc(falls, func(f interval) bool { return !a.at.Before(f.from) && !a.at.After(f.to) })
		switch {
		case a.err == "" && a.status == http.StatusOK:
		case a.err == "" && a.status == http.StatusTooManyRequests && a.node != "calm" && fallen:
		default:
			if bad++; bad <= 5 {
				t.Errorf("%s at %s: status %d %s", a.node, a.at.Format("15:04:05.000"), a.status, a.err)
			}
		}
	}
	t.Logf("%d requests: %v; %d neither an answer nor a 429 in its place", len(l.seen), counts, bad)
	if counts["hot-1 429"] == 0 || counts["hot-2 429"] == 0 {
		t.Error("a node far over its fallback rate never answered 429")
	}
}
