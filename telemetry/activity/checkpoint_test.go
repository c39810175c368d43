package activity

import (
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"
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
