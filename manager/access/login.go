package access

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/binnacle-project/binnacle/api"
	"github.com/binnacle-project/binnacle/state"
)

// NewCode makes a one-time login code that stands for p.
func (a *Access) NewCode(p Principal) api.LoginCode {
	c := randomText(26)
	expires := time.Now().Add(CodeLife)
	a.mu.Lock()
	defer a.mu.Unlock()
	for h, old := range a.codes { // few, and swept here
		if time.Now().After(old.expires) {
			delete(a.codes, h)
		}
	}
	a.codes[hash(c)] = code{principal: p, expires: expires}
	return api.LoginCode{Code: c, Expires: expires}
}

// Errors of logins, each with what to do.
var (
	ErrBadCode       = errors.New("this login link was used already or has ended: ask for a new one, or log in with a token")
	ErrTooManyLogins = errors.New("too many failed logins from this address: wait a minute")
)

// LoginWithCode opens a session for the holder of a one-time code.
func (a *Access) LoginWithCode(w http.ResponseWriter, r *http.Request, c string) error {
	if !a.limiter.allow(r) {
		return ErrTooManyLogins
	}
	a.mu.Lock()
	got, ok := a.codes[hash(c)]
	delete(a.codes, hash(c))
	a.mu.Unlock()
	if !ok || time.Now().After(got.expires) {
		a.limiter.failed(r)
		return ErrBadCode
	}
	return a.openSession(r.Context(), w, got.principal, time.Time{})
}

// LoginWithToken opens a session for the holder of an API token.
func (a *Access) LoginWithToken(w http.ResponseWriter, r *http.Request, t string) error {
	if !a.limiter.allow(r) {
		return ErrTooManyLogins
	}
	p, ends, ok := a.byToken(t)
	if !ok {
		a.limiter.failed(r)
		return ErrBadToken
	}
	return a.openSession(r.Context(), w, p, ends)
}

// openSession lasts for SessionLife, and no longer than the token, if that ends.
func (a *Access) openSession(ctx context.Context, w http.ResponseWriter, p Principal, tokenEnds time.Time) error {
	cookie := randomText(32)
	h := hash(cookie)
	life := SessionLife
	if !tokenEnds.IsZero() {
		life = min(life, time.Until(tokenEnds))
	}
	s := session{Hash: h, Principal: p, Expires: time.Now().Add(life)}
	if _, err := state.PutJSON(ctx, a.store, sessionPrefix+h, s); err != nil {
		return fmt.Errorf("store the session: %w", err)
	}
	a.mu.Lock()
	a.sessions[h] = s
	a.mu.Unlock()
	http.SetCookie(w, &http.Cookie{
		Name: cookieName, Value: cookie, Path: "/", MaxAge: max(1, int(life.Seconds())),
		HttpOnly: true, Secure: a.secure, SameSite: http.SameSiteStrictMode,
	})
	return nil
}

// Logout ends the session of a request.
func (a *Access) Logout(w http.ResponseWriter, r *http.Request) error {
	http.SetCookie(w, &http.Cookie{Name: cookieName, Path: "/", MaxAge: -1, HttpOnly: true, Secure: a.secure, SameSite: http.SameSiteStrictMode})
	c, err := r.Cookie(cookieName)
	if err != nil {
		return nil
	}
	h := hash(c.Value)
	a.mu.Lock()
	delete(a.sessions, h)
	a.mu.Unlock()
	return a.store.Delete(r.Context(), sessionPrefix+h)
}

// loginLimiter slows down guessing: each address has a few failed logins a
// minute. A success costs nothing.
type loginLimiter struct {
	mu   sync.Mutex // guards by
	by   map[netip.Addr]*rate.Limiter
	most int
}

// Failed logins an address may make at once, and per minute.
const (
	loginBurst     = 10
	loginPerMinute = 5
)

func newLoginLimiter() *loginLimiter {
	return &loginLimiter{by: map[netip.Addr]*rate.Limiter{}, most: 10_000}
}

func (l *loginLimiter) of(r *http.Request) *rate.Limiter {
	peer := networkOf(r.RemoteAddr)
	l.mu.Lock()
	defer l.mu.Unlock()
	lim := l.by[peer]
	if lim == nil {
		if len(l.by) >= l.most { // bounded memory before fairness
			clear(l.by)
		}
		lim = rate.NewLimiter(rate.Every(time.Minute/loginPerMinute), loginBurst)
		l.by[peer] = lim
	}
	return lim
}

// networkOf returns the address of a peer, for IPv6 its /64: whoever has one of
// its addresses has them all.
func networkOf(remote string) netip.Addr {
	peer, _ := netip.ParseAddrPort(remote)
	addr := peer.Addr().Unmap()
	if addr.Is6() {
		if p, err := addr.WithZone("").Prefix(64); err == nil {
			return p.Addr()
		}
	}
	return addr
}

func (l *loginLimiter) allow(r *http.Request) bool { return l.of(r).Tokens() >= 1 }
func (l *loginLimiter) failed(r *http.Request)     { l.of(r).Allow() }
