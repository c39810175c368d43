package gossip

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"

	"github.com/binnacle-project/binnacle"
	"github.com/binnacle-project/binnacle/membership/pki"
)

// identity makes a member of a.
func newAuthority(t testing.TB) *pki.Authority {
	t.Helper()
	a, err := pki.OpenAuthority(filepath.Join(t.TempDir(), "ca"))
	if err != nil {
		t.Fatalf("OpenAuthority: %v", err)
	}
	return a
}

func identity(t testing.TB, a *pki.Authority, id binnacle.NodeID) pki.Identity {
	t.Helper()
	key, err := pki.NewNodeKey()
	if err != nil {
		t.Fatal(err)
	}
	return pki.Identity{ID: id, Key: key, Cert: a.MembershipCert(id, key.Public().(ed25519.PublicKey))}
}

func TestMetadata(t *testing.T) {
	a, other := newAuthority(t), newAuthority(t)
	id := identity(t, a, "n-0123456789ab")
	gossip := netip.MustParseAddrPort("[2001:db8::1]:9898")
	metas := []Metadata{
		{},
		{Address: "10.0.0.7:8080", Revision: 42, Hash: [8]byte{1, 2, 3}, Serving: true},
		{Address: strings.Repeat("a", maxAddress-5) + ":8080", Revision: 1 << 63, Serving: true, Draining: true, Leaving: true},
	}
	for _, m := range metas {
		b, err := sealMetadata(m, gossip, id)
		if err != nil {
			t.Fatalf("seal %+v: %v", m, err)
		}
		if len(b) > maxMetadata {
			t.Errorf("%+v has %d bytes; at most %d", m, len(b), maxMetadata)
		}
		rec, err := openMetadata(b, a.PublicKey(), a.Cluster())
		if err != nil || rec.meta != m || rec.id != id.ID || rec.gossip != gossip {
			t.Errorf("open: got %+v, %v; want %+v", rec, err, m)
		}
		for i := range b {
			bad := bytes.Clone(b)
			bad[i] ^= 0x10
			if _, err := openMetadata(bad, a.PublicKey(), a.Cluster()); err == nil {
				t.Errorf("%+v with byte %d changed: accepted", m, i)
			}
			if _, err := openMetadata(b[:i], a.PublicKey(), a.Cluster()); err == nil {
				t.Errorf("%+v cut at %d: accepted", m, i)
			}
		}
		if _, err := openMetadata(append(b, 0), a.PublicKey(), a.Cluster()); err == nil {
			t.Errorf("%+v with a byte more: accepted", m)
		}
		if _, err := openMetadata(b, other.PublicKey(), other.Cluster()); !errors.Is(err, pki.ErrNotMember) {
			t.Errorf("another cluster: got %v; want %v", err, pki.ErrNotMember)
		}
	}
	// The largest record there can be, with the longest id.
	big := identity(t, a, binnacle.NodeID(strings.Repeat("n", pki.MaxMemberID)))
	if b, err := sealMetadata(metas[2], gossip, big); err != nil || len(b) > maxMetadata {
		t.Errorf("largest record has %d bytes, %v; at most %d", len(b), err, maxMetadata)
	} else {
		t.Logf("largest record: %d bytes", len(b))
	}
	if _, err := sealMetadata(Metadata{Address: strings.Repeat("a", maxAddress+1)}, gossip, id); err == nil {
		t.Error("an address too long was sealed")
	}
	// Metadata signed by one member cannot carry another's certificate.
	thief := identity(t, a, "n-thief")
	thief.Cert = id.Cert
	b, err := sealMetadata(Metadata{}, gossip, thief)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := openMetadata(b, a.PublicKey(), a.Cluster()); err == nil {
		t.Error("a stolen certificate was accepted")
	}
}

func TestVerifierRemembers(t *testing.T) {
	a := newAuthority(t)
	id := identity(t, a, "n-1")
	b, err := sealMetadata(Metadata{Serving: true}, netip.MustParseAddrPort("127.0.0.1:1"), id)
	if err != nil {
		t.Fatal(err)
	}
	v := newVerifier(a.PublicKey(), a.Cluster())
	for range 3 {
		if rec, err := v.open(b); err != nil || rec.id != "n-1" {
			t.Fatalf("open: %v, %v", rec.id, err)
		}
		if _, err := v.open(b[:50]); err == nil {
			t.Fatal("a cut record was accepted")
		}
	}
	if len(v.verdict) != 2 {
		t.Errorf("%d verdicts kept; want 2", len(v.verdict))
	}
}

// fixedIdentity is signed by, and has, always the same key: fuzzing runs in several
// processes.
func fixedIdentity(t testing.TB, id binnacle.NodeID) (*pki.Authority, pki.Identity) {
	t.Helper()
	a, err := pki.NewAuthority(ed25519.NewKeyFromSeed(bytes.Repeat([]byte{1}, ed25519.SeedSize)))
	if err != nil {
		t.Fatal(err)
	}
	key := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{2}, ed25519.SeedSize))
	return a, pki.Identity{ID: id, Key: key, Cert: a.MembershipCert(id, key.Public().(ed25519.PublicKey))}
}

func FuzzMetadata(f *testing.F) {
	a, id := fixedIdentity(f, "n-0123456789ab")
	for _, m := range []Metadata{{}, {Address: "10.0.0.7:8080", Revision: 42, Serving: true}} {
		b, err := sealMetadata(m, netip.MustParseAddrPort("10.0.0.7:9898"), id)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		rec, err := openMetadata(b, a.PublicKey(), a.Cluster())
		if err != nil {
			return // refusing is fine
		}
		// Whatever is accepted was signed, and so has one encoding.
		again, err := sealMetadata(rec.meta, rec.gossip, id)
		if err != nil || !bytes.Equal(again, b) {
			t.Fatalf("round trip of %x: got %x, %v", b, again, err)
		}
	})
}
