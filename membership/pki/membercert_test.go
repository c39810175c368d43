package pki

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"testing"
)

func TestMembershipCert(t *testing.T) {
	a, other := newAuthority(t), newAuthority(t)
	key, err := NewNodeKey()
	if err != nil {
		t.Fatal(err)
	}
	id := Identity{ID: "n-0123456789ab", Key: key}
	id.Cert = a.MembershipCert(id.ID, key.Public().(ed25519.PublicKey))
	got, pub, err := VerifyMembership(a.PublicKey(), a.Cluster(), id.Cert)
	if err != nil || got != id.ID || !pub.Equal(id.Key.Public()) {
		t.Fatalf("VerifyMembership: got %s, %v; want %s", got, err, id.ID)
	}
	if _, _, err := VerifyMembership(other.PublicKey(), other.Cluster(), id.Cert); !errors.Is(err, ErrNotMember) {
		t.Errorf("another cluster: got %v; want %v", err, ErrNotMember)
	}
	if _, _, err := VerifyMembership(a.PublicKey(), other.Cluster(), id.Cert); !errors.Is(err, ErrNotMember) {
		t.Errorf("another cluster's name: got %v; want %v", err, ErrNotMember)
	}
	for i := range id.Cert {
		bad := bytes.Clone(id.Cert)
		bad[i] ^= 1
		if _, _, err := VerifyMembership(a.PublicKey(), a.Cluster(), bad); err == nil {
			t.Errorf("with byte %d changed: accepted", i)
		}
		if _, _, err := VerifyMembership(a.PublicKey(), a.Cluster(), id.Cert[:i]); err == nil {
			t.Errorf("cut at %d: accepted", i)
		}
	}
	if m, err := a.ManagerIdentity("host-1"); err != nil || !m.Manager() || id.Manager() {
		t.Errorf("ManagerIdentity: %s is a manager: %v, %v; %s: %v", m.ID, m.Manager(), err, id.ID, id.Manager())
	}
}

func FuzzVerifyMembership(f *testing.F) {
	// Always the same keys: fuzzing runs in several processes.
	a, err := NewAuthority(ed25519.NewKeyFromSeed(bytes.Repeat([]byte{1}, ed25519.SeedSize)))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(a.MembershipCert("n-1", ed25519.NewKeyFromSeed(bytes.Repeat([]byte{2}, ed25519.SeedSize)).Public().(ed25519.PublicKey)))
	f.Fuzz(func(t *testing.T, b []byte) {
		id, pub, err := VerifyMembership(a.PublicKey(), a.Cluster(), b)
		if err == nil && !bytes.Equal(a.MembershipCert(id, pub), b) {
			t.Fatalf("accepted %x, which the authority would not write", b)
		}
	})
}
