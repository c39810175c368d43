package activity

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"go.opentelemetry.io/collector/pdata/pmetric"

	"github.com/binnacle-project/binnacle"
)

// sample returns a checkpoint's bytes with something of everything.
func sampleCheckpoint(t testing.TB) []byte {
	a := open(t, Options{})
	now := time.Unix(1_800_000_000, 0)
	a.in.now = func() time.Time { return now }
	for _, form := range []string{"exp", "explicit", "krakend", "delta"} {
		n := newFakeNode("n-" + form)
		n.form = form
		n.start = now.Add(-time.Second)
		n.serve("/a", 200, 5, 0.01)
		n.serve("/b", 503, 5, 1)
		n.call("b", 81, 200, 5, 0.2)
		feed(t, a, managed(n.id, "default", 4), n.export(now))
	}
	return a.encodeLocked(now.UnixNano(), nil)
}

func TestCheckpointRoundTrip(t *testing.T) {
	b := sampleCheckpoint(t)
	c, err := decodeCheckpoint(b)
	if err != nil {
		t.Fatal(err)
	}
	a := open(t, Options{})
	a.adopt(c)
	again := a.encodeLocked(c.at, nil)
	if len(again) != len(b) { // maps have no order: the same size and content
		t.Errorf("encoded again: got %d bytes; want %d", len(again), len(b))
	}
	if len(a.senders) != 4 || a.streams != 12 || len(a.rollups) == 0 {
		t.Errorf("got %d senders, %d streams, %d roll-ups", len(a.senders), a.streams, len(a.rollups))
	}
}

// TestCheckpointWithManyLayouts: those beyond the ones that are shared are in it too.
func TestCheckpointWithManyLayouts(t *testing.T) {
	a := open(t, Options{})
	now := time.Unix(1_800_000_000, 0)
	a.in.now = func() time.Time { return now }
	const layouts = maxLayouts + 20
	md := pmetric.NewMetrics()
	rm := md.ResourceMetrics().AppendEmpty()
	rm.Resource().Attributes().PutStr("service.name", "binnacle-gateway")
	m := rm.ScopeMetrics().AppendEmpty().Metrics().AppendEmpty()
	m.SetName(binnacle.MetricServerDuration)
	h := m.SetEmptyHistogram()
	h.SetAggregationTemporality(pmetric.AggregationTemporalityCumulative)
	for i := range layouts {
		dp := h.DataPoints().AppendEmpty()
		times(dp, now.Add(-time.Second), now)
		dp.Attributes().PutStr("http.route", fmt.Sprint("/", i))
		dp.ExplicitBounds().FromRaw([]float64{float64(i+1) / 100, 100})
		dp.BucketCounts().FromRaw([]uint64{uint64(i), 1, 0})
	}
	feed(t, a, managed("n1", "default", 4), md)
	if !a.layouts.stray {
		t.Fatal("all layouts have a number: the test shows nothing")
	}
	c, err := decodeCheckpoint(a.encodeLocked(now.UnixNano(), nil))
	if err != nil {
		t.Fatal(err)
	}
	for hash, st := range a.senders["n1"].streams {
		got := c.senders[0].streams[hash]
		if !slices.Equal(got.bounds.upper, st.bounds.upper) || !slices.Equal(got.n, st.n) {
			t.Fatalf("got %v of %v; want %v of %v", got.n, got.bounds.upper, st.n, st.bounds.upper)
		}
	}
}

// TestCheckpointOfVersion1 reads the file that sampleCheckpoint's state was written
// to by the version before roll-ups were as coarse as their senders, and goes on
// from there.
func TestCheckpointOfVersion1(t *testing.T) {
	b, err := os.ReadFile(filepath.Join("testdata", "checkpoints", "version-1"))
	if err != nil {
		t.Fatal(err)
	}
	a := open(t, Options{})
	c, err := decodeCheckpoint(b)
	if err != nil {
		t.Fatal(err)
	}
	a.adopt(c)
	at := time.Unix(1_800_000_000, 0)
	a.in.now = func() time.Time { return at }
	forms := []string{"exp", "explicit", "krakend", "delta"}
	if c.at != at.UnixNano() || len(a.senders) != len(forms) || a.streams != 12 {
		t.Fatalf("got %d senders, %d streams of %d", len(a.senders), a.streams, c.at)
	}
	for id, r := range a.rollups {
		if want := uint64(5); r.cum.coarser != 0 || r.cum.count%want != 0 || r.cum.count == 0 || r.cum.count > 5*uint64(len(forms)) {
			t.Errorf("%v: got %+v", id, r.cum)
		}
	}
	// What the file knows counts once; what comes now is new.
	for round, more := range []int{0, 3} {
		at = at.Add(10 * time.Second)
		for _, form := range forms {
			n := newFakeNode("n-" + form)
			n.form = form
			n.start = time.Unix(1_800_000_000, 0).Add(-time.Second)
			if form == "delta" {
				n.serve("/a", 200, more, 0.01)
				if more == 0 {
					continue
				}
				n.start = at.Add(-10 * time.Second)
			} else {
				n.serve("/a", 200, 5+more, 0.01)
				n.serve("/b", 503, 5, 1)
				n.call("b", 81, 200, 5, 0.2)
			}
			feed(t, a, managed(n.id, "default", 4), n.export(at))
			if got := a.keys.get(keyID{kind: kindNode, node: binnacle.NodeID(n.id)}).total; got != uint64(10+more) {
				t.Errorf("round %d, %s: got a total of %d; want %d", round, form, got, 10+more)
			}
		}
	}
	// It is written in today's form.
	c, err = decodeCheckpoint(a.encodeLocked(at.UnixNano(), nil))
	if err != nil || len(c.senders) != len(forms) || len(c.rollups) != len(a.rollups) || len(c.keys) != len(a.keys.byID) {
		t.Fatalf("written again: got %+v, %v", c, err)
	}
}

// TestDamagedCheckpoint cuts it at every byte and flips bits: it is put aside,
// never believed, and the manager starts.
func TestDamagedCheckpoint(t *testing.T) {
	b := sampleCheckpoint(t)
	for n := range b {
		if _, err := decodeCheckpoint(b[:n]); !errors.Is(err, errCheckpoint) {
			t.Fatalf("cut at %d of %d: got %v", n, len(b), err)
		}
	}
	for range 1000 {
		bad := append([]byte(nil), b...)
		bad[rand.IntN(len(bad))] ^= 1 << rand.IntN(8)
		if _, err := decodeCheckpoint(bad); !errors.Is(err, errCheckpoint) {
			t.Fatalf("a flipped bit: got %v", err)
		}
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, checkpointFile), b[:100], 0o600); err != nil {
		t.Fatal(err)
	}
	a := open(t, Options{Dir: dir})
	if len(a.senders) != 0 {
		t.Errorf("got %d senders of a damaged file", len(a.senders))
	}
	aside, _ := filepath.Glob(filepath.Join(dir, checkpointFile+".damaged-*"))
	if len(aside) != 1 {
		t.Errorf("put aside: got %v; want one file", aside)
	}
}

func FuzzCheckpoint(f *testing.F) {
	b := sampleCheckpoint(f)
	f.Add(b[len(checkpointMagic) : len(b)-4])
	f.Fuzz(func(t *testing.T, body []byte) {
		// No map is walked here: the fuzzer takes a changing order for news.
		c, err := decodeBody(1+len(body)%2, body)
		if err != nil {
			return
		}
		for _, k := range c.keys {
			if k.id.kind >= numKinds {
				t.Fatalf("a key of kind %d", k.id.kind)
			}
		}
		for _, r := range c.rollups {
			if h := r.cum.native(&r.cum); h.Schema > scale || h.Schema < scale-maxCoarser {
				t.Fatalf("a roll-up of schema %d", h.Schema)
			}
		}
	})
}
