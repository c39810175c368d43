package membership

import (
	"errors"
	"fmt"
	"strings"

	"github.com/binnacle-project/binnacle/membership/pki"
)

// JoinToken is what a node shows to enroll: "id.secret.fingerprint".
type JoinToken struct {
	// ID names the token; it is not secret.
	ID string
	// Secret proves it: 43 characters of base64url, 256 random bits.
	Secret string
	// Fingerprint is that of the cluster's authority, by which the node knows
	// the manager before it sends the secret.
	Fingerprint string
}

// String returns the form that ParseJoinToken reads. It contains the secret.
func (t JoinToken) String() string { return t.ID + "." + t.Secret + "." + t.Fingerprint }

// secretLen is the length of a secret: 32 bytes in base64url without padding.
const secretLen = 43

var errTokenForm = errors.New("want id.secret.fingerprint, as `binnacle token create` prints it or the manager's tokens folder holds it")

// ParseJoinToken reads a join token, with white space around it as files have
// it. Its errors never repeat the token.
func ParseJoinToken(s string) (JoinToken, error) {
	s = strings.TrimSpace(s)
	if s == "" {
		return JoinToken{}, fmt.Errorf("join token is empty: %w", errTokenForm)
	}
	if len(s) > 256 {
		return JoinToken{}, fmt.Errorf("join token has %d characters, at most 256: %w", len(s), errTokenForm)
	}
	parts := strings.Split(s, ".")
	if len(parts) != 3 {
		return JoinToken{}, fmt.Errorf("join token has %d parts: %w", len(parts), errTokenForm)
	}
	t := JoinToken{ID: parts[0], Secret: parts[1], Fingerprint: parts[2]}
	switch {
	case !isTokenID(t.ID):
		return JoinToken{}, fmt.Errorf("join token: the id is not valid: %w", errTokenForm)
	case len(t.Secret) != secretLen || !only(t.Secret, isBase64URL):
		return JoinToken{}, fmt.Errorf("join token: the secret is not %d characters of base64url, was it cut off?: %w", secretLen, errTokenForm)
	case !pki.IsFingerprint(t.Fingerprint):
		return JoinToken{}, fmt.Errorf("join token: the fingerprint is not 64 hex digits, was it cut off?: %w", errTokenForm)
	}
	return t, nil
}

// isTokenID reports whether s can be a token's id. It stands in state keys and
// paths, so it is narrow.
func isTokenID(s string) bool {
	return 0 < len(s) && len(s) <= 32 && only(s, func(c byte) bool {
		return 'a' <= c && c <= 'z' || '0' <= c && c <= '9' || c == '-'
	})
}

func isBase64URL(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '-' || c == '_'
}

func only(s string, ok func(byte) bool) bool {
	for i := range len(s) {
		if !ok(s[i]) {
			return false
		}
	}
	return true
}
