package licensing

import (
	"crypto/ed25519"
	"encoding/base64"
	"errors"
	"runtime"
	"strings"
	"testing"
	"time"
)

// leaseAttacks are ways to get a lease taken that is none for this node.
func leaseAttacks(t testing.TB, key, stranger ed25519.PrivateKey) []attack {
	lease := Lease{Cluster: "c-1", Node: "n1", KeyFP: "fp1", Epoch: 3, Plan: "team", Issued: testNow, Expires: testNow.Add(5 * day)}
	issued := func(k ed25519.PrivateKey, change func(*Lease)) string {
		l := lease
		change(&l)
		token, err := issueLease(k, l)
		if err != nil {
			t.Fatal(err)
		}
		return token
	}
	good := issued(key, func(*Lease) {})
	with := func(base map[string]any, name string, value any) map[string]any {
		out := map[string]any{}
		for n, v := range base {
			out[n] = v
		}
		if out[name] = value; value == nil {
			delete(out, name)
		}
		return out
	}
	head := map[string]any{"alg": "EdDSA", "typ": typLease}
	body := map[string]any{"jti": "l1", "iss": "c-1", "sub": "n1", "key": "fp1", "epoch": 3, "plan": "team", "iat": testNow.Unix(), "exp": testNow.Add(time.Hour).Unix(), "fallback_rate": 250}
	withHead := func(n string, v any) string { return craft(t, key, with(head, n, v), body) }
	withBody := func(n string, v any) string { return craft(t, key, head, with(body, n, v)) }
	// What is signed stays, what is said changes.
	forged := func(n string, v any) string {
		p, q := strings.Split(craft(t, key, head, body), "."), strings.Split(withBody(n, v), ".")
		return p[0] + "." + q[1] + "." + p[2]
	}
	if _, err := VerifyLease(craft(t, key, head, body), key.Public().(ed25519.PublicKey), "c-1", "n1", "fp1"); err != nil {
		t.Fatalf("the token that the attacks are made of: %v", err)
	}
	parts := strings.Split(good, ".")
	b64 := base64.RawURLEncoding.EncodeToString
	issuer := IssuerKey{key} // a license that the cluster's key signed
	return []attack{
		{"empty", "", ErrEmpty},
		{"one byte too large", strings.Repeat("a", maxToken+1), ErrTooLarge},
		{"64 MiB", strings.Repeat("a.", 32<<20), ErrTooLarge},
		{"a good one with 8 KiB behind it", good + strings.Repeat("A", maxToken), ErrTooLarge},
		{"no dots", "lease", ErrMalformed},
		{"two parts", parts[0] + "." + parts[1], ErrMalformed},
		{"five parts", good + ".a.b", ErrMalformed},
		{"8 KiB of dots", strings.Repeat(".", maxToken), ErrMalformed},
		{"cut in half", good[:len(good)/2], ErrMalformed},
		{"cut by one byte", good[:len(good)-1], ErrMalformed},
		{"without its signature", parts[0] + "." + parts[1] + ".", ErrSignature},
		{"padded", parts[0] + "=." + parts[1] + "." + parts[2], ErrMalformed},
		{"bytes that are no text", "\x00\xff." + parts[1] + "." + parts[2], ErrMalformed},
		{"another's signature", parts[0] + "." + parts[1] + "." + strings.Split(issued(stranger, func(*Lease) {}), ".")[2], ErrSignature},
		{"the signature of another lease", parts[0] + "." + parts[1] + "." + strings.Split(issued(key, func(l *Lease) { l.Epoch = 9 }), ".")[2], ErrSignature},
		{"payload is no JSON", craft(t, key, head, []byte("{")), ErrMalformed},
		{"payload is null", craft(t, key, head, []byte("null")), ErrOtherHolder},
		{"payload is deep", craft(t, key, head, []byte(strings.Repeat("[", 2000)+strings.Repeat("]", 2000))), ErrMalformed},
		{"alg none", b64([]byte(`{"alg":"none","typ":"lease+jwt"}`)) + "." + parts[1] + ".", ErrAlgorithm},
		{"alg none with a signature", withHead("alg", "none"), ErrAlgorithm},
		{"alg missing", withHead("alg", nil), ErrAlgorithm},
		{"alg HS256", withHead("alg", "HS256"), ErrAlgorithm},
		{"alg RS256", withHead("alg", "RS256"), ErrAlgorithm},
		{"alg is a list", withHead("alg", []string{"EdDSA"}), ErrAlgorithm},
		{"typ missing", withHead("typ", nil), ErrType},
		{"typ JWT", withHead("typ", "JWT"), ErrType},
		{"a license of the cluster's key", issue(t, issuer, Claims{}), ErrType},
		{"a stranger's, with its key in the header", craft(t, stranger, with(head, "jwk", map[string]any{"kty": "OKP", "crv": "Ed25519", "x": b64(stranger.Public().(ed25519.PublicKey))}), body), ErrSignature},
		{"a stranger's, with a key's address", craft(t, stranger, with(head, "jku", "http://127.0.0.1/keys"), body), ErrSignature},
		{"a stranger's", issued(stranger, func(*Lease) {}), ErrSignature},
		{"of another cluster", issued(key, func(l *Lease) { l.Cluster = "c-2" }), ErrOtherHolder},
		{"of another node", issued(key, func(l *Lease) { l.Node = "n2" }), ErrOtherHolder},
		{"of another key of this node", issued(key, func(l *Lease) { l.KeyFP = "fp2" }), ErrOtherHolder},
		{"of no cluster", withBody("iss", nil), ErrOtherHolder},
		{"of no node", withBody("sub", nil), ErrOtherHolder},
		{"of no key", withBody("key", nil), ErrOtherHolder},
		{"without an id", withBody("jti", nil), ErrClaims},
		{"with a long id", withBody("jti", strings.Repeat("x", 500)), ErrClaims},
		{"its epoch raised", forged("epoch", 99), ErrSignature},
		{"its end put off", forged("exp", testNow.Add(1000*day).Unix()), ErrSignature},
		{"its node changed", forged("sub", "n2"), ErrSignature},
		{"its fallback rate taken away", forged("fallback_rate", nil), ErrSignature},
		{"epoch in words", withBody("epoch", "3"), ErrMalformed},
		{"a negative epoch", withBody("epoch", -1), ErrMalformed},
		{"an epoch beyond 64 bits", craft(t, key, head, []byte(`{"jti":"l1","epoch":99999999999999999999}`)), ErrMalformed},
		{"without an end", withBody("exp", nil), ErrClaims},
		{"ends as it begins", issued(key, func(l *Lease) { l.Expires = l.Issued }), ErrClaims},
		{"ends before it begins", issued(key, func(l *Lease) { l.Expires = l.Issued.Add(-day) }), ErrClaims},
		{"ends after the year 9999", withBody("exp", int64(1)<<50), ErrClaims},
		{"begins before 1970", withBody("iat", -1), ErrClaims},
		{"end in words", withBody("exp", "tomorrow"), ErrMalformed},
		{"a fractional end", withBody("exp", 1.5), ErrMalformed},
		{"a fallback rate of 0, which would refuse everything", withBody("fallback_rate", 0), ErrClaims},
		{"a negative fallback rate", withBody("fallback_rate", -1), ErrClaims},
		{"a fallback rate in words", withBody("fallback_rate", "all"), ErrMalformed},
	}
}

// TestVerifyLeaseUnderAttack: each attack has its error, and all of them
// together cost next to nothing.
func TestVerifyLeaseUnderAttack(t *testing.T) {
	_, key, _ := ed25519.GenerateKey(nil)
	_, stranger, _ := ed25519.GenerateKey(nil)
	public := key.Public().(ed25519.PublicKey)
	list := leaseAttacks(t, key, stranger)
	if len(list) < 40 {
		t.Errorf("there are %d attacks; want at least 40", len(list))
	}
	for _, tc := range list {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, err := VerifyLease(tc.token, public, "c-1", "n1", "fp1")
		runtime.ReadMemStats(&after)
		if !errors.Is(err, tc.want) {
			t.Errorf("%s: got %v; want %v", tc.name, err, tc.want)
			continue
		}
		if len(err.Error()) > 400 || !strings.HasPrefix(err.Error(), "the lease is not taken: ") {
			t.Errorf("%s: message: %s", tc.name, err)
		}
		if got := after.TotalAlloc - before.TotalAlloc; got > 256<<10 {
			t.Errorf("%s: allocated %d bytes; want at most 256 KiB", tc.name, got)
		}
	}
}

func FuzzVerifyLease(f *testing.F) {
	key := ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize))
	stranger := ed25519.NewKeyFromSeed([]byte(strings.Repeat("s", ed25519.SeedSize)))
	public := key.Public().(ed25519.PublicKey)
	for _, a := range leaseAttacks(f, key, stranger) {
		if len(a.token) < 4096 {
			f.Add(a.token)
		}
	}
	f.Fuzz(func(t *testing.T, token string) {
		l, err := VerifyLease(token, public, "c-1", "n1", "fp1")
		if err != nil {
			return
		}
		// The fuzzer has no key: what is taken was signed in the seeds.
		if l.Cluster != "c-1" || l.Node != "n1" || l.KeyFP != "fp1" || l.Life() <= 0 || l.FallbackRate != nil && *l.FallbackRate <= 0 {
			t.Fatalf("taken: %+v", l)
		}
	})
}
