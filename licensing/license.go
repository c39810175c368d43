package licensing

import (
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"
)

// Claims are what an issuer states in a license.
type Claims struct {
	// Issuer is the issuer's name and Customer the holder's, for people to read.
	Issuer   string
	Customer string
	// Plan is the plan's name, e.g. "team".
	Plan string
	// Cluster binds the license to one cluster: the fingerprint of its key (hex
	// SHA-256 of the SPKI), as /v1/cluster shows it. Empty is any cluster.
	Cluster string
	// Seats is how many nodes may run; 0 is unlimited.
	Seats    int
	Features []string
	// NotBefore and Expires bound the license; a zero time is no bound.
	NotBefore, Expires time.Time
	// Grace is how long nodes go on after Expires.
	Grace time.Duration
	// FallbackRate is what a node serves after its lease ended, in requests per
	// second; nil is no limit.
	FallbackRate *float64
}

// License is a verified license.
type License struct {
	Claims
	// ID is the license's own id, and KeyID that of the issuer's key.
	ID     string
	KeyID  string
	Issued time.Time
	// Token is the license as it was given.
	Token string
}

// licenseClaims is the payload on the wire.
type licenseClaims struct {
	plain
	ID        string   `json:"jti"`
	Issuer    string   `json:"iss,omitempty"`
	Customer  string   `json:"sub,omitempty"`
	Issued    unix     `json:"iat"`
	NotBefore unix     `json:"nbf,omitempty"`
	Expires   unix     `json:"exp,omitempty"`
	Plan      string   `json:"plan"`
	Cluster   string   `json:"cluster,omitempty"`
	Seats     int      `json:"seats"`
	Features  []string `json:"features,omitempty"`
	Grace     int64    `json:"grace,omitempty"` // seconds
	Fallback  rate     `json:"fallback_rate"`
}

const (
	maxSeats    = 1_000_000
	maxGrace    = 10 * 365 * 24 * time.Hour
	maxFeatures = 100
	maxText     = 200
)

var fingerprintRE = regexp.MustCompile(`^[0-9a-f]{64}$`)

// check refuses what no issuer means. It is used when issuing and when
// verifying.
func (c *licenseClaims) check() error {
	bad := func(format string, args ...any) error {
		return fmt.Errorf("%w: "+format, append([]any{ErrClaims}, args...)...)
	}
	texts := append([]string{c.ID, c.Issuer, c.Customer, c.Plan}, c.Features...)
	for _, s := range texts {
		if len(s) > maxText || strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f }) {
			return bad("a text is longer than %d bytes or holds a control character", maxText)
		}
	}
	switch {
	case c.ID == "":
		return bad("it has no id (jti)")
	case c.Plan == "":
		return bad("it names no plan")
	case c.Plan == PlanFree || c.Plan == "standalone":
		return bad("plan %q is no plan of a license", c.Plan)
	case c.Seats < 0 || c.Seats > maxSeats:
		return bad("seats is %d and should be 0 (unlimited) to %d", c.Seats, maxSeats)
	case c.Grace < 0 || c.Grace > int64(maxGrace/time.Second):
		return bad("grace is %d s and should be 0 to ten years", c.Grace)
	case !c.Fallback.ok():
		return bad("fallback_rate should be null or more than 0 and at most %.0f", maxRate)
	case len(c.Features) > maxFeatures:
		return bad("it lists %d features, and %d are allowed", len(c.Features), maxFeatures)
	case c.Cluster != "" && !fingerprintRE.MatchString(c.Cluster):
		return bad("cluster should be the fingerprint of a cluster key, 64 hex digits")
	case !c.Issued.ok() || !c.NotBefore.ok() || !c.Expires.ok():
		return bad("a time is before 1970 or after 9999")
	case c.Expires != 0 && c.Expires <= c.NotBefore:
		return bad("it ends before it begins")
	}
	return nil
}

func (c *licenseClaims) license(token, kid string) License {
	return License{
		Claims: Claims{
			Issuer: c.Issuer, Customer: c.Customer, Plan: c.Plan, Cluster: c.Cluster,
			Seats: c.Seats, Features: c.Features,
			NotBefore: c.NotBefore.time(), Expires: c.Expires.time(),
			Grace: time.Duration(c.Grace) * time.Second, FallbackRate: c.Fallback.get(),
		},
		ID: c.ID, KeyID: kid, Issued: c.Issued.time(), Token: token,
	}
}

// Issue signs a license. Times are cut to seconds.
func Issue(key IssuerKey, c Claims) (string, error) {
	if key.private == nil {
		return "", errors.New("issue a license: there is no issuer key; make one by `binnacle license keygen`")
	}
	w := &licenseClaims{
		ID: "lic-" + strings.ToLower(rand.Text()[:16]), Issuer: c.Issuer, Customer: c.Customer, Issued: unixOf(time.Now()),
		NotBefore: unixOf(c.NotBefore), Expires: unixOf(c.Expires),
		Plan: c.Plan, Cluster: c.Cluster, Seats: c.Seats, Features: c.Features,
		Grace: int64(c.Grace / time.Second), Fallback: rate{true, c.FallbackRate},
	}
	if err := w.check(); err != nil {
		return "", fmt.Errorf("issue a license: %w", err)
	}
	token, err := sign(key.private, typLicense, key.Public().ID(), w)
	if err != nil {
		return "", fmt.Errorf("issue a license: %w", err)
	}
	return token, nil
}

// ParseLicense verifies a license for the cluster whose key has the given
// fingerprint. The error wraps one of the Err values and says what to do. With
// ErrExpired, ErrNotYetValid and ErrOtherHolder the license is returned, too.
func ParseLicense(token string, keys []IssuerPublicKey, cluster string, now time.Time) (License, error) {
	var c licenseClaims
	var kid string
	err := open(token, typLicense, &c, func(id string) (ed25519.PublicKey, error) {
		kid = id
		i := slices.IndexFunc(keys, func(k IssuerPublicKey) bool { return k.ID() == id })
		if i < 0 {
			return nil, fmt.Errorf("%w: it is signed by key %s", ErrUnknownKey, show(id))
		}
		return keys[i].key, nil
	})
	if err == nil {
		err = c.check()
	}
	if err != nil {
		return License{}, advise(err)
	}
	l := c.license(token, kid)
	switch {
	case l.Cluster != "" && l.Cluster != cluster:
		err = fmt.Errorf("%w: it is bound to the cluster whose key begins with %.12s, and this one's begins with %.12s", ErrOtherHolder, l.Cluster, cluster)
	case now.Before(l.NotBefore):
		err = fmt.Errorf("%w: it begins at %s, and it is %s now", ErrNotYetValid, stamp(l.NotBefore), stamp(now))
	case !l.Expires.IsZero() && !now.Before(l.Expires):
		err = fmt.Errorf("%w: it ended at %s, and it is %s now", ErrExpired, stamp(l.Expires), stamp(now))
	default:
		return l, nil
	}
	return l, advise(err)
}

// InspectLicense reads a license without verifying it, for people to look at.
// ParseLicense says whether it is any good.
func InspectLicense(token string) (License, error) {
	var c licenseClaims
	var kid string
	err := open(token, typLicense, &c, func(id string) (ed25519.PublicKey, error) {
		kid = id
		return make(ed25519.PublicKey, ed25519.PublicKeySize), nil
	})
	if err != nil && !errors.Is(err, ErrSignature) {
		return License{}, advise(err)
	}
	if err := c.check(); err != nil {
		return License{}, advise(err)
	}
	return c.license(token, kid), nil
}

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }

// advice says what to do, per kind of error.
var advice = []struct {
	is error
	do string
}{
	{ErrEmpty, "put the whole license, three parts joined by dots, into the file"},
	{ErrTooLarge, "that is no license: check which file was given"},
	{ErrMalformed, "copy it again, whole and in one line"},
	{ErrAlgorithm, "ask the issuer for a license signed by EdDSA"},
	{ErrType, "check which file was given: a lease, or a token of another product, is no license"},
	{ErrUnknownKey, "add the issuer's public key to the file of --license-keys, or issue the license with a key that is in it"},
	{ErrSignature, "it was changed after it was signed, or signed by another key of the same name: get it from the issuer again"},
	{ErrClaims, "ask the issuer for a corrected license"},
	{ErrOtherHolder, "ask the issuer for a license for this cluster, or install it where it belongs"},
	{ErrNotYetValid, "install it then (the file of --license is taken by itself when its time comes), or check this machine's clock"},
	{ErrExpired, "ask the issuer for a renewed license, or check this machine's clock"},
}

// advise adds to an error what to do about it.
func advise(err error) error {
	for _, a := range advice {
		if errors.Is(err, a.is) {
			return fmt.Errorf("the license is not taken: %w: %s", err, a.do)
		}
	}
	return err
}
