package membership

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/binnacle-project/binnacle"
	"github.com/binnacle-project/binnacle/api"
	"github.com/binnacle-project/binnacle/membership/pki"
	"github.com/binnacle-project/binnacle/state"
	"github.com/binnacle-project/binnacle/state/atomicfile"
)

// prefixTokens is where join tokens are kept, by id.
const prefixTokens = "membership/tokens/"

// KindJoin is the kind of tokens kept here.
const KindJoin = "join"

// Tokens keeps join tokens in control state. Secrets are stored hashed and shown
// once. It is safe for concurrent use.
type Tokens struct {
	store       *state.Store
	fingerprint string
	log         *slog.Logger
}

// TokensOptions say where tokens are kept and which cluster they name.
type TokensOptions struct {
	Store *state.Store
	// Fingerprint is Authority.Fingerprint.
	Fingerprint string
	Log         *slog.Logger // may be nil
}

// storedToken is a token as it is kept. Hash is the SHA-256 of the secret,
// which is random and long: a slow hash would protect nothing more.
type storedToken struct {
	api.Token
	Hash []byte `json:"hash"`
}

// OpenTokens returns the tokens of o.Store.
func OpenTokens(o TokensOptions) (*Tokens, error) {
	if !pki.IsFingerprint(o.Fingerprint) {
		return nil, fmt.Errorf("open join tokens: fingerprint %q is not 64 hex digits", o.Fingerprint)
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return &Tokens{store: o.Store, fingerprint: o.Fingerprint, log: o.Log.With("component", "tokens")}, nil
}

// Create makes a join token. The Secret of the answer is the whole token that a
// node shows (see JoinToken) and is not kept. What cannot be made is refused
// with an *api.Problem.
func (t *Tokens) Create(ctx context.Context, n api.NewToken) (api.CreatedToken, error) {
	if err := checkNewToken(n); err != nil {
		return api.CreatedToken{}, err
	}
	secret := make([]byte, 32)
	rand.Read(secret) // never fails
	id := make([]byte, 5)
	rand.Read(id)
	jt := JoinToken{
		ID:          "j-" + hex.EncodeToString(id),
		Secret:      base64.RawURLEncoding.EncodeToString(secret),
		Fingerprint: t.fingerprint,
	}
	now := time.Now().UTC()
	tok := storedToken{
		Token: api.Token{ID: jt.ID, Kind: KindJoin, Name: n.Name, Group: n.Group, Created: now, UsesMax: n.UsesMax},
		Hash:  hashSecret(jt.Secret),
	}
	if n.ExpiresIn > 0 {
		tok.Expires = now.Add(time.Duration(n.ExpiresIn * float64(time.Second)))
	}
	if err := state.CreateJSON(ctx, t.store, prefixTokens+jt.ID, tok); err != nil {
		return api.CreatedToken{}, fmt.Errorf("keep join token: %w", err)
	}
	t.log.Info("join token created", "token", jt.ID, "group", n.Group, "expires", tok.Expires, "uses_max", n.UsesMax)
	return api.CreatedToken{Token: tok.Token, Secret: jt.String()}, nil
}

// EnsureFile makes a join token for any group, without expiry and limit, and
// writes it to the file at path, mode 0600, unless the file exists. That is a
// manager's first start.
func (t *Tokens) EnsureFile(ctx context.Context, path string) error {
	if _, err := os.Stat(path); err == nil {
		return nil
	} else if !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("join token file: %w", err)
	}
	tok, err := t.Create(ctx, api.NewToken{Kind: KindJoin, Name: "first start"})
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return fmt.Errorf("join token file: %w", err)
	}
	if err := atomicfile.Write(path, []byte(tok.Secret+"\n"), 0o600); err != nil {
		return fmt.Errorf("join token file: %w", err)
	}
	return nil
}

// maxTokenLife keeps the seconds of a NewToken within a time.Duration.
const maxTokenLife = 100 * 365 * 24 * time.Hour

func checkNewToken(n api.NewToken) error {
	bad := func(format string, args ...any) error {
		return problem(http.StatusBadRequest, "The token cannot be made", format, args...)
	}
	switch {
	case n.Kind != KindJoin:
		return bad("kind %q is not a join token's; use %q", n.Kind, KindJoin)
	case n.Role != "" || len(n.Rights) > 0:
		return bad("a join token has no role and no rights; leave them out")
	case len(n.Name) > 100:
		return bad("the name has %d characters; at most 100", len(n.Name))
	case n.UsesMax < 0:
		return bad("uses_max is %d; use 0 for no limit", n.UsesMax)
	case !(n.ExpiresIn >= 0 && n.ExpiresIn <= maxTokenLife.Seconds()): // also NaN
		return bad("expires_in is %v; use seconds, 0 for never", n.ExpiresIn)
	}
	if n.Group != "" {
		if err := binnacle.CheckName("group", string(n.Group)); err != nil {
			return bad("%v", err)
		}
	}
	return nil
}

// List returns all join tokens, expired ones too, ordered by id.
func (t *Tokens) List(ctx context.Context) ([]api.Token, error) {
	stored, err := state.ListJSON[storedToken](ctx, t.store, prefixTokens)
	if err != nil {
		return nil, fmt.Errorf("list join tokens: %w", err)
	}
	out := make([]api.Token, len(stored))
	for i, s := range stored {
		out[i] = s.Token
	}
	return out, nil
}

// Revoke removes a token. Nodes that enrolled with it stay. One that is not
// there answers an *api.Problem with status 404.
func (t *Tokens) Revoke(ctx context.Context, id string) error {
	if !isTokenID(id) {
		return errNoToken(id)
	}
	if _, err := t.store.Get(ctx, prefixTokens+id); errors.Is(err, state.ErrNotFound) {
		return errNoToken(id)
	} else if err != nil {
		return fmt.Errorf("revoke join token: %w", err)
	}
	if err := t.store.Delete(ctx, prefixTokens+id); err != nil {
		return fmt.Errorf("revoke join token: %w", err)
	}
	t.log.Info("join token revoked", "token", id)
	return nil
}

func errNoToken(id string) error {
	return problem(http.StatusNotFound, "No such token", "there is no join token %.40q", id)
}

// use is one use of a token that was checked, to become part of a transaction.
type use struct {
	token   storedToken
	version int64
}

// check looks a token up and checks its secret and expiry, but not its uses:
// see allowsUse. It answers the same *api.Problem for a token that does not
// exist and for a wrong secret.
func (t *Tokens) check(ctx context.Context, id, secret string, now time.Time) (use, error) {
	unknown := problem(http.StatusUnauthorized, "The join token is not valid",
		"the manager does not know this join token: it was revoked, or belongs to another cluster; create one with `binnacle token create`")
	if !isTokenID(id) || len(secret) > 2*secretLen {
		return use{}, unknown
	}
	tok, version, err := state.GetJSON[storedToken](ctx, t.store, prefixTokens+id)
	if errors.Is(err, state.ErrNotFound) {
		return use{}, unknown
	} else if err != nil {
		return use{}, fmt.Errorf("check join token: %w", err)
	}
	if subtle.ConstantTimeCompare(hashSecret(secret), tok.Hash) != 1 {
		return use{}, unknown
	}
	if !tok.Expires.IsZero() && !now.Before(tok.Expires) {
		return use{}, problem(http.StatusUnauthorized, "The join token has expired",
			"join token %s expired at %s; create one with `binnacle token create`", id, tok.Expires.Format(time.RFC3339))
	}
	return use{tok, version}, nil
}

// allowsUse reports whether one more node may enroll.
func (u use) allowsUse() error {
	if u.token.UsesMax > 0 && u.token.Uses >= u.token.UsesMax {
		return problem(http.StatusUnauthorized, "The join token is used up",
			"join token %s allowed %d enrollments, and they are used; create one with `binnacle token create`", u.token.ID, u.token.UsesMax)
	}
	return nil
}

// ops counts the use, if nobody changed the token meanwhile.
func (u use) ops() ([]state.Cond, []state.Op, error) {
	u.token.Uses++
	b, err := json.Marshal(u.token)
	if err != nil {
		return nil, nil, fmt.Errorf("encode join token: %w", err)
	}
	key := prefixTokens + u.token.ID
	return []state.Cond{state.IfVersion(key, u.version)}, []state.Op{state.OpPut(key, b)}, nil
}

func hashSecret(secret string) []byte {
	sum := sha256.Sum256([]byte("binnacle join token\n" + secret))
	return sum[:]
}

// problem makes the error that the API answers.
func problem(status int, title, format string, args ...any) *api.Problem {
	return &api.Problem{Title: title, Status: status, Detail: fmt.Sprintf(format, args...)}
}
