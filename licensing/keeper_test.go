package licensing

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/binnacle-project/binnacle"
	"github.com/binnacle-project/binnacle/api"
	"github.com/binnacle-project/binnacle/events"
	"github.com/binnacle-project/binnacle/state"
	"github.com/binnacle-project/binnacle/state/statetest"
)

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

func (l *eventList) count(kind string) (n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, e := range l.list {
		if e.Kind == kind {
			n++
		}
	}
	return n
}

// rig is a keeper's surroundings.
type rig struct {
	store  *state.Store
	dir    string
	key    ed25519.PrivateKey
	events *eventList
	o      KeeperOptions
}

func newRig(t *testing.T) *rig {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{store: statetest.Memory(t), dir: t.TempDir(), key: key, events: &eventList{}}
	r.o = KeeperOptions{
		Store: r.store, Dir: r.dir, ClusterFingerprint: thisFP, ClusterKey: key, Cluster: "c-0123456789ab",
		Events: r.events, Log: slog.New(slog.NewTextHandler(t.Output(), nil)),
	}
	return r
}

func (r *rig) open(t *testing.T) *Keeper {
	t.Helper()
	o := r.o
	o.Metrics = nil
	k, err := OpenKeeper(t.Context(), o)
	if err != nil {
		t.Fatalf("OpenKeeper: %v", err)
	}
	return k
}

func (r *rig) run(t *testing.T, k *Keeper) {
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- k.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
}

// issuerOf makes an issuer whose key stands in a file for --license-keys.
func (r *rig) issuerOf(t *testing.T) IssuerKey {
	k := newIssuer(t)
	r.o.KeysFile = filepath.Join(r.dir, "issuers.pem")
	write(t, r.o.KeysFile, string(k.Public().PEM()))
	return k
}

// write puts a file in place with a time stamp of its own.
func write(t *testing.T, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	at := time.Now()
	if err := os.Chtimes(path, at, at); err != nil {
		t.Fatal(err)
	}
}

func TestFirstStartMakesTheCommunityLicense(t *testing.T) {
	r := newRig(t)
	k := r.open(t)
	got := k.License()
	if got.Plan != PlanCommunity || got.State != StateValid || got.Seats != 0 || !got.Expires.IsZero() || got.Cluster != thisFP || got.FallbackRate == nil || *got.FallbackRate != DefaultFallbackRate {
		t.Errorf("License: got %+v", got)
	}
	if err := k.Admit(1_000_000); err != nil {
		t.Errorf("Admit: %v", err)
	}
	if info, err := os.Stat(filepath.Join(r.dir, "license", "issuer.key")); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("issuer.key: got %v, %v; want mode 0600", info, err)
	}
	if again := r.open(t).License(); again.ID != got.ID {
		t.Errorf("after a restart: got license %s; want %s", again.ID, got.ID)
	}
	if n := r.events.count(events.LicenseInstalled); n != 1 {
		t.Errorf("events: got %d installed; want 1", n)
	}
	// The local issuer's licenses count, too.
	issuer, err := ReadIssuerKey(filepath.Join(r.dir, "license", "issuer.key"))
	if err != nil {
		t.Fatal(err)
	}
	if err := k.Install(t.Context(), issue(t, issuer, Claims{Seats: 3}), "admin"); err != nil {
		t.Errorf("Install: %v", err)
	}
}

func TestSeats(t *testing.T) {
	r := newRig(t)
	issuer := r.issuerOf(t)
	r.o.Seats = func() int { return 2 }
	k := r.open(t)
	var p *api.Problem
	if err := k.Admit(0); !errors.As(err, &p) {
		t.Errorf("Admit without a license: got %v; want a problem", err)
	}
	if s := k.Summary(); s.State != StateMissing || s.Plan != PlanFree {
		t.Errorf("Summary without a license: got %+v", s)
	}
	if err := k.Install(t.Context(), " "+issue(t, issuer, Claims{Seats: 3})+"\n", "admin"); err != nil {
		t.Fatalf("Install: %v", err)
	}
	for held, ok := range map[int]bool{0: true, 2: true, 3: false, 4: false} {
		err := k.Admit(held)
		if ok != (err == nil) {
			t.Errorf("Admit(%d): got %v", held, err)
		}
		if !ok && (!errors.As(err, &p) || p.Status != 403 || p.Detail != "Your current subscription does not allow more nodes running. Please upgrade to add more nodes.") {
			t.Errorf("Admit(%d): got %v; want the promised message", held, err)
		}
	}
	if s := k.Summary(); s.Seats != 3 || s.SeatsUsed != 2 || s.Plan != "team" {
		t.Errorf("Summary: got %+v", s)
	}
	changed := k.Changed()
	if err := k.Install(t.Context(), issue(t, issuer, Claims{Seats: 10}), "admin"); err != nil {
		t.Fatalf("upgrade: %v", err)
	}
	select {
	case <-changed:
	default:
		t.Error("Changed: the upgrade did not close it")
	}
	if err := k.Admit(4); err != nil {
		t.Errorf("Admit(4) after the upgrade: %v", err)
	}
}

func TestInstallRefusesAndKeeps(t *testing.T) {
	r := newRig(t)
	issuer := r.issuerOf(t)
	k := r.open(t)
	if err := k.Install(t.Context(), issue(t, issuer, Claims{Seats: 3}), "admin"); err != nil {
		t.Fatal(err)
	}
	before := k.License()
	for name, token := range map[string]string{
		"garbage":       "hello",
		"unknown key":   issue(t, newIssuer(t), Claims{}),
		"other cluster": issue(t, issuer, Claims{Cluster: otherFP}),
		"expired":       issue(t, issuer, Claims{Expires: time.Now().Add(-time.Hour), Grace: day}),
	} {
		var p *api.Problem
		if err := k.Install(t.Context(), token, "admin"); !errors.As(err, &p) || p.Status != 422 || !strings.Contains(p.Detail, "not taken") {
			t.Errorf("%s: got %v; want a 422 that says why", name, err)
		}
	}
	if after := k.License(); after.ID != before.ID {
		t.Errorf("license in force: got %s; want %s", after.ID, before.ID)
	}
	if n := r.events.count(events.LicenseRefused); n != 4 {
		t.Errorf("events: got %d refused; want 4", n)
	}
}

func TestLicenseFileIsWatched(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		issuer := r.issuerOf(t)
		r.o.LicenseFile = filepath.Join(r.dir, "license.jwt")
		write(t, r.o.LicenseFile, issue(t, issuer, Claims{Seats: 3}))
		k := r.open(t)
		r.run(t, k)
		wait := func() { time.Sleep(3 * time.Second); synctest.Wait() }
		seats := func(want int, problem string) {
			t.Helper()
			wait()
			if got := k.License(); got.Seats != want || (problem == "") != (got.Problem == "") || !strings.Contains(got.Problem, problem) {
				t.Errorf("got %d seats, problem %q; want %d, %q", got.Seats, got.Problem, want, problem)
			}
		}
		seats(3, "")
		good := issue(t, issuer, Claims{Seats: 5})
		write(t, r.o.LicenseFile, good)
		seats(5, "")
		write(t, r.o.LicenseFile, good[:40])
		seats(5, "truncated")
		write(t, r.o.LicenseFile, strings.Repeat("x", 100_000))
		seats(5, "too large")
		stranger := newIssuer(t)
		write(t, r.o.LicenseFile, issue(t, stranger, Claims{Seats: 9}))
		seats(5, "not known")
		// Its issuer becomes known.
		write(t, r.o.KeysFile, string(issuer.Public().PEM())+string(stranger.Public().PEM()))
		seats(9, "")
		write(t, r.o.KeysFile, "broken")
		seats(9, "")
		if err := os.Remove(r.o.LicenseFile); err != nil {
			t.Fatal(err)
		}
		seats(9, "cannot be read")
		write(t, r.o.LicenseFile, good)
		seats(5, "")
		// The API comes after the file; the same file does not undo it.
		if err := k.Install(t.Context(), issue(t, issuer, Claims{Seats: 7}), "admin"); err != nil {
			t.Fatal(err)
		}
		seats(7, "")
	})
}

// TestAFileWaitsForItsTime puts next year's license in place ahead of time.
func TestAFileWaitsForItsTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		issuer := r.issuerOf(t)
		r.o.LicenseFile = filepath.Join(r.dir, "license.jwt")
		now := time.Now()
		write(t, r.o.LicenseFile, issue(t, issuer, Claims{Seats: 3, Expires: now.Add(2 * day)}))
		k := r.open(t)
		r.run(t, k)
		write(t, r.o.LicenseFile, issue(t, issuer, Claims{Seats: 5, NotBefore: now.Add(day), Expires: now.Add(365 * day)}))
		time.Sleep(day - time.Minute)
		synctest.Wait()
		if got := k.License(); got.Seats != 3 || !strings.Contains(got.Problem, "not valid yet") {
			t.Errorf("a minute before its time: got %d seats, problem %q; want 3, and why", got.Seats, got.Problem)
		}
		time.Sleep(time.Minute + 3*time.Second)
		synctest.Wait()
		if got := k.License(); got.Seats != 5 || got.Problem != "" {
			t.Errorf("when its time has come: got %d seats, problem %q; want 5", got.Seats, got.Problem)
		}
		if n := r.events.count(events.LicenseRefused); n != 1 {
			t.Errorf("it was refused %d times; want once", n)
		}
	})
}

func TestUnchangedFileDoesNotUndoAnInstallOverARestart(t *testing.T) {
	r := newRig(t)
	issuer := r.issuerOf(t)
	r.o.LicenseFile = filepath.Join(r.dir, "license.jwt")
	write(t, r.o.LicenseFile, issue(t, issuer, Claims{Seats: 3}))
	k := r.open(t)
	if err := k.Install(t.Context(), issue(t, issuer, Claims{Seats: 7}), "admin"); err != nil {
		t.Fatal(err)
	}
	if got := r.open(t).Summary().Seats; got != 7 {
		t.Errorf("after a restart: got %d seats; want 7", got)
	}
	write(t, r.o.LicenseFile, "broken")
	k = r.open(t)
	if got := k.Summary().Seats; got != 7 || k.Problem() == "" {
		t.Errorf("after a restart with a broken file: got %d seats, problem %q; want 7 and why", got, k.Problem())
	}
}

func TestKeysFileShutsOutTheLocalIssuer(t *testing.T) {
	r := newRig(t)
	r.open(t)
	r.issuerOf(t)
	k := r.open(t)
	if s := k.Summary(); s.State != StateMissing || !strings.Contains(k.Problem(), "not known here") {
		t.Errorf("got %+v, problem %q; want missing and why", s, k.Problem())
	}
	r.o.KeysFile = filepath.Join(r.dir, "none.pem")
	if _, err := OpenKeeper(t.Context(), r.o); err == nil {
		t.Error("a keys file that is not there: got no error")
	}
}

func TestTheEndIsToldAhead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.o.Poll = 10 * time.Minute
		issuer := r.issuerOf(t)
		k := r.open(t)
		if err := k.Install(t.Context(), issue(t, issuer, Claims{Expires: time.Now().Add(100 * day), Grace: 10 * day}), "admin"); err != nil {
			t.Fatal(err)
		}
		r.run(t, k)
		begin := time.Now()
		to := func(at time.Duration) { time.Sleep(time.Until(begin.Add(at + 15*time.Minute))); synctest.Wait() }
		for _, step := range []struct {
			at       time.Duration
			warnings int
			state    string
		}{
			{5 * day, 0, StateValid},
			{10 * day, 1, StateValid},
			{69 * day, 1, StateValid},
			{70 * day, 2, StateWarning},
			{93 * day, 3, StateWarning},
			{99 * day, 4, StateWarning},
			{100 * day, 4, StateExpired},
			{111 * day, 4, StateExpired},
		} {
			to(step.at)
			if got := r.events.count(events.LicenseWarning); got != step.warnings || k.Summary().State != step.state {
				t.Errorf("day %v: got %d warnings, %s; want %d, %s", step.at/day, got, k.Summary().State, step.warnings, step.state)
			}
		}
		if got := r.events.count(events.LicenseExpired); got != 1 {
			t.Errorf("got %d times expired; want 1", got)
		}
		if _, _, due, err := k.Lease("n1", "fp", time.Time{}, time.Now()); due || err != nil {
			t.Errorf("a lease after the grace: got %v, %v; want none", due, err)
		}
		if err := k.Admit(0); err == nil {
			t.Error("Admit after the grace: got nil; want a refusal")
		}
		if again := r.open(t); again.Summary().State != StateExpired {
			t.Errorf("after a restart: got %+v; want expired", again.Summary())
		}
	})
}

// TestLeaseOverThirtyDays polls each 30 s for 30 days: the node always holds a
// lease, gets about two a day, and never one that is of no use.
func TestLeaseOverThirtyDays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		k := r.open(t)
		public := r.key.Public().(ed25519.PublicKey)
		var held time.Time
		fresh := 0
		for range 30 * 24 * 120 {
			token, info, due, err := k.Lease("n1", "fp", held, time.Now())
			if err != nil {
				t.Fatal(err)
			}
			if due {
				l, err := VerifyLease(token, public, r.o.Cluster, "n1", "fp")
				if err != nil || !l.Expires.Equal(info.Expires) {
					t.Fatalf("VerifyLease: %+v, %v", l, err)
				}
				if !held.IsZero() && l.Expires.Sub(held) < DefaultLeaseLife/10 {
					t.Fatalf("a lease of little use: %v after %v", l.Expires, held)
				}
				held = l.Expires
				fresh++
			}
			if left := time.Until(held); left < DefaultLeaseLife*9/10-time.Minute {
				t.Fatalf("%v left of the lease; want at least nine tenths", left)
			}
			if wait := k.RenewIn("n1", held, time.Now()); wait <= 0 || wait > DefaultLeaseLife/10 {
				t.Fatalf("RenewIn: got %v; want more than 0 and at most 12 h", wait)
			}
			time.Sleep(30 * time.Second)
		}
		if fresh < 59 || fresh > 61 {
			t.Errorf("got %d leases in 30 days; want 60", fresh)
		}
	})
}

// TestLeasesLastToTheEndOfTheLicense polls each 30 s until license and grace are
// over, for nodes that joined at different hours: the lease of each ends with the
// grace, neither sooner nor later, and the last one is given once and not to all
// at the same time.
func TestLeasesLastToTheEndOfTheLicense(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		issuer := r.issuerOf(t)
		k := r.open(t)
		begin := time.Now()
		end := begin.Add(10*day + 7*time.Hour)
		if err := k.Install(t.Context(), issue(t, issuer, Claims{Expires: end.Add(-2 * day), Grace: 2 * day}), "admin"); err != nil {
			t.Fatal(err)
		}
		const nodes = 24 // one joins each half hour
		var held, last [nodes]time.Time
		for time.Now().Before(end.Add(time.Hour)) {
			for i := range nodes {
				if time.Since(begin) < time.Duration(i)*30*time.Minute {
					continue
				}
				id := binnacle.NodeID(fmt.Sprintf("n%d", i))
				_, info, due, err := k.Lease(id, "fp", held[i], time.Now())
				if err != nil {
					t.Fatal(err)
				}
				if due {
					held[i], last[i] = info.Expires, time.Now()
				}
			}
			time.Sleep(30 * time.Second)
		}
		hours := map[int]int{}
		for i := range nodes {
			if !held[i].Equal(end) {
				t.Errorf("node %d: its last lease ends at %v; want %v", i, held[i], end)
			}
			hours[int(last[i].Sub(begin)/time.Hour)]++
		}
		for h, n := range hours {
			if n > nodes/4 {
				t.Errorf("%d of %d nodes got their last lease in hour %d; want them spread", n, nodes, h)
			}
		}
	})
}

func TestAnotherLicenseReachesNodesWithTheirNextPoll(t *testing.T) {
	r := newRig(t)
	issuer := r.issuerOf(t)
	k := r.open(t)
	if err := k.Install(t.Context(), issue(t, issuer, Claims{Seats: 3, Features: []string{"a"}}), "admin"); err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	_, info, due, err := k.Lease("n1", "fp", time.Time{}, now)
	if err != nil || !due {
		t.Fatalf("first lease: %v, %v", due, err)
	}
	if _, again, due, _ := k.Lease("n1", "fp", info.Expires, now); due || again != info {
		t.Errorf("second poll: got due %v, %+v; want %+v", due, again, info)
	}
	if err := k.Install(t.Context(), issue(t, issuer, Claims{Seats: 3, Features: []string{"a", "b"}}), "admin"); err != nil {
		t.Fatal(err)
	}
	token, _, due, err := k.Lease("n1", "fp", info.Expires, now)
	if err != nil || !due {
		t.Fatalf("after the upgrade: %v, %v; want a lease", due, err)
	}
	l, err := VerifyLease(token, r.key.Public().(ed25519.PublicKey), r.o.Cluster, "n1", "fp")
	if err != nil || len(l.Features) != 2 || l.Epoch != r.store.Epoch() {
		t.Errorf("lease: got %+v, %v", l, err)
	}
}

func TestVerifyLeaseRefuses(t *testing.T) {
	_, key, _ := ed25519.GenerateKey(rand.Reader)
	_, stranger, _ := ed25519.GenerateKey(rand.Reader)
	public := key.Public().(ed25519.PublicKey)
	lease := Lease{Cluster: "c-1", Node: "n1", KeyFP: "fp1", Epoch: 3, Plan: "team", Issued: testNow, Expires: testNow.Add(5 * day)}
	issued := func(k ed25519.PrivateKey, change func(*Lease)) string {
		l := lease
		if change != nil {
			change(&l)
		}
		token, err := issueLease(k, l)
		if err != nil {
			t.Fatal(err)
		}
		return token
	}
	good := issued(key, nil)
	if l, err := VerifyLease(good, public, "c-1", "n1", "fp1"); err != nil || l.Epoch != 3 || l.FallbackRate != nil {
		t.Fatalf("VerifyLease: got %+v, %v", l, err)
	}
	asLicense := strings.Split(good, ".")
	for _, tc := range []struct {
		name  string
		token string
		want  error
	}{
		{"empty", "", ErrEmpty},
		{"oversized", strings.Repeat("x", maxToken+1), ErrTooLarge},
		{"truncated", good[:len(good)/2], ErrMalformed},
		{"another signer", issued(stranger, nil), ErrSignature},
		{"forged epoch", asLicense[0] + "." + base64Of(`{"iss":"c-1","sub":"n1","key":"fp1","epoch":99,"exp":9999999999,"iat":1}`) + "." + asLicense[2], ErrSignature},
		{"another cluster", issued(key, func(l *Lease) { l.Cluster = "c-2" }), ErrOtherHolder},
		{"another node", issued(key, func(l *Lease) { l.Node = "n2" }), ErrOtherHolder},
		{"another key of the node", issued(key, func(l *Lease) { l.KeyFP = "fp2" }), ErrOtherHolder},
		{"ends before it begins", issued(key, func(l *Lease) { l.Expires = l.Issued }), ErrClaims},
		{"a license of the cluster key", craft(t, key, map[string]any{"alg": "EdDSA", "typ": typLicense}, map[string]any{"iss": "c-1"}), ErrType},
		{"alg none", craft(t, key, map[string]any{"alg": "none", "typ": typLease}, map[string]any{"iss": "c-1"}), ErrAlgorithm},
	} {
		_, err := VerifyLease(tc.token, public, "c-1", "n1", "fp1")
		if !errors.Is(err, tc.want) {
			t.Errorf("%s: got %v; want %v", tc.name, err, tc.want)
		}
	}
	if _, err := VerifyLease(good, nil, "c-1", "n1", "fp1"); !errors.Is(err, ErrUnknownKey) {
		t.Errorf("no cluster key: got %v", err)
	}
}
