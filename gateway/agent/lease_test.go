package agent

import (
	"context"
	"crypto/ed25519"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/VictoriaMetrics/metrics"

	"github.com/binnacle-project/binnacle"
	"github.com/binnacle-project/binnacle/licensing"
)

// leaseNode is what a node keeps of a lease, over restarts in virtual time. Its
// leases are made by give, unsigned.
type leaseNode struct {
	t     testing.TB
	dir   string
	id    *identity
	skew  time.Duration // of the wall clock
	up    time.Time     // when the machine started
	begun time.Time
	made  int
	life  time.Duration
	box   *leaseBox
	state *stateDir
	falls []time.Duration // after begun
	stop  func()
}

func newLeaseNode(t testing.TB, life time.Duration) *leaseNode {
	now := time.Now()
	return &leaseNode{t: t, dir: memoryDir(t), up: now.Add(-time.Hour), begun: now, life: life, id: &identity{
		savedIdentity: savedIdentity{NodeID: "n-1", Cluster: "c-1"},
		key:           ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize)),
	}}
}

// memoryDir is a folder in memory where there is one: a run of thirty days syncs
// its count 43,200 times.
func memoryDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "binnacle-")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// start opens the box as an agent's start does, and counts until stop.
func (n *leaseNode) start() {
	n.t.Helper()
	state, err := openState(n.dir, testLog(n.t))
	if err != nil {
		n.t.Fatal(err)
	}
	n.state = state
	n.box = newLeaseBox(n.state, n.verify, metrics.NewSet(), testLog(n.t))
	n.box.clocks = func() licensing.Clocks {
		now := time.Now()
		return licensing.Clocks{Wall: now.Add(n.skew), Boot: "a", Up: now.Sub(n.up)}
	}
	var mu sync.Mutex // a lease can be given while the box looks by itself
	member := false
	n.box.changed = func() {
		mu.Lock()
		defer mu.Unlock()
		was := member
		if member = n.box.member(); was && !member {
			n.falls = append(n.falls, time.Since(n.begun))
		}
	}
	n.box.load(n.id)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); n.box.run(ctx) }()
	n.stop = func() { cancel(); <-done; n.state.Close() }
}

func (n *leaseNode) verify(token string, _ ed25519.PublicKey, _ binnacle.ClusterID, _ binnacle.NodeID, _ string) (licensing.Lease, error) {
	var l licensing.Lease
	var issued, expires int64
	rate := 250.0
	if _, err := fmt.Sscanf(token, "%s %d %d", &l.ID, &issued, &expires); err != nil {
		return l, err
	}
	l.Issued, l.Expires, l.FallbackRate = time.Unix(issued, 0), time.Unix(expires, 0), &rate
	return l, nil
}

// give lets a manager, whose clock is right, give a fresh lease.
func (n *leaseNode) give() {
	n.made++
	now := time.Now()
	n.box.offer(fmt.Sprintf("l%d %d %d", n.made, now.Unix(), now.Add(n.life).Unix()), n.id, 0, now)
}

func (n *leaseNode) write(b []byte) {
	n.t.Helper()
	if err := os.WriteFile(n.state.path(fileLease), b, 0o600); err != nil {
		n.t.Fatal(err)
	}
}

// TestThirtyDaysWithRestarts: thirty days with twenty restarts of the agent at
// odd times and for odd lengths, half of them crashes, and the wall clock set
// to and fro at each. The manager is away twice; both times the node falls five
// days after its last lease, to the minute, and at no other time.
func TestThirtyDaysWithRestarts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const day, life = 24 * time.Hour, 5 * 24 * time.Hour
		rnd := rand.New(rand.NewPCG(6, 20))
		n := newLeaseNode(t, life)
		n.start()
		if s := n.box.standing(); s.State != licensing.LeaseNone || s.Limit == nil || *s.Limit != licensing.DefaultFallbackRate {
			t.Errorf("before the first lease: got %+v; want the free limit", s)
		}
		restarts := map[int]bool{} // the rounds of 12 hours with one
		for len(restarts) < 20 {
			restarts[rnd.IntN(60)] = true
		}
		away := func(d time.Duration) bool { return d >= 8*day && d < 15*day || d >= 20*day }
		done := 0
		for round := range 60 {
			begin := time.Duration(round) * 12 * time.Hour
			time.Sleep(time.Until(n.begun.Add(begin)))
			if !away(begin) {
				n.give()
			}
			if !restarts[round] {
				continue
			}
			time.Sleep(time.Duration(rnd.Int64N(int64(6 * time.Hour))))
			crash, err := os.ReadFile(n.state.path(fileLease))
			n.stop()
			if done%2 == 1 && err == nil { // what was not written yet is lost
				n.write(crash)
			}
			n.skew = time.Duration(rnd.Int64N(int64(2*365*day))) - 365*day
			time.Sleep(time.Duration(rnd.Int64N(int64(3 * time.Hour))))
			n.start()
			done++
		}
		time.Sleep(time.Until(n.begun.Add(30 * day)))
		n.stop()
		want := []time.Duration{7*day + 12*time.Hour + life, 19*day + 12*time.Hour + life}
		t.Logf("%d restarts; fell after %v; want %v", done, n.falls, want)
		if done != 20 || len(n.falls) != 2 {
			t.Fatalf("%d restarts, %d falls; want 20 and 2", done, len(n.falls))
		}
		for i := range want {
			if d := (n.falls[i] - want[i]).Abs(); d > time.Minute {
				t.Errorf("fall %d came after %v; want %v within a minute", i+1, n.falls[i], want[i])
			}
		}
	})
}

// TestDeletedStateIsFallback: whatever part of the state is gone, the node is
// under the fallback rate, and a lease ends that.
func TestDeletedStateIsFallback(t *testing.T) {
	remove := func(n *leaseNode, suffixes ...string) {
		for _, s := range suffixes {
			os.Remove(n.state.path(fileLease) + s)
		}
	}
	for name, damage := range map[string]func(n *leaseNode){
		"deleted": func(n *leaseNode) { remove(n, "", ".prev", ".new") },
		"the lease without its count": func(n *leaseNode) {
			n.write(seal(fileLease, []byte(`{"token":"l1 946684800 947116800"}`)))
		},
		"the count without the lease": func(n *leaseNode) {
			n.write(seal(fileLease, []byte(`{"tenure":{"lease":"l1"}}`)))
		},
		"no JSON": func(n *leaseNode) { n.write(seal(fileLease, []byte("{"))) },
		"noise": func(n *leaseNode) {
			remove(n, ".prev")
			n.write([]byte("x"))
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := newLeaseNode(t, 5*24*time.Hour)
				n.start()
				n.give()
				n.stop()
				damage(n)
				n.start()
				if s := n.box.standing(); s.Member() || s.Limit == nil || *s.Limit <= 0 {
					t.Errorf("got %+v; want a fallback rate", s)
				}
				if !n.box.expires().IsZero() {
					t.Error("a poll would say that a lease is held")
				}
				n.give()
				if s := n.box.standing(); !s.Member() || s.Limit != nil {
					t.Errorf("after a lease: got %+v; want a member without a limit", s)
				}
				n.stop()
			})
		})
	}
}

// TestAThousandReturnTogether: a manager comes back after an outage, at a
// moment that no node knows. The peak of arrivals in any second is at most
// three times the mean, and all have come within sixteen seconds, long before one poll and ten seconds.
func TestAThousandReturnTogether(t *testing.T) {
	const nodes, span = 1000, 30.0
	rnd := rand.New(rand.NewPCG(1, 1000))
	for _, outage := range []time.Duration{0, 5 * time.Second, time.Minute, time.Hour} {
		var seconds [64]int
		last := 0
		for range nodes {
			phase := time.Duration(rnd.Float64() * span * float64(time.Second))
			at := time.Duration(0)
			for k := 0; at <= outage; k++ {
				at += retryDelay(k, phase, rnd.Float64())
			}
			s := int((at - outage) / time.Second)
			seconds[s]++
			last = max(last, s)
		}
		mean, peak := float64(nodes)/float64(last+1), slices.Max(seconds[:])
		t.Logf("after %v away: %d nodes within %d s, mean %.0f a second, peak %d (%.1f times)", outage, nodes, last+1, mean, peak, float64(peak)/mean)
		if float64(peak) > 3*mean || last > 15 {
			t.Errorf("after %v away: peak %d a second, mean %.0f, the last in second %d; want at most 3 times the mean, within 16 s", outage, peak, mean, last)
		}
	}
}
