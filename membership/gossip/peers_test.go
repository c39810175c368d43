package gossip

import (
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/VictoriaMetrics/metrics"
)

func newSet() *metrics.Set { return metrics.NewSet() }

func TestPeerBook(t *testing.T) {
	path := filepath.Join(t.TempDir(), "peers.json")
	log := slog.New(slog.DiscardHandler)
	now := time.Now()
	b := openPeerBook(path, log)
	b.seen("n-old", netip.MustParseAddrPort("10.0.0.1:9898"), now.Add(-8*24*time.Hour))
	b.seen("n-one", netip.MustParseAddrPort("10.0.0.2:9898"), now.Add(-time.Hour))
	b.seen("n-two", netip.MustParseAddrPort("[2001:db8::1]:9898"), now)
	b.seen("n-left", netip.MustParseAddrPort("10.0.0.4:9898"), now)
	b.left("n-left")
	if err := b.save(); err != nil {
		t.Fatal(err)
	}
	got := openPeerBook(path, log).list()
	if len(got) != 2 || got[0].ID != "n-two" || got[1].ID != "n-one" || got[0].Addr != netip.MustParseAddrPort("[2001:db8::1]:9898") {
		t.Errorf("reopened: got %+v; want n-two and n-one", got)
	}

	// A file cut anywhere, or of nonsense, is an empty book and no error.
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for i := range len(whole) - 1 {
		if err := os.WriteFile(path, whole[:i], 0o600); err != nil {
			t.Fatal(err)
		}
		if n := len(openPeerBook(path, log).list()); n != 0 {
			t.Fatalf("cut at %d: %d peers", i, n)
		}
	}
	b = openPeerBook("", log)
	b.seen("n-one", netip.MustParseAddrPort("10.0.0.2:9898"), now)
	if err := b.save(); err != nil {
		t.Errorf("a book without a file: %v", err)
	}
}

func FuzzParsePeers(f *testing.F) {
	f.Add([]byte(`{"peers":[{"id":"n-1","addr":"10.0.0.1:9898","seen":"2026-11-23T00:00:00Z"}]}`))
	f.Add([]byte(`{"peers":[{}]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		peers, err := parsePeers(b, time.Now())
		for _, p := range peers {
			if err != nil || p.ID == "" || !p.Addr.IsValid() {
				t.Fatalf("parsePeers(%q): got %+v, %v", b, p, err)
			}
		}
	})
}
