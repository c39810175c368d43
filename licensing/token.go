package licensing

import (
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// maxToken bounds a license or a lease, before anything of it is parsed.
const maxToken = 8 << 10

// Types of our tokens, in the header: a lease never passes for a license, nor
// any other JWT of the same key for either.
//
// Source: RFC 8725, 3.11 "Use Explicit Typing".
const (
	typLicense = "lic+jwt"
	typLease   = "lease+jwt"
)

// What may be wrong with a token. Each error of ParseLicense and VerifyLease
// wraps one and says what to do.
var (
	ErrEmpty       = errors.New("it is empty")
	ErrTooLarge    = errors.New("it is too large")
	ErrMalformed   = errors.New("it is truncated or no token at all")
	ErrAlgorithm   = errors.New("it is signed by an algorithm that is not allowed")
	ErrType        = errors.New("it is a token of another kind")
	ErrUnknownKey  = errors.New("its issuer is not known here")
	ErrSignature   = errors.New("its signature is wrong")
	ErrClaims      = errors.New("it holds a value that makes no sense")
	ErrOtherHolder = errors.New("it was made for somebody else")
	ErrNotYetValid = errors.New("it is not valid yet")
	ErrExpired     = errors.New("it has expired")
)

// parser decodes only; times are checked by our own functions, which say what
// to do.
var parser = jwt.NewParser(jwt.WithoutClaimsValidation(), jwt.WithStrictDecoding())

// open parses a token, checks its kind and algorithm, and verifies it by the
// key that pick chooses by key id. claims is filled in even if only the
// signature is wrong.
func open(token, typ string, claims jwt.Claims, pick func(kid string) (ed25519.PublicKey, error)) error {
	if token == "" {
		return ErrEmpty
	}
	if len(token) > maxToken {
		return fmt.Errorf("%w: it has %d bytes, and %d are allowed", ErrTooLarge, len(token), maxToken)
	}
	t, parts, err := parser.ParseUnverified(token, claims)
	if errors.Is(err, jwt.ErrTokenMalformed) {
		return fmt.Errorf("%w: %s", ErrMalformed, cause(err))
	}
	if t == nil || t.Header["alg"] != jwt.SigningMethodEdDSA.Alg() {
		var alg any
		if t != nil {
			alg = t.Header["alg"]
		}
		return fmt.Errorf("%w: alg is %s, and only EdDSA is taken", ErrAlgorithm, show(alg))
	}
	if err != nil {
		return fmt.Errorf("%w: %s", ErrMalformed, cause(err))
	}
	if t.Header["typ"] != typ {
		return fmt.Errorf("%w: typ is %s and should be %q", ErrType, show(t.Header["typ"]), typ)
	}
	kid, _ := t.Header["kid"].(string)
	key, err := pick(kid)
	if err != nil {
		return err
	}
	if err := jwt.SigningMethodEdDSA.Verify(parts[0]+"."+parts[1], t.Signature, key); err != nil {
		return ErrSignature
	}
	return nil
}

// cause says in a few words why a token did not parse, without its text.
func cause(err error) string {
	var syntax *json.SyntaxError
	var kind *json.UnmarshalTypeError
	switch {
	case errors.As(err, &syntax):
		return "it is not JSON inside"
	case errors.As(err, &kind):
		return fmt.Sprintf("%q has a value of the wrong kind", kind.Field)
	}
	return "it has not three parts of base64url"
}

// show quotes a header's value for an error, shortened: it is of outside.
func show(v any) string {
	s, ok := v.(string)
	if !ok {
		if v == nil {
			return "missing"
		}
		return "no text"
	}
	if len(s) > 32 {
		s = s[:32] + "…"
	}
	return fmt.Sprintf("%q", s)
}

// sign makes a token.
func sign(key ed25519.PrivateKey, typ, kid string, claims jwt.Claims) (string, error) {
	t := jwt.NewWithClaims(jwt.SigningMethodEdDSA, claims)
	t.Header["typ"] = typ
	if kid != "" {
		t.Header["kid"] = kid
	}
	token, err := t.SignedString(key)
	if err != nil {
		return "", err
	}
	if len(token) > maxToken {
		return "", fmt.Errorf("%w: it would have %d bytes, and %d are allowed; shorten its texts", ErrTooLarge, len(token), maxToken)
	}
	return token, nil
}

// unix is a time in whole seconds; 0 is none.
type unix int64

// maxUnix is the end of the year 9999, the last that RFC 3339 can write.
const maxUnix = 253402300799

func unixOf(t time.Time) unix {
	if t.IsZero() {
		return 0
	}
	return unix(t.Unix())
}

func (u unix) time() time.Time {
	if u == 0 {
		return time.Time{}
	}
	return time.Unix(int64(u), 0).UTC()
}

func (u unix) ok() bool { return u >= 0 && u <= maxUnix }

// rate is a fallback rate on the wire: a number of requests per second, or
// null for no limit. Absent means DefaultFallbackRate.
type rate struct {
	set   bool
	limit *float64
}

func (r rate) MarshalJSON() ([]byte, error) { return json.Marshal(r.limit) }

func (r *rate) UnmarshalJSON(b []byte) error {
	r.set = true
	return json.Unmarshal(b, &r.limit)
}

// get returns the rate; nil is no limit.
func (r rate) get() *float64 {
	if !r.set {
		f := DefaultFallbackRate
		return &f
	}
	return r.limit
}

// maxRate is beyond what a node can serve.
const maxRate = 1e9

func (r rate) ok() bool {
	return r.limit == nil || *r.limit > 0 && *r.limit <= maxRate
}

// plain are claims that are only encoded and decoded.
type plain struct{}

func (plain) GetExpirationTime() (*jwt.NumericDate, error) { return nil, nil }
func (plain) GetIssuedAt() (*jwt.NumericDate, error)       { return nil, nil }
func (plain) GetNotBefore() (*jwt.NumericDate, error)      { return nil, nil }
func (plain) GetIssuer() (string, error)                   { return "", nil }
func (plain) GetSubject() (string, error)                  { return "", nil }
func (plain) GetAudience() (jwt.ClaimStrings, error)       { return nil, nil }

// readCapped reads a file of at most limit bytes.
func readCapped(path string, limit int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, err
	}
	if int64(len(b)) > limit {
		return nil, fmt.Errorf("%s: %w: it has more than %d bytes", path, ErrTooLarge, limit)
	}
	return b, nil
}
