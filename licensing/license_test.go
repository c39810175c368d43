package licensing

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"errors"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

var (
	testNow = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	thisFP  = strings.Repeat("ab", 32)
	otherFP = strings.Repeat("cd", 32)
)

func newIssuer(t testing.TB) IssuerKey {
	t.Helper()
	k, err := GenerateIssuer()
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func issue(t testing.TB, k IssuerKey, c Claims) string {
	t.Helper()
	if c.Plan == "" {
		c.Plan = "team"
	}
	token, err := Issue(k, c)
	if err != nil {
		t.Fatalf("Issue: %v", err)
	}
	return token
}

func TestLicenseRoundTrip(t *testing.T) {
	k := newIssuer(t)
	rate := 250.0
	in := Claims{
		Issuer: "Binnacle Shop", Customer: "ACME", Plan: "team", Cluster: thisFP, Seats: 25, Features: []string{"a", "b"},
		NotBefore: testNow.Add(-time.Hour), Expires: testNow.Add(1000 * time.Hour), Grace: 72 * time.Hour, FallbackRate: &rate,
	}
	token := issue(t, k, in)
	got, err := ParseLicense(token, []IssuerPublicKey{newIssuer(t).Public(), k.Public()}, thisFP, testNow)
	if err != nil {
		t.Fatalf("ParseLicense: %v", err)
	}
	if got.Customer != "ACME" || got.Seats != 25 || got.Grace != 72*time.Hour || *got.FallbackRate != 250 || !got.Expires.Equal(in.Expires) || !got.NotBefore.Equal(in.NotBefore) || len(got.Features) != 2 || got.KeyID != k.Public().ID() || got.Token != token {
		t.Errorf("ParseLicense: got %+v; want %+v", got, in)
	}
	seen, err := InspectLicense(token)
	if err != nil || seen.ID != got.ID {
		t.Errorf("InspectLicense: got %+v, %v", seen, err)
	}
}

func TestFallbackRateOfALicense(t *testing.T) {
	k := newIssuer(t)
	none, err := ParseLicense(issue(t, k, Claims{}), []IssuerPublicKey{k.Public()}, thisFP, testNow)
	if err != nil || none.FallbackRate != nil {
		t.Errorf("no limit stated: got %v, %v; want nil", none.FallbackRate, err)
	}
	absent := craft(t, k.private, map[string]any{"alg": "EdDSA", "typ": typLicense, "kid": k.Public().ID()}, map[string]any{"jti": "x", "plan": "team", "seats": 1})
	l, err := ParseLicense(absent, []IssuerPublicKey{k.Public()}, thisFP, testNow)
	if err != nil || l.FallbackRate == nil || *l.FallbackRate != DefaultFallbackRate {
		t.Errorf("no rate stated: got %v, %v; want %g", l.FallbackRate, err, DefaultFallbackRate)
	}
}

// craft signs any header and payload, as an attacker with a key of their own,
// or a careless issuer, may.
func craft(t testing.TB, key ed25519.PrivateKey, header, payload any) string {
	t.Helper()
	h, err := json.Marshal(header)
	if err != nil {
		t.Fatal(err)
	}
	p, ok := payload.([]byte)
	if !ok {
		if p, err = json.Marshal(payload); err != nil {
			t.Fatal(err)
		}
	}
	text := base64.RawURLEncoding.EncodeToString(h) + "." + base64.RawURLEncoding.EncodeToString(p)
	return text + "." + base64.RawURLEncoding.EncodeToString(ed25519.Sign(key, []byte(text)))
}

// attacks are ways to be wrong, with what each is called.
func attacks(t testing.TB, k IssuerKey) []attack {
	good := issue(t, k, Claims{Expires: testNow.Add(time.Hour)})
	kid := k.Public().ID()
	head := func(over map[string]any) map[string]any {
		h := map[string]any{"alg": "EdDSA", "typ": typLicense, "kid": kid}
		for n, v := range over {
			if v == nil {
				delete(h, n)
			} else {
				h[n] = v
			}
		}
		return h
	}
	body := func(over map[string]any) map[string]any {
		b := map[string]any{"jti": "lic-1", "plan": "team", "seats": 3, "iat": testNow.Unix()}
		for n, v := range over {
			b[n] = v
		}
		return b
	}
	parts := strings.Split(good, ".")
	b64 := base64.RawURLEncoding.EncodeToString
	stranger := newIssuer(t)
	rsaKey, err := rsa.GenerateKey(rand.Reader, 1024) //nolint:gosec // an attacker's key
	if err != nil {
		t.Fatal(err)
	}
	signed := func(m jwt.SigningMethod, key any) string {
		tok := jwt.NewWithClaims(m, jwt.MapClaims(body(nil)))
		tok.Header["typ"], tok.Header["kid"] = typLicense, kid
		s, err := tok.SignedString(key)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	withHeader := func(over map[string]any) string { return craft(t, k.private, head(over), body(nil)) }
	withBody := func(over map[string]any) string { return craft(t, k.private, head(nil), body(over)) }
	list := []attack{
		{"empty", "", ErrEmpty},
		{"one byte too large", strings.Repeat("a", maxToken+1), ErrTooLarge},
		{"16 MiB", strings.Repeat("a.", 8<<20), ErrTooLarge},
		{"no dots", "abc", ErrMalformed},
		{"two parts", parts[0] + "." + parts[1], ErrMalformed},
		{"four parts", good + ".x", ErrMalformed},
		{"8 KiB of dots", strings.Repeat(".", maxToken), ErrMalformed},
		{"truncated in the signature", good[:len(good)-1], ErrMalformed},
		{"truncated in the payload", parts[0] + "." + parts[1][:len(parts[1])-4] + "." + parts[2], ErrMalformed},
		{"no signature", parts[0] + "." + parts[1] + ".", ErrSignature},
		{"padded base64", parts[0] + "=." + parts[1] + "." + parts[2], ErrMalformed},
		{"standard base64 alphabet", parts[0] + "." + "+/" + parts[1] + "." + parts[2], ErrMalformed},
		{"a line break inside", parts[0] + ".\n" + parts[1] + "." + parts[2], ErrSignature},
		{"header is no JSON", b64([]byte("{")) + "." + parts[1] + "." + parts[2], ErrMalformed},
		{"header is a list", b64([]byte("[]")) + "." + parts[1] + "." + parts[2], ErrMalformed},
		{"header is null", b64([]byte("null")) + "." + parts[1] + "." + parts[2], ErrAlgorithm},
		{"deep header", b64([]byte(`{"a":`+strings.Repeat("[", 3000)+strings.Repeat("]", 3000)+`}`)) + ".e30.e30", ErrAlgorithm},
		{"payload is no JSON", craft(t, k.private, head(nil), []byte("{")), ErrMalformed},
		{"payload is null", craft(t, k.private, head(nil), []byte("null")), ErrClaims},
		{"payload is a list", craft(t, k.private, head(nil), []byte("[]")), ErrMalformed},
		{"payload is empty", craft(t, k.private, head(nil), []byte("{}")), ErrClaims},
		{"alg none", b64([]byte(`{"alg":"none","typ":"lic+jwt","kid":"`+kid+`"}`)) + "." + parts[1] + ".", ErrAlgorithm},
		{"alg None with a signature", withHeader(map[string]any{"alg": "None"}), ErrAlgorithm},
		{"alg missing", withHeader(map[string]any{"alg": nil}), ErrAlgorithm},
		{"alg is a number", withHeader(map[string]any{"alg": 7}), ErrAlgorithm},
		{"alg in lower case", withHeader(map[string]any{"alg": "eddsa"}), ErrAlgorithm},
		{"HS256 with the public key as secret", signed(jwt.SigningMethodHS256, []byte(k.Public().key)), ErrAlgorithm},
		{"HS256 with the public key's PEM as secret", signed(jwt.SigningMethodHS256, k.Public().PEM()), ErrAlgorithm},
		{"RS256", signed(jwt.SigningMethodRS256, rsaKey), ErrAlgorithm},
		{"typ JWT", withHeader(map[string]any{"typ": "JWT"}), ErrType},
		{"typ missing", withHeader(map[string]any{"typ": nil}), ErrType},
		{"a lease", withHeader(map[string]any{"typ": typLease}), ErrType},
		{"typ in upper case", withHeader(map[string]any{"typ": "LIC+JWT"}), ErrType},
		{"unknown key", issue(t, stranger, Claims{}), ErrUnknownKey},
		{"no key id", withHeader(map[string]any{"kid": nil}), ErrUnknownKey},
		{"key id is a path", withHeader(map[string]any{"kid": "../../etc/passwd"}), ErrUnknownKey},
		{"key id is a list", withHeader(map[string]any{"kid": []string{kid}}), ErrUnknownKey},
		{"a stranger's key under our key's id", craft(t, stranger.private, head(nil), body(nil)), ErrSignature},
		{"the stranger's key in the header", craft(t, stranger.private, head(map[string]any{"jwk": map[string]any{"kty": "OKP", "crv": "Ed25519", "x": b64(stranger.Public().key)}}), body(nil)), ErrSignature},
		{"the stranger's key by address", craft(t, stranger.private, head(map[string]any{"jku": "http://127.0.0.1/keys", "x5u": "http://127.0.0.1/"}), body(nil)), ErrSignature},
		{"seats raised", parts[0] + "." + b64([]byte(`{"jti":"x","plan":"team","seats":1000}`)) + "." + parts[2], ErrSignature},
		{"negative seats", withBody(map[string]any{"seats": -1}), ErrClaims},
		{"huge seats", withBody(map[string]any{"seats": 1e9}), ErrClaims},
		{"seats overflow", craft(t, k.private, head(nil), []byte(`{"jti":"x","plan":"team","seats":99999999999999999999}`)), ErrMalformed},
		{"seats in words", withBody(map[string]any{"seats": "all"}), ErrMalformed},
		{"fractional seats", withBody(map[string]any{"seats": 1.5}), ErrMalformed},
		{"no id", withBody(map[string]any{"jti": ""}), ErrClaims},
		{"no plan", withBody(map[string]any{"plan": ""}), ErrClaims},
		{"the free plan", withBody(map[string]any{"plan": PlanFree}), ErrClaims},
		{"a terminal escape in the customer", withBody(map[string]any{"sub": "\x1b[2J"}), ErrClaims},
		{"a long customer", withBody(map[string]any{"sub": strings.Repeat("x", 500)}), ErrClaims},
		{"a zero fallback rate", withBody(map[string]any{"fallback_rate": 0}), ErrClaims},
		{"a negative fallback rate", withBody(map[string]any{"fallback_rate": -5}), ErrClaims},
		{"fallback rate in words", withBody(map[string]any{"fallback_rate": "none"}), ErrMalformed},
		{"negative grace", withBody(map[string]any{"grace": -1}), ErrClaims},
		{"grace overflow", withBody(map[string]any{"grace": int64(1) << 60}), ErrClaims},
		{"expiry after the year 9999", withBody(map[string]any{"exp": int64(1) << 50}), ErrClaims},
		{"negative expiry", withBody(map[string]any{"exp": -1}), ErrClaims},
		{"ends before it begins", withBody(map[string]any{"nbf": testNow.Unix(), "exp": testNow.Unix() - 1}), ErrClaims},
		{"cluster is no fingerprint", withBody(map[string]any{"cluster": "*"}), ErrClaims},
		{"101 features", withBody(map[string]any{"features": make([]string, 101)}), ErrClaims},
		{"another cluster", issue(t, k, Claims{Cluster: otherFP}), ErrOtherHolder},
		{"not yet valid", issue(t, k, Claims{NotBefore: testNow.Add(time.Second)}), ErrNotYetValid},
		{"expired", issue(t, k, Claims{Expires: testNow}), ErrExpired},
	}
	return list
}

type attack struct {
	name  string
	token string
	want  error
}

func TestParseLicenseRefuses(t *testing.T) {
	k := newIssuer(t)
	messages := map[string]bool{}
	for _, tc := range attacks(t, k) {
		t.Run(tc.name, func(t *testing.T) {
			_, err := ParseLicense(tc.token, []IssuerPublicKey{k.Public()}, thisFP, testNow)
			if !errors.Is(err, tc.want) {
				t.Fatalf("got %v; want %v", err, tc.want)
			}
			if len(err.Error()) > 500 || !strings.HasPrefix(err.Error(), "the license is not taken: ") {
				t.Errorf("message: %s", err)
			}
			messages[tc.want.Error()] = true
		})
	}
	if len(messages) != len(advice) {
		t.Errorf("%d kinds of errors were tried; want all %d", len(messages), len(advice))
	}
}

// TestLargeTokensCostNothing: the cap comes before anything is parsed.
func TestLargeTokensCostNothing(t *testing.T) {
	token := strings.Repeat("eyJhIjo", 1<<20) + "." + strings.Repeat("a", 1<<20) + ".x"
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for range 100 {
		if _, err := ParseLicense(token, nil, thisFP, testNow); !errors.Is(err, ErrTooLarge) {
			t.Fatal(err)
		}
	}
	runtime.ReadMemStats(&after)
	if got := after.TotalAlloc - before.TotalAlloc; got > 1<<20 {
		t.Errorf("100 tokens of 8 MiB allocated %d bytes; want under 1 MiB", got)
	}
}

func TestIssueRefuses(t *testing.T) {
	k := newIssuer(t)
	for _, tc := range []struct {
		name string
		key  IssuerKey
		c    Claims
	}{
		{"no key", IssuerKey{}, Claims{Plan: "team"}},
		{"no plan", k, Claims{}},
		{"negative seats", k, Claims{Plan: "team", Seats: -1}},
		{"cluster id for fingerprint", k, Claims{Plan: "team", Cluster: "c-0123456789ab"}},
		{"ends before it begins", k, Claims{Plan: "team", NotBefore: testNow, Expires: testNow.Add(-time.Hour)}},
	} {
		if _, err := Issue(tc.key, tc.c); err == nil {
			t.Errorf("%s: got no error", tc.name)
		}
	}
}

func TestIssuerKeysRoundTrip(t *testing.T) {
	k, next := newIssuer(t), newIssuer(t)
	again, err := ParseIssuerKey(k.PEM())
	if err != nil || again.Public().ID() != k.Public().ID() {
		t.Fatalf("ParseIssuerKey: got %v, %v", again.Public().ID(), err)
	}
	keys, err := ParseIssuerPublicKeys(append(k.Public().PEM(), next.Public().PEM()...))
	if err != nil || len(keys) != 2 || keys[1].ID() != next.Public().ID() {
		t.Fatalf("ParseIssuerPublicKeys: got %d, %v", len(keys), err)
	}
	for name, b := range map[string][]byte{
		"nothing":        nil,
		"a private key":  k.PEM(),
		"text":           []byte("hello"),
		"text after key": append(k.Public().PEM(), "hello"...),
		"too many":       bytes.Repeat(k.Public().PEM(), maxIssuerKeys+1),
	} {
		if _, err := ParseIssuerPublicKeys(b); err == nil {
			t.Errorf("%s: got no error", name)
		}
	}
}

func FuzzParseLicense(f *testing.F) {
	k := newIssuer(f)
	for _, a := range attacks(f, k) {
		if len(a.token) < 4096 {
			f.Add(a.token)
		}
	}
	f.Add(issue(f, k, Claims{}))
	f.Fuzz(func(t *testing.T, token string) {
		l, err := ParseLicense(token, []IssuerPublicKey{k.Public()}, thisFP, testNow)
		if err == nil && l.KeyID != k.Public().ID() {
			t.Fatalf("taken although key %q did not sign it", l.KeyID)
		}
		_, _ = InspectLicense(token)
		_, _ = VerifyLease(token, ed25519.PublicKey(k.Public().key), "c", "n", "k")
	})
}

func base64Of(s string) string { return base64.RawURLEncoding.EncodeToString([]byte(s)) }
