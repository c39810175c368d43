// Package access decides who may do what on the operator API: roles and single
// rights, API tokens, browser sessions and one-time login codes. It answers the
// question "who is this request?"; which route needs what stands in the route
// table of package manager, which is the only one to import it.
package access

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base32"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/binnacle-project/binnacle/api"
	"github.com/binnacle-project/binnacle/state"
	"github.com/binnacle-project/binnacle/state/atomicfile"
)

// Periods of logins.
const (
	// CodeLife is how long a one-time login code is good for.
	CodeLife = 30 * time.Minute
	// SessionLife is how long a browser stays logged in.
	SessionLife = 12 * time.Hour
	cookieName  = "binnacle_session"
)

const (
	tokenPrefix   = "access/tokens/"
	sessionPrefix = "access/sessions/"
)

// Options of Open.
type Options struct {
	Store *state.Store
	// TokensDir is where the first start leaves admin.token, reader.token and
	// otlp.token, mode 0600.
	TokensDir string
	// AnonymousRole is what callers without a token are from anywhere; empty
	// means viewer from loopback and nobody elsewhere.
	AnonymousRole string
	// Secure marks the session cookie for HTTPS only.
	Secure bool
	Log    *slog.Logger
}

// Access answers who a request comes from. It is safe for concurrent use.
type Access struct {
	store     *state.Store
	secure    bool
	anonymous *Role // nil: viewer from loopback
	log       *slog.Logger
	limiter   *loginLimiter

	mu       sync.Mutex         // guards the maps, which mirror the store
	tokens   map[string]token   // by id
	sessions map[string]session // by hash of the cookie
	codes    map[string]code    // by hash of the code; lost with the process
}

// token is an API token as stored: its secret only as a hash.
type token struct {
	api.Token
	Hash string `json:"hash"`
}

// session is a logged-in browser; Hash is that of its cookie.
type session struct {
	Hash      string    `json:"hash"`
	Principal Principal `json:"principal"`
	Expires   time.Time `json:"expires"`
}

type code struct {
	principal Principal
	expires   time.Time
}

// Open loads tokens and sessions. The first start makes the three token files.
func Open(ctx context.Context, o Options) (*Access, error) {
	a := &Access{
		store: o.Store, secure: o.Secure, log: o.Log, limiter: newLoginLimiter(),
		tokens: map[string]token{}, sessions: map[string]session{}, codes: map[string]code{},
	}
	if a.log == nil {
		a.log = slog.New(slog.DiscardHandler)
	}
	if o.AnonymousRole != "" {
		role, err := ParseRole(o.AnonymousRole)
		if err != nil {
			return nil, fmt.Errorf("--anonymous-role: %w", err)
		}
		a.anonymous = &role
	}
	if err := a.load(ctx); err != nil {
		return nil, err
	}
	for _, f := range []struct {
		file string
		t    api.NewToken
	}{
		{"admin.token", api.NewToken{Name: "admin", Role: "admin"}},
		{"reader.token", api.NewToken{Name: "reader", Role: "viewer", Rights: []string{RightTracesRead}}},
		{"otlp.token", api.NewToken{Name: "otlp", Role: "nobody", Rights: []string{RightOTLPWrite}}},
	} {
		if err := a.firstToken(ctx, filepath.Join(o.TokensDir, f.file), f.t); err != nil {
			return nil, err
		}
	}
	return a, nil
}

func (a *Access) load(ctx context.Context) error {
	tokens, err := state.ListJSON[token](ctx, a.store, tokenPrefix)
	if err != nil {
		return fmt.Errorf("load API tokens: %w", err)
	}
	for _, t := range tokens {
		a.tokens[t.ID] = t
	}
	sessions, err := state.ListJSON[session](ctx, a.store, sessionPrefix)
	if err != nil {
		return fmt.Errorf("load sessions: %w", err)
	}
	now := time.Now()
	for _, s := range sessions {
		if now.Before(s.Expires) {
			a.sessions[s.Hash] = s
		} else if err := a.store.Delete(ctx, sessionPrefix+s.Hash); err != nil {
			a.log.Warn("delete an expired session", "error", err)
		}
	}
	return nil
}

// firstToken makes the token of a file once. A token with that name in the
// store means that it was made; a deleted file does not bring it back.
func (a *Access) firstToken(ctx context.Context, file string, n api.NewToken) error {
	a.mu.Lock()
	for _, t := range a.tokens {
		if t.Name == n.Name {
			a.mu.Unlock()
			return nil
		}
	}
	a.mu.Unlock()
	n.Kind = "api"
	t, err := a.Create(ctx, n)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		return err
	}
	if err := atomicfile.Write(file, []byte(t.Secret+"\n"), 0o600); err != nil {
		return fmt.Errorf("write the %s token: %w", n.Name, err)
	}
	return nil
}

// Create makes an API token. Its secret is in the answer and nowhere else.
func (a *Access) Create(ctx context.Context, n api.NewToken) (api.CreatedToken, error) {
	if n.Name == "" {
		return api.CreatedToken{}, badRequest("an API token needs a name: it stands as the author of what it does")
	}
	if _, err := ParseRole(n.Role); err != nil {
		return api.CreatedToken{}, badRequest(err.Error())
	}
	for _, r := range n.Rights {
		if !slices.Contains(rights, r) {
			return api.CreatedToken{}, badRequest(fmt.Sprintf("right %q: want one of %s", r, strings.Join(rights, ", ")))
		}
	}
	if n.ExpiresIn < 0 || n.ExpiresIn > 10*365*24*3600 {
		return api.CreatedToken{}, badRequest("expires_in: want seconds between 0 (never) and ten years")
	}
	id, secret := "t-"+randomText(8), randomText(32)
	t := token{Hash: hash(secret), Token: api.Token{
		ID: id, Kind: "api", Name: n.Name, Role: n.Role, Rights: n.Rights, Created: time.Now().UTC(),
	}}
	if n.ExpiresIn > 0 {
		t.Expires = t.Created.Add(time.Duration(n.ExpiresIn * float64(time.Second)))
	}
	if _, err := state.PutJSON(ctx, a.store, tokenPrefix+id, t); err != nil {
		return api.CreatedToken{}, fmt.Errorf("store token %s: %w", id, err)
	}
	a.mu.Lock()
	a.tokens[id] = t
	a.mu.Unlock()
	return api.CreatedToken{Token: t.Token, Secret: id + "." + secret}, nil
}

// List returns the API tokens by age.
func (a *Access) List() []api.Token {
	a.mu.Lock()
	defer a.mu.Unlock()
	list := make([]api.Token, 0, len(a.tokens))
	for _, t := range a.tokens {
		list = append(list, t.Token)
	}
	slices.SortFunc(list, func(x, y api.Token) int { return x.Created.Compare(y.Created) })
	return list
}

// ErrNoToken is returned by Revoke for an id that no API token has.
var ErrNoToken = errors.New("no API token has this id")

// Revoke ends a token at once, and the sessions that were opened with it.
func (a *Access) Revoke(ctx context.Context, id string) error {
	a.mu.Lock()
	t, ok := a.tokens[id]
	a.mu.Unlock()
	if !ok {
		return ErrNoToken
	}
	if err := a.store.Delete(ctx, tokenPrefix+id); err != nil {
		return fmt.Errorf("revoke token %s: %w", id, err)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.tokens, id)
	for h, s := range a.sessions {
		if s.Principal.Name == t.Name {
			delete(a.sessions, h)
			if err := a.store.Delete(ctx, sessionPrefix+h); err != nil {
				return fmt.Errorf("end a session of token %s: %w", id, err)
			}
		}
	}
	return nil
}

func badRequest(detail string) error {
	return &api.Problem{Title: "Bad Request", Status: http.StatusBadRequest, Detail: detail}
}

// randomText returns n random characters of lower-case base32.
func randomText(n int) string {
	b := make([]byte, n)
	_, _ = rand.Read(b) // never fails (crypto/rand)
	return strings.ToLower(base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(b))[:n]
}

func hash(s string) string {
	sum := sha256.Sum256([]byte(s))
	return hex.EncodeToString(sum[:])
}
